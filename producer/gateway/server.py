"""The gateway's process: uvicorn around the application, with an end that loses nobody.

SIGTERM or SIGINT: /ready says 503 and no new connection is taken; who waits may still get the result, for
``drain_seconds``; who waits then is told that the job is safe; exit code 0. A second signal ends it at once.
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
from floodgate.broker.settings.model import Settings
from floodgate.producer.gateway.app import Gateway
from floodgate.producer.http_protocol import server_config
from floodgate.producer.listening import listen, url_of

logger = logging.getLogger("floodgate.gateway")

# After the last answers, closing sockets and threads.
CLOSING_SECONDS: Final = 5
# Connections at once beyond the callers who wait: for those who are told 429, and for what is answered at once.
SPARE_CONNECTIONS: Final = 2000


class GatewayServer(uvicorn.Server):
    """Tells the gateway when it shall end."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not the base's: that would raise the signal once more at the end, and leave with its code."""
        self.force_exit = self.should_exit
        if self._loop is not None and not self.should_exit:
            self._loop.call_soon_threadsafe(self._drain)
        self.should_exit = True

    def _drain(self) -> None:
        assert self._loop is not None
        logger.info("stopping: who waits may still get the result")
        self._gateway.begin_drain()
        self._loop.call_later(self._gateway.state.settings.gateway.drain_seconds, self._gateway.end_drain)


def run_gateway(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the gateway's URL once it takes connections.

    Raises:
        SettingsError: the address is taken or not ours, or no bot is configured.
    """
    gateway = Gateway(settings)
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
