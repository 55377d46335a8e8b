"""The stream that a program writes to: one core, awaited or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from floodgate.broker.errors import ClosedError
from floodgate.broker.messages.job import Job
from floodgate.producer.ledger import seconds_of
from floodgate.producer.streaming.options import StreamRequest

T = TypeVar("T")


class Writer(Protocol):
    """Writes one stream: see :class:`~floodgate.producer.streaming.writer.StreamWriter`."""

    async def append(self, piece: str) -> None:
        """Add to the text."""
        ...

    async def finish(self, note: str = "") -> None:
        """Complete the text, with a note at its end."""
        ...

    async def messages(self, seconds: float) -> list[dict[str, Any]]:
        """Return Telegram's messages."""
        ...

    @property
    def final_jobs(self) -> tuple[Job, ...]:
        """The jobs that complete the text."""
        ...


class AsyncMessageStream:
    """A message that grows: what ``AsyncClient.stream`` returns. Use it with ``async with``, once.

    The chat shows the first words at once and then the newest text as often as the limits allow. Leaving the block
    completes the text and waits until RabbitMQ has the final text on disk, which is then sent whatever happens.
    """

    def __init__(self, request: StreamRequest, begin: Callable[[StreamRequest], Writer]) -> None:
        self._request = request
        self._begin = begin
        self._writer: Writer | None = None

    async def append(self, piece: str) -> None:
        """Add to the text. Never waits for Telegram.

        Raises:
            InvalidParamsError: the text is longer than 65,536 characters.
            ClosedError: the stream has not begun, or has ended.
        """
        await self._begun.append(piece)

    async def finish(self) -> tuple[Job, ...]:
        """Complete the text. Return the jobs of the final text, one for each message that they change, once RabbitMQ
        has them on disk. Safe to call twice.

        Raises:
            RabbitMQError: the final text was not accepted.
        """
        await self._begun.finish()
        return self._begun.final_jobs

    async def result(self, *, timeout: timedelta | float = 30) -> list[dict[str, Any]]:
        """Complete the text, wait until Telegram shows it, and return Telegram's messages: one, or several if the text
        is longer than a message.

        Raises:
            RabbitMQError: the final text was not accepted.
            DeadLetteredError: the final text will not be shown; says why.
            NotSettledError: it is not shown in time. It is safe.
            StateUnavailableError: the state store cannot answer.
        """
        await self._begun.finish()
        return await self._begun.messages(seconds_of(timeout))

    async def __aenter__(self) -> Self:
        if self._writer is not None:
            raise ClosedError("This stream was used already: begin another one.")
        self._writer = self._begin(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._begun.finish(self._request.on_error if error is not None else "")

    @property
    def _begun(self) -> Writer:
        if self._writer is None:
            raise ClosedError("The stream has not begun: use it in a `with` block.")
        return self._writer


class StreamLoop(Protocol):
    """The event loop on which a :class:`MessageStream` is written, from another thread."""

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float | None) -> T:
        """Run a coroutine on the loop and wait for its result."""
        ...


class MessageStream:
    """A message that grows: what ``Client.stream`` returns. Use it with ``with``, once. As
    :class:`AsyncMessageStream`; it is written on the client's own event loop, which keeps no program from ending."""

    def __init__(self, stream: AsyncMessageStream, loop: StreamLoop) -> None:
        self._stream = stream
        self._loop = loop

    def append(self, piece: str) -> None:
        """Add to the text. Never waits for Telegram.

        Raises:
            InvalidParamsError: the text is longer than 65,536 characters.
            ClosedError: the stream has not begun, or has ended.
        """
        self._loop.run(self._stream.append(piece), None)

    def finish(self) -> tuple[Job, ...]:
        """Complete the text, as :meth:`AsyncMessageStream.finish`.

        Raises:
            RabbitMQError: the final text was not accepted.
        """
        return self._loop.run(self._stream.finish(), None)

    def result(self, *, timeout: timedelta | float = 30) -> list[dict[str, Any]]:
        """Complete the text and return Telegram's messages, as :meth:`AsyncMessageStream.result`.

        Raises:
            RabbitMQError: the final text was not accepted.
            DeadLetteredError: the final text will not be shown; says why.
            NotSettledError: it is not shown in time. It is safe.
            StateUnavailableError: the state store cannot answer.
        """
        return self._loop.run(self._stream.result(timeout=timeout), None)

    def __enter__(self) -> Self:
        self._loop.run(self._stream.__aenter__(), None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._stream.__aexit__(kind, error, trace), None)
