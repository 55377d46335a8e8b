"""One connection to the cluster, which reconnects by itself.

Overview: a connection is opened at first use and from then on kept open until it is closed. It tries the configured
addresses in turn, after a loss the next one first; the pause between rounds doubles up to
:data:`LONGEST_PAUSE_SECONDS` and is jittered, so that many clients do not reconnect at the same moment. Its users are
called ``up`` for each new connection and ``down`` for each lost one; messages and channels of a lost connection are
lost with it. A user that finds its node of no use abandons the connection (:meth:`Connection.leave`).

State: IDLE ─open()─▶ TRYING ─▶ UP ─lost─▶ TRYING …, and CLOSED from any state. All of it belongs to the event loop.

Failures: callers that wait for the connection (``opened``) get an error after one full round has failed, or immediately
if RabbitMQ refuses the login or is not RabbitMQ 4; the connection keeps trying for the users that do not wait. One
attempt is bounded by ``connect_timeout_seconds``, with name resolution and TLS. An outage is logged when it starts,
then every minute, and when it ends.

Writing: frames that are already bytes (publications, acks) are collected during one iteration of the loop and sent in
one system call at its end, which halves the cost of a confirmed publication. pika's own frames are sent immediately; a
method that must follow ours, such as closing a channel, is preceded by :meth:`Connection.flush`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import pika
import pika.exceptions
from pika.adapters.asyncio_connection import AsyncioConnection, _AsyncioIOServicesAdapter
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.frame import Method
from pika.spec import Basic

from floodgate.broker.amqp.addresses import Address, parameters
from floodgate.broker.errors import AccessRefusedError, RabbitMQError, RabbitMQUnreachableError, UnsupportedServerError
from floodgate.broker.process.event_loop import BorrowedLoop
from floodgate.broker.process.outages import Backoff, OutageLog

logger = logging.getLogger("floodgate.rabbitmq")

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 15.0
OLDEST_SERVER: Final = (4, 0)
CLOSE_SECONDS: Final = 5.0  # bound on RabbitMQ's answer to closing
# The socket option of Linux that bounds how long sent data may stay unacknowledged by the other side's kernel.
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
# Beyond this, collected frames are sent at once: larger blocks would be copied repeatedly when the socket accepts them
# in parts.
WRITE_BYTES: Final = 64 * 1024


class ConnectionState(Enum):
    """The state of a connection: see the module."""

    IDLE = auto()
    TRYING = auto()
    UP = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Options of a connection.

    ``name`` is shown by RabbitMQ. ``waited_for`` says that the caller waits for the first connection: if that fails the
    caller gets an exception, so it is not logged as well. ``unacknowledged_seconds`` bounds how long the node's kernel
    may leave sent data unacknowledged.
    """

    addresses: tuple[Address, ...]
    name: str
    heartbeat_seconds: int
    connect_timeout_seconds: float
    waited_for: bool
    unacknowledged_seconds: float = 10.0


class _AbandonedError(Exception):
    """The reason why we abandoned a connection."""


class _Services(_AsyncioIOServicesAdapter):  # type: ignore[misc]
    """pika's interface to the loop, with host names resolved on a thread that lives for one lookup.

    The loop's executor accepts no work while a program is exiting, which is when its last messages are published; and
    it would keep an idle thread.
    """

    def getaddrinfo(self, host: str, port: int, on_done: Callable[..., None], **options: int) -> Any:
        options["type"] = options.pop("socktype", 0)
        return self._schedule_and_wrap_in_io_ref(asyncio.wrap_future(_look_up(host, port, options)), on_done)


def _look_up(host: str, port: int, options: dict[str, int]) -> Future[Any]:
    found: Future[Any] = Future()

    def look_up() -> None:
        if not found.set_running_or_notify_cancel():
            return
        try:
            found.set_result(socket.getaddrinfo(host, port, **options))
        except (OSError, UnicodeError) as error:
            found.set_exception(error)

    try:
        threading.Thread(target=look_up, name="floodgate-names", daemon=True).start()
    except RuntimeError:  # Python 3.12 starts no thread while a program exits
        look_up()
    return found


