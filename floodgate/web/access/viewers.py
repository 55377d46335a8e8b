"""People and their roles, and those whom a proxy has authenticated."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from floodgate.broker.settings.web import EVERYBODY_ELSE, WebRole, WebSettings
from floodgate.web.viewer import DESTROYING, Action

MOST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Person:
    """A viewer with a role."""

    name: str
    role: WebRole

    @property
    def sees_texts(self) -> bool:
        """Whether the texts of messages are shown: to administrators only, because they are other people's."""
        return self.role == "admin"

    @property
    def acts(self) -> bool:
        """Whether the viewer may take any action at all."""
        return self.role != "read"

    def may(self, action: Action) -> bool:
        """Whether the viewer may take an action: operators may if it can be undone."""
        return self.role == "admin" or (self.role == "operate" and action not in DESTROYING)


# Whoever reaches the machine's own address while no token and no proxy is configured.
LOCAL: Final = Person("local", "admin")


class TrustedProxy:
    """Believes what one proxy says about who is looking. Immutable."""

    def __init__(self, settings: WebSettings) -> None:
        self._header = settings.proxy_header
        self._networks = [ip_network(network) for network in settings.proxy_addresses]
        self._roles = settings.proxy_roles

    def person(self, scope: Scope) -> Person | None:
        """Return whom the proxy has authenticated; None if the request did not come through it, or names nobody known.

        A header that is given twice names nobody: which of the two the proxy wrote is unknown.
        """
        if not self._header or not self._is_proxy(scope):
            return None
        names = Headers(scope=scope).getlist(self._header)
        name = names[0].strip() if len(names) == 1 else ""
        if not 0 < len(name) <= MOST_NAME or not name.isprintable() or name == EVERYBODY_ELSE:
            return None
        role = self._roles.get(name) or self._roles.get(EVERYBODY_ELSE)
        return Person(name, role) if role else None

    def _is_proxy(self, scope: Scope) -> bool:
        address = client_address(scope)
        return address is not None and any(address in network for network in self._networks)


def client_address(scope: Scope) -> IPv4Address | IPv6Address | None:
    """Return the IP address at the other end of the connection; None if it has none."""
    client = scope.get("client")
    try:
        address = ip_address(client[0]) if client else None
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
