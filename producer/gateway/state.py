"""The state that the gateway's routes share: its settings, its callers and, while it runs, its parts."""

from __future__ import annotations

from dataclasses import dataclass

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.settings.model import Settings
from floodgate.producer.gateway.callers import Callers
from floodgate.producer.gateway.proxy import Proxy
from floodgate.producer.gateway.sending import Parts, Sending


@dataclass(slots=True)
class Running:
    """The parts of a running gateway. They exist during the application's lifespan."""

    parts: Parts
    sending: Sending
    proxy: Proxy
    connections: Connections
    draining: bool = False
    streams: int = 0
    """Streams of a campaign's events that are open."""
    texts: int = 0
    """Texts that arrive while their chats show them."""


@dataclass(slots=True)
class GatewayState:
    """One gateway's state, at ``app.state.gateway`` of its application."""

    settings: Settings
    callers: Callers
    open: Running | None = None

    @property
    def running(self) -> Running:
        """The gateway's parts. Use only during the application's lifespan."""
        assert self.open is not None, "requests arrive only during the application's lifespan"
        return self.open
