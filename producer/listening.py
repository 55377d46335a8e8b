"""Opens the socket that serves HTTP, before anything else starts, so that a port in use is one clear error."""

from __future__ import annotations

import socket
from typing import Final

from floodgate.broker.errors import SettingsError

BACKLOG: Final = 2048


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Open a listening socket.

    Args:
        port: 0 picks a free port.
        setting: the setting that the error message tells the user to change.

    Raises:
        SettingsError: the address is in use, or is not one of this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # IPPROTO_TCP is explicit: asyncio sets TCP_NODELAY only then, and without it an answer takes 40 ms longer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(f"Cannot listen on {host}:{port}: {error.strerror}. Change {setting}.") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL at which a socket listens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
