"""A TCP proxy in front of a server that reproduces network failures.

    with Proxy(node.port) as proxy:
        connect(proxy.url(node.url))
        proxy.stall()                  # no more data passes, with no notice to either side
        proxy.flow()                   # held data passes
        proxy.cut()                    # both sides see an orderly end
        proxy.reset()                  # both sides see a reset
        proxy.reset_after(10_000)      # … once the client has sent this many more bytes: in the middle of a message
        proxy.half_open()              # the server sees an end, the client sees nothing
        proxy.inject(port, frames)     # the client receives data that the server did not send
        proxy.withhold(pattern)        # the client does not receive this data of the server
        proxy.refuse(); proxy.accept() # new connections
        proxy.lead_to(port)            # new connections reach another server

Threads: one that accepts, two per connection that forward. Their shared state is guarded by ``_lock``.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

CHUNK = 64 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


# A socket closed by another thread stays open while a system call waits on it: so wait in short intervals.
LOOK_SECONDS = 0.02


class Pipe:
    """One client's connection and ours to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server

    def close(self, *sides: socket.socket, reset: bool = False) -> None:
        for side in sides or (self.client, self.server):
            with contextlib.suppress(OSError):
                if reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                else:
                    side.shutdown(socket.SHUT_RDWR)
            side.close()


class Proxy:
    """Forwards to a local port."""

    def __init__(
        self, target_port: int, *, rewrite: tuple[bytes, bytes] | None = None, bytes_per_second: float | None = None
    ) -> None:
        """
        Args:
            rewrite: of the first bytes each server sends, replace one text by another of the same length.
            bytes_per_second: how fast a client's bytes pass, on each connection. None: as fast as they come.
        """
        self.connections = 0
        self._target_port = target_port
        self._rewrite = rewrite
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._pipes: list[Pipe] = []
        self._bytes_to_reset: int | None = None
        self._was_reset = threading.Event()
        self._refusing = False
        self._withheld: re.Pattern[bytes] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, name="proxy-accept", daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        self.cut()

    def url(self, url: str) -> str:
        """The same URL through the proxy."""
        parts = urlsplit(url)
        credentials, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{self.port}"))

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        for pipe in self._take_pipes():
            pipe.close()

    def reset(self) -> None:
        for pipe in self._take_pipes():
            pipe.close(reset=True)

    def reset_after(self, sent_bytes: int) -> threading.Event:
        """The event is set when it has happened."""
        with self._lock:
            self._bytes_to_reset = sent_bytes
            self._was_reset = threading.Event()
            return self._was_reset

    def half_open(self) -> None:
        self.stall()
        with self._lock:
            pipes = list(self._pipes)
        for pipe in pipes:
            pipe.close(pipe.server)

    def drop_half_open(self) -> None:
        """Clears the effect of :meth:`half_open`, so that new connections flow."""
        self.cut()
        self.flow()

    @property
    def last_port(self) -> int:
        """The client address of the newest connection, as the server sees it."""
        with self._lock:
            return int(self._pipes[-1].server.getsockname()[1])

    def inject(self, port: int, data: bytes) -> None:
        """Sends data between two messages to the client whose connection the server sees coming from this port."""
        with self._lock:
            [pipe] = [pipe for pipe in self._pipes if pipe.server.getsockname()[1] == port]
        pipe.client.sendall(data)

    def withhold(self, pattern: re.Pattern[bytes] | None) -> None:
        """For frames that the server sends in one piece."""
        self._withheld = pattern

    def refuse(self) -> None:
        self._refusing = True

    def accept(self) -> None:
        self._refusing = False

    def lead_to(self, port: int) -> None:
        """New connections lead to another local port."""
        self._target_port = port

    def reach(self) -> socket.socket:
        """Opens a connection to the server for a client's new one. Raises OSError if it cannot."""
        return socket.create_connection(("127.0.0.1", self._target_port), 5)

    def _take_pipes(self) -> list[Pipe]:
        with self._lock:
            pipes, self._pipes = self._pipes, []
            return pipes

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        if self._refusing:
            client.close()
            return
        try:
            server = self.reach()
        except OSError:
            client.close()
            return
        server.settimeout(None)
        pipe = Pipe(client, server)
        with self._lock:
            self._pipes.append(pipe)
            self.connections += 1
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(pipe, source, sink), name="proxy-pump", daemon=True).start()

    def _pump(self, pipe: Pipe, source: socket.socket, sink: socket.socket) -> None:
        first = source is pipe.server
        with contextlib.suppress(OSError, ValueError):
            while data := _receive(source):
                if first and self._rewrite is not None:
                    data, first = data.replace(*self._rewrite), False
                self._flowing.wait()
                if source is pipe.server and self._withheld is not None:
                    data = self._withheld.sub(b"", data)
                if source is pipe.client and self._bytes_per_second is not None:
                    time.sleep(len(data) / self._bytes_per_second)
                if source is pipe.client and (kept := self._before_reset(len(data))) is not None:
                    sink.sendall(data[:kept])
                    self.reset()
                    self._was_reset.set()
                    return
                sink.sendall(data)
        if self._flowing.is_set():
            pipe.close()

    def _before_reset(self, size: int) -> int | None:
        """The length of this piece that still passes, if the reset is due within it."""
        with self._lock:
            if self._bytes_to_reset is None:
                return None
            if size < self._bytes_to_reset:
                self._bytes_to_reset -= size
                return None
            kept, self._bytes_to_reset = self._bytes_to_reset, None
            return kept


def _receive(source: socket.socket) -> bytes:
    """The next data; empty at the end. OSError or ValueError if the socket was closed here."""
    while not select.select([source], [], [], LOOK_SECONDS)[0]:
        pass
    return source.recv(CHUNK)
