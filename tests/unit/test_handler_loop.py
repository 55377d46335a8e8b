"""The handlers' event loop: code that stops it stops its worker, and what is under way ends first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from floodgate.actors.updates.loop import HandlerLoop


def leave(kind: type[BaseException]) -> Callable[[], Any]:
    def raise_it() -> None:
        raise kind

    return raise_it


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda: asyncio.get_running_loop().stop(), "it called stop_running() or stopped the event loop"),
        (lambda: asyncio.get_running_loop().call_soon(leave(SystemExit)), "SystemExit was raised outside of a handler"),
        (
            lambda: asyncio.get_running_loop().call_soon(leave(KeyboardInterrupt)),
            "KeyboardInterrupt was raised outside",
        ),
    ],
    ids=["stop", "SystemExit", "KeyboardInterrupt"],
)
def test_code_that_stops_the_loop_is_reported_and_what_runs_on_it_goes_on(end: Callable[[], Any], why: str) -> None:
    reasons: SimpleQueue[str] = SimpleQueue()
    loop = HandlerLoop(reasons.put)

    async def handler() -> str:
        end()
        await asyncio.sleep(0.01)  # the loop runs again only after it was stopped
        return "finished"

    loop.start()
    try:
        assert asyncio.run(loop.run(handler(), 5)) == "finished"
        assert asyncio.run(loop.run(handler(), 5)) == "finished"
        assert [reasons.get(timeout=5).startswith(why) for _ in range(2)] == [True, True]
    finally:
        loop.stop()
    assert reasons.empty()


def test_a_loop_that_was_not_started_runs_nothing_and_can_be_stopped() -> None:
    loop = HandlerLoop(leave(AssertionError))
    loop.stop()
    with pytest.raises(RuntimeError, match="is not running"):
        asyncio.run(loop.run(asyncio.sleep(0), 1))
