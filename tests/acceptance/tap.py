"""A listener between processes and RabbitMQ, for message details that the server does not keep."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pika.frame
import pika.spec

CHUNK = 64 * 1024


class Tap:
    """Forwards to a local port and keeps what clients sent. One thread accepts; each connection has two to forward."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._said: list[bytearray] = []  # one per connection, each appended to by its own thread
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Tap:
        threading.Thread(target=self._accept, name="tap-accept", daemon=True).start()
        return self

    def __exit__(self, *_raised: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def url(self, url: str) -> str:
        """The same URL through the tap."""
        parts = urlsplit(url)
        credentials = parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))

    def publishes(self) -> list[Any]:
        """Every ``basic.publish`` method so far: ``exchange``, ``routing_key``, ``mandatory``."""
        return [method for said in self._said for method in _methods(bytes(said)) if _is_publish(method)]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target_port))
                said = bytearray()
                self._said.append(said)
                self._sockets += [client, server]
                threading.Thread(target=_pump, args=(client, server, said), name="tap-pump", daemon=True).start()
                threading.Thread(target=_pump, args=(server, client, None), name="tap-pump", daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            if kept is not None:
                kept += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _methods(said: bytes) -> list[Any]:
    found = []
    while said:
        consumed, frame = pika.frame.decode_frame(said)
        if not consumed:
            break
        said = said[consumed:]
        found.append(getattr(frame, "method", None))
    return found


def _is_publish(method: Any) -> bool:
    return isinstance(method, pika.spec.Basic.Publish)
