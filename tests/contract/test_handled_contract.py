"""The contract of every ledger of handled updates."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.broker.admission.policy import policy_of
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state.handled import KEEP_SECONDS, HandledUpdates, UpdateStatus
from floodgate.broker.state.redis.handled import RedisHandled
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.state.sqlite.handled import SWEEP_EVERY, SqliteHandled
from tests.admission_bench import settings_of
from tests.contract.conftest import redis_url_of

QUEUE = "updates.default.00"
Opener = Callable[[], HandledUpdates]


@pytest.fixture(params=["sqlite", "redis", "redis cluster"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opened twice, both share the same state, as two workers do."""
    with contextlib.ExitStack() as stack:

        def make() -> HandledUpdates:
            if request.param == "sqlite":
                ledger: HandledUpdates = SqliteHandled(tmp_path / "state.db")
            else:
                ledger = RedisHandled(redis_url_of(request))
            stack.callback(ledger.close)
            return ledger

        yield make


def handled(ledger: HandledUpdates, update_id: int, bot: str = "default") -> bool:
    return ledger.begin(bot, update_id, QUEUE, "w1").handled


def test_an_update_handled_by_one_worker_is_known_to_another(opener: Opener) -> None:
    one, other = opener(), opener()
    assert not handled(one, 7)
    assert not handled(other, 7)
    one.mark("default", 7)
    one.mark("default", 7)
    assert handled(other, 7)
    assert not handled(other, 8)


@pytest.mark.parametrize("update_id", [0, 65_535, 65_536, 2**31, 2**53, 2**63 - 1])
def test_adjacent_update_ids_are_distinguished(opener: Opener, update_id: int) -> None:
    ledger = opener()
    ledger.mark("default", update_id)
    assert handled(ledger, update_id)
    assert not any(handled(ledger, near) for near in (update_id - 1, update_id + 1) if 0 <= near < 2**63)


def test_bots_have_separate_handled_updates(opener: Opener) -> None:
    ledger = opener()
    ledger.mark("news", 7)
    assert not handled(ledger, 7)
    assert handled(ledger, 7, "news")


def test_a_replayed_update_is_handled_again(opener: Opener) -> None:
    ledger = opener()
    ledger.forget("default", 7)
    ledger.mark("default", 7)
    ledger.forget("default", 7)
    assert not handled(ledger, 7)


def test_a_worker_learns_that_another_worker_had_the_partition(opener: Opener) -> None:
    ledger = opener()
    assert ledger.begin("default", 1, QUEUE, "w1") == UpdateStatus(False)
    assert ledger.begin("default", 2, QUEUE, "w1") == UpdateStatus(False)
    assert ledger.begin("default", 3, QUEUE, "w2") == UpdateStatus(False, moved_from="w1")
    assert ledger.begin("default", 4, QUEUE, "w2") == UpdateStatus(False)
    assert ledger.begin("default", 5, "updates.default.01", "w2") == UpdateStatus(False)


def test_a_ledger_can_be_closed_twice_and_used_again(opener: Opener) -> None:
    ledger = opener()
    ledger.close()
    ledger.mark("default", 7)
    ledger.close()
    ledger.close()
    assert handled(ledger, 7)


def test_the_file_is_shared_with_admission_in_either_order_of_opening(tmp_path: Path) -> None:
    for name, first in (("a.db", True), ("b.db", False)):
        ledger = SqliteHandled(tmp_path / name)
        store = SqliteAdmission(tmp_path / name, policy_of(settings_of()))
        for use in sorted([True, False], reverse=first):
            if use:
                ledger.mark("default", 1)
            else:
                assert store.lookup("default", "none") is None
        assert handled(ledger, 1)
        ledger.close()
        store.close()


def test_old_rows_are_deleted_and_recent_ones_kept(tmp_path: Path) -> None:
    now = [1_000_000.0]
    ledger = SqliteHandled(tmp_path / "state.db", now=lambda: now[0])
    for update_id in range(SWEEP_EVERY * 3):
        ledger.mark("default", update_id)
    now[0] += KEEP_SECONDS + 1
    for update_id in range(1000, 1000 + SWEEP_EVERY):
        ledger.mark("default", update_id)
    assert not handled(ledger, 0)
    assert handled(ledger, 1000)
    ledger.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("SELECT count(*) FROM updates").fetchone()[0] == SWEEP_EVERY


def test_a_page_of_bits_expires_two_days_after_its_last_mark(redis_url: str) -> None:
    import redis

    ledger = RedisHandled(redis_url)
    ledger.mark("default", 70_000)
    with redis.Redis.from_url(redis_url) as client:
        assert KEEP_SECONDS - 60 < client.ttl("floodgate:{default}:updates:1") <= KEEP_SECONDS
        assert client.memory_usage("floodgate:{default}:updates:1") < 20_000
    ledger.close()


def test_an_unavailable_store_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StateUnavailableError, match=r"state\.db"):
        SqliteHandled(tmp_path / "state.db").mark("default", 1)
    with pytest.raises(StateUnavailableError, match=r"Redis at 127\.0\.0\.1:1 does not answer"):
        RedisHandled("redis://127.0.0.1:1/0").mark("default", 1)
