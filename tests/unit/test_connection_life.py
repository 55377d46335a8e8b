"""The life of a connection, with attempts that succeed or fail by hand and timers that are fired by hand."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pika.exceptions
import pytest

from floodgate.broker.amqp.addresses import parse_address
from floodgate.broker.amqp.connection import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    WRITE_BYTES,
    Connection,
    ConnectionOptions,
    _Attempt,
)
from floodgate.broker.errors import AccessRefusedError, RabbitMQUnreachableError, UnsupportedServerError
from floodgate.broker.process.outages import EVERY_SECONDS
from tests.hand_timers import HandTimers

CONNECT_SECONDS = 7.0
REFUSED = ConnectionRefusedError(111, "Connection refused")
WRONG_PASSWORD = pika.exceptions.ProbableAuthenticationError("…")
LOST = pika.exceptions.StreamLostError("gone")


class Timers(HandTimers):
    """Replaces the event loop."""

    def call_soon(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call)

    def fire(self) -> float:
        """Fires the only timer; returns its delay."""
        [timer] = self.planned
        self.planned.remove(timer)
        timer.call()
        return timer.seconds


class Attempt:
    """Replaces pika's connection."""

    def __init__(self, parameters: Any, **callbacks: Any) -> None:
        self.host = parameters.host
        self.server_properties: dict[str, Any] = {}
        self.closed = 0
        self.terminated: list[Exception] = []
        self._on_open = callbacks["on_open_callback"]
        self._on_error = callbacks["on_open_error_callback"]
        self._on_close = callbacks["on_close_callback"]

    def opens(self, product: str = "RabbitMQ", version: str = "4.0.5") -> None:
        self.server_properties = {"product": product, "version": version}
        self._on_open(self)

    def fails(self, error: BaseException = REFUSED) -> None:
        self._on_error(self, error)

    def is_lost(self) -> None:
        self._on_close(self, LOST)

    def close(self) -> None:
        self.closed += 1

    def _terminate_stream(self, error: Exception) -> None:
        """pika reports the loss later, from the loop."""
        self.terminated.append(error)


@dataclass
class Scene:
    connection: Connection
    timers: Timers
    attempts: list[Attempt]
    waiters: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def attempt(self) -> Attempt:
        return self.attempts[-1]

    def wait(self) -> None:
        """Adds a waiter for the connection."""
        self.waiters.append(self.timers.loop.create_task(self.connection.opened()))
        self.timers.turn()

    @property
    def told(self) -> list[BaseException | None]:
        """The results of the waiters, None for "open"."""
        self.timers.turn()
        return [waiter.exception() for waiter in self.waiters if waiter.done()]

    def close(self) -> asyncio.Task[None]:
        closing = self.timers.loop.create_task(self.connection.close())
        self.timers.turn()
        return closing


Make = Callable[..., Scene]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop) -> Make:
    attempts: list[Attempt] = []

    def attempt(parameters: Any, **callbacks: Any) -> Attempt:
        attempts.append(Attempt(parameters, **callbacks))
        return attempts[-1]

    monkeypatch.setattr("floodgate.broker.amqp.connection._Attempt", attempt)
    monkeypatch.setattr("random.uniform", lambda low, high: high if low == 0 else -1)

    def scene(*hosts: str, waited_for: bool = True) -> Scene:
        addresses = tuple(parse_address(f"amqp://{host}/") for host in hosts or ("one",))
        timers = Timers(loop)
        options = ConnectionOptions(addresses, "test", 30, CONNECT_SECONDS, waited_for)
        return Scene(Connection(timers, options), timers, attempts)  # type: ignore[arg-type]

    return scene


def test_pauses_double_up_to_the_longest_and_reset_after_a_success(make: Make) -> None:
    scene = make()
    scene.connection.open()
    pauses = []
    for _ in range(9):
        scene.attempt.fails()
        pauses.append(scene.timers.fire())
    assert pauses[:4] == [FIRST_PAUSE_SECONDS * 2**n for n in range(4)]
    assert pauses[-2:] == [LONGEST_PAUSE_SECONDS] * 2
    scene.attempt.opens()
    scene.attempt.is_lost()
    assert scene.timers.fire() == FIRST_PAUSE_SECONDS


