"""A store that has gone back in time: a replica that lagged, an older file, a crash that lost the last writes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis

from floodgate.broker.admission.contract import (
    SHED,
    Admission,
    AlreadyDead,
    AlreadySent,
    Ask,
    CallFamily,
    Dead,
    Go,
    Released,
    Retrying,
    Scope,
    Sent,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.policy import REBUILD_GRACE_US, SECOND, policy_of
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from tests import awaited_admission
from tests.admission_bench import HandClock, ask_of, settings_of

RULES = policy_of(settings_of())
GRACE_SECONDS = REBUILD_GRACE_US / SECOND + 0.1
GROUP = -1001


class Past(Protocol):
    """Keeps the state of a store, and puts it back."""

    def keep(self) -> None: ...

    def put_back(self) -> None: ...


class PastOfFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept = path.with_name("kept.db")

    def keep(self) -> None:
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{self.kept}{suffix}")

    def put_back(self) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        shutil.copy(f"{self.kept}-wal", f"{self.path}-wal")
        shutil.copy(self.kept, f"{self.kept}-again")
        Path(f"{self.kept}-again").replace(self.path)


class PastOfServer:
    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self.kept: dict[bytes, tuple[int, bytes]] = {}

    def keep(self) -> None:
        keys = self.client.keys("floodgate:*")
        self.kept = {key: (max(0, self.client.pttl(key)), self.client.dump(key)) for key in keys}

    def put_back(self) -> None:
        self.client.flushall()
        for key, (left, dumped) in self.kept.items():
            self.client.restore(key, left, dumped)


# A new process sees a loss on Redis only if the server has another id, which has its own test.
ON_A_FILE = pytest.mark.parametrize("kind", ["sqlite", "sqlite in batches"], indirect=True)


@pytest.fixture(params=["sqlite", "redis", "sqlite in batches", "redis in batches"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, kind: str) -> str:
    return str(request.getfixturevalue("redis_url")) if "redis" in kind else ""


@pytest.fixture
def process(kind: str, url: str, tmp_path: Path, clock: HandClock) -> Iterator[Callable[[], Admission]]:
    """Opens the store as a new process does."""
    opened: list[Admission] = []

    def make() -> Admission:
        match kind:
            case "sqlite":
                store: Admission = SqliteAdmission(tmp_path / "state.db", RULES, clock)
            case "sqlite in batches":
                store = awaited_admission.on_sqlite(tmp_path / "state.db", RULES, clock)
            case "redis":
                store = RedisAdmission(url, RULES, clock)
            case _:
                store = awaited_admission.on_redis(url, RULES, clock)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(process: Callable[[], Admission]) -> Admission:
    opened = process()
    opened.vouch_idle("default")
    return opened


@pytest.fixture
def past(url: str, tmp_path: Path) -> Past:
    return PastOfServer(url) if url else PastOfFile(tmp_path / "state.db")


def send(store: Admission, ask: Ask) -> None:
    go = store.admit(ask)
    assert isinstance(go, Go), go
    store.settle(ask, Sent({"message_id": 1}), go.grant)


def notice(store: Admission, clock: HandClock, seconds: float = 1.1) -> None:
    """Makes a call of no consequence, and lets the cautious budgets of users' chats pass."""
    store.heard_from("default", "1")
    clock.advance(seconds)


def wait_of(store: Admission, ask: Ask) -> float:
    decision = store.admit(ask)
    assert isinstance(decision, Wait), decision
    return decision.delay.total_seconds()


