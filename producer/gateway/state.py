"""What the gateway's routes share: its settings, its callers, and its parts while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.settings.model import Settings
from floodgate.producer.gateway.callers import Callers
from floodgate.producer.gateway.proxy import Proxy
from floodgate.producer.gateway.sending import Parts, Sending


@dataclass(slots=True)
class Running:
    """What a running gateway is made of. Set for as long as the app's lifespan lasts."""

    parts: Parts
    sending: Sending
    proxy: Proxy
    connections: Connections
    draining: bool = False


@dataclass(slots=True)
class GatewayState:
    """A gateway's own state, at ``app.state.gateway`` of its application."""

    settings: Settings
    callers: Callers
    open: Running | None = None

    @property
    def running(self) -> Running:
        assert self.open is not None, "requests come within the lifespan only"
        return self.open
