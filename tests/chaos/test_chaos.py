"""The chaos run as a test: short by default, 10,000 jobs with --chaos. ``python -m tests.chaos`` has more options.

The seed is fixed, so that the default run is the same every day; `--chaos` adds a random one and
prints it.
"""

from __future__ import annotations

import dataclasses
import random

import pytest

from tests.chaos.run import Plan, render, run

SHORT = Plan(seed=5, jobs=450, seconds=26, every=0.8)


def accounted(plan: Plan) -> None:
    result = run(plan, print)
    print(render(result))
    assert not result.report.faults, render(result)
    assert sum(result.faults.values()) >= 8
    assert result.report.sent > plan.jobs / 2


@pytest.mark.timeout(400)
def test_no_job_is_lost_repeated_without_cause_out_of_order_or_over_a_limit(rabbitmq_version: str | None) -> None:
    accounted(dataclasses.replace(SHORT, version=rabbitmq_version))


@pytest.mark.full_length
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("redis", [False, True], ids=["sqlite", "redis"])
def test_ten_thousand_jobs_from_several_producers_are_all_accounted_for(
    redis: bool, rabbitmq_version: str | None
) -> None:
    accounted(Plan(seed=random.SystemRandom().randrange(10**6), redis=redis, version=rabbitmq_version))
