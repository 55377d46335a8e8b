"""Measures a process while it runs: the lag of its event loop, and what its parts count.

``bind`` (or ``start``) takes the port, so that an address in use is one clear error before anything else begins.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from floodgate.broker.process.metrics import INFO, LOOP_LAG, Metrics, ProcessRole
from floodgate.broker.settings.listen_address import ListenAddress
from floodgate.broker.settings.model import Settings

if TYPE_CHECKING:
    from floodgate.broker.process.exposition import MetricsServer

logger = logging.getLogger("floodgate.metrics")

LOOK_SECONDS: Final = 0.25


class Measurement:
    """A process's metrics, its event loop's lag among them, served if ``FLOODGATE_METRICS_ADDRESS`` is set.

    Belongs to the event loop, ``bind`` excepted. ``stop`` takes at most a second; it is safe to call twice, and
    unstarted.
    """

    def __init__(self, settings: Settings, role: ProcessRole) -> None:
        self.metrics = Metrics(role, sorted(settings.tokens))
        self.metrics.set(INFO, 1.0, role, version("telegram-floodgate"))
        self._address = settings.metrics_address
        self._server: MetricsServer | None = None
        self._watching: asyncio.Task[None] | None = None

    def bind(self) -> None:
        """Take the port, if metrics are to be served and it is not taken yet.

        Raises:
            SettingsError: the address is in use, or is not one of this machine's.
        """
        if self._address is None or self._server is not None:
            return
        from floodgate.broker.process.exposition import MetricsServer, render

        self._server = MetricsServer(ListenAddress.parse(self._address), partial(render, self.metrics))
        self._server.bind()

    async def start(self) -> None:
        """Begin to measure and to serve. Raises as :meth:`bind` does."""
        self.bind()
        self._watching = asyncio.create_task(self._watch_loop(), name="floodgate-loop-lag")
        if self._server is not None:
            logger.info("metrics at %s", await self._server.start())

    async def stop(self) -> None:
        """Stop both."""
        watching, self._watching = self._watching, None
        server, self._server = self._server, None
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        if server is not None:
            await server.stop()

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.metrics.observe(LOOP_LAG, max(0.0, loop.time() - due))
