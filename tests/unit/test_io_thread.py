"""Calls handed to the I/O thread: none is left behind, and its crash is told."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from broker.io_thread import THREAD_NAME, IoThread


class Loop:
    """Stands for pika's: wake-ups are counted."""

    def __init__(self) -> None:
        self.wake_ups: list[Callable[[], None]] = []

    def add_callback_threadsafe(self, call: Callable[[], None]) -> None:
        self.wake_ups.append(call)


class LastLook(deque[Callable[[], None]]):
    """Something happens just when the loop has found the calls all done."""

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


def test_a_call_that_comes_while_the_loop_finishes_wakes_it_again() -> None:
    io, loop, done = IoThread(never), Loop(), []
    io._loop = loop
    io._calls = LastLook(lambda: io.call_soon(lambda: done.append("late")))
    io.call_soon(lambda: done.append("first"))
    while loop.wake_ups:
        loop.wake_ups.pop()()
    assert done == ["first", "late"]


def test_many_calls_are_one_wake_up() -> None:
    io, loop = IoThread(never), Loop()
    io._loop = loop
    for _ in range(5):
        io.call_soon(lambda: None)
    assert len(loop.wake_ups) == 1


def test_a_call_that_raises_ends_the_thread_and_is_told() -> None:
    told: Future[Any] = Future()
    io = IoThread(told.set_result)
    io.start()
    io.call_soon(lambda: [][0])  # type: ignore[misc]
    assert isinstance(told.result(5), IndexError)
    io.stop(5)
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate() if thread is io._thread}
