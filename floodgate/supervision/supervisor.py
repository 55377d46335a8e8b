"""Keeps the parts of ``floodgate up`` running, and stops them in order.

A part that ends by itself is started again after a pause, which doubles from :data:`FIRST_PAUSE_SECONDS` to
:data:`LONGEST_PAUSE_SECONDS` and starts anew once the part has run for :data:`STEADY_SECONDS`. It is not started again
if that cannot help: if its settings are wrong, or if it reports an error before it has ever run that long. Then all
parts stop, and :meth:`Supervisor.run` raises the part's own error.

Stop order: producers (gateway, web, updates, campaigns), so that nothing new is accepted → handler workers, whose
replies are jobs → workers. Each stage begins when the one before has ended. A part that exceeds its bound is killed.

Each part has two threads, which end with it: one starts its process and waits for its end, one passes its output on.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from queue import Empty, SimpleQueue
from subprocess import PIPE
from typing import IO, Final

from floodgate.broker.errors import FloodgateError, RabbitMQError, SettingsError, StateError
from floodgate.broker.process.forced_exit import EXIT_FORCED
from floodgate.broker.process.outages import Backoff
from floodgate.broker.process.stopping import Stopping
from floodgate.supervision.child_process import ChildProcess

logger = logging.getLogger("floodgate.up")

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 30.0
# A part bounds its own shutdown; beyond that bound it gets this long before it is killed.
MARGIN_SECONDS: Final = 5.0
# A killed process ends within milliseconds. The rest of its output is not waited for longer: another process may still
# have the pipe open.
KILLED_SECONDS: Final = 5.0
OUTPUT_SECONDS: Final = 2.0
LONGEST_LINE_BYTES: Final = 64 * 1024  # a longer one is split

# What the exit codes of ``floodgate`` say; all but 1 have an error of their own.
ERRORS: Final[Mapping[int, type[FloodgateError]]] = {
    1: FloodgateError,
    2: SettingsError,
    3: RabbitMQError,
    4: StateError,
}
WRONG_SETTINGS: Final = 2


class StopStage(IntEnum):
    """When a part is stopped: in this order."""

    PRODUCERS = 1
    HANDLERS = 2
    WORKERS = 3


@dataclass(frozen=True, slots=True)
class PartProcess:
    """One process to keep running: its name, command, and variables in addition to this process's."""

    name: str
    command: Sequence[str]
    stage: StopStage
    stop_seconds: float
    env: Mapping[str, str]


