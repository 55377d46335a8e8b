"""Waiting for results on both stores: many waiters share one result feed, miss nothing and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import Admission, Dead, Go, Record, Sent
from floodgate.broker.admission.result_feed import EndedJob
from floodgate.broker.errors import ClosedError, DeadLetteredError, NotSettledError, StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_result_feed
from floodgate.producer import ledger, waiting
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.client import Client
from floodgate.producer.waiting import Waiting
from tests.admission_bench import ask_of
from tests.waiting import until


@pytest.fixture(autouse=True)
def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the feed the only source: the periodic lookup would find endings it missed."""
    monkeypatch.setattr(waiting, "AUDIT_SECONDS", 3600.0)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed is closed as soon as there are no waiters."""
    monkeypatch.setattr(waiting, "LINGER_SECONDS", 0.0)


def listeners() -> int:
    """Our threads with a result feed; those of an event loop's executor are not ours."""
    return sum(thread.name == "floodgate-results" for thread in threading.enumerate())


def listening() -> int:
    """All threads with a result feed, whoever owns them."""
    return sum(
        any(frame.f_code is Waiting._run.__code__ for frame, _ in traceback.walk_stack(top))
        for top in sys._current_frames().values()
    )


class Counting:
    """A store that counts its lookups."""

    def __init__(self, store: Admission) -> None:
        self._store = store
        self.lookups = 0

    def lookup(self, bot: str, job_id: str) -> Record | None:
        self.lookups += 1
        return self._store.lookup(bot, job_id)

    def close(self) -> None:
        self._store.close()


@contextmanager
def ended(book: Waiting, count: int, end: Callable[[], None]) -> Iterator[None]:
    """Ends jobs, from a thread, once this many callers wait."""

    def run() -> None:
        until(lambda: book.count == count)
        end()

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(run)
        yield
        done.result(20)


