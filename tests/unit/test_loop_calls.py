"""Coroutines run on the event loop for threads that wait for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.loop_calls import LoopCalls


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test-loop", daemon=True)
    thread.start()
    started = threading.Event()
    loop.call_soon_threadsafe(started.set)
    assert started.wait(5)
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


async def _double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_every_thread_of_a_crowd_gets_its_own_result(loop: asyncio.AbstractEventLoop) -> None:
    calls = LoopCalls(loop)
    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(lambda number: calls.run(_double(number), 10), range(2000)))
    assert results == [2 * number for number in range(2000)]


def test_what_a_coroutine_raises_is_raised_where_it_is_waited_for(loop: asyncio.AbstractEventLoop) -> None:
    async def fail() -> None:
        raise LookupError("as told")

    with pytest.raises(LookupError, match="as told"):
        LoopCalls(loop).run(fail(), 10)


def test_a_cancelled_call_releases_its_thread(loop: asyncio.AbstractEventLoop) -> None:
    async def cancel_me() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        LoopCalls(loop).run(cancel_me(), 10)


def test_a_loop_that_does_not_answer_is_not_waited_for_without_end(loop: asyncio.AbstractEventLoop) -> None:
    blocked = threading.Event()
    loop.call_soon_threadsafe(blocked.wait, 10)
    try:
        with pytest.raises(TimeoutError, match="did not answer within"):
            LoopCalls(loop).run(_double(1), 0.05)
    finally:
        blocked.set()


def test_a_loop_that_has_stopped_is_refused() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="not running"):
        LoopCalls(loop).run(_double(1), 1)
