"""A campaign's leader, or its worker, kills itself at each point, and another one goes on.

A campaign of 40 recipients, of whom a canary of 15 goes first. So a leader reaches each point at least twice, and dies
in the middle. The leaders' runs share RabbitMQ, a bot, a state file and a worker; each has a database and chats of its
own.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from tests.chaos.hooks import LEADER_POINTS, Hooks
from tests.chaos.leading import CampaignUnderTest, Ending, bounds
from tests.services import PostgresServer, Vhost, Vhosts
from tests.waiting import until

RECIPIENTS, CANARY = 40, 15
AT_ONCE = 4
END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """Where a leader dies, and the campaigns' database."""

    point: str
    database: str = "sqlite"

    @property
    def time(self) -> int:
        """Jobs are published one by one: it dies at one of the second release."""
        return CANARY + 10 if "publish" in self.point else 2

    def __str__(self) -> str:
        return f"{self.point}, {self.database}"


CASES = [
    *(Case(point) for point in LEADER_POINTS),
    *(Case(point, "postgresql") for point in ("after release", "before count", "after record")),
]


@pytest.fixture(scope="module")
def outcomes(
    vhosts: Vhosts, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Case, Future[tuple[int, Ending]]]]:
    vhost, home = vhosts.take(), tmp_path_factory.mktemp("campaigns")
    with running_fake() as fake, ThreadPoolExecutor(AT_ONCE, thread_name_prefix="campaign") as pool:
        given = settings(vhost, fake.url, f"sqlite:///{home}/state.db")
        runs = {}
        for number, case in enumerate(CASES):
            url = postgres.new_database() if case.database == "postgresql" else f"sqlite:///{home}/{number}.db"
            runs[case] = CampaignUnderTest(f"spring{number}", 1000 * (number + 1), home, given | {"campaigns_url": url})
        worker = runs[CASES[0]].worker()
        yield {case: pool.submit(play, case, campaign, fake.control) for case, campaign in runs.items()}
        pool.shutdown(cancel_futures=True)
        worker.kill()
    vhosts.give_back(vhost)


def settings(vhost: Vhost, api_url: str, state_url: str) -> dict[str, Any]:
    return {
        "bots": {"crash": "200300:" + "K" * 35},
        "rabbitmq_url": vhost.url,
        "state_url": state_url,
        "telegram_api_url": api_url,
        "limits": {"enabled": False},
        "partitions": 1,
        "update_partitions": 1,
        "call_timeout_seconds": 1,
        "lease_margin_seconds": 0.3,
    }


def play(case: Case, campaign: CampaignUnderTest, control: ControlClient) -> tuple[int, Ending]:
    """Let a leader die at the point and another one go on."""
    campaign.start(RECIPIENTS, canary=CANARY)
    exit_code = campaign.leader(Hooks(crash_at=case.point, crash_time=case.time)).died()
    with campaign.led():
        until(lambda: campaign.is_done, END_SECONDS)
    ending = campaign.ending(control)
    campaign.store.close()
    return exit_code, ending


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_leader_that_dies_at_any_point_leaves_each_recipient_one_row_and_one_message(
    case: Case, outcomes: Mapping[Case, Future[tuple[int, Ending]]]
) -> None:
    exit_code, ending = outcomes[case].result()
    assert exit_code == -signal.SIGKILL, "the leader passed the point without dying at it"
    assert not any(bounds(ending).values()), bounds(ending)
    assert Counter(ending.rows.values()) == {RecipientState.SENT: RECIPIENTS}


@pytest.mark.parametrize(
    ("point", "on_uncertain", "acted"),
    [("before call", "dead-letter", 0), ("after call", "dead-letter", 1), ("after call", "resend", 2)],
)
def test_a_worker_that_dies_in_a_call_leaves_one_recipient_uncertain_or_repeats_it_if_told_to(
    point: str, on_uncertain: str, acted: int, vhost: Vhost, tmp_path: Path
) -> None:
    with running_fake() as fake:
        given = settings(vhost, fake.url, f"sqlite:///{tmp_path}/state.db")
        campaign = CampaignUnderTest("spring", 1000, tmp_path, given | {"campaigns_url": f"sqlite:///{tmp_path}/c.db"})
        campaign.start(RECIPIENTS, on_uncertain=on_uncertain)
        with campaign.led():
            first = campaign.worker(Hooks(crash_at=point, crash_time=10))
            assert first.died() == -signal.SIGKILL
            second = campaign.worker()
            try:
                until(lambda: campaign.is_done, END_SECONDS)
            finally:
                second.kill()
        ending = campaign.ending(fake.control)
    uncertain = [chat for chat, state in ending.rows.items() if state is RecipientState.UNCERTAIN]
    assert ending.state is CampaignState.DONE
    if on_uncertain == "dead-letter":
        assert not any(bounds(ending).values()), bounds(ending)
        assert [ending.acted.get(chat, 0) for chat in uncertain] == [acted]
    else:
        assert set(ending.rows.values()) == {RecipientState.SENT}
        assert Counter(ending.acted.values()) == {1: RECIPIENTS - 1, acted: 1}