def test_thousands_of_waiters_share_one_result_feed_and_few_lookups(
    settings: Settings, store: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(store)
    monkeypatch.setattr(ledger, "open_store", lambda _settings: counting)
    asks = [ask_of(chat) for chat in range(1, 2001)]
    seen: list[tuple[int, int]] = []

    def end_all() -> None:
        seen.append((listening(), listeners()))
        for ask in asks:
            store.settle(ask, Sent(ask.job_id))

    async def main() -> list[str]:
        async with AsyncClient(settings) as client:
            with ended(client._ledger.waiting(), len(asks), end_all):
                return await asyncio.gather(*(client.result(ask.job_id, timeout=60) for ask in asks))

    assert asyncio.run(main()) == [ask.job_id for ask in asks]
    assert seen == [(1, 0)]
    # Two by each caller and one by the feed when it was opened: none while they wait, none at the end.
    assert counting.lookups <= 3 * len(asks) + 1


def test_a_job_that_has_already_ended_needs_no_result_feed(settings: Settings, store: Admission) -> None:
    sent, dead = ask_of(1), ask_of(2)
    store.settle(sent, Sent("done"))
    store.settle(dead, Dead("content"))
    with Client(settings) as client:
        assert client.result(sent.job_id, timeout=5) == "done"
        with pytest.raises(DeadLetteredError):
            client.result(dead.job_id, timeout=5)
        assert listeners() == 0


def test_a_result_feed_includes_bots_that_are_asked_for_later(settings: Settings, store: Admission) -> None:
    asks = [ask_of(1, bot=bot) for bot in ("default", "news", "shop")]
    with Client(settings) as client, ThreadPoolExecutor() as threads:
        for count, ask in enumerate(asks, start=1):
            job = client.job("sendMessage", chat_id=1, text="hi", bot=ask.bot).model_copy(update={"id": ask.job_id})
            wait = threads.submit(client.result, job, timeout=20)
            until(lambda: client._ledger.waiting().count == 1)
            store.settle(ask, Sent(count))
            assert wait.result(20) == count


def test_a_wait_ends_at_its_timeout_and_leaves_nothing_behind(
    settings: Settings, store: Admission, brief: None
) -> None:
    with Client(settings) as client:
        with pytest.raises(NotSettledError):
            client.result(ask_of(1).job_id, timeout=timedelta(milliseconds=50))
        until(lambda: listeners() == 0)


def test_an_unknown_id_is_not_called_safe(settings: Settings, store: Admission) -> None:
    with Client(settings) as client:
        with pytest.raises(
            NotSettledError, match=r"no job 'no-such-id' .* the id, the bot or FLOODGATE_STATE_URL"
        ) as error:
            client.result("no-such-id", timeout=0)
        assert "safe" not in str(error.value)
        with pytest.raises(NotSettledError, match="If it was enqueued, it is safe"):
            client.result(client.job("sendMessage", chat_id=1, text="hi"), timeout=0)


def test_an_unused_result_feed_is_closed_and_reopened_when_needed(
    settings: Settings, store: Admission, brief: None
) -> None:
    with Client(settings) as client, ThreadPoolExecutor() as threads:
        for ask in (ask_of(1), ask_of(2)):
            wait = threads.submit(client.result, ask.job_id, timeout=20)
            until(lambda: listeners() == 1)
            store.settle(ask, Sent(ask.job_id))
            assert wait.result(20) == ask.job_id
            until(lambda: listeners() == 0)


def test_closing_a_client_wakes_its_waiters_with_an_error(settings: Settings, store: Admission) -> None:
    async def main() -> None:
        client = AsyncClient(settings)
        told = pytest.raises(ClosedError, match="The job is safe")
        with ended(client._ledger.waiting(), 1, lambda: asyncio.run(client.close())), told:
            await client.result(ask_of(1).job_id, timeout=60)

    asyncio.run(main())
    assert listening() == 0


def test_an_async_client_waits_even_when_its_loop_has_one_executor_thread(settings: Settings, store: Admission) -> None:
    ask = ask_of(1)

    async def main() -> object:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with AsyncClient(settings) as client:
            with pytest.raises(NotSettledError):
                await client.result(ask.job_id, timeout=0.5)
            store.settle(ask, Sent("done"))
            return await client.result(ask.job_id, timeout=20)

    assert asyncio.run(asyncio.wait_for(main(), 30)) == "done"


def test_a_cancelled_task_stops_waiting(settings: Settings, store: Admission) -> None:
    async def main() -> int:
        async with AsyncClient(settings) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.result(ask_of(1).job_id, timeout=60)
            return client._ledger.waiting().count

    assert asyncio.run(main()) == 0


class Silent:
    """A result feed whose connection has become silent without breaking."""

    def skip(self) -> None:
        pass

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        time.sleep(0.01)
        return ()

    def close(self) -> None:
        pass


def test_results_missed_by_a_silent_result_feed_are_found_by_lookup(
    settings: Settings, store: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "open_result_feed", lambda _settings, _bots: Silent())
    monkeypatch.setattr(waiting, "AUDIT_SECONDS", 0.1)
    ask = ask_of(1)
    with Client(settings) as client, ended(client._ledger.waiting(), 1, lambda: store.settle(ask, Sent("found"))):
        assert client.result(ask.job_id, timeout=20) == "found"


class Deaf:
    """A result feed of a store that does not support one."""

    def skip(self) -> None:
        raise StateUnavailableError("no permission to listen")

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        raise AssertionError("not after a failed skip")

    def close(self) -> None:
        pass


def test_a_store_without_a_result_feed_is_polled(
    settings: Settings, store: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "open_result_feed", lambda _settings, _bots: Deaf())
    ask = ask_of(1)
    with Client(settings) as client, ended(client._ledger.waiting(), 1, lambda: store.settle(ask, Sent("late"))):
        assert client.result(ask.job_id, timeout=20) == "late"


def test_a_forked_child_opens_its_own_result_feed(settings: Settings, store: Admission) -> None:
    first, second = ask_of(1), ask_of(2)
    client = Client(settings)
    with ended(client._ledger.waiting(), 1, lambda: store.settle(first, Sent(1))):
        assert client.result(first.job_id, timeout=20) == 1
    assert listeners() == 1
    child = os.fork()
    if child == 0:
        told = 0
        try:
            with ended(client._ledger.waiting(), 1, lambda: store.settle(second, Sent(2))):
                told = client.result(second.job_id, timeout=20)
        finally:
            os._exit(told)
    _, status = os.waitpid(child, 0)
    client.close()
    assert os.waitstatus_to_exitcode(status) == 2


def test_callers_of_superseded_jobs_get_the_result_of_the_one_that_was_sent(
    settings: Settings, store: Admission
) -> None:
    store.pause("default", "1", timedelta(seconds=60), "test")
    asks = [replace(ask_of(1, "interactive"), coalesce="text") for _ in range(20)]
    with Client(settings) as client, ThreadPoolExecutor(40) as threads:
        early = [threads.submit(client.result, ask.job_id, timeout=45) for ask in asks[:10]]
        until(lambda: client._ledger.waiting().count == 10)
        for ask in asks:
            store.admit(ask)
        late = [threads.submit(client.result, ask.job_id, timeout=45) for ask in asks[10:]]
        until(lambda: client._ledger.waiting().count == 20)
        store.resume("default", "1")
        go = store.admit(asks[-1])
        assert isinstance(go, Go)
        store.settle(asks[-1], Sent("the newest"), go.grant)
        assert {each.result(15) for each in early + late} == {"the newest"}
        until(lambda: client._ledger.waiting().count == 0)
        assert not client._ledger.waiting()._chains


@pytest.mark.parametrize("in_line", [False, True], ids=["nothing in line", "another in line"])
def test_callers_of_jobs_that_were_superseded_unseen_get_the_result_of_the_newest(
    settings: Settings, store: Admission, in_line: bool
) -> None:
    store.pause("default", "1", timedelta(seconds=60), "test")
    first, *others = (replace(ask_of(1, "interactive"), coalesce="text") for _ in range(20))
    with Client(settings) as client, ThreadPoolExecutor(40) as threads:
        early = [threads.submit(client.result, ask.job_id, timeout=45) for ask in others[:10]]
        until(lambda: client._ledger.waiting().count == 10)
        store.enqueued("default", [first, *others])
        late = [threads.submit(client.result, ask.job_id, timeout=45) for ask in others[10:]]
        until(lambda: client._ledger.waiting().count == 19)
        if in_line:
            store.admit(first)
        newest = others[-1]
        store.admit(newest)
        store.resume("default", "1")
        go = store.admit(newest)
        assert isinstance(go, Go)
        store.settle(newest, Sent("the newest"), go.grant)
        assert {each.result(15) for each in early + late} == {"the newest"}
        until(lambda: client._ledger.waiting().count == 0)
        assert not client._ledger.waiting()._chains


def test_callers_of_superseded_jobs_are_told_that_the_last_one_failed(settings: Settings, store: Admission) -> None:
    store.pause("default", "1", timedelta(seconds=60), "test")
    first, second = (replace(ask_of(1, "interactive"), coalesce="text") for _ in range(2))
    with Client(settings) as client, ThreadPoolExecutor(2) as threads:
        wait = threads.submit(client.result, first.job_id, timeout=45)
        until(lambda: client._ledger.waiting().count == 1)
        store.admit(first)
        store.admit(second)
        store.settle(second, Dead("content"))
        with pytest.raises(DeadLetteredError, match="content"):
            wait.result(15)


def test_callers_whose_jobs_were_superseded_before_the_feed_began_are_served(
    settings: Settings, store: Admission
) -> None:
    store.pause("default", "1", timedelta(seconds=60), "test")
    asks = [replace(ask_of(1, "interactive"), coalesce="text") for _ in range(3)]
    for ask in asks:
        store.admit(ask)
    began = threading.Event()

    def run(listen: Callable[[], None]) -> None:
        threading.Thread(target=lambda: began.wait(20) and listen()).start()

    book = Waiting(store, lambda bots: open_result_feed(settings, bots), start=run)
    futures = [Future[Record]() for _ in asks]
    for ask, future in zip(asks, futures, strict=True):
        book.enter(("default", ask.job_id), future)
    began.set()
    until(lambda: ("default", asks[1].job_id) in book._chain_of)
    store.settle(asks[-1], Sent("the newest"))
    assert {each.result(15).result for each in futures} == {"the newest"}
    book.stop()
