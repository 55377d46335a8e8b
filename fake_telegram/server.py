"""The fake Telegram as something that starts and stops: in an event loop, in a thread, or as a process.

``FakeTelegram`` lives in the loop it was started in. ``FakeTelegramThread`` gives it a daemon thread and a loop of its
own, for programs and tests that are not async. ``run`` is the process: it prints its URL once it is ready and
ends with 0 on SIGTERM or SIGINT. All of them stop when stopped, twice or unstarted if need be, in a few seconds.
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
_BACKLOG: Final = 1024  # as many connections may wait to be accepted when a crowd of workers starts


class FakeTelegram:
    """A local Bot API. Configure it here or, while it runs, by its control API.

    Args:
        host: where to listen; the loopback address unless told otherwise, since nothing here asks for credentials.
        port: the port, 0 for any free one.
        limits: the flood limits; strict ones by default.
        latency_ms: lowest and highest time an answer takes.
        seed: of all chances.
        tokens: the only good tokens; none means that every well-formed token is.
        clock: a monotonic clock in seconds, and ``wall`` one since the epoch: hand-moved ones in tests.
        webhook_backoff: the waits between posts of an update to a webhook that fails.
        keep_arrivals: how many calls the record holds.
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
        """Where it listens, without a slash at the end. A token goes behind ``{url}/bot``."""
        if self._runner is None:
            raise RuntimeError("The fake Telegram has no URL before it was started: call start() first.")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port_bound(self._runner)}"

    async def start(self) -> None:
        """Listen. Does nothing when it listens already."""
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
        """Answer what waits, close all connections. Safe to call twice, or before ``start``."""
        runner, wire, self._runner, self._wire = self._runner, self._wire, None, None
        if wire is not None:
            wire.stop_waiting()
        await self._webhooks.stop()
        if runner is not None:
            await runner.cleanup()

    async def reset(self) -> None:
        """Forget all that happened and was set, save for the constructor's settings."""
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
    """A fake Telegram in a daemon thread. Takes the arguments of ``FakeTelegram``.

    ``control`` and ``url`` may be used from any thread; the server itself is touched by its own thread only.
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
        """Where it listens."""
        if not self._url:
            raise RuntimeError("The fake Telegram has no URL before it was started: call start() first.")
        return self._url

    @property
    def control(self) -> ControlClient:
        """A client of its control API."""
        return ControlClient(self.url)

    def start(self) -> None:
        """Return when it listens.

        Raises:
            OSError: the address cannot be listened on.
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
        """Return when it is gone. Safe to call twice, or before ``start``."""
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
    """A fake Telegram for the length of a ``with`` block. Takes the arguments of ``FakeTelegram``."""
    thread = FakeTelegramThread(**settings)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def run(*, ready: Callable[[str], None] = print, **settings: Any) -> int:
    """Serve until SIGTERM or SIGINT, from the main thread. Takes the arguments of ``FakeTelegram``.

    Args:
        ready: given one line that names the URL, once it listens.

    Returns:
        The exit code, 0.

    Raises:
        OSError: the address cannot be listened on.
    """
    asyncio.run(_serve_until_signalled(FakeTelegram(**settings), ready))
    return 0


async def _serve_until_signalled(fake: FakeTelegram, ready: Callable[[str], None]) -> None:
    kind = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, kind.set)
    await fake.start()
    gc.collect()
    gc.freeze()  # else each full collection looks through all modules: 14 ms in which arrivals are judged late
    try:
        ready(f"Fake Telegram is ready at {fake.url}")
        await kind.wait()
    finally:
        await fake.stop()
