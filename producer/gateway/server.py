"""The gateway's process: uvicorn around the application, with a shutdown that answers every caller.

On SIGTERM or SIGINT, /ready answers 503 and no new connections are accepted. Waiting callers may still get their
results for ``drain_seconds``; those that wait longer are told that their job is safe. The exit code is 0. A second
signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from floodgate.broker.process.garbage import keep_modules_from_collections
from floodgate.broker.process.tracing import start_tracing
from floodgate.broker.settings.model import Settings
from floodgate.producer.gateway.app import Gateway
from floodgate.producer.http_protocol import server_config
from floodgate.producer.listening import listen, url_of

logger = logging.getLogger("floodgate.gateway")

# For closing sockets and threads after the last answers.
CLOSING_SECONDS: Final = 5
# Connections in addition to waiting callers: for those that get a 429, and for requests that are answered at once.
SPARE_CONNECTIONS: Final = 2000


class GatewayServer(uvicorn.Server):
    """uvicorn's server, which tells the gateway to drain when it is about to shut down."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until :meth:`handle_exit` is called."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown. uvicorn's own handler would raise the signal again at the end, and exit with its code."""
        self.force_exit = self.should_exit
        if self._loop is not None and not self.should_exit:
            self._loop.call_soon_threadsafe(self._drain)
        self.should_exit = True

    def _drain(self) -> None:
        assert self._loop is not None
        logger.info("stopping: waiting callers may still get their results")
        self._gateway.begin_drain()
        self._loop.call_later(self._gateway.state.settings.gateway.drain_seconds, self._gateway.end_drain)


def run_gateway(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Calls ``ready`` with the gateway's URL once it accepts connections.

    Raises:
        SettingsError: no bot is configured, or an address is in use or is not one of this machine's.
    """
    tracing = start_tracing("gateway")
    gateway = Gateway(settings, tracing)
    gateway.measurement.bind()
    listener = listen(settings.gateway.host, settings.gateway.port, "FLOODGATE_GATEWAY__PORT")
    config = server_config(
        gateway.app,
        settings.gateway.max_waiting + SPARE_CONNECTIONS,
        lifespan="on",
        timeout_graceful_shutdown=int(settings.gateway.drain_seconds) + CLOSING_SECONDS,
    )
    keep_modules_from_collections()
    ready(url_of(listener))
    try:
        GatewayServer(config, gateway).run([listener])
    finally:
        listener.close()
        if tracing is not None:
            tracing.close()
