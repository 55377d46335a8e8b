"""Work over AMQP whose calls are answered by hand: late, after its end, and never."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pika.exceptions
import pytest

from floodgate.broker.amqp import session as sessions
from floodgate.broker.amqp.session import ChannelRefusedError, Session
from floodgate.broker.errors import RabbitMQUnreachableError

BY_US = pika.exceptions.ChannelClosedByClient(0, "Normal shutdown")
REFUSED = pika.exceptions.ChannelClosedByBroker(404, "NOT_FOUND")
LOST = pika.exceptions.StreamLostError("gone")


class Channel:
    """Replaces pika's channel."""

    is_open = is_closing = is_closed = False

    def __init__(self, on_open: Callable[[Any], None]) -> None:
        self._on_open = on_open
        self.asked: list[Callable[[Any], None]] = []

    def add_on_close_callback(self, call: Callable[[Any, Exception], None]) -> None:
        self._on_close = call

    def ask(self, *, callback: Callable[[Any], None]) -> None:
        if not self.is_open:
            raise pika.exceptions.ChannelWrongStateError("Channel is closed.")
        self.asked.append(callback)

    def opens(self) -> None:
        if not self.is_closing:  # then pika calls no callback
            self.is_open = True
            self._on_open(self)

    def close(self) -> None:
        self.is_open, self.is_closing = False, True

    def ends(self, reason: Exception = BY_US) -> None:
        self.is_open, self.is_closing, self.is_closed = False, False, True
        self._on_close(self, reason)


class Server:
    """Replaces pika's connection."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []

    def channel(self, on_open_callback: Callable[[Any], None]) -> Channel:
        self.channels.append(Channel(on_open_callback))
        return self.channels[-1]


Work = Callable[[Session], Awaitable[Any]]


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def begin(work: Work) -> tuple[Server, asyncio.Task[Any]]:
    """Runs work as ``Connections`` does, up to its first call; its first channel is open."""
    server = Server()
    session = Session(server, (4, 0))

    async def do() -> Any:
        try:
            return await work(session)
        finally:
            await session.close()

    task = asyncio.create_task(do())
    await turn()
    server.channels[0].opens()
    await turn()
    return server, task


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


async def ask(session: Session) -> str:
    channel = await session.channel()
    return str(await channel.call("ask"))


def test_the_result_is_returned_after_the_server_has_closed_the_channels() -> None:
    """Only then are the messages it took back in their queue."""

    async def scene() -> None:
        server, task = await begin(ask)
        server.channels[0].asked[0]("seven")
        await turn()
        assert (server.channels[0].is_open, task.done()) == (False, False)
        server.channels[0].ends()
        assert await task == "seven"

    play(scene)


def test_losing_the_connection_while_channels_close_does_not_leave_the_caller_waiting() -> None:
    async def open_only(session: Session) -> str:
        await session.channel()
        return "done"

    async def scene() -> None:
        server, task = await begin(open_only)
        server.channels[0].ends(LOST)
        assert await task == "done"

    play(scene)


def test_a_late_reply_is_not_taken_for_the_reply_to_the_next_call() -> None:
    async def ask_twice(session: Session) -> str:
        try:
            return await ask(session)
        except ChannelRefusedError:
            return await ask(session)

    async def scene() -> None:
        server, task = await begin(ask_twice)
        first = server.channels[0]
        first.ends(REFUSED)
        await turn()
        second = server.channels[1]
        second.opens()
        await turn()
        first.asked[0]("late")
        second.asked[0]("right")
        await turn()
        second.ends()
        assert await task == "right"

    play(scene)


def test_cancelled_work_leaves_no_channel() -> None:
    async def scene() -> None:
        server, task = await begin(ask)
        task.cancel()
        await turn()
        assert server.channels[0].is_closing
        server.channels[0].asked[0]("late")
        server.channels[0].ends()
        await asyncio.wait({task})
        assert task.cancelled()

    play(scene)


def test_work_cancelled_while_its_channel_opens_leaves_no_channel() -> None:
    async def scene() -> None:
        server = Server()
        session = Session(server, (4, 0))
        task = asyncio.create_task(session.channel())
        await turn()
        task.cancel()
        await turn()
        closing = asyncio.create_task(session.close())
        await turn()
        server.channels[0].opens()
        assert server.channels[0].is_closing
        server.channels[0].ends()
        await closing

    play(scene)


def test_an_exception_in_the_work_reaches_the_caller_and_leaves_no_channel() -> None:
    async def fail(session: Session) -> None:
        await session.channel()
        raise ZeroDivisionError

    async def scene() -> None:
        server, task = await begin(fail)
        assert server.channels[0].is_closing
        server.channels[0].ends()
        with pytest.raises(ZeroDivisionError):
            await task

    play(scene)


def test_a_lost_connection_ends_a_pending_call() -> None:
    async def scene() -> None:
        server, task = await begin(ask)
        server.channels[0].ends(LOST)
        with pytest.raises(RabbitMQUnreachableError, match="was lost"):
            await task

    play(scene)


def test_a_call_on_a_closed_channel_says_why_it_closed() -> None:
    async def ask_on(session: Session) -> None:
        channel = await session.channel()
        with pytest.raises(ChannelRefusedError):
            await channel.call("ask")
        with pytest.raises(ChannelRefusedError, match="NOT_FOUND"):
            await channel.call("ask")

    async def scene() -> None:
        server, task = await begin(ask_on)
        server.channels[0].ends(REFUSED)
        await task

    play(scene)


def test_closing_does_not_wait_forever_for_an_unresponsive_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 0.01)

    async def scene() -> None:
        server, task = await begin(ask)
        server.channels[0].asked[0]("seven")
        assert await asyncio.wait_for(task, 5) == "seven"

    play(scene)
