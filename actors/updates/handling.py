"""Takes an update from its delivery to its ack.

    handled before? ──yes─▶ ack
         │ no
         ▼
    the handlers, on their event loop ──success─▶ recorded as handled ─▶ ack
         │ exception
         ├─▶ pause and retry, up to ``FLOODGATE_UPDATES__ATTEMPTS`` attempts
         └─▶ dead letter with the traceback ─▶ recorded ─▶ ack; the chat's next update runs

Order. A chat's updates run one after the other (:mod:`floodgate.actors.updates.lanes`). A failed update is retried in
its place: later updates of its chat wait, other chats do not. An update that takes too long is not retried.

At least once. An update is recorded as handled after its handler has finished and before its ack. If the worker dies in
between or while the handler runs, or is shut down before the handler has finished, another worker handles the update
again. Nothing else causes a repetition.

Loops. Handlers run on an event loop and a thread of their own, so that a blocking handler does not stop the heartbeats.
Everything else runs on the worker's loop, which awaits the handlers. A handler that stops its loop
(``Application.stop_running()``) ends the worker as SIGTERM does.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from asyncio import CancelledError
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from floodgate.actors.updates.handler import Handler, UnreadableUpdateError
from floodgate.actors.updates.loop import HandlerLoop
from floodgate.actors.updates.run import HandlerRun, enter
from floodgate.actors.updates.watch import LoopWatch
from floodgate.broker.errors import HandlersStoppedError, PublishError, StateUnavailableError
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.job import unix_ms
from floodgate.broker.messages.update import Update
from floodgate.broker.process.logs import redact
from floodgate.broker.process.metrics import DEAD, HANDLER, UPDATE_LAG, UPDATES_HANDLED
from floodgate.broker.settings.model import CONSUMER_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from floodgate.broker.state.handled import AwaitedHandled, UpdateStatus
    from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
    from floodgate.broker.worker.queue_consumer import DeliveredMessage

logger = logging.getLogger("floodgate.updates")

OPEN_SECONDS: Final = 90.0
CLOSE_SECONDS: Final = 20.0
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 5.0
STORE_RETRY_SECONDS: Final = 1.0
# How long to wait for the store before a handler runs: within RabbitMQ's consumer timeout.
STORE_HOLD_SECONDS: Final = 10 * 60.0
# How long to wait for it afterwards: not long, since the update has been handled, recorded or not.
STORE_NOTE_SECONDS: Final = 5.0
# The end of a traceback matters most.
MAX_TRACEBACK: Final = 8000
_OURS: Final = f"{Path(__file__).parents[1]}/"  # frames that say nothing about the handler

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an update could not be handled. ``again``: whether another attempt may help."""

    reason: str
    description: str
    traceback: str = ""
    again: bool = True


class StoppedError(Exception):
    """The worker stops, or cannot continue with this update, which goes back to its queue."""


