"""Processes that handle a bot's updates: receivers, handler workers, a send worker; and a webhook load balancer."""

from __future__ import annotations

import contextlib
import itertools
import socket
from dataclasses import dataclass, field
from typing import Literal

from tests.acceptance.stage import Stage
from tests.processes import FloodgateProcess
from tests.proxy import Proxy
from tests.waiting import until

Mode = Literal["polling", "webhook"]
ACTIVE = "active: this receiver"
STANDING_BY = "standing by: this receiver"


class Balancer(Proxy):
    """Forwards each connection to the next of its ports that accepts it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.ports: list[int] = []
        self._turn = itertools.count()

    def reach(self) -> socket.socket:
        for _ in self.ports:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.ports[next(self._turn) % len(self.ports)]), 5)
        raise ConnectionRefusedError("no receiver takes connections")


@dataclass
class Staff:
    """All processes of a bot; they end with the ``with`` block at the latest."""

    stage: Stage
    application: str
    mode: Mode = "polling"
    receivers: list[FloodgateProcess] = field(default_factory=list)
    handlers: list[FloodgateProcess] = field(default_factory=list)
    _balancer: Balancer | None = None
    _hired: int = 0
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def hire(self, *, receivers: int = 1, handlers: int = 1) -> None:
        """Starts more handler workers and waits until they are ready. The first call also starts a send worker."""
        if not self._hired:
            self.stage.worker()
        for _ in range(handlers):
            self.handlers.append(self._start("worker", "--updates", self.application, ready="worker ready"))
        for _ in range(receivers):
            self.receivers.append(self._receiver())

    def active(self) -> FloodgateProcess:
        """Returns the active receiver as soon as there is one."""
        return until(lambda: next((one for one in self.receivers if _is_active(one)), None), 30)

    def _receiver(self) -> FloodgateProcess:
        if self.mode == "polling":
            return self._start("updates", ready="receiver ready")
        if self._balancer is None:
            self._balancer = self._open.enter_context(Balancer())
        where = f"http://127.0.0.1:{self._balancer.port}/hooks"
        options = ("--mode", "webhook", "--port", "0", "--webhook-url", where)
        process = self._start("updates", *options, ready="receiver ready")
        url = process.said("receiver ready").partition(" at ")[2].partition(",")[0]
        self._balancer.ports.append(int(url.rpartition(":")[2]))
        return process

    def _start(self, *command: str, ready: str) -> FloodgateProcess:
        self._hired += 1
        stage, name = self.stage, f"{command[0]}-for-updates-{self._hired}"
        process = FloodgateProcess(*command, env=stage.env, home=stage.home, name=name)
        return self._open.enter_context(process).start(ready)

    def __enter__(self) -> Staff:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _is_active(receiver: FloodgateProcess) -> bool:
    log = receiver.log
    return receiver.running and log.rfind(ACTIVE) > log.rfind(STANDING_BY)
