"""A socket to serve HTTP on, taken before anything else starts, so that a taken port is one sentence."""

from __future__ import annotations

import socket
from typing import Final

from floodgate.broker.errors import SettingsError

BACKLOG: Final = 2048


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; port 0 takes a free one. ``setting`` is what to change when that fails.

    Raises:
        SettingsError: the address is taken or not ours.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named, for asyncio turns off Nagle's delay only for what is TCP by name: 40 ms an answer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another {setting}.") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it listens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
