"""The process of the web pages: uvicorn around the application.

On SIGTERM or SIGINT, streams of events end, no new connections are accepted, and requests being answered may finish
within :data:`DRAIN_SECONDS`. A second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from floodgate.broker.process.measurement import Measurement
from floodgate.broker.process.metrics import ProcessRole
from floodgate.broker.settings.model import Settings
from floodgate.producer.http_protocol import server_config
from floodgate.producer.listening import listen, url_of
from floodgate.web.access.guard import Access
from floodgate.web.app import Pages
from floodgate.web.request_counts import RequestCounts

logger = logging.getLogger("floodgate.web")

DRAIN_SECONDS: Final = 5
MOST_CONNECTIONS: Final = 500


class WebServer(uvicorn.Server):
    """uvicorn's server, which ends the streams of events when it is about to shut down."""

    def __init__(self, config: uvicorn.Config, pages: Pages, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._pages = pages
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until :meth:`handle_exit` is called."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve. From then on, a signal ends the process as documented, so only then it is ready."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown. uvicorn's own handler would raise the signal again at the end, and exit with its code."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._pages.begin_stop)


def run_web(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Calls ``ready`` with the URL once connections are accepted.

    Raises:
        SettingsError: no bot is configured, an address is in use or is not one of this machine's, or the pages can be
            reached from other machines and nobody is asked to log in.
    """
    measurement = Measurement(settings, ProcessRole.WEB)
    access = Access(settings.web, metrics=measurement.metrics)
    pages = Pages(settings, routes=access.routes, measurement=measurement)
    measurement.bind()
    listener = listen(settings.web.host, settings.web.port, "FLOODGATE_WEB__ADDRESS")
    app = RequestCounts(access.guard(pages.app), measurement.metrics)
    config = server_config(app, MOST_CONNECTIONS, lifespan="on", timeout_graceful_shutdown=DRAIN_SECONDS)
    try:
        WebServer(config, pages, lambda: ready(url_of(listener))).run([listener])
    finally:
        listener.close()
