"""Private names of our dependencies that we rely on. A failure here says what to do before upgrading."""

import asyncio
import inspect
import socket

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection, _AsyncioIOServicesAdapter
from pika.adapters.base_connection import BaseConnection
from pika.adapters.utils import io_services_utils
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflow
from pika.channel import Channel
from pika.connection import Connection
from pika.heartbeat import HeartbeatChecker


def test_pika_still_writes_marshaled_frames() -> None:
    """Otherwise broker/amqp/connection.py `write` must find another way to write bytes that are frames already.

    Alternatively: Channel.basic_publish for each message, at about half the rate.
    """
    assert list(inspect.signature(Connection._output_marshaled_frames).parameters) == ["self", "marshaled_frames"]


def test_pika_still_keeps_a_channels_consumers_where_we_read_them() -> None:
    """Otherwise broker/amqp/consumer.py `_close_channel` must prevent basic.cancel from Channel.close in another way.

    A cancel lets the next consumer start while our message is out. If pika no longer cancels in `close`, drop ours.
    """
    assert "_consumers" in inspect.getsource(Channel.close)
    assert "basic_cancel" in inspect.getsource(Channel.close)
    assert Channel(_NoConnection(), 1, lambda _channel: None)._consumers == {}


def test_pikas_sockets_are_still_where_we_write_to_and_close_them() -> None:
    """Otherwise broker/amqp/connection.py `write` must leave all writing to pika, and `abandon` must find the socket
    elsewhere.

    It cannot use pika's own closing, which shuts the connection down for the parent, too.
    """
    assert "self._transport" in inspect.getsource(BaseConnection._adapter_emit_data)
    assert hasattr(io_services_utils._AsyncTransportBase, "get_write_buffer_size")
    assert "self._sock = sock" in inspect.getsource(io_services_utils._AsyncTransportBase.__init__)


def test_pika_can_still_be_made_to_drop_a_connection_at_once() -> None:
    """Otherwise broker/amqp/connection.py `leave` must close the socket in another way: pika's public closing waits for
    an answer, which a frozen node does not give. pika's own check of heartbeats does the same."""
    assert list(inspect.signature(Connection._terminate_stream).parameters) == ["self", "error"]
    assert "._terminate_stream(" in inspect.getsource(HeartbeatChecker._close_connection)


def test_asyncios_loop_still_has_the_file_descriptors_that_a_forked_child_closes() -> None:
    """Otherwise `abandon` in broker/process/event_loop.py must find epoll and its wake-up sockets elsewhere."""
    loop = asyncio.new_event_loop()
    try:
        assert hasattr(loop._selector, "close")  # type: ignore[attr-defined]
        assert isinstance(loop._ssock, socket.socket)  # type: ignore[attr-defined]
        assert isinstance(loop._csock, socket.socket)  # type: ignore[attr-defined]
        assert loop._closed is loop.is_closed() is False  # type: ignore[attr-defined]
    finally:
        loop.close()


def test_pika_still_resolves_names_where_we_insert_our_own_thread() -> None:
    """Otherwise broker/amqp/connection.py `_Services` must avoid the loop's executor in another way."""
    parameters = inspect.signature(_AsyncioIOServicesAdapter.getaddrinfo).parameters
    assert list(parameters) == ["self", "host", "port", "on_done", "family", "socktype", "proto", "flags"]
    assert "on_done" in inspect.signature(_AsyncioIOServicesAdapter._schedule_and_wrap_in_io_ref).parameters
    assert "AbstractIOServices" in inspect.getsource(AsyncioConnection.__init__)


def test_pika_still_reports_a_class_when_a_handshake_is_cut_short() -> None:
    """Otherwise broker/amqp/connection.py `_Attempt` is unnecessary, and AsyncioConnection can be used directly."""
    assert "error = AMQPConnectionWorkflowAborted\n" in inspect.getsource(AMQPConnectionWorkflow._on_connector_done)
    assert "_on_connection_workflow_done" in vars(BaseConnection)


@pytest.mark.parametrize(
    "name", ["ProbableAuthenticationError", "ProbableAccessDeniedError", "IncompatibleProtocolError"]
)
def test_pika_still_reports_why_it_was_refused(name: str) -> None:
    """Otherwise broker/amqp/connection.py `connect_error` must tell bad credentials from missing vhosts otherwise."""
    assert name in inspect.getsource(Connection._on_stream_terminated)


class _NoConnection:
    callbacks = pika.callback.CallbackManager()
