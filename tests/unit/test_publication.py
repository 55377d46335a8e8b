"""Our frames are identical to those of pika's own encoder."""

import pytest
from pika import frame, spec

from floodgate.broker.amqp.frames import FrameOptions, encode
from floodgate.broker.messages.publication import Publication

WIRE = FrameOptions(channel=3, frame_max=4096)


def pikas(publication: Publication, wire: FrameOptions) -> bytes:
    properties = spec.BasicProperties(
        content_type="application/json",
        headers=publication.headers,
        delivery_mode=2,
        priority=publication.priority,
        message_id=publication.message_id,
    )
    publish = spec.Basic.Publish(exchange=publication.exchange, routing_key=publication.routing_key, mandatory=True)
    room, body = wire.frame_max - 8, publication.body
    return b"".join(
        [
            frame.Method(wire.channel, publish).marshal(),
            frame.Header(wire.channel, len(body), properties).marshal(),
            *(frame.Body(wire.channel, body[at : at + room]).marshal() for at in range(0, len(body), room)),
        ]
    )


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 20_000])
def test_bodies_of_any_size_are_split_into_frames(size: int) -> None:
    publication = Publication("", "send.default.bulk.07", b"x" * size, "an-id", 9)
    assert encode(publication, WIRE) == pikas(publication, WIRE)


@pytest.mark.parametrize("headers", [{}, {"x-floodgate-reason": "expired", "n": 3, "nested": {"a": [1, True, "ü"]}}])
def test_headers_are_an_amqp_table(headers: dict[str, object]) -> None:
    publication = Publication("floodgate.dead", "dead.ä", b"{}", "an-id", headers=headers)
    assert encode(publication, WIRE) == pikas(publication, WIRE)


def test_a_name_that_is_too_long_for_amqp_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 255"):
        encode(Publication("", "q" * 256, b"", "id"), WIRE)
