"""The contract of both batched stores: simultaneous calls share a batch in order and fail separately."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from floodgate.broker.admission.contract import AlreadySent, Go, Retrying, Sent, Standing, Unreachable, Wait
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state import calls
from floodgate.broker.state.calls import AdmissionCall, BatchedAdmission
from floodgate.broker.state.redis.admission import RedisBatches
from floodgate.broker.state.sqlite.admission import SqliteAdmission, SqliteBatches
from floodgate.broker.state.thread import StateThread
from tests.admission_bench import ask_of, settings_of
from tests.awaited_admission import AwaitedAdmission
from tests.services import RedisServer

RULES = policy_of(settings_of())
BOUND_SECONDS = 30.0


class Counting:
    """Records a store's batches as they begin."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.batches: list[list[AdmissionCall]] = []

    def begin(self, batch: Sequence[AdmissionCall], done: Callable[[Sequence[Any]], None]) -> None:
        self.batches.append(list(batch))
        self._store.begin(batch, done)

    async def close(self) -> None:
        await self._store.close()

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    @property
    def methods(self) -> list[list[str]]:
        return [[call.method for call in batch] for batch in self.batches]


class Bench:
    """A batched store and the calls made to it."""

    def __init__(self, store: Any, thread: StateThread | None, transactions: Callable[[], int]) -> None:
        self.counting = Counting(store)
        self.batched = BatchedAdmission(self.counting)
        self.admission = AwaitedAdmission(self.batched, thread)
        self._transactions = transactions

    def play(self, scene: Callable[[BatchedAdmission], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(BOUND_SECONDS):
                return await scene(self.batched)

        return self.admission.run(bounded())

    def transactions_of(self, scene: Callable[[BatchedAdmission], Awaitable[Any]]) -> int:
        before = self._transactions()
        self.play(scene)
        return self._transactions() - before


def on_sqlite(tmp_path: Path) -> Bench:
    thread, store, count = StateThread(), SqliteAdmission(tmp_path / "state.db", RULES), 0
    transact = store._transact

    def counted(batch: Sequence[AdmissionCall]) -> list[Any]:
        nonlocal count
        count += 1
        return transact(batch)

    store._transact = counted  # type: ignore[method-assign]
    return Bench(SqliteBatches(store, thread), thread, lambda: count)


def on_redis(url: str) -> Bench:
    store, count = RedisBatches(url, RULES), 0
    use = store._server.use

    async def counted(act: Any) -> Any:
        nonlocal count
        count += 1
        return await use(act)

    store._server.use = counted  # type: ignore[method-assign]
    return Bench(store, None, lambda: count)


@pytest.fixture(params=["sqlite", "redis"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = on_sqlite(tmp_path) if request.param == "sqlite" else on_redis(request.getfixturevalue("redis_url"))
    made.play(lambda store: store.vouch_idle("default"))
    yield made
    made.admission.close()


def test_calls_made_in_one_loop_iteration_share_one_transaction(bench: Bench) -> None:
    async def ask_all(store: BatchedAdmission) -> None:
        decisions = await asyncio.gather(*(store.admit(ask_of(chat)) for chat in range(1, 11)))
        assert len(decisions) == 10

    assert bench.transactions_of(ask_all) == 1
    assert bench.counting.sizes[-1] == 10


def test_calls_made_during_a_batch_form_the_next_batch(bench: Bench) -> None:
    async def ask_meanwhile(store: BatchedAdmission) -> None:
        first = asyncio.create_task(store.lookup("default", "a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # now the first batch is running
        others = [asyncio.create_task(store.lookup("default", str(n))) for n in range(5)]
        await asyncio.gather(first, *others)

    assert bench.transactions_of(ask_meanwhile) == 2
    assert bench.counting.sizes[-2:] == [1, 5]


def test_each_caller_gets_its_own_result(bench: Bench) -> None:
    asks = [ask_of(chat) for chat in (1, 2, 3)]

    async def mix(store: BatchedAdmission) -> None:
        await store.mark_unreachable("default", "2", "blocked")
        results = await asyncio.gather(
            *(store.admit(ask) for ask in asks), store.lookup("default", "unknown"), store.snapshot("other")
        )
        one, two, three, record, snapshot = results
        assert isinstance(one, Go) and isinstance(three, Go)
        assert (two, record, snapshot.bot) == (Unreachable("blocked"), None, "other")

    bench.play(mix)


def test_two_jobs_of_one_line_in_one_batch_keep_their_order(bench: Bench) -> None:
    head, behind = ask_of(5), ask_of(5)

    async def ask_both(store: BatchedAdmission) -> tuple[Any, Any]:
        return tuple(await asyncio.gather(store.admit(head), store.admit(behind)))  # type: ignore[return-value]

    first, second = bench.play(ask_both)
    assert isinstance(first, Go)
    assert isinstance(second, Wait)
    assert bench.counting.sizes[-1] == 2


def test_a_settlement_precedes_the_ask_that_depends_on_it(bench: Bench) -> None:
    """Within one batch, and from one batch to the next."""
    ask = ask_of(5)

    async def settle_and_ask(store: BatchedAdmission) -> None:
        go = await store.admit(ask)
        assert isinstance(go, Go)
        settled = asyncio.create_task(store.settle(ask, Sent(True), go.grant))
        asked = asyncio.create_task(store.admit(ask))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later = asyncio.create_task(store.lookup("default", ask.job_id))
        await settled
        assert await asked == AlreadySent(True)
        record = await later
        assert record is not None
        assert record.standing is Standing.SENT

    bench.play(settle_and_ask)
    assert bench.counting.methods[-2:] == [["settle", "admit"], ["lookup"]]


def test_calls_run_in_order_across_batches(bench: Bench) -> None:
    done: list[int] = []

    async def one(store: BatchedAdmission, n: int) -> None:
        await store.lookup("default", str(n))
        done.append(n)

    async def ask_all(store: BatchedAdmission) -> None:
        await asyncio.gather(*(one(store, n) for n in range(3 * calls.MOST_IN_A_BATCH)))

    bench.play(ask_all)
    assert done == list(range(3 * calls.MOST_IN_A_BATCH))


def test_a_batch_never_exceeds_its_limit(bench: Bench) -> None:
    async def ask_all(store: BatchedAdmission) -> None:
        await asyncio.gather(*(store.lookup("default", str(n)) for n in range(2 * calls.MOST_IN_A_BATCH + 10)))

    assert bench.transactions_of(ask_all) == 3
    assert bench.counting.sizes[-3:] == [calls.MOST_IN_A_BATCH, calls.MOST_IN_A_BATCH, 10]


def test_a_bug_in_one_call_does_not_fail_the_others(bench: Bench) -> None:
    good, other = ask_of(5), ask_of(6)

    async def ask_all(store: BatchedAdmission) -> None:
        nonsense: Any = "not a duration"
        results = await asyncio.gather(
            store.admit(good),
            store.pause("default", "7", nonsense, "a bug of the caller"),
            store.admit(other),
            return_exceptions=True,
        )
        first, bug, last = results
        assert isinstance(first, Go)
        assert isinstance(bug, TypeError)
        assert isinstance(last, Go)
        # Nothing was carried out twice or withheld from later callers.
        assert (await store.snapshot("default")).sent_last_second == 2
        assert isinstance(await store.admit(ask_of(8)), Go)

    bench.play(ask_all)


def test_cancelling_one_caller_does_not_affect_the_others(bench: Bench) -> None:
    """Before the batch, and while it is running."""

    async def cancel_some(store: BatchedAdmission) -> None:
        waiting = [asyncio.create_task(store.admit(ask_of(chat))) for chat in (1, 2, 3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        first, second, third = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(first, Go)
        assert isinstance(second, asyncio.CancelledError)
        assert isinstance(third, Go)
        under_way = asyncio.create_task(store.admit(ask_of(4)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        under_way.cancel()
        assert isinstance(await store.admit(ask_of(5)), Go)

    bench.play(cancel_some)


def test_a_retry_and_the_next_job_of_its_line_share_a_batch(bench: Bench) -> None:
    """The failed job keeps the head of its line, regardless of other calls in its settlement's batch."""
    head, behind = ask_of(5), ask_of(5)

    async def fail_and_ask(store: BatchedAdmission) -> None:
        go = await store.admit(head)
        assert isinstance(go, Go)
        await store.admit(behind)
        _, decision = await asyncio.gather(
            store.settle(head, Retrying(timedelta(seconds=2), charged=False), go.grant), store.admit(behind)
        )
        assert isinstance(decision, Wait)

    bench.play(fail_and_ask)


def test_closing_waits_for_the_running_batch_and_can_be_repeated(bench: Bench) -> None:
    async def close(store: BatchedAdmission) -> None:
        asked = asyncio.create_task(store.admit(ask_of(5)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        assert isinstance(await asked, Go)

    bench.play(close)


def test_a_file_that_cannot_be_opened_fails_only_the_current_batch(tmp_path: Path) -> None:
    blocked = tmp_path / "state.db"
    blocked.mkdir()
    bench = on_sqlite(tmp_path)

    async def ask_all(store: BatchedAdmission) -> list[Any]:
        return await asyncio.gather(*(store.admit(ask_of(chat)) for chat in range(1, 6)), return_exceptions=True)

    assert [type(each) for each in bench.play(ask_all)] == [StateUnavailableError] * 5
    blocked.rmdir()
    bench.play(lambda store: store.vouch_idle("default"))
    assert [type(each) for each in bench.play(ask_all)] == [Go] * 5
    bench.admission.close()


def test_an_unavailable_server_fails_only_the_current_batch(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis().start()
    bench = on_redis(server.url)

    async def ask_all(store: BatchedAdmission) -> list[Any]:
        return await asyncio.gather(*(store.admit(ask_of(chat)) for chat in range(1, 6)), return_exceptions=True)

    bench.play(lambda store: store.vouch_idle("default"))
    server.kill()
    found = bench.play(ask_all)
    assert [type(each) for each in found] == [StateUnavailableError] * 5
    assert "does not answer" in str(found[0])
    server.start()
    bench.play(lambda store: store.vouch_idle("default"))
    assert [type(each) for each in bench.play(ask_all)] == [Go] * 5
    bench.admission.close()


def test_the_script_is_loaded_again_when_the_server_has_lost_it(redis_url: str) -> None:
    bench = on_redis(redis_url)
    bench.play(lambda store: store.vouch_idle("default"))
    admin = redis.Redis.from_url(redis_url)
    admin.script_flush()
    admin.close()

    async def ask_all(store: BatchedAdmission) -> None:
        decisions = await asyncio.gather(*(store.admit(ask_of(chat)) for chat in range(1, 6)))
        assert [type(each) for each in decisions] == [Go] * 5

    bench.play(ask_all)
    bench.admission.close()


def test_a_call_that_fails_on_the_server_fails_alone_and_changes_nothing(redis_url: str) -> None:
    bench = on_redis(redis_url)
    admin = redis.Redis.from_url(redis_url)
    admin.lpush("floodgate:{default}:chat:2", "this is no chat")
    asks = [ask_of(chat) for chat in (1, 2, 3)]

    async def ask_all(store: BatchedAdmission) -> None:
        await store.vouch_idle("default")
        one, two, three = await asyncio.gather(*(store.admit(ask) for ask in asks), return_exceptions=True)
        assert isinstance(one, Go) and isinstance(three, Go)
        assert isinstance(two, StateUnavailableError) and "WRONGTYPE" in str(two)
        await store.settle(asks[0], Sent("done"), one.grant)
        admin.delete("floodgate:{default}:chat:2")
        assert isinstance(await store.admit(asks[1]), Go)
        assert [await store.admit(ask) for ask in (asks[0],)] == [AlreadySent("done")]

    assert bench.transactions_of(ask_all) == 5
    bench.admission.close()
    admin.close()


def test_batches_work_on_a_cluster(cluster_url: str) -> None:
    bench = on_redis(cluster_url)

    async def use(store: BatchedAdmission) -> None:
        await asyncio.gather(store.vouch_idle("default"), store.vouch_idle("other"))
        ask, elsewhere = ask_of(5), ask_of(5, bot="other")
        go, other = await asyncio.gather(store.admit(ask), store.admit(elsewhere))
        assert isinstance(go, Go)
        assert isinstance(other, Go)
        await store.settle(ask, Sent(True), go.grant)
        assert await store.admit(ask) == AlreadySent(True)

    bench.play(use)
    bench.admission.close()


def test_the_loop_keeps_running_while_a_transaction_waits_for_the_lock(tmp_path: Path) -> None:
    bench = on_sqlite(tmp_path)
    bench.play(lambda store: store.vouch_idle("default"))
    begun, release = threading.Event(), threading.Event()
    other = SqliteAdmission(tmp_path / "state.db", RULES)

    def hold(_db: Any) -> None:
        begun.set()
        release.wait(10)

    holding = threading.Thread(target=other._file.transact, args=(hold,))
    holding.start()
    assert begun.wait(10)

    async def ask(store: BatchedAdmission) -> None:
        asked = asyncio.create_task(store.admit(ask_of(5)))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not asked.done()
        release.set()
        assert isinstance(await asked, Go)

    bench.play(ask)
    holding.join(10)
    other.close()
    bench.admission.close()
