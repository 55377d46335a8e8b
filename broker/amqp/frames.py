"""Encodes publications as AMQP frames.

The caller's thread builds the frames, not pika on the event loop: all callers share the loop, which then only has to
join and write what is ready. Every publication is persistent (``delivery_mode`` 2), ``mandatory`` and JSON.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pika.data import encode_table

from floodgate.broker.messages.publication import Publication

_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_END: Final = b"\xce"
_FRAME_OVERHEAD: Final = 8
_FRAME: Final = struct.Struct(">BHI")
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)  # basic.publish and its reserved field
_MANDATORY: Final = b"\x01"
_CONTENT: Final = struct.Struct(">HHQH")
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _PRIORITY, _MESSAGE_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 11, 1 << 7
_PLAIN: Final = _CONTENT_TYPE | _DELIVERY_MODE | _PRIORITY | _MESSAGE_ID
_JSON: Final = b"\x10application/json"
_PERSISTENT: Final = 2


@dataclass(frozen=True, slots=True)
class FrameOptions:
    """The parameters of encoding: the channel's number, and the largest frame that the server accepts, in bytes."""

    channel: int
    frame_max: int


def encode(publication: Publication, wire: FrameOptions) -> bytes:
    """Return the frames that publish a message.

    Raises:
        ValueError: a name or the message id is longer than 255 bytes.
    """
    body, channel = publication.body, wire.channel
    header = _header(publication, len(body))
    pieces = [
        _publish_frame(channel, publication.exchange, publication.routing_key),
        _FRAME.pack(_HEADER, channel, len(header)),
        header,
        _FRAME_END,
    ]
    room = wire.frame_max - _FRAME_OVERHEAD
    for start in range(0, len(body), room):
        part = body[start : start + room]
        pieces += (_FRAME.pack(_BODY, channel, len(part)), part, _FRAME_END)
    return b"".join(pieces)


def _header(publication: Publication, size: int) -> bytes:
    identity = bytes((_PERSISTENT, publication.priority)) + _short(publication.message_id)
    if publication.headers is None:
        return _CONTENT.pack(60, 0, size, _PLAIN) + _JSON + identity
    table: list[bytes] = []
    encode_table(table, dict(publication.headers))
    return _CONTENT.pack(60, 0, size, _PLAIN | _HEADERS) + _JSON + b"".join(table) + identity


@lru_cache(maxsize=1024)  # one per send queue; ladder keys are too many to stay in it
def _publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    payload = _PUBLISH + _short(exchange) + _short(routing_key) + _MANDATORY
    return _FRAME.pack(_METHOD, channel, len(payload)) + payload + _FRAME_END


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"{text[:40]!r}… has {len(data)} bytes, and AMQP names have at most 255")
    return bytes((len(data),)) + data