def test_a_pause_is_random_between_zero_and_its_maximum(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that lost one server at the same time reconnect at different times."""
    drawn: list[tuple[float, float]] = []
    monkeypatch.setattr("random.uniform", lambda low, high: drawn.append((low, high)) or 0.0123)  # type: ignore[func-returns-value]
    scene = make()
    scene.connection.open()
    scene.attempt.fails()
    assert (scene.timers.fire(), drawn) == (0.0123, [(0, FIRST_PAUSE_SECONDS)])


def test_addresses_are_tried_in_turn_and_a_waiter_gets_an_error_after_the_round(make: Make) -> None:
    scene = make("one", "two")
    scene.wait()
    scene.attempt.fails()
    assert scene.told == []
    scene.attempt.fails()
    assert [type(error) for error in scene.told] == [RabbitMQUnreachableError]
    scene.timers.fire()
    assert [attempt.host for attempt in scene.attempts] == ["one", "two", "one"]


def test_the_next_address_is_tried_first_after_a_loss(make: Make) -> None:
    scene = make("one", "two", "three")
    scene.connection.open()
    tried = []
    for _ in range(4):
        tried.append(scene.attempt.host)
        scene.attempt.opens()
        assert not scene.connection.tries_others
        scene.attempt.is_lost()
        assert scene.connection.tries_others
        scene.timers.fire()
    assert tried == ["one", "two", "three", "one"]
    for _ in range(3):
        scene.attempt.fails()
    assert not scene.connection.tries_others


def test_a_connection_is_left_once_and_without_a_closing_handshake(make: Make) -> None:
    scene, heard = make("one", "two"), []
    scene.connection.follow(lambda: heard.append("up"), lambda error: heard.append(str(error)))
    scene.connection.leave("not open yet")
    scene.connection.open()
    scene.attempt.opens()
    scene.connection.leave("it is of no use")
    scene.connection.leave("it is of no use")
    assert [str(why) for why in scene.attempt.terminated] == ["it is of no use"]
    assert scene.attempt.closed == 0


def test_a_node_that_does_not_answer_to_closing_is_left(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodgate.broker.amqp.connection.CLOSE_SECONDS", 0.0)
    scene = make()
    scene.connection.open()
    scene.attempt.opens()
    scene.timers.loop.run_until_complete(scene.connection.close())
    assert (scene.attempt.closed, len(scene.attempt.terminated)) == (1, 1)


def test_a_refusal_is_reported_at_once_even_if_other_addresses_are_left(make: Make) -> None:
    scene = make("one", "two")
    scene.wait()
    scene.attempt.fails(WRONG_PASSWORD)
    assert [type(error) for error in scene.told] == [AccessRefusedError]


@pytest.mark.parametrize(("product", "version"), [("RabbitMQ", "3.13.7"), ("LavinMQ", "4.1.0")])
def test_a_server_other_than_rabbitmq_4_is_refused(make: Make, product: str, version: str) -> None:
    scene = make()
    scene.wait()
    scene.attempt.opens(product, version)
    assert [type(error) for error in scene.told] == [UnsupportedServerError]
    assert scene.attempt.closed == 1
    assert scene.connection.pika_connection is None


def test_an_attempt_that_takes_too_long_is_abandoned(make: Make) -> None:
    scene = make()
    scene.connection.open()
    assert scene.timers.fire() == CONNECT_SECONDS
    assert scene.attempt.closed == 1


def test_followers_are_notified_of_each_connection_and_each_loss(make: Make) -> None:
    scene, heard = make(), []
    scene.connection.follow(lambda: heard.append("up"), lambda error: heard.append(type(error).__name__))
    scene.connection.open()
    scene.attempt.opens()
    scene.attempt.is_lost()
    scene.timers.fire()
    scene.attempt.opens()
    assert heard == ["up", "RabbitMQUnreachableError", "up"]


def test_an_outage_is_logged_when_it_begins_sometimes_during_it_and_when_it_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("floodgate.broker.process.outages.time.monotonic", lambda: clock[0])
    scene = make(waited_for=False)
    scene.connection.open()
    with caplog.at_level(logging.INFO, "floodgate.rabbitmq"):
        for _ in range(5):
            scene.attempt.fails()
            scene.timers.fire()
            clock[0] += EVERY_SECONDS / 3
        assert caplog.text.count("Trying again") == 2
        scene.attempt.opens()
    assert "back after 100.0 s" in caplog.text


def test_a_connection_closed_while_pausing_or_connecting_stops_trying(make: Make) -> None:
    pausing = make()
    pausing.connection.open()
    pausing.attempt.fails()
    pausing.close()
    assert pausing.timers.planned == []

    connecting = make()
    connecting.wait()
    closing = connecting.close()
    assert (connecting.attempt.closed, connecting.timers.planned, closing.done()) == (1, [], True)
    assert "closed by this program" in str(connecting.told[0])
    connecting.attempt.opens()  # it could no longer be stopped
    assert connecting.attempt.closed == 2
    assert connecting.connection.pika_connection is None


def test_closing_ends_when_the_server_has_confirmed_it(make: Make) -> None:
    scene = make()
    scene.connection.open()
    scene.attempt.opens()
    closing = scene.close()
    assert (scene.attempt.closed, closing.done()) == (1, False)
    scene.attempt.is_lost()
    scene.timers.turn()
    assert (closing.done(), scene.timers.planned) == (True, [])


def test_a_closed_connection_is_not_waited_for(make: Make) -> None:
    scene = make()
    scene.close()
    scene.close()
    scene.wait()
    assert "closed by this program" in str(scene.told[0])
    assert scene.attempts == []


def test_an_open_connection_is_not_waited_for(make: Make) -> None:
    scene = make()
    scene.wait()
    scene.attempt.opens()
    scene.wait()
    assert (scene.told, len(scene.attempts)) == ([None, None], 1)


def test_a_cancelled_waiter_does_not_affect_the_other_waiters(make: Make) -> None:
    scene = make()
    scene.wait()
    scene.wait()
    scene.waiters.pop(0).cancel()
    scene.timers.turn()
    scene.attempt.opens()
    assert scene.told == [None]


class Transport:
    """pika's transport, with a socket that accepts a few bytes at a time."""

    def __init__(self, takes: int, buffered: int) -> None:
        self._sock = self
        self._takes = takes
        self._buffered = buffered
        self.sent = b""
        self.pieces: list[bytes] = []
        self.left_to_pika: list[bytes] = []
        self._transport = self
        self.write_lock = threading.RLock()
        self.rest = b""

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def send_rest(self) -> None:
        """Replaces the connection's transport."""

    def send(self, data: bytes) -> int:
        if not self._takes:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.pieces.append(data)
        self.sent += data[: self._takes]
        return min(len(data), self._takes)

    def _output_marshaled_frames(self, frames: list[bytes]) -> None:
        self.left_to_pika += frames


@pytest.mark.parametrize(
    ("takes", "buffered", "sent", "left"),
    [
        (10, 0, b"frames", []),
        (4, 0, b"fram", [b"es"]),
        (0, 0, b"", [b"frames"]),
        (10, 1, b"", [b"frames"]),  # otherwise it would overtake data that pika has yet to write
    ],
    ids=["the socket takes all", "a part", "nothing", "pika has unwritten bytes"],
)
def test_data_the_socket_does_not_accept_is_left_to_pika(
    make: Make, takes: int, buffered: int, sent: bytes, left: list[bytes]
) -> None:
    scene, transport = make(), Transport(takes, buffered)
    scene.connection.pika_connection = transport
    scene.connection.write(b"fra")
    scene.connection.write(b"mes")
    scene.timers.turn()
    assert (transport.sent, transport.left_to_pika) == (sent, left)


def test_writes_of_one_loop_iteration_are_sent_together_at_its_end(make: Make) -> None:
    scene, transport = make(), Transport(100, 0)
    scene.connection.pika_connection = transport
    scene.connection.write(b"one ")
    scene.connection.write(b"two ")
    assert transport.pieces == []
    scene.timers.turn()
    scene.connection.write(b"three")
    scene.connection.flush()
    assert transport.pieces == [b"one two ", b"three"]
    scene.timers.turn()
    assert len(transport.pieces) == 2


def test_data_beyond_the_limit_is_sent_at_once(make: Make) -> None:
    scene, transport = make(), Transport(10 * WRITE_BYTES, 0)
    scene.connection.pika_connection = transport
    scene.connection.write(b"x" * (WRITE_BYTES - 1))
    assert transport.pieces == []
    scene.connection.write(b"x")
    assert len(transport.sent) == WRITE_BYTES


def test_data_written_to_a_lost_connection_is_not_sent_on_the_next(make: Make) -> None:
    scene = make()
    scene.connection.open()
    scene.attempt.opens()
    scene.connection.write(b"for the old one")
    scene.attempt.is_lost()
    scene.timers.fire()
    scene.connection.pika_connection = transport = Transport(100, 0)
    scene.timers.turn()
    assert transport.pieces == []


def test_encrypted_data_is_written_only_by_pika(make: Make) -> None:
    mine, servers = socket.socketpair()
    encrypted = ssl.create_default_context().wrap_socket(mine, server_hostname="one", do_handshake_on_connect=False)
    with servers, encrypted:
        scene, transport = make(), Transport(10, 0)
        transport._sock = encrypted  # type: ignore[assignment]
        scene.connection.pika_connection = transport
        scene.connection.write(b"frames")
        scene.connection.flush()
        assert transport.left_to_pika == [b"frames"]
        servers.setblocking(False)
        with pytest.raises(BlockingIOError):
            servers.recv(1)


def test_a_forked_child_closes_its_copy_of_the_socket_silently(make: Make) -> None:
    mine, parents = socket.socketpair()
    with parents:
        scene, transport = make(), Transport(10, 0)
        transport._sock = mine  # type: ignore[assignment]
        scene.connection.pika_connection = transport
        scene.connection.abandon()
        assert mine.fileno() == -1


@pytest.mark.parametrize(("takes", "sent", "rest"), [(10, b"frames", b""), (4, b"fram", b"es"), (0, b"", b"frames")])
def test_a_thread_writes_at_once_and_the_remainder_is_sent_before_anything_else(
    make: Make, takes: int, sent: bytes, rest: bytes
) -> None:
    scene, transport = make(), Transport(takes, 0)
    scene.connection.pika_connection = transport
    assert scene.connection.write_at_once(lambda: b"frames")
    assert (transport.sent, transport.rest) == (sent, rest)


def test_a_thread_does_not_write_while_pika_or_the_loop_has_something_to_send(make: Make) -> None:
    scene = make()
    assert not scene.connection.write_at_once(lambda: b"frames"), "there is no connection"
    scene.connection.pika_connection = busy = Transport(10, 1)
    assert not scene.connection.write_at_once(lambda: b"frames")
    scene.connection.pika_connection = idle = Transport(10, 0)
    scene.connection.write(b"of the loop")
    assert not scene.connection.write_at_once(lambda: b"frames")
    scene.connection.flush()
    idle.rest = b"half a frame"
    assert not scene.connection.write_at_once(lambda: b"frames")
    assert b"frames" not in busy.sent + idle.sent


def test_a_thread_does_not_write_while_another_is_writing(make: Make) -> None:
    scene, transport = make(), Transport(10, 0)
    scene.connection.pika_connection = transport
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transport.write_lock:
            locked.set()
            done.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    locked.wait(10)
    assert not scene.connection.write_at_once(lambda: b"frames")
    done.set()
    other.join()
    assert scene.connection.write_at_once(lambda: b"frames")


def test_unsent_data_is_written_before_pikas_own_frames() -> None:
    class Connection(_Attempt):
        def __init__(self) -> None:
            self.write_lock, self.rest = threading.RLock(), b"rest"
            self.bytes_sent = self.frames_sent = 0
            self.emitted: list[bytes] = []

        def _adapter_emit_data(self, data: bytes) -> None:
            self.emitted.append(data)

    connection = Connection()
    connection._transport = None  # the connection is lost: there is no peer to send to
    connection.send_rest()
    assert connection.emitted == []
    connection._transport = object()
    connection._output_marshaled_frames([b"heartbeat"])
    connection._output_marshaled_frames([b"another"])
    assert connection.emitted == [b"rest", b"heartbeat", b"another"]
