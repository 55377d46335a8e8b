"""A script's calls, answered by hand: out of turn, after its end, and never."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pika.exceptions
import pytest

from broker.channel_script import ChannelRefusedError, Run, Script, Session
from broker.errors import RabbitMQUnreachableError

BY_US = pika.exceptions.ChannelClosedByClient(0, "Normal shutdown")
REFUSED = pika.exceptions.ChannelClosedByBroker(404, "NOT_FOUND")
LOST = pika.exceptions.StreamLostError("gone")


class Server:
    """Stands for pika's connection and for what the script asks."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.asked: list[Callable[..., None]] = []
        self._opening: list[Callable[[Any], None]] = []

    def channel(self, on_open_callback: Callable[[Any], None]) -> Channel:
        self.channels.append(Channel())
        self._opening.append(on_open_callback)
        return self.channels[-1]

    def opens(self) -> None:
        """The newest channel."""
        self._opening.pop()(self.channels[-1])

    def ask(self, *, callback: Callable[..., None]) -> None:
        self.asked.append(callback)


class Channel:
    is_open = True

    def add_on_close_callback(self, call: Callable[[Any, Exception], None]) -> None:
        self._on_close = call

    def close(self) -> None:
        self.is_open = False

    def is_closed(self, reason: Exception = BY_US) -> None:
        self.is_open = False
        self._on_close(self, reason)


@pytest.fixture
def server() -> Server:
    return Server()


def run(server: Server, script: Callable[[Session], Script[Any]]) -> tuple[Run[Any], Future[Any]]:
    future: Future[Any] = Future()
    made = Run(script, server, (4, 0), future)
    made.begin()
    server.opens()
    return made, future


def test_the_result_is_told_once_the_server_has_closed_the_channels(server: Server) -> None:
    """Only then is back in its queue what the script had taken."""

    def script(session: Session) -> Script[str]:
        yield from session.channel()
        return str((yield server.ask))

    _, future = run(server, script)
    server.asked[0]("seven")
    assert (server.channels[0].is_open, future.done()) == (False, False)
    server.channels[0].is_closed()
    assert future.result(0) == "seven"


def test_a_connection_lost_while_the_channels_close_does_not_leave_the_caller_waiting(server: Server) -> None:
    def script(session: Session) -> Script[str]:
        yield from session.channel()
        return "done"

    _, future = run(server, script)
    server.channels[0].is_closed(LOST)
    assert future.result(0) == "done"


def test_an_answer_that_is_late_is_not_taken_for_that_of_the_next_call(server: Server) -> None:
    def script(session: Session) -> Script[str]:
        yield from session.channel()
        try:
            return str((yield server.ask))
        except ChannelRefusedError:
            yield from session.channel()
            return str((yield server.ask))

    _, future = run(server, script)
    server.channels[0].is_closed(REFUSED)
    server.opens()
    late, second = server.asked
    late("late")
    second("right")
    server.channels[1].is_closed()
    assert future.result(0) == "right"


def test_a_script_that_is_not_answered_ends_with_its_time_and_leaves_no_channel(server: Server) -> None:
    def script(session: Session) -> Script[None]:
        yield from session.channel()
        yield server.ask

    made, future = run(server, script)
    made.expire()
    with pytest.raises(RabbitMQUnreachableError, match="did not answer in time"):
        future.result(0)
    assert not server.channels[0].is_open
    server.asked[0]("late")


def test_a_fault_of_the_script_is_the_callers_and_leaves_no_channel(server: Server) -> None:
    def script(session: Session) -> Script[None]:
        yield from session.channel()
        raise ZeroDivisionError

    _, future = run(server, script)
    with pytest.raises(ZeroDivisionError):
        future.result(0)
    assert not server.channels[0].is_open


def test_a_lost_connection_is_told_in_the_middle_of_a_call(server: Server) -> None:
    def script(session: Session) -> Script[None]:
        yield from session.channel()
        yield server.ask

    _, future = run(server, script)
    server.channels[0].is_closed(LOST)
    with pytest.raises(RabbitMQUnreachableError, match="was lost"):
        future.result(0)