class Handling:
    """Handles a process's updates: ``start`` before the first one, ``stop`` after the last. Belongs to the worker's
    event loop.

    Args:
        on_stopped: called from another thread when the user's code has stopped its event loop: the worker must end.
    """

    def __init__(
        self,
        broker: FloodgateBroker,
        handler: Handler,
        ledger: AwaitedHandled,
        on_stopped: Callable[[HandlersStoppedError], None],
    ) -> None:
        self._broker = broker
        self._settings = broker.settings
        self._metrics = broker.metrics
        self._handler = handler
        self._ledger = ledger
        self._on_stopped = on_stopped
        self._loop = HandlerLoop(self._stopped)
        self._watch = LoopWatch(self._loop.loop, self._loop.thread, self._settings.updates.blocked_seconds)
        self._meeting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by queue

    async def start(self) -> None:
        """Open the handler.

        Raises:
            FloodgateError: the handler cannot be opened.
        """
        self._loop.start()
        await self._loop.run(self._handler.open(), OPEN_SECONDS)
        self._watch.start()

    async def stop(self) -> None:
        """Close the handler, within a bound. Safe to call twice, and unstarted."""
        if self._loop.thread.is_alive():
            try:
                await self._loop.run(self._handler.close(), CLOSE_SECONDS)
            except TimeoutError:
                logger.warning("%s did not close within %g s", self._handler.name, CLOSE_SECONDS)
        await asyncio.to_thread(self._watch.stop)
        await asyncio.to_thread(self._loop.stop)
        await self._ledger.close()

    def _stopped(self, reason: str) -> None:
        self._broker.stopping.set()  # no further update is started
        error = HandlersStoppedError(self._handler.name, reason)
        logger.warning("%s", error)
        self._on_stopped(error)

    async def deliver(self, message: DeliveredMessage) -> None:
        """Run the handlers for an update, and decide whether to acknowledge its message."""
        update = message.update
        assert update is not None
        try:
            await self._deliver(message, update)
        except StoppedError as stop:
            logger.info("returning update %d of bot %s to its queue: %s", update.update_id, update.bot, stop)
            self._return(message, update)
        except PublishError as error:
            logger.warning("returning update %d of bot %s to its queue: %s", update.update_id, update.bot, error)
            self._return(message, update)

    def _return(self, message: DeliveredMessage, update: Update) -> None:
        self._metrics.count(UPDATES_HANDLED, update.bot, "returned")
        message.give_back()

    async def _deliver(self, message: DeliveredMessage, update: Update) -> None:
        if await self._meet(update, message.queue_name):
            logger.info("update %d of bot %s was delivered again: already handled", update.update_id, update.bot)
            self._metrics.count(UPDATES_HANDLED, update.bot, "again")
            message.done()
            return
        lag_ms, started = unix_ms() - message.message_timestamp, time.monotonic()
        self._metrics.observe(UPDATE_LAG, max(0, lag_ms) / 1000, update.bot)
        failure = await self._handle(message, update)
        self._metrics.observe(HANDLER, time.monotonic() - started, update.bot)
        if failure is not None:
            await self._bury(message, update, *failure)
        await self._note(update)
        self._metrics.count(UPDATES_HANDLED, update.bot, "handled" if failure is None else "dead")
        message.done()

    async def _meet(self, update: Update, queue: str) -> bool:
        """Whether the update was handled before. If its partition moved here from another worker, the data in memory
        about its chats is refreshed before any of its updates continues."""
        async with self._meeting[queue]:
            status = await self._ask(lambda: self._see(update, queue), STORE_HOLD_SECONDS)
            if status.moved_from is not None:
                await self._move(update.bot, queue, status.moved_from)
        return status.handled

    async def _see(self, update: Update, queue: str) -> UpdateStatus:
        meeting = self._ledger.begin(update.bot, update.update_id, queue, self._broker.worker_id)
        if (chat := update.chat_heard_from) is None:
            return await meeting
        status, _ = await asyncio.gather(meeting, self._broker.admission.heard_from(update.bot, chat))
        return status

    async def _move(self, bot: str, queue: str, home: str) -> None:
        logger.info("%s moved to this worker from %s", queue, home)
        partition = int(queue.rpartition(".")[2])
        moving = self._handler.moved_here(bot, partition, self._settings.update_partitions)
        await self._loop.run(moving, self._settings.updates.handler_seconds)

    async def _handle(self, message: DeliveredMessage, update: Update) -> tuple[Failure, int] | None:
        """Run the handlers until they succeed or no attempt is left. Return the last failure and the number of
        attempts, or None."""
        most = self._settings.updates.attempts
        for attempt in range(1, most + 1):
            run = HandlerRun(update, message.queue_name, message.message_timestamp, attempt, last=attempt == most)
            failure = await self._attempt(run)
            if failure is None:
                return None
            if run.last or not failure.again:
                return failure, attempt
            pause = pause_after(attempt)
            logger.warning("%s; attempt %d of %d, retrying in %.1f s", failure.description, attempt, most, pause)
            if await self._broker.stopping.sleep(pause):
                raise StoppedError("the worker is stopping")
        raise AssertionError("there is at least one attempt")

    async def _attempt(self, run: HandlerRun) -> Failure | None:
        about = f"update {run.update.update_id} of bot {run.update.bot}"
        seconds = self._settings.updates.handler_seconds
        try:
            expired = await self._loop.run(self._bounded(run, seconds), CONSUMER_TIMEOUT_SECONDS)
        except UnreadableUpdateError as error:
            return Failure(dead_letters.REASON_UNREADABLE, f"{about} cannot be parsed: {error}", again=False)
        except CancelledError as error:
            if self._broker.stopping.is_set():
                raise StoppedError("the worker stopped before the handler finished") from None
            return Failure(dead_letters.REASON_HANDLER, f"{about}: the handler cancelled itself", _trace(error))
        except _LimitReachedError as error:
            return Failure(
                dead_letters.REASON_TIME_LIMIT, _too_long(about, seconds), _trace(error.__cause__), again=False
            )
        except TimeoutError as error:
            raise StoppedError(_taken_away(about)) from error
        except Exception as error:  # noqa: BLE001  # the user's code may raise anything; this decides what follows
            return Failure(dead_letters.REASON_HANDLER, f"{about}: the handler raised {_named(error)}", _trace(error))
        if expired:
            logger.warning(_too_long(about, seconds))
        return None

    async def _bounded(self, run: HandlerRun, seconds: float) -> bool:
        """Run the handlers within the time limit. Returns whether they continued after they were cancelled.

        Raises:
            _LimitReachedError: they exceeded the limit and were cancelled.
            _HandlersError: they raised an exception that would mean something else outside of them.
        """
        enter(run)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._handler.handle(run)
        except TimeoutError as error:
            if limit.expired():
                raise _LimitReachedError from error
            raise _HandlersError from error
        except (Exception, CancelledError):
            raise
        except BaseException as error:  # SystemExit, KeyboardInterrupt: they would stop the event loop
            raise _HandlersError from error
        finally:
            run.over = True
        return limit.expired()

    async def _bury(self, message: DeliveredMessage, update: Update, failure: Failure, attempts: int) -> None:
        logger.error("%s; dead-lettered after %d attempts\n%s", failure.description, attempts, failure.traceback)
        letter = dead_letters.dead_update(
            update,
            message.delivery.body,
            message.queue_name,
            failure.reason,
            redact(failure.description),
            attempts=attempts,
            traceback=redact(failure.traceback),
        )
        await self._broker.connections.publisher.apublish(letter)
        self._metrics.count(DEAD, update.bot, failure.reason)

    async def _note(self, update: Update) -> None:
        try:
            await self._ask(lambda: self._ledger.mark(update.bot, update.update_id), STORE_NOTE_SECONDS)
        except StoppedError as stop:
            logger.warning(
                "could not record update %d of bot %s as handled; if delivered again, it is handled again: %s",
                update.update_id,
                update.bot,
                stop,
            )

    async def _ask(self, ask: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Ask the store, waiting up to ``seconds`` for it if it is down.

        Raises:
            StoppedError: it is down for longer, or the worker stops.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await ask()
            except StateUnavailableError as error:
                if await self._broker.stopping.sleep(STORE_RETRY_SECONDS) or time.monotonic() > deadline:
                    raise StoppedError(str(error)) from error


class _LimitReachedError(Exception):
    """The handlers were cancelled for taking too long."""


class _HandlersError(Exception):
    """The handlers raised a ``TimeoutError`` of their own, a ``SystemExit`` or the like, which is the ``__cause__``."""


def pause_after(attempt: int) -> float:
    """The pause before the next attempt, in seconds. It doubles, but stays short because the chat waits."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS)


def _named(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, _HandlersError) and error.__cause__ else error
    text = str(cause)
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _trace(error: BaseException | None) -> str:
    if isinstance(error, _HandlersError):
        error = error.__cause__
    if error is None:
        return ""
    trace = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in trace.stack if not frame.filename.startswith(_OURS)]
    trace.stack = traceback.StackSummary.from_list(frames)
    return "".join(trace.format())[-MAX_TRACEBACK:]


def _too_long(about: str, seconds: float) -> str:
    return (
        f"{about}: the handlers took longer than FLOODGATE_UPDATES__HANDLER_SECONDS ({seconds:g} s) and were "
        "cancelled. Move long work to an actor or another process, or raise the setting, but not too far: "
        f"{_taking_away()}"
    )


def _taken_away(about: str) -> str:
    return f"{about}: the event loop is blocked, and {_taking_away()} Another worker handles it."


def _taking_away() -> str:
    minutes = CONSUMER_TIMEOUT_SECONDS // 60
    return f"after {minutes} minutes RabbitMQ takes an unacknowledged update from its worker (the consumer timeout)."
