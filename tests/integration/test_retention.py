"""Expired dead letters, and the oldest beyond the limit, are counted and dropped; the rest keep their place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from floodgate.broker.admission.policy import policy_of
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.queue_reader import QueueReader
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import encode_job, new_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.worker import retention
from floodgate.broker.worker.retention import NO_BOT, OTHER, Dropped, Retention
from tests.accounts import Accounts
from tests.draining import drain
from tests.services import Vhost
from tests.waiting import until

BOT = "b"
TOKEN = "100200300:" + "A" * 35
DEAD = queue_names.dead_queue(BOT)
QUEUE = "send.b.bulk.00"
DAY = timedelta(days=1)


class Office:
    """A bot's dead letters and their sweeps."""

    def __init__(self, url: str, **keeping: Any) -> None:
        self.url = url
        self.settings = Settings(_env_file=None, rabbitmq_url=url, bots={BOT: TOKEN}, dead_letters=keeping)
        self.connections = Connections(self.settings, "test")
        self.counted: Counter[tuple[str, str]] = Counter()
        self.stopping = Stopping()

    def bury(
        self, name: str, reason: str = "content", age: timedelta = timedelta(0), *, bot: str = BOT, queue: str = DEAD
    ) -> None:
        job = new_job("sendMessage", {"chat_id": 5, "text": name}, bot=bot, job_id=name)
        letter = dead_letters.dead_job(job, encode_job(job, QUEUE), QUEUE, reason)
        headers = dict(letter.headers or {})
        headers[dead_letters.DIED_US] -= age // timedelta(microseconds=1)
        self.connections.publisher.publish(Publication(letter.exchange, queue, letter.body, name, headers=headers))

    async def count(self, bot: str, reason: str, letters: int) -> None:
        self.counted[bot, reason] += letters

    def sweep(self, **options: Any) -> Dropped:
        swept = Retention(self.settings, self.connections, self.count, self.stopping, timedelta(0))
        return self.connections.io.run(swept.sweep(**options), 60)

    def left(self, queue: str = DEAD) -> list[str]:
        return [str(properties.message_id) for properties, _ in drain(self.url, queue)]


@pytest.fixture
def office(declared: Vhost) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def make(**keeping: Any) -> Office:
        made.append(Office(declared.url, **keeping))
        return made[-1]

    yield make
    for each in made:
        each.connections.stop(2)


def test_each_reason_has_its_retention_and_kept_letters_keep_their_order(office: Callable[..., Office]) -> None:
    ours = office(seconds=10 * 86_400, seconds_by_reason={"content": 86_400, "uncertain": 0})
    for n in range(40):
        ours.bury(f"content-{n}", "content", DAY)
        ours.bury(f"rights-{n}", "rights", 2 * DAY)
        ours.bury(f"uncertain-{n}", "uncertain", 400 * DAY)
        ours.bury(f"old-{n}", "rights", 10 * DAY)
    ours.bury("young", "content", DAY - timedelta(minutes=5))
    assert ours.sweep() == {(BOT, "content"): 40, (BOT, "rights"): 40} == ours.counted
    kept = [name for n in range(40) for name in (f"rights-{n}", f"uncertain-{n}")]
    assert ours.left() == [*kept, "young"]


def test_letters_with_unlimited_retention_are_all_kept(office: Callable[..., Office]) -> None:
    ours = office(seconds=0)
    ours.bury("old", age=4000 * DAY)
    assert ours.sweep() == {}
    assert ours.left() == ["old"]


def test_a_sweep_ends_at_letters_too_recent_for_any_retention(office: Callable[..., Office]) -> None:
    """So it does not read a queue of a hundred thousand every ten minutes. Letters behind those are dropped later."""
    ours = office(seconds=86_400)
    for n in range(100):
        ours.bury(f"young-{n}")
    ours.bury("old", age=2 * DAY)
    assert ours.sweep() == {}
    assert len(ours.left()) == 101


