"""Starts and stops the fake Telegram: on an event loop, on a thread, or as a process.

``FakeTelegram`` runs on the loop it was started on. ``FakeTelegramThread`` gives it a daemon thread and a loop of its
own, for programs and tests that are not async. ``run`` is for a process: it prints its URL once it is ready and
ends with 0 on SIGTERM or SIGINT. All of them stop within a few seconds, and may be stopped twice or unstarted.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web

from floodgate.fake_telegram.arrivals import CAPACITY, Arrivals
from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.control_api import ControlApi
from floodgate.fake_telegram.exchange import CallExchange
from floodgate.fake_telegram.limits import FloodControl, FloodLimits
from floodgate.fake_telegram.scenarios import Scenarios
from floodgate.fake_telegram.updates import Receiving
from floodgate.fake_telegram.webhooks import PostBackoff, Webhooks
from floodgate.fake_telegram.wire import Wire
from floodgate.fake_telegram.world import World

START_TIMEOUT_SECONDS: Final = 10.0
STOP_TIMEOUT_SECONDS: Final = 2.0
_BACKLOG: Final = 1024  # connections that may wait to be accepted when many workers start at once


class FakeTelegram:
    """A local Bot API server. Configure it here or, while it runs, through its control API.

    Args:
        host: Address to listen on; by default the loopback address, because the server asks for no credentials.
        port: Port to listen on; 0 takes a free one.
        limits: The flood limits; strict ones by default.
        latency_ms: Lowest and highest response time, in milliseconds.
        seed: Seed of all random choices.
        tokens: The only valid tokens; if empty, every well-formed token is valid.
        clock: A monotonic clock in seconds; tests can pass one that they move by hand.
        wall: A clock in seconds since the epoch; likewise.
        webhook_backoff: The waits between posts of an update to a failing webhook.
        keep_arrivals: Maximum number of calls that the record holds.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: FloodLimits | None = None,
        latency_ms: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        tokens: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        webhook_backoff: PostBackoff | None = None,
        keep_arrivals: int = CAPACITY,
    ) -> None:
        self._host = host
        self._port = port
        self._limits = limits or FloodLimits()
        self._latency_ms = latency_ms
        self._seed = seed
        self._tokens = tuple(tokens)
        self._clock = clock
        self._wall = wall
        self._keep_arrivals = keep_arrivals
        self.exchange = self._new_exchange()
        self._webhooks = Webhooks(wall, webhook_backoff or PostBackoff(), self._take_webhook_reply)
        self._runner: web.ServerRunner | None = None
        self._wire: Wire | None = None

    @property
    def url(self) -> str:
        """The server's root URL, without a trailing slash. A bot's base URL is ``{url}/bot<token>``."""
        if self._runner is None:
            raise RuntimeError("The fake Telegram has no URL before it was started: call start() first.")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port_bound(self._runner)}"

    async def start(self) -> None:
        """Start listening. Does nothing if the server is already listening.

        Raises:
            OSError: The address cannot be listened on.
        """
        if self._runner is not None:
            return
        self._wire = Wire(self.exchange, self._webhooks, ControlApi(self.exchange, self.reset))
        runner = web.ServerRunner(self._wire.server(), shutdown_timeout=STOP_TIMEOUT_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Answer waiting calls and close all connections. Safe to call twice, or before ``start``."""
        runner, wire, self._runner, self._wire = self._runner, self._wire, None, None
        if wire is not None:
            wire.stop_waiting()
        await self._webhooks.stop()
        if runner is not None:
            await runner.cleanup()

    async def reset(self) -> None:
        """Return to the state at start, with the constructor's settings."""
        for inbox in self.exchange.world.receiving.all():
            inbox.interrupt(None)
        await self._webhooks.stop()
        fresh = self._new_exchange()
        kept = self.exchange
        kept.world, kept.flood, kept.scenarios = fresh.world, fresh.flood, fresh.scenarios
        kept.arrivals = fresh.arrivals

    def _new_exchange(self) -> CallExchange:
        return CallExchange(
            World(self._wall, Receiving(self._clock), self._tokens),
            FloodControl(self._limits),
            Scenarios(self._seed, self._latency_ms),
            Arrivals(self._keep_arrivals),
            self._clock,
        )

    def _take_webhook_reply(self, bot_id: int, body: dict[str, Any]) -> None:
        self.exchange.take_webhook_reply(bot_id, body)

    def _port_bound(self, runner: web.ServerRunner) -> int:
        return int(runner.addresses[0][1])


class FakeTelegramThread:
    """A fake Telegram on a daemon thread. Takes the arguments of ``FakeTelegram``.

    ``control`` and ``url`` may be used from any thread; only its own thread uses the server itself.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kind: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The server's root URL, without a trailing slash."""
        if not self._url:
            raise RuntimeError("The fake Telegram has no URL before it was started: call start() first.")
        return self._url

    @property
    def control(self) -> ControlClient:
        """A client of its control API."""
        return ControlClient(self.url)

    def start(self) -> None:
        """Start the server; return once it listens.

        Raises:
            OSError: The address cannot be listened on.
            TimeoutError: It was not ready in time.
        """
        if self._thread is not None:
            return
        fake = FakeTelegram(**self._settings)
        self._ready.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._work, args=(fake,), name="fake-telegram", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_SECONDS):
            raise TimeoutError(f"The fake Telegram was not ready in {START_TIMEOUT_SECONDS:.0f} s.")
        if self._failure is not None:
            self._thread = None
            raise self._failure

    def stop(self) -> None:
        """Stop the server; return once it has stopped. Safe to call twice, or before ``start``."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._kind is not None and thread.is_alive():
            self._loop.call_soon_threadsafe(self._kind.set)
        thread.join(START_TIMEOUT_SECONDS)
        self._url = ""

    def _work(self, fake: FakeTelegram) -> None:
        try:
            asyncio.run(self._serve(fake))
        except OSError as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self, fake: FakeTelegram) -> None:
        self._loop, self._kind = asyncio.get_running_loop(), asyncio.Event()
        await fake.start()
        self._url = fake.url
        self._ready.set()
        await self._kind.wait()
        await fake.stop()


@contextmanager
def running_fake(**settings: Any) -> Iterator[FakeTelegramThread]:
    """Run a fake Telegram for the duration of a ``with`` block. Takes the arguments of ``FakeTelegram``."""
    thread = FakeTelegramThread(**settings)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def run(*, ready: Callable[[str], None] = print, **settings: Any) -> int:
    """Serve until SIGTERM or SIGINT, on the main thread. Takes the arguments of ``FakeTelegram``.

    Args:
        ready: Called with a line that contains the URL, once the server listens.
        settings: The arguments of ``FakeTelegram``.

    Returns:
        The exit code, 0.

    Raises:
        OSError: The address cannot be listened on.
    """
    asyncio.run(_serve_until_signalled(FakeTelegram(**settings), ready))
    return 0


async def _serve_until_signalled(fake: FakeTelegram, ready: Callable[[str], None]) -> None:
    kind = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, kind.set)
    await fake.start()
    gc.collect()
    gc.freeze()  # otherwise each full collection scans all modules and delays calls by 14 ms
    try:
        ready(f"Fake Telegram is ready at {fake.url}")
        await kind.wait()
    finally:
        await fake.stop()
