"""A campaign under random kills as a test: short by default, 20,000 recipients with --chaos. ``python -m
tests.chaos.campaign_run`` has more options.
"""

from __future__ import annotations

import random

import pytest

from tests.chaos.campaign_run import Plan, Victim, run


def accounted(plan: Plan) -> None:
    result = run(plan, print)
    print(result.render())
    assert not result.faults, result.render()
    assert set(result.kills) == set(Victim)


@pytest.mark.timeout(240)
def test_each_recipient_has_one_row_and_one_ending_whatever_is_killed(rabbitmq_version: str | None) -> None:
    accounted(Plan(seed=3, version=rabbitmq_version))


@pytest.mark.full_length
@pytest.mark.timeout(1800)
def test_twenty_thousand_recipients_under_random_kills_are_all_accounted_for(rabbitmq_version: str | None) -> None:
    seed = random.SystemRandom().randrange(10**6)
    accounted(Plan(seed, recipients=20_000, kills=20, per_second=1000, version=rabbitmq_version))
