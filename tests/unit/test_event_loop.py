"""The event loop of the connections: no call is forgotten, blocking on it is refused, its crash is reported."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from floodgate.broker.process.event_loop import THREAD_NAME, BackgroundLoop, BorrowedLoop


class Loop:
    """Replaces asyncio's loop: counts wake-ups."""

    def __init__(self) -> None:
        self.wake_ups: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        raise AssertionError("another thread's call wakes nobody")

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        self.wake_ups.append(call)


class LastLook(deque[Callable[[], None]]):
    """A call is added just when the loop has found all calls done."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self.happens = [happens]

    def __bool__(self) -> bool:
        if not len(self) and self.happens:
            self.happens.pop()()
            return False
        return len(self) > 0


def never(error: BaseException) -> None:
    raise AssertionError(error)


def elsewhere() -> tuple[BorrowedLoop, Loop]:
    """A loop that runs on another thread."""
    io, loop = BorrowedLoop(), Loop()
    io._loop = loop  # type: ignore[assignment]
    return io, loop


@pytest.fixture
def io() -> Iterator[BackgroundLoop]:
    io = BackgroundLoop(never)
    io.start()
    yield io
    io.stop(5)
    assert not io._thread.is_alive()  # type: ignore[union-attr]


def test_a_call_made_while_the_loop_finishes_wakes_it_again() -> None:
    io, loop = elsewhere()
    done: list[str] = []
    io._calls = LastLook(lambda: io.call_soon(lambda: done.append("late")))
    io.call_soon(lambda: done.append("first"))
    while loop.wake_ups:
        loop.wake_ups.pop()()
    assert done == ["first", "late"]


def test_many_calls_cause_one_wake_up() -> None:
    io, loop = elsewhere()
    for _ in range(5):
        io.call_soon(lambda: None)
    assert len(loop.wake_ups) == 1


def test_calls_of_one_thread_run_in_order(io: BackgroundLoop) -> None:
    seen: list[int] = []
    for n in range(100):
        io.call_soon(lambda n=n: seen.append(n))  # type: ignore[misc]
    io.run(asyncio.sleep(0), 5)
    assert seen == list(range(100))


def test_a_call_that_raises_ends_the_thread_and_is_reported() -> None:
    told: Future[Any] = Future()
    io = BackgroundLoop(told.set_result)
    io.start()
    io.call_soon(lambda: [][0])  # type: ignore[misc]
    assert isinstance(told.result(5), IndexError)
    io.stop(5)
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate() if thread is io._thread}


def test_an_unawaited_failed_task_is_logged_and_does_not_end_the_loop(io: BackgroundLoop) -> None:
    async def start_one() -> None:
        task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(None, int, "x"))
        await asyncio.wait({task})

    io.run(start_one(), 5)
    io.run(asyncio.sleep(0), 5)


def test_a_blocking_call_on_the_loop_is_refused(io: BackgroundLoop) -> None:
    async def block() -> None:
        io.run(asyncio.sleep(0), 5)

    with pytest.raises(RuntimeError, match="await its async counterpart"):
        io.run(block(), 5)


def test_a_coroutine_is_cancelled_at_its_timeout(io: BackgroundLoop) -> None:
    cancelled = threading.Event()

    async def wait_forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        io.run(wait_forever(), 0.05)
    assert cancelled.wait(5)


def test_a_coroutines_own_timeout_error_is_passed_on(io: BackgroundLoop) -> None:
    async def give_up() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        io.run(give_up(), 5)


def test_another_loop_can_await_work_on_this_one(io: BackgroundLoop) -> None:
    async def thread() -> str:
        return threading.current_thread().name

    assert asyncio.run(io.join(thread())) == THREAD_NAME

    async def here() -> str:
        own = BorrowedLoop()
        own.start()
        return await own.join(thread())

    assert asyncio.run(here()) == threading.current_thread().name


def test_running_tasks_are_cancelled_when_the_loop_stops() -> None:
    io, cancelled = BackgroundLoop(never), threading.Event()
    io.start()

    async def wait_forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    io.begin(wait_forever())
    io.run(asyncio.sleep(0), 5)
    io.stop(5)
    assert cancelled.is_set()
    assert io.is_over


def test_stopping_twice_or_unstarted_or_on_the_loop_itself_does_nothing(io: BackgroundLoop) -> None:
    BackgroundLoop(never).stop(5)
    BorrowedLoop().stop(5)

    async def stop() -> None:
        io.stop(5)

    io.run(stop(), 5)
    io.run(asyncio.sleep(0), 5)
    io.stop(5)
    io.stop(5)


def test_a_running_loop_is_borrowed() -> None:
    io = BorrowedLoop()
    with pytest.raises(RuntimeError):
        io.start()

    async def use() -> tuple[bool, bool]:
        io.start()
        io.stop(5)  # the loop is not ours to stop
        called = asyncio.get_running_loop().create_future()
        io.call_soon(lambda: called.set_result(None))
        await asyncio.wait_for(called, 5)
        return io.is_current, io.is_over

    assert asyncio.run(use()) == (True, False)
    assert io.is_over


def test_a_call_on_a_loop_closed_by_its_owner_is_dropped() -> None:
    io = BorrowedLoop()

    async def use() -> None:
        io.start()

    asyncio.run(use())
    late = threading.Thread(target=io.call_soon, args=(lambda: never(AssertionError("it ran")),))
    late.start()
    late.join(5)