class RestartPolicy:
    """Decides whether and when to start one part again. Not thread-safe."""

    def __init__(self, first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self._backoff = Backoff(first_pause_seconds, LONGEST_PAUSE_SECONDS)
        self._has_been_steady = False

    def pause_seconds(self, code: int, lasted_seconds: float) -> float | None:
        """Return the pause before the next start, or None if starting again cannot help."""
        if lasted_seconds >= STEADY_SECONDS:
            self._has_been_steady = True
            self._backoff.reset()
        if code == WRONG_SETTINGS or (code in ERRORS and not self._has_been_steady):
            return None
        return self._backoff.next_seconds()


@dataclass(frozen=True, slots=True)
class PartEnd:
    """A part has ended for good, with the error because of which it cannot be started again."""

    name: str
    error: FloodgateError | None


class SupervisedPart:
    """One part: a thread that starts its process, again and again. Safe to stop twice, and unstarted."""

    def __init__(
        self,
        process: PartProcess,
        policy: RestartPolicy,
        on_line: Callable[[str, str], None],
        on_end: Callable[[PartEnd], None],
    ) -> None:
        self.process = process
        self._policy = policy
        self._on_line = on_line
        self._on_end = on_end
        self._stopping = Stopping()
        self._child: ChildProcess | None = None  # under the lock, so that none starts after a stop
        self._lock = threading.Lock()
        self._last_line = ""  # written by the reading thread

    def start(self) -> None:
        """Start it. Call once; it ends with a call of ``on_end``."""
        threading.Thread(target=self._supervise, name=f"floodgate-{self.process.name}", daemon=True).start()

    def stop(self) -> None:
        """Ask it to end, for good."""
        with self._lock:
            self._stopping.set()
            if self._child is not None:
                self._child.terminate()

    def kill(self) -> None:
        """End it at once, for good."""
        self.stop()
        if self._child is not None:
            self._child.kill()

    def _supervise(self) -> None:
        error = None
        while error is None and not self._stopping.is_set():
            error = self._run_and_pause()
        self._on_end(PartEnd(self.process.name, error))

    def _run_and_pause(self) -> FloodgateError | None:
        started = time.monotonic()
        code = self._run_process()
        if self._stopping.is_set():
            return None
        pause = self._policy.pause_seconds(code, time.monotonic() - started)
        if pause is None:
            return ERRORS[code](f"{self.process.name} cannot start. {self._last_line}".rstrip())
        logger.warning("%s %s: it is started again in %g s", self.process.name, describe_end(code), pause)
        self._stopping.wait(pause)
        return None

    def _run_process(self) -> int:
        """Run the process to its end, and return its exit code."""
        try:
            child = self._start_process()
        except OSError as error:
            logger.warning("%s cannot be started: %s", self.process.name, error.strerror)
            return EXIT_FORCED
        if child is None:
            return 0
        name = f"floodgate-{self.process.name}-output"
        reader = threading.Thread(target=self._read, args=(child.lines,), name=name, daemon=True)
        reader.start()
        code = child.wait()
        reader.join(OUTPUT_SECONDS)
        return code

    def _start_process(self) -> ChildProcess | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._child = ChildProcess(
                self.process.command, self.process.env, output=PIPE, stop_seconds=self.process.stop_seconds
            )
        logger.info("%s started: process %d", self.process.name, self._child.pid)
        return self._child

    def _read(self, output: IO[bytes]) -> None:
        with output:
            while line := output.readline(LONGEST_LINE_BYTES):
                self._last_line = line.decode(errors="replace").rstrip("\r\n")
                self._on_line(self.process.name, self._last_line)


class Supervisor:
    """Runs parts until it is stopped, or one of them cannot start.

    Args:
        processes: The processes to run. Each name must be different.
        on_line: Gets each line of their output, with the part's name, from any thread.
        first_pause_seconds: The first pause before a part that ended is started again.
    """

    def __init__(
        self,
        processes: Iterable[PartProcess],
        on_line: Callable[[str, str], None],
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        # None asks for a stop. A signal handler may put it there; an event that its own thread waits for could hang.
        self._events: SimpleQueue[PartEnd | None] = SimpleQueue()
        self._parts = [
            SupervisedPart(process, RestartPolicy(first_pause_seconds), on_line, self._events.put)
            for process in processes
        ]
        self._ended: set[str] = set()
        self._failure: FloodgateError | None = None
        self._asked = 0
        self._killed = False

    def stop(self) -> None:
        """Ask :meth:`run` to end; a second call kills all processes. Safe from a signal handler, and before ``run``."""
        self._events.put(None)

    def run(self) -> bool:
        """Run until :meth:`stop`; return whether every part ended within its bound.

        Raises:
            FloodgateError: A part cannot start. All others have been stopped.
        """
        for part in self._parts:
            part.start()
        while not self._asked and self._failure is None:
            self._take_event(None)
        logger.info("stopping")
        for stage in StopStage:
            self._stop_stage([part for part in self._parts if part.process.stage is stage])
        if self._failure is not None:
            raise self._failure
        return not self._killed

    def _take_event(self, seconds: float | None) -> None:
        try:
            event = self._events.get(timeout=seconds)
        except Empty:
            return
        if event is None:
            self._asked += 1
            return
        self._ended.add(event.name)
        self._failure = self._failure or event.error

    def _stop_stage(self, parts: Sequence[SupervisedPart]) -> None:
        for part in parts:
            part.stop()
        asked = time.monotonic()
        for part in sorted(parts, key=lambda part: part.process.stop_seconds):
            bound = part.process.stop_seconds + MARGIN_SECONDS
            if not self._has_ended(part, asked + bound):
                logger.warning("%s is killed: %s", part.process.name, self._why_killed(bound))
                self._killed = True
                part.kill()
                self._has_ended(part, time.monotonic() + KILLED_SECONDS, patient=True)

    def _has_ended(self, part: SupervisedPart, deadline: float, *, patient: bool = False) -> bool:
        """Wait for a part's end, until the deadline or, if not ``patient``, the second request to stop."""
        while part.process.name not in self._ended:
            left = deadline - time.monotonic()
            if left <= 0 or (self._asked > 1 and not patient):
                return False
            self._take_event(left)
        return True

    def _why_killed(self, bound_seconds: float) -> str:
        return "asked twice to stop" if self._asked > 1 else f"it did not stop within {bound_seconds:g} s"


def describe_end(code: int) -> str:
    """Describe how a process ended; a negative code is a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
