"""Just enough AMQP 0-9-1 to find out whether a port serves a ready RabbitMQ, and its version.

After our protocol header, the server sends Connection.Start, with a table that names the product and the version.
RabbitMQ opens its listeners last when it boots, so an answer means that the node is ready. The connection is closed
before logging in, so no credentials are needed.
"""

import socket
import struct
from dataclasses import dataclass

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
CONNECTION_START = struct.pack(">HH", 10, 10)
FRAME_LIMIT = 128 * 1024  # a Start frame is under 1 kB; a much longer one is not AMQP


@dataclass(frozen=True, slots=True)
class Greeting:
    """The product and version that a server announces before any login."""

    product: str
    version: str


def greet(host: str, port: int, timeout_seconds: float = 2.0) -> Greeting | None:
    """Read a server's greeting; None if no AMQP server answers within the time-out, which applies to each step."""
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.sendall(PROTOCOL_HEADER)
            return parse_start(_read_frame(connection))
    except (OSError, ValueError, struct.error):
        return None


def parse_start(payload: bytes) -> Greeting:
    """Read the product and version from a Connection.Start payload.

    Raises:
        ValueError: it is not such a payload.
    """
    if not payload.startswith(CONNECTION_START):
        raise ValueError("not a Connection.Start method")
    return Greeting(_long_string(payload, b"product"), _long_string(payload, b"version"))


def _long_string(payload: bytes, field: bytes) -> str:
    # With its length before it and its type ('S') after it, the key is unambiguous, so no table parser is needed.
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
            raise ValueError("the server closed the connection")
        data += chunk
    return data
