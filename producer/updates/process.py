"""The receiver's process.

Start order: settings → with webhooks, the HTTP server → RabbitMQ reached and topology declared → one task per bot,
which waits to become the active receiver. An error before that is one sentence and an exit code; afterwards only a
signal ends the process.

Stop order, on SIGTERM or SIGINT: updates being published are finished → the tokens are released → Telegram's webhook
requests are refused, so that Telegram repeats them to another receiver → connections → the last report. Bounded by
:data:`STOP_SECONDS`; a second signal exits at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from enum import StrEnum
from typing import Final

import uvicorn

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import SettingsError
from floodgate.broker.messages.update import types_left_out
from floodgate.broker.process.event_loop import new_event_loop
from floodgate.broker.process.forced_exit import stop_on_signals
from floodgate.broker.process.measurement import Measurement
from floodgate.broker.process.metrics import RECEIVER_ACTIVE, ProcessRole
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.reporter import Reporter
from floodgate.producer.http_protocol import server_config
from floodgate.producer.listening import listen, url_of
from floodgate.producer.updates.intake import Intake
from floodgate.producer.updates.leadership import Leadership, LeaderWork
from floodgate.producer.updates.polling import Poller
from floodgate.producer.updates.telegram import ReceivingApi
from floodgate.producer.updates.webhook import Posts, Registration

logger = logging.getLogger("floodgate.updates")

MOST_POSTS: Final = 2000  # connections at once, so that strangers cannot exhaust the memory
KEEP_ALIVE_SECONDS: Final = 75
LAST_POSTS_SECONDS: Final = 5  # for webhook requests under way at a stop
# The last webhook requests, the last batch, the release of the token and the connections each have a bound; this is
# their sum plus a margin.
STOP_SECONDS: Final = 25.0


class Mode(StrEnum):
    """How Telegram delivers updates."""

    POLLING = "polling"
    WEBHOOK = "webhook"


class Receiver:
    """One receiver in this process. Opens nothing before ``run``."""

    def __init__(self, settings: Settings, mode: Mode) -> None:
        if mode is Mode.WEBHOOK and settings.updates.webhook_url is None:
            raise SettingsError(
                "Set FLOODGATE_UPDATES__WEBHOOK_URL to the public address under which Telegram reaches this command, "
                "https://bots.example.org/tg; or use --mode polling, which needs none."
            )
        self._settings = settings
        self._mode = mode
        self._measurement = Measurement(settings, ProcessRole.UPDATES)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Ask ``run`` to end. Safe from any thread, twice, and before ``run``."""
        loop = self._loop
        if loop is None:
            self._stop.set()
            return
        with suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(self._stop.set)

    async def run(self, ready: Callable[[str], None] = lambda _line: None) -> None:
        """Receive until stopped. Calls ``ready`` with a line for the operator once the receiver has started.

        Raises:
            FloodgateError: the receiver could not start: a setting is wrong, or RabbitMQ is unavailable.
        """
        self._loop = asyncio.get_running_loop()
        metrics = self._measurement.metrics
        connections = Connections(self._settings, "updates", on_callers_loop=True, metrics=metrics)
        api = ReceivingApi(self._settings)
        intake = Intake(self._settings, connections, metrics)
        reporter = Reporter(self._settings, metrics)
        try:
            await self._measurement.start()
            reporter.start()
            async with self._posts_taken(intake) as where:
                await intake.declare()
                self._name_types_left_out()
                ready(f"receiver ready: {self._mode}{where}, bots {', '.join(sorted(self._settings.tokens))}")
                await self._lead_all(api, intake, connections)
        finally:
            await api.close()
            await connections.aclose()
            await reporter.stop()
            await self._measurement.stop()
        logger.info("stopped")

    def _name_types_left_out(self) -> None:
        if left_out := types_left_out(self._settings.updates.allowed_updates):
            logger.info(
                "not asking Telegram for updates of these types: %s (FLOODGATE_UPDATES__ALLOWED decides)",
                ", ".join(left_out),
            )

    async def _lead_all(self, api: ReceivingApi, intake: Intake, connections: Connections) -> None:
        """Run one task per bot until stopped, or until one crashes."""
        leads = [
            asyncio.create_task(self._lead(bot, api, intake, connections), name=f"receiver of {bot}")
            for bot in sorted(self._settings.tokens)
        ]
        stopping = asyncio.create_task(self._stop.wait(), name="stop of the receiver")
        try:
            await asyncio.wait({*leads, stopping}, return_when=asyncio.FIRST_COMPLETED)
            logger.info("stopping: finishing the updates that are being published")
        finally:
            for task in (*leads, stopping):
                task.cancel()
            await asyncio.wait({*leads, stopping})
        for lead in leads:
            if not lead.cancelled():
                lead.result()

    async def _lead(self, bot: str, api: ReceivingApi, intake: Intake, connections: Connections) -> None:
        leadership = Leadership(bot, intake, connections, self._settings.updates.lease_seconds)
        work = self._work(bot, api, intake, leadership.valid)
        metrics = self._measurement.metrics
        metrics.set(RECEIVER_ACTIVE, 0.0, bot)

        async def counted() -> None:
            metrics.set(RECEIVER_ACTIVE, 1.0, bot)
            try:
                await work()
            finally:
                metrics.set(RECEIVER_ACTIVE, 0.0, bot)

        await leadership.run(counted)

    def _work(self, bot: str, api: ReceivingApi, intake: Intake, valid: Callable[[], bool]) -> LeaderWork:
        match self._mode:
            case Mode.POLLING:
                return Poller(bot, api, intake, poll_seconds(self._settings), valid).run
            case Mode.WEBHOOK:
                return Registration(bot, api, self._settings, valid).run

    @asynccontextmanager
    async def _posts_taken(self, intake: Intake) -> AsyncIterator[str]:
        """Run the HTTP server if updates arrive by webhook; yields its address for the log line."""
        if self._mode is Mode.POLLING:
            yield ""
            return
        updates = self._settings.updates
        with closing(listen(updates.host, updates.port, "FLOODGATE_UPDATES__PORT")) as listener:
            server = PostServer(Posts(self._settings, intake))
            serving = asyncio.create_task(server.serve([listener]), name="webhook server")
            try:
                yield f" at {url_of(listener)}"
            finally:
                server.should_exit = True
                await serving


def poll_seconds(settings: Settings) -> int:
    """How long Telegram may hold a poll.

    A receiver that freezes or loses the network leaves its poll open at Telegram. RabbitMQ takes at least a heartbeat
    to notice, and the next receiver then waits for a lease. By then the poll must have ended, or there would be two.
    """
    updates = settings.updates
    return max(1, min(updates.poll_seconds, int(settings.heartbeat_seconds + updates.lease_seconds / 2)))


class PostServer(uvicorn.Server):
    """uvicorn's server, without its signal handlers."""

    def __init__(self, posts: Posts) -> None:
        super().__init__(
            server_config(
                posts,
                MOST_POSTS,
                lifespan="off",
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=LAST_POSTS_SECONDS,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signal handlers alone."""
        yield


def run_receiver(settings: Settings, mode: Mode, ready: Callable[[str], None]) -> None:
    """Receive until SIGTERM or SIGINT. Call it from the process's main thread.

    Raises:
        FloodgateError: the receiver could not start: a setting is wrong, or RabbitMQ is unavailable.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_receive(Receiver(settings, mode), ready))


async def _receive(receiver: Receiver, ready: Callable[[str], None]) -> None:
    stop_on_signals(receiver.stop, STOP_SECONDS)
    await receiver.run(ready)
