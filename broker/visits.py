"""A visit to a queue: its messages are taken in their order, and each is removed for good or stays where it is.

Overview. :func:`broker.browse.browse` looks and goes away. A visit keeps its channel, so that between two looks its
caller can do something about what it has seen, such as publish it elsewhere, and only then remove it. What was taken
and not removed goes back when the visit ends: to its place by ``close``; by a crash of the process or a lost connection
without its order, if it was more than a few. While one visits, what he has taken is hidden from others.

State and threads. One thread calls. The channel belongs to the I/O thread, where a script
(:mod:`broker.channel_script`) carries out one request after the other; ``_requests``, ``_listening`` and ``_current``
are touched there only.

Failure handling. A removal has been carried out when ``remove`` returns. One that a lost connection swallowed leaves
its message in the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from broker.browse import Getter, Seen
from broker.channel_script import ChannelRefusedError, Script, Session
from broker.connections import Connections
from broker.errors import RabbitMQUnreachableError

# RabbitMQ ends a channel that leaves a message unanswered for 30 minutes.
VISIT_SECONDS: Final = 25 * 60.0
REQUEST_SECONDS: Final = 60.0
_NOT_FOUND: Final = 404

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Request:
    """Something to do on the channel, and where its caller waits. ``act`` None ends the visit."""

    act: Callable[[Getter], Script[Any]] | None
    done: Future[Any]


class Visit:
    """See the module. Belongs to one thread; ``close`` is safe to call twice. After a fault it may take a while: what
    was held is given back in order."""

    def __init__(self, connections: Connections, queue: str) -> None:
        self._connections = connections
        self._queue = queue
        self._requests: deque[_Request] = deque()
        self._listening: Callable[[_Request], None] | None = None
        self._current: _Request | None = None
        self._closed = False
        self._run = connections.start(self._script, VISIT_SECONDS)
        self._run.add_done_callback(lambda _: self._abandon())

    def take(self, most: int) -> list[Seen]:
        """The next messages, in order; none at the end of the queue, and of a queue that is not there.

        Raises:
            RabbitMQUnreachableError: the connection is lost, or the visit took too long. Begin another.
        """

        try:
            return self._ask(lambda getter: getter.take(most))
        except ChannelRefusedError as refusal:
            if refusal.code != _NOT_FOUND:
                raise
            return []

    def pages(self, size: int, most: int) -> Iterator[list[Seen]]:
        """All messages up to ``most``, by the page."""
        while most > 0 and (page := self.take(min(size, most))):
            most -= len(page)
            yield page

    def remove(self, messages: Sequence[Seen]) -> None:
        """Take messages away for good; returns when they are.

        Raises:
            RabbitMQUnreachableError: the connection is lost; some may still be there.
        """
        self._ask(lambda getter: getter.remove(messages))

    def close(self) -> None:
        """Give back what was not removed; returns when it is back.

        Raises:
            RabbitMQUnreachableError: the connection is lost. What was not removed is back all the same.
        """
        if self._closed:
            return
        self._closed = True
        self._connections.call_soon(lambda: self._receive(_Request(None, Future())))
        try:
            self._run.result(VISIT_SECONDS)
        except ChannelRefusedError as refusal:
            if refusal.code != _NOT_FOUND:
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def _ask(self, act: Callable[[Getter], Script[T]]) -> T:
        request = _Request(act, Future())
        self._connections.call_soon(lambda: self._receive(request))
        try:
            result: T = request.done.result(REQUEST_SECONDS)
        except FutureTimeoutError:
            raise RabbitMQUnreachableError("RabbitMQ did not answer in time. See its log.") from None
        return result

    # On the I/O thread.

    def _script(self, session: Session) -> Script[None]:
        getter = Getter((yield from session.channel()), self._queue)
        while True:
            request: _Request = yield self._listen
            if request.act is None:
                yield from getter.give_back()
                return
            self._current = request
            result = yield from request.act(getter)
            self._current = None
            request.done.set_result(result)

    def _listen(self, *, callback: Callable[[_Request], None]) -> None:
        if self._requests:
            callback(self._requests.popleft())
        else:
            self._listening = callback

    def _receive(self, request: _Request) -> None:
        self._requests.append(request)
        if self._run.done():
            self._abandon()
        elif listening := self._listening:
            self._listening = None
            listening(self._requests.popleft())

    def _abandon(self) -> None:
        """The script has ended: whoever still waits is told why."""
        error = self._run.exception() or RabbitMQUnreachableError("The visit to the queue is over: begin another.")
        waiting = [*([self._current] if self._current else []), *self._requests]
        self._current = None
        self._requests.clear()
        for request in waiting:
            request.done.set_exception(error)
