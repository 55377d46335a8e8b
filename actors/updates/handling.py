"""What happens to an update between its delivery and its ack.

    seen before? ──yes─▶ ack
         │ no
         ▼
    the handlers, on their event loop ──fine─▶ noted as handled ─▶ ack
         │ they raise
         ├─▶ a pause, and again, up to ``FLOODGATE_UPDATES__ATTEMPTS`` times
         └─▶ dead letter with the traceback ─▶ noted ─▶ ack, and the chat goes on

Order. A chat's updates run one after the other (:mod:`floodgate.actors.updates.lanes`). An update that fails is tried
again in its place: those of its chat wait behind it, other chats do not. One that takes too long is not tried again.

At least once. An update is noted as handled after its handler has ended and before its ack. A worker that dies in
between, or while the handler runs, leaves it to another, which handles it again; so does one that is shut down before
the handler has ended. Nothing else does.

Loops. Handlers have a loop of their own, on a thread of their own, so that one which blocks costs no heartbeat. All
else runs on the worker's loop, which awaits the handlers.
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
from floodgate.broker.errors import PublishError, StateUnavailableError
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.update import Update
from floodgate.broker.process.logs import redact
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
# Before a handler is called the store is waited for, as long as RabbitMQ lets an update be held.
STORE_HOLD_SECONDS: Final = 10 * 60.0
# After it, not for long: the update is handled, whether that is noted or not.
STORE_NOTE_SECONDS: Final = 5.0
# The end of a traceback says most.
MAX_TRACEBACK: Final = 8000
_OURS: Final = f"{Path(__file__).parents[1]}/"  # frames that say nothing of the handler

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an update was not handled. ``again``: whether another attempt may help."""

    reason: str
    description: str
    traceback: str = ""
    again: bool = True


class StoppedError(Exception):
    """The worker stops, or cannot go on with this update: it goes back to its queue."""


