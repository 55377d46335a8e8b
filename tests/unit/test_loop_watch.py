"""Finding the code that blocks the event loop from a thread's frames, while it blocks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from floodgate.actors.updates.loop import HandlerLoop
from floodgate.actors.updates.watch import LoopWatch, culprit_in
from tests.waiting import until

BOUND_SECONDS = 0.1


@pytest.fixture
def loop() -> Iterator[HandlerLoop]:
    made = HandlerLoop(lambda _why: None)
    made.start()
    yield made
    made.stop()
    made.stop()


@pytest.fixture
def watch(loop: HandlerLoop) -> Iterator[LoopWatch]:
    made = LoopWatch(loop.loop, loop.thread, BOUND_SECONDS)
    made.start()
    yield made
    made.stop()
    made.stop()


def test_a_blocking_handler_is_named_while_it_blocks_and_afterwards(
    loop: HandlerLoop, watch: LoopWatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    async def innocent_looking_handler() -> None:
        release.wait(10)

    with caplog.at_level(logging.WARNING, "floodgate.updates"):
        asyncio.run_coroutine_threadsafe(innocent_looking_handler(), loop.loop)
        blocked = until(lambda: [text for text in caplog.messages if "is blocked by" in text])
        release.set()
        over = until(lambda: [text for text in caplog.messages if "runs again" in text])
    assert "innocent_looking_handler, at" in blocked[0]
    assert "test_loop_watch.py:" in blocked[0]
    assert len(blocked) == 1
    assert "innocent_looking_handler" in over[0]


def test_a_busy_but_responsive_loop_is_not_reported(
    loop: HandlerLoop, watch: LoopWatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def awaiting() -> None:
        deadline = time.monotonic() + 4 * BOUND_SECONDS
        while time.monotonic() < deadline:  # noqa: ASYNC110  # many short steps are the point
            await asyncio.sleep(0)

    asyncio.run(loop.run(awaiting(), 10))
    assert caplog.messages == []


def test_a_thread_that_runs_no_user_code_has_no_culprit() -> None:
    assert culprit_in(None) is None


def test_an_unstarted_watch_and_loop_can_be_stopped() -> None:
    loop = HandlerLoop(lambda _why: None)
    LoopWatch(loop.loop, loop.thread, BOUND_SECONDS).stop()
    loop.stop()
    loop.loop.close()
