"""Sessions: a short task over AMQP, on its own channels, written as a coroutine.

    async def count(session: Session) -> int:
        channel = await session.channel()
        ok = await channel.call("queue_declare", queue="mail", passive=True)
        return ok.method.message_count

When the server refuses a call it closes the channel; the coroutine gets :class:`ChannelRefusedError` at that ``await``
and may continue on a new channel. A lost connection raises ``ConnectionLostError``. In every case its channels
are closed at the end, which returns the messages that it had taken.

All of this runs on the event loop only.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

import pika.exceptions

from floodgate.broker.errors import RabbitMQError, RabbitMQUnreachableError

T = TypeVar("T")

CLOSE_SECONDS: Final = 5.0


class ChannelRefusedError(RabbitMQError):
    """The server refused a call and closed the channel."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"RabbitMQ refused: {text} ({code}).")


class MissingQueueError(ChannelRefusedError):
    """The queue or exchange of a call does not exist."""


class ConnectionLostError(RabbitMQUnreachableError):
    """The connection was lost during a task."""


class Channel:
    """A channel whose calls are awaited, one at a time. Created by :meth:`Session.channel`."""

    def __init__(self, connection: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Any] | None = None
        self._ended: RabbitMQError | None = None
        self._closed = self._loop.create_future()
        self.raw: Any = connection.channel(on_open_callback=lambda _: self._resolve(None))
        """pika's channel, for calls without an answer, such as an ack."""
        self.raw.add_on_close_callback(self._on_closed)

    async def call(self, method: str, **arguments: Any) -> Any:
        """Make a call of pika's channel and return the server's answer.

        Raises:
            ChannelRefusedError: the server refused the call. The channel is closed.
            RabbitMQUnreachableError: the connection was lost.
        """
        answer = self.expect()
        try:
            getattr(self.raw, method)(callback=self._resolve, **arguments)
        except pika.exceptions.AMQPError as error:
            raise _lost(error) from None
        return await answer

    def expect(self) -> asyncio.Future[Any]:
        """Return a future for the next answer. Call :meth:`resolve` if pika has no ``callback`` for the call.

        Raises:
            RabbitMQError: the channel has ended.
        """
        if self._ended is not None:
            raise self._ended
        self._answer = self._loop.create_future()
        return self._answer

    def _resolve(self, answer: Any) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    resolve = _resolve

    async def close(self) -> None:
        """Close the channel. Returns once the server has closed it and taken back the messages held on it.

        Takes at most :data:`CLOSE_SECONDS`; safe to call twice.
        """
        if not (self.raw.is_closing or self.raw.is_closed):  # also while it is opening
            self.raw.close()
        if not self._closed.done():
            await asyncio.wait({self._closed}, timeout=CLOSE_SECONDS)

    def _on_closed(self, _channel: Any, reason: Exception) -> None:
        if isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            refused = MissingQueueError if reason.reply_code == 404 else ChannelRefusedError
            self._ended = refused(reason.reply_code, reason.reply_text)
        else:
            self._ended = _lost(reason)
        if not self._closed.done():
            self._closed.set_result(None)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._ended)


class Session:
    """A task's access to one open connection."""

    def __init__(self, connection: Any, server_version: tuple[int, ...]) -> None:
        self.server_version = server_version
        self._connection = connection
        self._channels: list[Channel] = []

    async def channel(self) -> Channel:
        """Open a channel.

        Raises:
            RabbitMQUnreachableError: the connection is lost.
        """
        try:
            channel = Channel(self._connection)
        except pika.exceptions.AMQPError as error:
            raise _lost(error) from None
        self._channels.append(channel)
        await channel.expect()
        return channel

    async def close(self) -> None:
        """Close the open channels. Takes at most :data:`CLOSE_SECONDS`; safe to call twice."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


def _lost(error: Exception) -> ConnectionLostError:
    return ConnectionLostError(f"The connection to RabbitMQ was lost: {error}. Try again.")