class Handling:
    """One a process. ``start`` before its first update, ``stop`` after the last. Belongs to the worker's event loop."""

    def __init__(self, broker: FloodgateBroker, handler: Handler, ledger: AwaitedHandled) -> None:
        self._broker = broker
        self._settings = broker.settings
        self._handler = handler
        self._ledger = ledger
        self._loop = HandlerLoop()
        self._watch = LoopWatch(self._loop.loop, self._loop.thread, self._settings.updates.blocked_seconds)
        self._meeting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by queue

    async def start(self) -> None:
        """Open the handler.

        Raises:
            FloodgateError: it cannot be opened.
        """
        self._loop.start()
        await self._loop.run(self._handler.open(), OPEN_SECONDS)
        self._watch.start()

    async def stop(self) -> None:
        """Close the handler; bounded. Safe to call twice, and unstarted."""
        if self._loop.thread.is_alive():
            try:
                await self._loop.run(self._handler.close(), CLOSE_SECONDS)
            except TimeoutError:
                logger.warning("%s did not close within %g s", self._handler.name, CLOSE_SECONDS)
        await asyncio.to_thread(self._watch.stop)
        await asyncio.to_thread(self._loop.stop)
        await self._ledger.close()

    async def deliver(self, message: DeliveredMessage) -> None:
        """Have the update handled, and decide whether to acknowledge its message."""
        update = message.update
        assert update is not None
        try:
            await self._deliver(message, update)
        except StoppedError as stop:
            logger.info("update %d of bot %s goes back to its queue: %s", update.update_id, update.bot, stop)
            message.give_back()
        except PublishError as error:
            logger.warning("update %d of bot %s goes back to its queue: %s", update.update_id, update.bot, error)
            message.give_back()

    async def _deliver(self, message: DeliveredMessage, update: Update) -> None:
        if await self._meet(update, message.queue_name):
            logger.info("update %d of bot %s came again and was handled before", update.update_id, update.bot)
            message.done()
            return
        failure = await self._handle(message, update)
        if failure is not None:
            await self._bury(message, update, *failure)
        await self._note(update)
        message.done()

    async def _meet(self, update: Update, queue: str) -> bool:
        """Whether the update was handled before. If its partition came from another worker, what is in memory of its
        chats is renewed before any of its updates goes on."""
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
        logger.info("%s came to this worker from %s", queue, home)
        partition = int(queue.rpartition(".")[2])
        moving = self._handler.moved_here(bot, partition, self._settings.update_partitions)
        await self._loop.run(moving, self._settings.updates.handler_seconds)

    async def _handle(self, message: DeliveredMessage, update: Update) -> tuple[Failure, int] | None:
        """The handlers, until they succeed or are given up; the last failure and the number of attempts."""
        most = self._settings.updates.attempts
        for attempt in range(1, most + 1):
            run = HandlerRun(update, message.queue_name, message.message_timestamp, attempt, last=attempt == most)
            failure = await self._attempt(run)
            if failure is None:
                return None
            if run.last or not failure.again:
                return failure, attempt
            pause = pause_after(attempt)
            logger.warning("%s; attempt %d of %d, again in %.1f s", failure.description, attempt, most, pause)
            if await self._broker.stopping.sleep(pause):
                raise StoppedError("the worker stops")
        raise AssertionError("there is one attempt at least")

    async def _attempt(self, run: HandlerRun) -> Failure | None:
        about = f"update {run.update.update_id} of bot {run.update.bot}"
        seconds = self._settings.updates.handler_seconds
        try:
            expired = await self._loop.run(self._bounded(run, seconds), CONSUMER_TIMEOUT_SECONDS)
        except UnreadableUpdateError as error:
            return Failure(dead_letters.REASON_UNREADABLE, f"{about} cannot be read: {error}", again=False)
        except CancelledError as error:
            if self._broker.stopping.is_set():
                raise StoppedError("the worker stopped before its handler had ended") from None
            return Failure(dead_letters.REASON_HANDLER, f"{about}: the handler was cancelled by itself", _trace(error))
        except _LimitReachedError as error:
            return Failure(
                dead_letters.REASON_TIME_LIMIT, _too_long(about, seconds), _trace(error.__cause__), again=False
            )
        except TimeoutError as error:
            raise StoppedError(_taken_away(about)) from error
        except Exception as error:  # noqa: BLE001  # the user's code may raise anything, and what follows is decided here
            return Failure(dead_letters.REASON_HANDLER, f"{about}: the handler raised {_named(error)}", _trace(error))
        if expired:
            logger.warning(_too_long(about, seconds))
        return None

    async def _bounded(self, run: HandlerRun, seconds: float) -> bool:
        """Whether the handlers went on after they had been cancelled.

        Raises:
            _LimitReachedError: they took too long and ended for it. A ``TimeoutError`` of their own is another matter.
        """
        enter(run)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._handler.handle(run)
        except TimeoutError as error:
            if limit.expired():
                raise _LimitReachedError from error
            raise _HandlersTimeoutError(str(error)) from error
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

    async def _note(self, update: Update) -> None:
        try:
            await self._ask(lambda: self._ledger.mark(update.bot, update.update_id), STORE_NOTE_SECONDS)
        except StoppedError as stop:
            logger.warning(
                "update %d of bot %s is handled, and would be again if it came again: %s",
                update.update_id,
                update.bot,
                stop,
            )

    async def _ask(self, ask: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Ask the store, waiting for it if it is down.

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


class _HandlersTimeoutError(Exception):
    """A ``TimeoutError`` of the handlers' own, in its ``__cause__``."""


def pause_after(attempt: int) -> float:
    """Seconds before the next attempt: doubling, and short, for the partition waits."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS)


def _named(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, _HandlersTimeoutError) and error.__cause__ else error
    text = str(cause)
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _trace(error: BaseException | None) -> str:
    if isinstance(error, _HandlersTimeoutError):
        error = error.__cause__
    if error is None:
        return ""
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list([each for each in told.stack if not each.filename.startswith(_OURS)])
    return "".join(told.format())[-MAX_TRACEBACK:]


def _too_long(about: str, seconds: float) -> str:
    return (
        f"{about}: the handlers took longer than FLOODGATE_UPDATES__HANDLER_SECONDS ({seconds:g} s) and were "
        "cancelled. Let an actor or another process do long work and answer when it is done, or raise the setting: "
        f"{_taking_away()}"
    )


def _taken_away(about: str) -> str:
    return f"{about}: the event loop is blocked for good, and {_taking_away()} Another handles it."


def _taking_away() -> str:
    minutes = CONSUMER_TIMEOUT_SECONDS // 60
    return f"after {minutes} minutes RabbitMQ itself takes an update from its worker (its consumer timeout)."
