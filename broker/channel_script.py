"""A short sequence of AMQP calls on a channel of its own, written top to bottom.

pika's calls answer by callback, on the I/O thread. A script is a generator that yields such a call, still
lacking its ``callback``, and gets the server's answer back::

    def count(session):
        channel = yield from session.channel()
        ok = yield partial(channel.queue_declare, queue="mail", passive=True)
        return ok.method.message_count

When the server refuses a call it closes the channel; the script sees :class:`ChannelRefusedError` at that
``yield`` and may go on with a new channel. A lost connection ends the script with
``RabbitMQUnreachableError``, and so does its time limit. However it ends, its channels are closed, which puts
back what it had taken.

All of this runs on the I/O thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import pika.exceptions

from broker.errors import RabbitMQError, RabbitMQUnreachableError

T = TypeVar("T")
Call = Callable[..., Any]
Script = Generator[Call, Any, T]


class ChannelRefusedError(RabbitMQError):
    """The server closed the channel in answer to a call."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"RabbitMQ refused: {text} ({code}).")


class Session:
    """What a script works with: one open connection."""

    def __init__(self, connection: Any, server_version: tuple[int, ...], on_lost: Callable[[Any, Exception], None]):
        self.server_version = server_version
        self._connection = connection
        self._on_lost = on_lost
        self._channels: list[Any] = []

    def channel(self) -> Script[Any]:
        """Open a channel."""
        return (yield self._open)

    def _open(self, *, callback: Callable[[Any], None]) -> None:
        channel = self._connection.channel(on_open_callback=callback)
        channel.add_on_close_callback(self._on_lost)
        self._channels.append(channel)

    def forget(self, channel: Any) -> None:
        self._channels.remove(channel)

    def close(self) -> bool:
        """Close what is open; whether nothing is open any more."""
        for channel in self._channels:
            if channel.is_open:
                channel.close()
        return not self._channels


class Run(Generic[T]):
    """One script under way. Its future resolves when it has ended."""

    def __init__(
        self,
        script: Callable[[Session], Script[T]],
        connection: Any,
        server_version: tuple[int, ...],
        future: Future[T],
    ) -> None:
        self._session = Session(connection, server_version, self._on_channel_closed)
        self._script = script(self._session)
        self._future = future
        self._turn = 0  # counts answers, so that a late one cannot be taken for the next call's
        self._result: list[T] = []  # the script's result, while its channels are closing

    def begin(self) -> None:
        self._advance(lambda: self._script.send(None))

    def expire(self) -> None:
        """The time limit: end now, unless it has ended."""
        self._fail(
            RabbitMQUnreachableError("RabbitMQ did not answer in time. See its log, and whether it has an alarm.")
        )

    def _advance(self, resume: Callable[[], Call]) -> None:
        self._turn += 1
        try:
            call = resume()
            call(callback=self._answer_to(self._turn))
        except StopIteration as end:
            self._result.append(end.value)
            self._finish()
        except pika.exceptions.AMQPError as error:
            self._end(RabbitMQUnreachableError(f"The connection to RabbitMQ was lost: {error!r}. Try again."))
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever waits for the script has to know
            self._end(error)

    def _finish(self) -> None:
        """With the result, once the server has closed the channels: only then is back what the script had taken."""
        if self._session.close():
            self._future.set_result(self._result[0])

    def _answer_to(self, turn: int) -> Callable[..., None]:
        def answer(*values: Any) -> None:
            if turn == self._turn and not self._over:
                self._advance(lambda: self._script.send(values[0] if len(values) == 1 else values))

        return answer

    @property
    def _over(self) -> bool:
        return self._future.done() or bool(self._result)

    def _on_channel_closed(self, channel: Any, reason: Exception) -> None:
        self._session.forget(channel)
        if self._over:
            if not self._future.done():
                self._finish()
        elif isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            self._fail(ChannelRefusedError(reason.reply_code, reason.reply_text))
        elif not isinstance(reason, pika.exceptions.ChannelClosedByClient):
            self._fail(RabbitMQUnreachableError(f"The connection to RabbitMQ was lost: {reason}. Try again."))

    def _fail(self, error: RabbitMQError) -> None:
        if self._result and not self._future.done():
            self._future.set_exception(error)
        elif not self._over:
            self._advance(lambda: self._script.throw(error))

    def _end(self, error: Exception) -> None:
        self._session.close()
        self._future.set_exception(error)