def test_a_rollback_is_logged_once_and_counted(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    other = process()
    for each, chat in ((store, 5), (other, 6)):
        send(each, ask_of(chat))
    past.keep()
    for each, chat in ((store, 7), (other, 8)):
        send(each, ask_of(chat))
    assert store.snapshot("default").rollbacks == 0
    past.put_back()
    clock.advance(1)
    with caplog.at_level(logging.ERROR, "floodgate.admission"):
        notice(store, clock, 2)
        send(other, ask_of(10))
        send(store, ask_of(9))
    assert len(caplog.messages) == 1
    assert "lost its last writes" in caplog.messages[0]
    snapshot = other.snapshot("default")
    assert snapshot.rollbacks == 1
    assert snapshot.rolled_back == timedelta(seconds=2)


def test_nothing_is_noticed_when_nothing_was_lost(
    store: Admission, process: Callable[[], Admission], past: Past
) -> None:
    send(store, ask_of(5))
    past.keep()
    past.put_back()
    send(store, ask_of(6))
    send(process(), ask_of(7))
    assert store.snapshot("default").rollbacks == 0


def test_a_job_that_was_sent_since_is_neither_waited_for_nor_repeated(
    store: Admission, past: Past, clock: HandClock
) -> None:
    first, second, third, fourth = (ask_of(5) for _ in range(4))
    send(store, first)
    for ask in (second, third, fourth):
        wait_of(store, ask)
    past.keep()
    clock.advance(1.1)
    send(store, second)
    clock.advance(1.1)
    send(store, third)
    past.put_back()
    clock.advance(1.1)
    while isinstance(decision := store.admit(fourth), Wait):
        assert decision.delay < timedelta(seconds=2)
        clock.advance(decision.delay)
    assert isinstance(decision, Go)
    assert store.admit(second) == AlreadySent({"message_id": 1})


def test_jobs_that_joined_since_keep_their_order(store: Admission, past: Past, clock: HandClock) -> None:
    first, second, third, newest = (ask_of(GROUP) for _ in range(4))
    send(store, first)
    past.keep()
    for ask in (second, third):
        wait_of(store, ask)
    past.put_back()
    clock.advance(0.5)
    wait_of(store, newest)
    clock.advance(10)
    for ask, following in ((second, third), (third, newest)):
        assert isinstance(store.admit(following), Wait)
        send(store, ask)
        clock.advance(10)
    send(store, newest)


def test_a_call_under_way_keeps_its_place_and_its_chat(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock
) -> None:
    first, second = ask_of(5), ask_of(5)
    send(store, ask_of(6))
    past.keep()
    go = store.admit(first)
    assert isinstance(go, Go)
    past.put_back()
    clock.advance(2)
    wait_of(store, second)
    assert process().admit(second).why == "in-flight"  # type: ignore[union-attr]
    store.settle(first, Retrying(timedelta(seconds=3)), go.grant)
    clock.advance(3)
    assert isinstance(store.admit(second), Wait)
    send(store, first)
    clock.advance(2)
    send(store, second)


def test_a_call_whose_worker_died_is_still_unsettled(store: Admission, past: Past, clock: HandClock) -> None:
    ask = ask_of(5)
    send(store, ask_of(6))
    past.keep()
    assert isinstance(store.admit(ask), Go)
    past.put_back()
    notice(store, clock, 40)
    assert isinstance(store.admit(ask), Unsettled)


def test_the_budgets_are_taken_to_be_used(store: Admission, past: Past, clock: HandClock) -> None:
    send(store, ask_of(6))
    send(store, ask_of(GROUP))
    past.keep()
    clock.advance(2)
    send(store, ask_of(5))
    past.put_back()
    assert 0.9 < wait_of(store, ask_of(5)) < 1.2, "it got a message just now, of which the store knows nothing"
    sent = 0
    group = [ask_of(GROUP) for _ in range(20)]
    for ask in group:
        wait_of(store, ask)
    for _ in range(54):
        clock.advance(1.06)
        if sent < len(group) and isinstance(go := store.admit(group[sent]), Go):
            store.settle(group[sent], Sent(True), go.grant)
            sent += 1
    assert sent == 17, "one went before, and two may have gone in the two seconds"


def typing(chat: int = 5) -> Ask:
    return ask_of(chat, "interactive", method="sendChatAction", action="typing")


def edit(chat: int = 5) -> Ask:
    return ask_of(chat, "interactive", method="editMessageText", message_id=7, text="more")


def test_the_budget_of_typing_is_taken_to_be_used(store: Admission, past: Past, clock: HandClock) -> None:
    send(store, ask_of(6))
    past.keep()
    clock.advance(2)
    for _ in range(20):
        send(store, typing())
    past.put_back()
    assert store.admit(typing()) == AlreadyDead(SHED)
    sent = 0
    for _ in range(100):
        clock.advance(0.1)
        sent += isinstance(store.admit(typing()), Go)
    assert sent == 20, "as many as 30 seconds allow, less the 20 that may have gone in two"


def test_a_pace_that_was_lost_is_learned_again(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock
) -> None:
    other = process()
    send(store, ask_of(6))
    past.keep()
    for family in (CallFamily.EDITS, CallFamily.TYPING):
        assert store.too_many_requests("default", "5", timedelta(seconds=3), family) is Scope.CHAT
    send(other, ask_of(7))
    past.put_back()
    notice(other, clock, 1)
    assert other.snapshot("default").slowed_chats == {}, "it knows of no 429"
    assert store.admit(typing()) == AlreadyDead(SHED)
    clock.advance(4)
    first = other.snapshot("default").slowed
    assert {(each.chat, each.family) for each in first} == {("5", CallFamily.EDITS), ("5", CallFamily.TYPING)}
    send(other, edit())
    clock.advance(1.2)
    assert 0.7 < wait_of(other, edit()) < 0.95, "twice the distance at which its limit is kept evenly"


def test_a_pace_that_was_kept_stays_as_it_was(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock
) -> None:
    send(store, ask_of(6))
    for each in (store, process()):
        each.too_many_requests("default", "5", timedelta(seconds=3), CallFamily.EDITS)
        clock.advance(5)
    (known,) = store.snapshot("default").slowed
    past.keep()
    send(store, ask_of(7))
    past.put_back()
    notice(store, clock, 0.1)
    (pace,) = store.snapshot("default").slowed
    assert pace.interval == pytest.approx(known.interval, abs=timedelta(milliseconds=20))
    assert pace.interval > timedelta(seconds=4), "each process has seen one 429, and the store two"


def test_a_slowed_chat_is_taken_to_have_had_its_call(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock
) -> None:
    other = process()
    store.too_many_requests("default", "5", timedelta(seconds=3), CallFamily.EDITS)
    clock.advance(5)
    send(store, edit())
    past.keep()
    clock.advance(5)
    send(other, edit())
    past.put_back()
    assert 2 < wait_of(other, edit()) < 2.2


def test_a_pause_that_was_lost_is_kept(store: Admission, past: Past, clock: HandClock) -> None:
    send(store, ask_of(6))
    past.keep()
    store.too_many_requests("default", "5", timedelta(seconds=30))
    past.put_back()
    assert wait_of(store, ask_of(5)) > 25
    (pause,) = store.snapshot("default").pauses
    assert pause.chat == "5"


@ON_A_FILE
def test_a_new_process_steps_over_jobs_that_are_gone_within_seconds(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock
) -> None:
    calling, ghost, other, waiting = ask_of(4), ask_of(5), ask_of(5), ask_of(5)
    behind = ask_of(4)
    send(store, ask_of(5))
    assert isinstance(store.admit(calling), Go)
    for ask in (ghost, other, waiting, behind):
        store.admit(ask)
    past.keep()
    store.settle(calling, Sent(True))
    clock.advance(1.1)
    send(store, ghost)
    clock.advance(1.1)
    send(store, other)
    past.put_back()
    clock.advance(1.1)
    fresh = process()
    for ask in (waiting, behind):
        assert wait_of(fresh, ask) <= GRACE_SECONDS
    clock.advance(GRACE_SECONDS)
    for ask in (waiting, behind):
        send(fresh, ask)
    assert fresh.snapshot("default").waiting == {"interactive": 0, "bulk": 0}


@ON_A_FILE
def test_a_new_process_lets_a_job_that_is_not_gone_go_first(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock
) -> None:
    first, second = ask_of(5), ask_of(5)
    send(store, ask_of(5))
    for ask in (first, second):
        store.admit(ask)
    past.keep()
    send(store, ask_of(6))
    past.put_back()
    clock.advance(3)
    fresh = process()
    wait_of(fresh, second)
    clock.advance(GRACE_SECONDS / 2)
    send(fresh, first)
    clock.advance(GRACE_SECONDS / 2)
    send(fresh, second)


@ON_A_FILE
def test_only_the_first_of_several_new_processes_finds_a_loss(
    store: Admission, process: Callable[[], Admission], past: Past, clock: HandClock
) -> None:
    send(store, ask_of(5))
    past.keep()
    clock.advance(1)
    send(store, ask_of(6))
    past.put_back()
    for chat in (7, 8):
        clock.advance(1)
        process().admit(ask_of(chat))
    assert process().snapshot("default").rollbacks == 1


def test_other_changes_are_not_lost(store: Admission, past: Past, clock: HandClock) -> None:
    dead, released, cancelled = ask_of(5), ask_of(6), ask_of(7)
    send(store, ask_of(8))
    past.keep()
    go = store.admit(dead)
    assert isinstance(go, Go)
    store.settle(dead, Dead("content"), go.grant)
    go = store.admit(released)
    assert isinstance(go, Go)
    store.settle(released, Released(), go.grant)
    store.cancel(cancelled)
    store.mark_unreachable("default", "9", "Forbidden")
    past.put_back()
    notice(store, clock)
    send(store, released)
    assert [store.lookup("default", ask.job_id).reason for ask in (dead, cancelled)] == ["content", "cancelled"]  # type: ignore[union-attr]
    assert [each.chat for each in store.unreachable("default")] == ["9"]
