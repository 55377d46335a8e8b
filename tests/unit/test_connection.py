"""Parsing a server's properties, and the meaning of a failed attempt."""

import pika.exceptions
import pytest

from floodgate.broker.amqp.addresses import parse_address
from floodgate.broker.amqp.connection import connect_error, root_cause, server_of, version_tuple
from floodgate.broker.errors import AccessRefusedError, RabbitMQUnreachableError

ADDRESS = parse_address("amqp://me:geheim@rabbit/v")


@pytest.mark.parametrize(
    ("text", "parts"),
    [("4.0.5", (4, 0, 5)), ("4.3.0-rc.1", (4, 3, 0)), ("3.13.7", (3, 13, 7)), ("unknown", ()), ("", ())],
)
def test_versions_compare_as_numbers(text: str, parts: tuple[int, ...]) -> None:
    assert version_tuple(text) == parts


def test_a_server_without_properties_is_unknown() -> None:
    assert server_of(None) == ("unknown", "unknown")
    assert server_of({"product": b"LavinMQ", "version": "2.0"}) == ("LavinMQ", "2.0")


def test_the_cause_is_found_in_pikas_wrapper_exceptions() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    wrapped = pika.exceptions.AMQPConnectionError(pika.exceptions.AMQPConnectionError(refused))
    assert root_cause(wrapped) is refused


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), RabbitMQUnreachableError, "Connection refused"),
        (pika.exceptions.ProbableAuthenticationError("…"), AccessRefusedError, "wrong user or password"),
        (pika.exceptions.ProbableAccessDeniedError("…"), AccessRefusedError, "no vhost 'v'"),
        (pika.exceptions.ConnectionOpenAborted("…"), RabbitMQUnreachableError, "no answer within 3 s"),
        (pika.exceptions.IncompatibleProtocolError("…"), RabbitMQUnreachableError, "does not speak AMQP"),
    ],
)
def test_a_failed_attempt_is_explained_without_the_password(
    error: BaseException, kind: type[Exception], words: str
) -> None:
    explained = connect_error(ADDRESS, error, 3)
    assert type(explained) is kind
    assert words in str(explained)
    assert "rabbit:5672" in str(explained)
    assert "geheim" not in str(explained)
