"""A worker process, from its settings to its last ack.

Start order: settings → broker bound → state store open → RabbitMQ reached and topology declared → actors imported →
worker threads. A fault before the threads run is one sentence and an exit code. A worker takes jobs, or it takes
updates and has them handled; never both, for a handler that blocks its process must not make sends late.

Stop order, on SIGTERM or SIGINT: take nothing new and hand back idle partitions → finish the calls in flight → threads
→ sessions and event loop (Dramatiq's ``after_worker_shutdown``) → the Application, if there is one → connections, which
returns what is left in hand to its queues in order → store. Bounded by ``shutdown_seconds``; a second signal exits at
once.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Final

from broker.settings import Settings

if TYPE_CHECKING:
    import dramatiq

    from actors.updates.handling import Handling
    from broker.dramatiq_broker import FloodgateBroker
    from floodgate.updates.compose import Assignment

logger = logging.getLogger("floodgate.worker")

EXIT_FORCED: Final = 70
# After the bound on in-flight work, what remains is closing sockets and files.
CLOSING_SECONDS: Final = 10.0
HANDLER_CLOSING_SECONDS: Final = 25.0  # an Application writes its persistence
# Threads look for work this often when idle, and so notice a stop within it.
IDLE_MILLISECONDS: Final = 500


class WorkerProcess:
    """One worker in this process. ``run`` returns when a signal or ``stop`` ended it.

    Parameters:
        assignment: what handles updates; None takes jobs instead.
    """

    def __init__(self, settings: Settings, assignment: Assignment | None = None) -> None:
        self._settings = settings
        self._assignment = assignment
        self._handling: Handling | None = None
        self._stop = threading.Event()
        self._broker: FloodgateBroker | None = None
        self._worker: dramatiq.Worker | None = None

    def run(self) -> None:
        """Work until stopped.

        Raises:
            FloodgateError: it could not start: settings, store or RabbitMQ.
        """
        try:
            self._start()
            self._stop.wait()
        finally:
            self._shut_down()

    def stop(self) -> None:
        """Ask ``run`` to end. Safe from any thread, twice, and before ``run``."""
        self._stop.set()

    def _start(self) -> None:
        # Read by dramatiq.worker at import. Our consumers hold one message whatever it says; this says so to readers.
        os.environ["dramatiq_queue_prefetch"] = "1"  # noqa: SIM112  # Dramatiq's spelling
        import dramatiq

        from broker.setup import configure
        from broker.topology import declare

        self._settings.require_bots()
        self._broker = configure(self._settings)
        for bot in self._settings.tokens:
            # A store opens at its first call. This one, about no job, tells now whether it can be written to.
            self._broker.admission.lookup(bot, "")
        import actors  # noqa: F401  # registers them with the broker configured above

        self._assign()
        declare(self._broker.connections, self._broker.topology_of(self._broker.get_declared_queues()))
        queues = self._broker.get_declared_queues()
        if self._handling is not None:
            self._handling.start()
        # One thread a queue: each has one message in hand at most, so none ever waits for a thread.
        self._worker = dramatiq.Worker(self._broker, worker_threads=len(queues), worker_timeout=IDLE_MILLISECONDS)
        _leave_out_of_collections()
        self._worker.start()
        logger.info("worker ready: %d queues, bots %s%s", len(queues), ", ".join(self._bots()), self._by())

    def _assign(self) -> None:
        """Take updates, if that is what this worker is for."""
        if self._assignment is None:
            return
        from actors.updates import actor
        from broker.update import UPDATE_ACTOR
        from floodgate.updates.compose import compose

        assert self._broker is not None
        self._broker.take_only(UPDATE_ACTOR, self._assignment.bots)
        self._handling = compose(self._assignment, self._broker)
        actor.use(self._handling)

    def _by(self) -> str:
        return "" if self._assignment is None else f", updates handled by {self._assignment.path}"

    def _bots(self) -> list[str]:
        return sorted(self._settings.tokens if self._assignment is None else self._assignment.bots)

    def _shut_down(self) -> None:
        broker, worker = self._broker, self._worker
        if broker is None:
            return
        closing = CLOSING_SECONDS if self._handling is None else CLOSING_SECONDS + HANDLER_CLOSING_SECONDS
        watchdog = threading.Timer(self._settings.shutdown_seconds + closing, _exit_now)
        watchdog.daemon = True
        watchdog.start()
        if worker is not None:
            logger.info("stopping: finishing what is in flight")
            broker.drain()
            worker.stop(timeout=int(self._settings.shutdown_seconds * 1000))
        if self._handling is not None:
            self._handling.stop()
        broker.close()
        watchdog.cancel()
        if worker is not None:
            logger.info("stopped")


def run_worker(settings: Settings, assignment: Assignment | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT. For a process's main thread."""
    process = WorkerProcess(settings, assignment)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: _exit_now())
        process.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    process.run()


def _leave_out_of_collections() -> None:
    """Keep the garbage collector off what lives as long as the process: modules, classes, settings.

    Looking through them all stops every thread for 25 to 50 ms. A send that was admitted just before arrives that much
    late, and the one a second behind it comes too early for a Bot API that judges windows at arrival (measured: 7 to
    10 answers 429 in a broadcast with it, 0 without).
    """
    gc.collect()
    gc.freeze()


def _exit_now() -> None:
    """Leave without ceremony. RabbitMQ returns what was in hand to its queues."""
    os._exit(EXIT_FORCED)
