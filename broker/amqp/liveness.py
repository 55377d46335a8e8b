"""Leaves a node of RabbitMQ that is frozen, cut off, or split from the rest of its cluster.

TCP does not notice: the kernel of a frozen process acknowledges what nobody reads, and a lost network is silent. AMQP's
heartbeat does, but its interval is also the server's, which closes the connection of a client that is busy for that
long. So RabbitMQ is asked a question that any node answers at once, ``channel.flow``, on a channel of its own,
:data:`QUESTIONS` times in ``silence_seconds``. A node that is silent after all but the last of them is left: the
connection is abandoned. Anything that is received counts as an answer. A loop that was blocked by its program asks
late, and reads what has come meanwhile before it asks again, so it does not take its own silence for the node's.

A node that is split from its peers answers, and delivers nothing. Where queues are consumed, the question is therefore
a passive declaration of some of them: a node that cannot reach a queue's leader reports no consumers, although this
process is one, and no messages. The cluster takes seconds to elect another leader, so the node is left only after
:data:`SPLIT_SECONDS` of such answers. If other nodes answer the same, the queue has lost its quorum, and moving does
not help: each time the bound doubles, up to :data:`LONGEST_SPLIT_SECONDS`. (Source and tests: RabbitMQ 4.0 and 4.3.)

The answers also say how many messages wait in a queue, which ``waiting`` is told. All queues are asked about in turn,
and those for which it returns true again in the next round, :data:`ASKED_ABOUT` at a time.

During a memory or disk alarm RabbitMQ reads nothing from a connection that publishes. Then nothing is asked, and only
its heartbeats are missed. All of this belongs to the event loop.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from floodgate.broker.amqp.connection import Connection, ConnectionState
from floodgate.broker.errors import RabbitMQError
from floodgate.broker.process.event_loop import BorrowedLoop
from floodgate.broker.process.outages import Backoff

QUESTIONS: Final = 5
SPLIT_SECONDS: Final = 10.0
LONGEST_SPLIT_SECONDS: Final = 600.0
# A node that is split off takes itself for the leader of the queues that it led, a third of them if three nodes share
# them: one round in 243 meets only these.
ASKED_ABOUT: Final = 5


class LivenessCheck:
    """Watches a connection for as long as it exists.

    Args:
        silence_seconds: how long a node may be silent.
        consumed: returns the queues that are being consumed on the connection.
        waiting: is told of a queue how many messages wait in it, and returns whether to ask again in the next round.
    """

    def __init__(
        self,
        io: BorrowedLoop,
        connection: Connection,
        silence_seconds: float,
        consumed: Callable[[], Collection[str]] = tuple,
        waiting: Callable[[str, int], bool] = lambda _queue, _messages: False,
    ) -> None:
        self._io = io
        self._connection = connection
        self._silence_seconds = silence_seconds
        self._consumed = consumed
        self._waiting = waiting
        self._backoff = Backoff(SPLIT_SECONDS, LONGEST_SPLIT_SECONDS)
        self._timer: Any = None
        self._forget()
        connection.follow(self._on_up, self._on_down)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._channel: Any = None
        self._received_bytes = 0
        self._silent = 0  # looks in a row at which nothing had been received
        self._asking = False  # a question is unanswered
        self._turns: list[str] = []  # still to be asked about, before any is asked about again
        self._suspects: list[str] = []  # to be asked about in the next round, too
        self._queues: list[str] = []  # still to be asked about in this round
        self._reached_all = True  # so far in this round
        self._split_since: float | None = None
        self._split_seconds = SPLIT_SECONDS
        self._blocked = False

    def _on_up(self) -> None:
        self._forget()
        pika_connection = self._connection.pika_connection
        pika_connection.add_on_connection_blocked_callback(lambda *_: self._on_alarm(True))
        pika_connection.add_on_connection_unblocked_callback(lambda *_: self._on_alarm(False))
        self._connection.bound_unacknowledged(True)
        self._look_later()

    def _on_down(self, _error: RabbitMQError) -> None:
        self._forget()

    def _on_alarm(self, is_on: bool) -> None:
        self._blocked = is_on
        self._connection.bound_unacknowledged(not is_on)

    def _look_later(self) -> None:
        self._timer = self._io.call_later(self._silence_seconds / QUESTIONS, self._look)

    def _look(self) -> None:
        if self._connection.state is not ConnectionState.UP:
            return  # it is being closed
        self._look_later()
        received_bytes = self._connection.pika_connection.bytes_received
        self._silent = 0 if self._blocked or received_bytes != self._received_bytes else self._silent + 1
        self._received_bytes = received_bytes
        if self._silent >= QUESTIONS - 1:
            self._connection.leave(f"it has not answered for {self._silence_seconds:g} s")
        elif not self._asking and not self._blocked:
            self._begin_round()

    def _begin_round(self) -> None:
        if self._channel is None:
            self._open_channel()
            return
        self._queues = self._next_queues()
        self._reached_all = True
        self._ask()

    def _next_queues(self) -> list[str]:
        consumed = set(self._consumed())
        turns = [queue for queue in self._turns if queue in consumed]
        if len(turns) < ASKED_ABOUT:
            others = consumed.difference(turns)
            turns += random.sample(sorted(others), len(others))
        self._turns = turns[ASKED_ABOUT:]
        suspects, self._suspects = self._suspects, []
        return [*turns[:ASKED_ABOUT], *consumed.intersection(suspects).difference(turns[:ASKED_ABOUT])]

    def _open_channel(self) -> None:
        self._asking = True
        channel = self._connection.pika_connection.channel(on_open_callback=lambda _: self._on_answer())
        channel.add_on_close_callback(self._on_channel_closed)
        self._channel = channel

    def _ask(self) -> None:
        self._asking = self._channel is not None and bool(self._channel.is_open)
        if not self._asking:
            return  # the connection is being closed
        if self._queues:
            queue = self._queues.pop()
            self._channel.queue_declare(queue, passive=True, callback=lambda ok: self._on_declared(queue, ok))
        else:
            self._channel.flow(True, callback=lambda _: self._on_answer())

    def _on_answer(self) -> None:
        self._asking = False

    def _on_declared(self, queue: str, ok: Any) -> None:
        self._asking = False
        self._reached_all &= ok.method.consumer_count > 0 or ok.method.message_count > 0
        if self._waiting(queue, ok.method.message_count) and len(self._suspects) < ASKED_ABOUT:
            self._suspects.append(queue)
        if self._queues:
            self._ask()
        else:
            self._judge_round()

    def _judge_round(self) -> None:
        now = time.monotonic()
        if self._reached_all:
            self._split_since = None
            self._backoff.reset()
        elif self._split_since is None:
            self._split_since, self._split_seconds = now, self._backoff.next_seconds()
        elif now - self._split_since >= self._split_seconds:
            self._connection.leave("it cannot reach the leaders of its queues")

    def _on_channel_closed(self, channel: Any, _reason: Exception) -> None:
        """Open another for the next question: the queue asked about was deleted."""
        if channel is self._channel:
            self._channel, self._asking = None, False
