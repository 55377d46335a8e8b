"""RabbitMQ addresses: parses the URLs of the settings and makes pika's connection parameters.

``amqp[s]://user:password@host:port/vhost?cafile=…``. User, password and vhost are percent-encoded, so they
may contain any character. Without a path the vhost is ``/``. ``amqps`` verifies the server's certificate against
the system's certificate authorities, or against ``cafile``; verification cannot be disabled.
"""

from __future__ import annotations

# Resolving a host name and reading a version import these in a thread. A fork at that moment would leave the child with
# the import lock held for ever, unable to connect. So they are imported before any thread starts.
import email.parser  # noqa: F401
import encodings.idna  # noqa: F401
import ssl
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import pika

from floodgate.broker.errors import SettingsError

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class Address:
    """One node of the cluster. ``str()`` shows host, port and vhost, never the credentials."""

    host: str
    port: int
    vhost: str
    user: str
    password: str = field(repr=False)
    tls: bool = False
    cafile: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + ("" if self.vhost == "/" else f" vhost {self.vhost!r}")


def parse_address(url: str) -> Address:
    """Parse an AMQP URL.

    Raises:
        SettingsError: the URL is malformed; the message does not quote it.
    """
    try:
        parts = urlsplit(url)
        default_port = _PORTS[parts.scheme]
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
        port = parts.port or default_port
    except (KeyError, ValueError):
        raise SettingsError(
            "FLOODGATE_RABBITMQ_URL is malformed; write amqp://user:password@host:5672/vhost and "
            "percent-encode special characters."
        ) from None
    if unknown := set(options) - {"cafile"}:
        raise SettingsError(
            f"FLOODGATE_RABBITMQ_URL has an unknown option {sorted(unknown)[0]!r}; the only option is cafile."
        )
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=port,
        vhost=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        tls=parts.scheme == "amqps",
        cafile=options["cafile"][0] if "cafile" in options else None,
    )


def parameters(address: Address, *, heartbeat_seconds: int, timeout_seconds: float, name: str) -> Any:
    """Return pika's connection parameters. RabbitMQ shows ``name`` for the connection.

    Raises:
        SettingsError: the file of certificate authorities cannot be read.
    """
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(address.user, address.password),
        heartbeat=heartbeat_seconds,
        socket_timeout=timeout_seconds,
        stack_timeout=timeout_seconds,
        connection_attempts=1,
        blocked_connection_timeout=None,  # broker/amqp/publisher.py has its own time-out, which keeps the connection
        ssl_options=_tls(address) if address.tls else None,
        client_properties={
            "product": "Floodgate",
            "version": _version(),
            "connection_name": name,
        },
    )


def _tls(address: Address) -> Any:
    if address.cafile is not None and not Path(address.cafile).is_file():
        raise SettingsError(f"The cafile {address.cafile!r} of FLOODGATE_RABBITMQ_URL is not a readable file.")
    try:
        context = ssl.create_default_context(cafile=address.cafile)
    except ssl.SSLError:
        raise SettingsError(
            f"The cafile {address.cafile!r} of FLOODGATE_RABBITMQ_URL contains no certificates."
        ) from None
    return pika.SSLOptions(context, address.host)


def _version() -> str:
    try:
        return version("telegram-floodgate")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
