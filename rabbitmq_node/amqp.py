"""As much AMQP 0-9-1 as it takes to ask a port: are you RabbitMQ, ready, and which version?

The server speaks first after our protocol header: Connection.Start, with a table that names product and version.
RabbitMQ opens its listeners last when it boots, so an answer means that the node is ready. We hang up before any
log-in: no credentials.
"""

import socket
import struct
from dataclasses import dataclass

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
CONNECTION_START = struct.pack(">HH", 10, 10)
FRAME_LIMIT = 128 * 1024  # a Start frame has under 1 kB; what claims to be longer is no AMQP


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says of itself before anyone has logged in."""

    product: str
    version: str


def greet(host: str, port: int, timeout_seconds: float = 2.0) -> Greeting | None:
    """The server's greeting, or None if nothing that speaks AMQP answers within the time-out (applied per step)."""
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.sendall(PROTOCOL_HEADER)
            return parse_start(_read_frame(connection))
    except (OSError, ValueError, struct.error):
        return None


def parse_start(payload: bytes) -> Greeting:
    """The product and version in a Connection.Start payload. Raises ValueError if it is something else."""
    if not payload.startswith(CONNECTION_START):
        raise ValueError("not a Connection.Start method")
    return Greeting(_long_string(payload, b"product"), _long_string(payload, b"version"))


def _long_string(payload: bytes, field: bytes) -> str:
    # The table's key is unambiguous with its length before it and its type ('S') after it; a whole table parser is
    # not needed.
    marker = bytes([len(field)]) + field + b"S"
    start = payload.find(marker)
    if start < 0:
        raise ValueError(f"the greeting names no {field.decode()}")
    start += len(marker)
    (length,) = struct.unpack_from(">I", payload, start)
    return payload[start + 4 : start + 4 + length].decode("utf-8", "replace")


def _read_frame(connection: socket.socket) -> bytes:
    kind, _channel, size = struct.unpack(">BHI", _read_exactly(connection, 7))
    if kind != 1 or size > FRAME_LIMIT:
        raise ValueError("not an AMQP 0-9-1 method frame")
    return _read_exactly(connection, size)


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ValueError("the server hung up")
        data += chunk
    return data
