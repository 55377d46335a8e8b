"""A worker process, from its settings to its last ack.

Everything runs on one event loop, in the main thread. In addition a worker has a thread for a SQLite store, one for its
reports to the store, two for files and third-party middleware, one for name resolution and one that writes the log; a
handler worker has one for the user's handlers, one that watches it, and two for responses to campaigns if there are
any. The number does not grow with bots or partitions.

Start order: settings → broker bound → state store open → RabbitMQ reached and topology declared → actors imported →
queues consumed. An error before that is reported in one sentence with an exit code. A worker either sends jobs or
handles updates, never both, so that a handler that blocks its process does not delay sends.

Stop order, on SIGTERM or SIGINT: take nothing new and hand back idle partitions → finish the calls in flight → close
sessions (the middleware's shutdown hooks) → the Application, if there is one → connections, which returns unfinished
messages to their queues in order → store → the last report. Bounded by ``shutdown_seconds``; a second signal exits at
once. A thread that hangs on a file does not keep the process alive.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from floodgate.broker.errors import HandlersStoppedError
from floodgate.broker.process.event_loop import new_event_loop
from floodgate.broker.process.forced_exit import EXIT_HANDLERS_STOPPED, exit_after, exit_now
from floodgate.broker.process.garbage import keep_modules_from_collections
from floodgate.broker.process.measurement import Measurement
from floodgate.broker.process.metrics import ProcessRole
from floodgate.broker.settings.model import Settings

if TYPE_CHECKING:
    from floodgate.actors.updates.handling import Handling
    from floodgate.broker.process.spans import Tracing
    from floodgate.broker.state.reporter import Reporter
    from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
    from floodgate.broker.worker.runner import Runner
    from floodgate.updates.compose import Assignment

logger = logging.getLogger("floodgate.worker")

# After the bound on in-flight work, only sockets and files remain to be closed.
CLOSING_SECONDS: Final = 10.0
HANDLER_CLOSING_SECONDS: Final = 25.0  # an Application writes its persistence
# A stopped worker has closed everything that matters. Only a thread that hangs on a file or on standard error could
# still keep its interpreter alive; the last log lines get two seconds.
LEAVING_SECONDS: Final = 3.0
# Time for a sweep to return the dead letters that it holds, in order.
GIVING_BACK_SECONDS: Final = 5.0
CAPACITY_SECONDS: Final = 60.0
# For files and third-party middleware that may block. Two, so that one slow read does not stop all uploads.
EXECUTOR_THREADS: Final = 2


class WorkerProcess:
    """A worker in this process. ``run`` returns after a signal or ``stop``.

    Args:
        settings: The settings of the process.
        assignment: The handler of updates; None sends jobs instead.
    """

    def __init__(self, settings: Settings, assignment: Assignment | None = None) -> None:
        self._settings = settings
        self._assignment = assignment
        self._handling: Handling | None = None
        self._measurement = Measurement(settings, ProcessRole.WORKER if assignment is None else ProcessRole.HANDLERS)
        self._stopped = threading.Event()
        self._stopped_by: HandlersStoppedError | None = None
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broker: FloodgateBroker | None = None
        self._runner: Runner | None = None
        self._watching: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._tracing: Tracing | None = None
        self._reporter: Reporter | None = None

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            HandlersStoppedError: The handlers of updates stopped the worker.
            FloodgateError: The worker could not start because of its settings, the store or RabbitMQ.
        """
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_default_executor(ThreadPoolExecutor(EXECUTOR_THREADS, thread_name_prefix="floodgate-files"))
        try:
            await self._start()
            if not self._stopped.is_set():
                await self._wake.wait()
        finally:
            await self._shut_down()
        if self._stopped_by is not None:
            raise self._stopped_by

    def stop(self) -> None:
        """Ask ``run`` to end. Safe from any thread or signal handler, twice, and before ``run``."""
        self._stopped.set()
        if self._loop is not None and self._wake is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    def _stop_for(self, error: HandlersStoppedError) -> None:
        self._stopped_by = error
        self.stop()

    async def _start(self) -> None:
        from floodgate.broker.amqp.connections import check_queue_count
        from floodgate.broker.amqp.queue_admin import adeclare
        from floodgate.broker.worker.setup import configure

        self._settings.require_bots()
        await self._measurement.start()
        self._broker = broker = configure(self._settings)
        broker.metrics = self._measurement.metrics
        broker.run_on_callers_loop()
        self._trace(broker)
        for bot in self._settings.tokens:
            # A store opens at its first call. Look up a job that does not exist, to fail now if the store is unusable.
            await broker.admission.lookup(bot, "")
        import floodgate.actors  # noqa: F401  # registers them with the broker configured above

        self._assign(broker)
        queues = broker.get_declared_queues()
        check_queue_count(len(queues))
        await adeclare(broker.connections, broker.topology_of(queues))
        if self._handling is not None:
            await self._handling.start()
        self._runner = self._make_runner(broker, queues)
        self._watching = asyncio.create_task(self._watch_capacity(broker), name="floodgate-capacity")
        self._sweeping = asyncio.create_task(self._sweep_dead_letters(broker), name="floodgate-retention")
        keep_modules_from_collections()
        await self._runner.start()
        self._report(broker)
        logger.info("worker ready: %d queues, bots %s%s", len(queues), ", ".join(self._bots()), self._by())

    def _trace(self, broker: FloodgateBroker) -> None:
        """Trace jobs, if the environment asks for it."""
        from floodgate.broker.process.tracing import start_tracing

        self._tracing = start_tracing("worker" if self._assignment is None else "handlers")
        if self._tracing is not None:
            from floodgate.broker.worker.middleware.job_traces import JobTraces
            from floodgate.broker.worker.middleware.rate_limit import RateLimit

            broker.add_middleware(JobTraces(self._tracing), before=RateLimit)

    def _report(self, broker: FloodgateBroker) -> None:
        """Report to the state store what this worker does."""
        from floodgate.broker.state.reporter import Reporter

        def consumed() -> list[str]:
            return [queue for queue, each in broker.subscriptions.items() if each.is_consuming]

        self._reporter = Reporter(self._settings, broker.metrics, process_id=broker.worker_id, partitions=consumed)
        self._reporter.start()

    async def _watch_capacity(self, broker: FloodgateBroker) -> None:
        """Warn before the state store is full."""
        from floodgate.broker.state.capacity import CapacityWatch

        watch = CapacityWatch(self._settings)
        while not broker.stopping.is_set():
            await asyncio.to_thread(watch.look)
            await broker.stopping.sleep(CAPACITY_SECONDS)

    async def _sweep_dead_letters(self, broker: FloodgateBroker) -> None:
        """Drop expired dead letters and the oldest ones beyond the limit, until the worker stops."""
        from floodgate.broker.worker.retention import Retention

        count = broker.admission.count_dropped
        await Retention(self._settings, broker.connections, count, broker.stopping).run()

    def _make_runner(self, broker: FloodgateBroker, queues: Iterable[str]) -> Runner:
        from floodgate.broker.worker.runner import Runner

        if self._assignment is None:
            return Runner(broker, queues)
        from floodgate.actors.updates.lanes import Lanes

        lanes = Lanes(broker.stopping, lambda task: runner.track(task))
        window = self._settings.updates.window
        runner = Runner(broker, queues, prefetch=lambda _: window, dispatch=lanes.dispatch)
        return runner

    def _assign(self, broker: FloodgateBroker) -> None:
        """Make this worker take updates if it has an assignment, and jobs otherwise."""
        from floodgate.broker.messages.job import SEND_ACTOR

        if self._assignment is None:
            broker.take_only(SEND_ACTOR, self._settings.tokens)
            return
        from floodgate.actors.updates import actor
        from floodgate.broker.messages.update import UPDATE_ACTOR
        from floodgate.updates.compose import compose

        broker.take_only(UPDATE_ACTOR, self._assignment.bots)
        self._handling = compose(self._assignment, broker, self._stop_for)
        actor.use(self._handling)

    def _by(self) -> str:
        return "" if self._assignment is None else f", updates handled by {self._assignment.path}"

    def _bots(self) -> list[str]:
        return sorted(self._settings.tokens if self._assignment is None else self._assignment.bots)

    async def _shut_down(self) -> None:
        broker, runner = self._broker, self._runner
        if broker is None:
            await self._measurement.stop()
            return
        closing = CLOSING_SECONDS if self._handling is None else CLOSING_SECONDS + HANDLER_CLOSING_SECONDS
        watchdog = exit_after(self._settings.shutdown_seconds + closing)
        if runner is not None:
            logger.info("stopping: finishing the calls in flight")
            await runner.stop(self._settings.shutdown_seconds)
        if self._handling is not None:
            await self._handling.stop()
        if self._sweeping is not None:
            await asyncio.wait({self._sweeping}, timeout=GIVING_BACK_SECONDS)
        await broker.aclose()
        if self._watching is not None:
            self._watching.cancel()
        if self._reporter is not None:
            await self._reporter.stop()
        await self._measurement.stop()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        watchdog.cancel()
        if runner is not None:
            logger.info("stopped")


def run_worker(settings: Settings, assignment: Assignment | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT. Must be called in the process's main thread.

    Raises:
        HandlersStoppedError: The handlers of updates stopped the worker.
        FloodgateError: The worker could not start.
    """
    process = WorkerProcess(settings, assignment)

    def on_signal(_number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, exit_now)
        process.stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, on_signal)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run_and_leave(process))


async def _run_and_leave(process: WorkerProcess) -> None:
    try:
        await process.run()
    except HandlersStoppedError:
        exit_after(LEAVING_SECONDS, code=EXIT_HANDLERS_STOPPED)
        raise
    exit_after(LEAVING_SECONDS, code=0)