class _Attempt(AsyncioConnection):  # type: ignore[misc]
    """pika's connection, with three additions.

    A publisher's acks go straight to ``on_ack[channel number]``: pika's dispatch doubles the cost of a confirm.

    It can be closed during its handshake, when pika 1.4 reports an exception class instead of an instance. And another
    thread may write to its socket (:meth:`Connection.write_at_once`) under ``write_lock``, while pika has nothing to
    send. The bytes that the socket did not accept, ``rest``, are sent before anything else.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.write_lock = threading.RLock()
        self.rest = b""
        self.on_ack: dict[int, Callable[[Any], None]] = {}
        super().__init__(*args, **options)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        with self.write_lock:
            rest, self.rest = self.rest, b""
            super()._output_marshaled_frames([rest, *marshaled_frames] if rest else marshaled_frames)

    def _process_frame(self, frame_value: Any) -> None:
        if self.on_ack and isinstance(frame_value, Method) and type(frame_value.method) is Basic.Ack:
            heard = self.on_ack.get(frame_value.channel_number)
            if heard is not None:
                self.frames_received += 1  # tells the heartbeat check that the server is alive
                heard(frame_value)
                return
        super()._process_frame(frame_value)

    def send_rest(self) -> None:
        """Have pika send ``rest``, unless the connection has been lost. On the event loop."""
        if self._transport is not None:
            self._output_marshaled_frames([])

    def _on_connection_workflow_done(self, result: Any) -> None:
        super()._on_connection_workflow_done(result() if isinstance(result, type) else result)


class Connection:
    """A connection that reconnects by itself. All methods must be called on the event loop."""

    def __init__(self, io: BorrowedLoop, options: ConnectionOptions) -> None:
        self.state = ConnectionState.IDLE
        self.pika_connection: Any = None  # set while UP
        self.server_version: tuple[int, ...] = ()
        self.ever_up = False
        self.reconnections = 0
        self.tries_others = False
        """Whether it was lost and some address has not been tried since, out of several."""
        self.last_error: RabbitMQError | None = None
        self._io = io
        self._options = options
        self._next_address = 0
        self._failed_in_round = 0
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._attempt: Any = None
        self._timer: Any = None
        self._waiters: list[asyncio.Future[None]] = []
        self._on_up: list[Callable[[], None]] = []
        self._on_down: list[Callable[[RabbitMQError], None]] = []
        self._closed_future: asyncio.Future[None] | None = None
        self._leaving = False
        self._frames: list[bytes] = []
        self._frames_size = 0
        self._outage = OutageLog()

    def follow(self, up: Callable[[], None], down: Callable[[RabbitMQError], None]) -> None:
        """Register callbacks: ``up`` for every new connection, ``down`` for every loss or failed round."""
        self._on_up.append(up)
        self._on_down.append(down)

    def open(self) -> None:
        """Start connecting, unless connected or connecting already."""
        if self.state is ConnectionState.IDLE:
            self.state = ConnectionState.TRYING
            self._try()

    async def opened(self) -> None:
        """Wait for the connection, for at most one round over the addresses.

        Raises:
            RabbitMQUnreachableError, AccessRefusedError, UnsupportedServerError: there is no usable server.
        """
        if self.state is ConnectionState.UP:
            return
        if self.state is ConnectionState.CLOSED:
            raise closed_here()
        waiter = self._io.loop.create_future()
        self._waiters.append(waiter)
        self.open()
        await waiter

    def write(self, frames: bytes) -> None:
        """Send frames at the end of this iteration of the loop. They are lost if the connection is."""
        if not self._frames:
            self._io.loop.call_soon(self.flush)
        self._frames.append(frames)
        self._frames_size += len(frames)
        if self._frames_size >= WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send the collected frames.

        pika would wait until the loop reports the socket as writable, which it nearly always is. pika handles whatever
        the socket does not accept, and every error.
        """
        if not self._frames or self.pika_connection is None:
            self._drop_frames()
            return
        frames = b"".join(self._frames)
        self._drop_frames()
        with self.pika_connection.write_lock:
            if (sock := self._idle_socket()) is not None:
                with contextlib.suppress(OSError):
                    frames = frames[sock.send(frames) :]
            if frames and self.pika_connection._transport is not None:
                self.pika_connection._output_marshaled_frames([frames])

    def write_at_once(self, frames: Callable[[], bytes]) -> bool:
        """Send the result of ``frames``, from any thread, if nothing else waits to be sent. Return whether it was sent.

        This saves a program that publishes one message at a time one of two iterations of the loop.
        """
        connection = self.pika_connection
        if connection is None or self._frames or not connection.write_lock.acquire(blocking=False):
            return False
        try:
            sock = self._idle_socket()
            if sock is None or connection is not self.pika_connection:
                return False
            whole = frames()
            sent = 0
            with contextlib.suppress(OSError):
                sent = sock.send(whole)
            if sent < len(whole):
                connection.rest = whole[sent:]
                self._io.call_soon(connection.send_rest)
            return True
        finally:
            connection.write_lock.release()

    def _idle_socket(self) -> socket.socket | None:
        """Return the socket if pika has nothing to send on it; None for TLS. Called under ``write_lock``."""
        connection = self.pika_connection
        transport = connection._transport if connection is not None else None
        if transport is None or connection.rest or transport.get_write_buffer_size():
            return None
        sock: socket.socket | None = transport._sock
        return None if isinstance(sock, ssl.SSLSocket) else sock

    def _drop_frames(self) -> None:
        self._frames.clear()
        self._frames_size = 0

    @property
    def has_others(self) -> bool:
        """Whether there is another address to go to."""
        return len(self._options.addresses) > 1

    def leave(self, why: str) -> None:
        """Abandon the connection, because its node is of no use, and try the next address. The closing handshake is
        left out, since the node would not answer."""
        if self.state is ConnectionState.UP and not self._leaving:
            self._leaving = True
            self.pika_connection._terminate_stream(_AbandonedError(why))

    def bound_unacknowledged(self, bounded: bool) -> None:
        """Set or lift the bound on unacknowledged data. During an alarm RabbitMQ does not read what we have sent, and
        that is no reason to lose the connection."""
        transport = self.pika_connection._transport if self.pika_connection is not None else None
        if transport is not None and _USER_TIMEOUT is not None:
            milliseconds = int(self._options.unacknowledged_seconds * 1000) if bounded else 0
            with contextlib.suppress(OSError):
                transport._sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, milliseconds)

    async def close(self) -> None:
        """Close the connection for good. Takes at most :data:`CLOSE_SECONDS`; safe to call twice."""
        was, self.state = self.state, ConnectionState.CLOSED
        self._forget_timer()
        self._fail_waiters(closed_here())
        if was is ConnectionState.UP:
            self.flush()
            self._closed_future = self._io.loop.create_future()
            closing = self.pika_connection
            closing.close()
            _, late = await asyncio.wait({self._closed_future}, timeout=CLOSE_SECONDS)
            if late:
                closing._terminate_stream(_AbandonedError("it did not answer to closing"))
        elif self._attempt is not None:
            self._attempt.close()

    def abandon(self) -> None:
        """Close this process's copy of the socket in a forked child, silently: the connection is the parent's."""
        for connection in (self.pika_connection, self._attempt):
            transport = getattr(connection, "_transport", None)
            sock = getattr(transport, "_sock", None)
            if sock is not None:
                sock.close()  # pika's own close would shut the connection down for the parent, too

    def _try(self) -> None:
        address = self._options.addresses[self._next_address]
        self._timer = self._io.call_later(self._options.connect_timeout_seconds, self._give_up_attempt)
        self._attempt = _Attempt(
            parameters(
                address,
                heartbeat_seconds=self._options.heartbeat_seconds,
                timeout_seconds=self._options.connect_timeout_seconds,
                name=self._options.name,
            ),
            on_open_callback=self._opened,
            on_open_error_callback=self._not_opened,
            on_close_callback=self._closed,
            custom_ioloop=_Services(self._io.loop),
        )

    def _give_up_attempt(self) -> None:
        self._timer = None
        self._attempt.close()

    def _opened(self, connection: Any) -> None:
        self._forget_timer()
        product, version = server_of(connection.server_properties)
        if product != "RabbitMQ" or version_tuple(version) < OLDEST_SERVER:
            self._attempt = None
            connection.close()
            self._attempt_failed(UnsupportedServerError(product, version))
            return
        if self.state is ConnectionState.CLOSED:
            connection.close()
            return
        self._attempt, self.pika_connection = None, connection
        self.server_version = version_tuple(version)
        self.reconnections += self.ever_up
        self.state, self.ever_up = ConnectionState.UP, True
        self._leaving = self.tries_others = False
        self._backoff.reset()
        self._failed_in_round = 0
        self._say_recovered()
        for up in self._on_up:
            up()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _not_opened(self, connection: Any, error: BaseException) -> None:
        if connection is not self._attempt:
            return
        self._attempt = None
        self._forget_timer()
        if self.state is not ConnectionState.CLOSED:
            address = self._options.addresses[self._next_address]
            self._attempt_failed(connect_error(address, error, self._options.connect_timeout_seconds))

    def _attempt_failed(self, error: RabbitMQError) -> None:
        self.last_error = error
        self._go_on_to_next_address()
        self._failed_in_round += 1
        refused = not isinstance(error, RabbitMQUnreachableError)
        if not refused and self._failed_in_round < len(self._options.addresses):
            self._try()
            return
        self._failed_in_round = 0
        self.tries_others = False
        self._complain(error)
        self._fail_waiters(error)
        for down in self._on_down:
            down(error)
        self._try_later()

    def _closed(self, connection: Any, reason: Exception) -> None:
        if connection is not self.pika_connection:
            return  # an unsupported server, closed by us
        self.pika_connection = None
        self._drop_frames()
        if self.state is ConnectionState.CLOSED:
            if self._closed_future is not None and not self._closed_future.done():
                self._closed_future.set_result(None)
            return
        self.state = ConnectionState.TRYING
        self.tries_others = self.has_others
        address = self._options.addresses[self._next_address]
        error = RabbitMQUnreachableError(f"The connection to RabbitMQ at {address} was lost: {reason_of(reason)}.")
        self.last_error = error
        self._go_on_to_next_address()
        self._complain(error)
        for down in self._on_down:
            down(error)
        self._try_later()

    def _go_on_to_next_address(self) -> None:
        self._next_address = (self._next_address + 1) % len(self._options.addresses)

    def _try_later(self) -> None:
        # Full jitter: clients that lost the same server reconnect at different moments.
        self._timer = self._io.call_later(random.uniform(0, self._backoff.next_seconds()), self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self._try()

    def _fail_waiters(self, error: RabbitMQError) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _complain(self, error: RabbitMQError) -> None:
        if self._outage.is_due() and (self.ever_up or not self._options.waited_for):
            logger.warning("%s Trying again (%s).", error, self._options.name)

    def _say_recovered(self) -> None:
        if (away_seconds := self._outage.end()) is not None:
            logger.info("RabbitMQ is back after %.1f s (%s)", away_seconds, self._options.name)


def closed_here() -> RabbitMQUnreachableError:
    """The error of a connection that this program has closed."""
    return RabbitMQUnreachableError("The connection to RabbitMQ was closed by this program.")


def quiet_pika() -> None:
    """Silence pika, which logs each lost connection several times with stack traces; Floodgate logs it in one sentence.

    A program that has set a level on the ``pika`` logger keeps it.
    """
    pika_logger = logging.getLogger("pika")
    if pika_logger.level == logging.NOTSET:
        pika_logger.setLevel(logging.CRITICAL)


def server_of(properties: Any) -> tuple[str, str]:
    """Return product and version from the properties that a server sends."""

    def text(key: str) -> str:
        value = (properties or {}).get(key, "unknown")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    return text("product"), text("version")


def version_tuple(version: str) -> tuple[int, ...]:
    """Parse "4.0.5" or "4.0.5-rc.1" as ``(4, 0, 5)``. Empty, older than any version, if it cannot be parsed."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def connect_error(address: Address, error: BaseException, timeout_seconds: float) -> RabbitMQError:
    """Return the error for a failed attempt, with its cause and remedy."""
    cause = root_cause(error)
    if isinstance(cause, pika.exceptions.ProbableAuthenticationError):
        return AccessRefusedError(
            f"RabbitMQ at {address} refused user {address.user!r}: wrong user or password, or no access from here. "
            "Correct FLOODGATE_RABBITMQ_URL (special characters are percent-encoded)."
        )
    if isinstance(cause, pika.exceptions.ProbableAccessDeniedError):
        return AccessRefusedError(
            f"RabbitMQ at {address} has no vhost {address.vhost!r} for user {address.user!r}: it does not exist, is "
            "down, or the user has no permission. Create it (rabbitmqctl add_vhost) or correct FLOODGATE_RABBITMQ_URL."
        )
    return RabbitMQUnreachableError(
        f"RabbitMQ at {address} cannot be reached: {reason_of(cause, timeout_seconds)}. "
        "Start it (`scripts/rabbitmq start` starts a private one), or correct FLOODGATE_RABBITMQ_URL."
    )


def root_cause(error: BaseException) -> BaseException:
    """Return the innermost exception of pika's wrappers, which store their cause in one of three places."""
    while True:
        places = (*getattr(error, "exceptions", ()), getattr(error, "exception", None), *error.args)
        inner = [each for each in places if isinstance(each, BaseException)]
        if not inner:
            return error
        error = inner[-1]


def reason_of(error: BaseException, timeout_seconds: float = 0.0) -> str:
    """Describe a connection error in a few words."""
    if isinstance(error, pika.exceptions.ConnectionClosed):
        return str(error.reply_text)
    if isinstance(error, pika.exceptions.AMQPHeartbeatTimeout):
        return "no heartbeat came"
    if isinstance(error, TimeoutError | pika.exceptions.ConnectionOpenAborted | AMQPConnectorException):
        return f"no answer within {timeout_seconds:g} s" if timeout_seconds else "no answer in time"
    if isinstance(error, pika.exceptions.IncompatibleProtocolError):
        return "the server there closed the connection at once: it is stopping, or does not speak AMQP 0-9-1"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