def test_a_sweep_skips_a_bounded_number_of_kept_letters(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOOKED", 32)
    ours = office(seconds=86_400, seconds_by_reason={"uncertain": 0})
    for n in range(32):
        ours.bury(f"uncertain-{n}", "uncertain", 2 * DAY)
    ours.bury("behind", age=2 * DAY)
    assert ours.sweep() == {}
    assert ours.left()[-1] == "behind"


def test_the_oldest_letters_beyond_the_limit_are_dropped_for_any_reason(
    office: Callable[..., Office], caplog: pytest.LogCaptureFixture
) -> None:
    ours = office(most=70)
    for n in range(100):
        ours.bury(f"{n}", "uncertain" if n % 2 else "rights")
    assert ours.sweep(look=False) == {(BOT, "uncertain"): 15, (BOT, "rights"): 15} == ours.counted
    assert "dead letters dropped from dead.b, more than 70 in the queue: b rights: 15, b uncertain: 15" in caplog.text
    assert ours.sweep(look=False) == {}
    assert ours.left() == [str(n) for n in range(30, 100)]


def test_letters_held_by_another_reader_count_and_no_excess_letter_is_dropped(
    office: Callable[..., Office],
) -> None:
    ours = office(most=50)
    for n in range(100):
        ours.bury(f"{n}")
    with QueueReader(ours.connections, DEAD) as reader:
        reader.take(40)
        assert ours.sweep(look=False) == {(BOT, "content"): 10}
    assert len(ours.left()) == 90


def test_two_simultaneous_sweeps_drop_no_more_than_one(office: Callable[..., Office]) -> None:
    ours = office(most=100)
    for n in range(300):
        ours.bury(f"{n}")

    async def both() -> list[Dropped]:
        swept = Retention(ours.settings, ours.connections, ours.count, ours.stopping, timedelta(0))
        return await asyncio.gather(*(swept.sweep(look=False) for _ in range(4)))

    dropped = sum(each.total() for each in ours.connections.io.run(both(), 60))
    assert dropped == ours.counted.total() <= 200, "who ends early because others hold letters may leave some"
    assert dropped + ours.sweep(look=False).total() == 200
    assert len(ours.left()) == 100


def test_letters_that_cannot_be_counted_are_not_dropped(office: Callable[..., Office]) -> None:
    ours = office(seconds=86_400)
    for n in range(40):
        ours.bury(f"{n}", age=2 * DAY)

    async def refuse(bot: str, reason: str, letters: int) -> None:
        raise StateUnavailableError("down")

    ours.count = refuse  # type: ignore[method-assign]
    with pytest.raises(StateUnavailableError):
        ours.sweep()
    assert ours.left() == [f"{n}" for n in range(40)]


def test_letters_of_unconfigured_bots_are_swept_and_counted_separately(office: Callable[..., Office]) -> None:
    ours = office(seconds=86_400)
    ours.bury("stranger", bot="gone", queue=queue_names.UNROUTABLE_QUEUE, age=2 * DAY)
    ours.bury("ours", queue=queue_names.UNROUTABLE_QUEUE, age=2 * DAY)
    ours.bury("forged", "made up " * 3, queue=queue_names.UNROUTABLE_QUEUE, age=2 * DAY)
    ours.connections.publisher.publish(
        Publication(queue_names.DEAD_EXCHANGE, queue_names.MALFORMED_QUEUE, b"\xff", "raw")
    )
    assert ours.sweep() == {(NO_BOT, "content"): 1, (BOT, "content"): 1, (BOT, OTHER): 1}
    assert ours.left(queue_names.MALFORMED_QUEUE) == ["raw"], "nobody knows its age"


def test_a_stopping_process_returns_the_letters_it_held(office: Callable[..., Office]) -> None:
    ours = office(seconds=86_400, seconds_by_reason={"uncertain": 0})
    for n in range(60):
        ours.bury(f"{n}", "uncertain", 2 * DAY)
    ours.stopping.set()
    assert ours.sweep() == {}
    assert ours.left() == [f"{n}" for n in range(60)]


def test_an_account_without_access_to_dead_letters_gets_a_remedy_logged_once_a_round(
    vhost: Vhost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "floodgate.dead_letters")
    monkeypatch.setattr(retention, "ROUND_SECONDS", 0.01)
    accounts = Accounts(vhost)
    owner, ours = Office(vhost.url), Office(accounts.url("producer"), most=1)
    try:
        queue_admin.declare(owner.connections, topology.pipeline([BOT], 1))
        for n in range(3):
            owner.bury(f"{n}")
        swept = Retention(ours.settings, ours.connections, ours.count, ours.stopping)
        running = asyncio.run_coroutine_threadsafe(swept.run(), ours.connections.io.loop)
        until(lambda: "floodgate dead-letters sweep` regularly with the operator's account" in caplog.text)
        ours.stopping.set()
        running.result(5)
        assert owner.left() == ["0", "1", "2"]
    finally:
        for each in (owner, ours):
            each.connections.stop(2)
        accounts.remove()


def test_dropped_letters_are_counted_in_the_store(office: Callable[..., Office], tmp_path: Any) -> None:
    ours = office(seconds=86_400)
    ours.bury("old", "rights", 2 * DAY)
    with contextlib.closing(SqliteAdmission(tmp_path / "state.db", policy_of(ours.settings))) as store:
        ours.count = partial(asyncio.to_thread, store.count_dropped)  # type: ignore[method-assign]
        ours.sweep()
        assert store.snapshot(BOT).dropped == {"rights": 1}
