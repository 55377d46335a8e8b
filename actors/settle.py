"""Settles an outcome, in an order in which a crash at any point can only repeat an effect, never lose one.

    sent       ledger, then ack
    dead       dead letter confirmed, ledger (and the chat, if it is unreachable), then ack
    not kept   like dead, but without a dead letter: only the ledger lists the job
    shed       like not kept, and only counted: a failed call of typing, or a retry that would be late
    later      ledger (the job stays at the head of its line), published to the ladder and confirmed, then ack

The call has been made when settling begins. So if the state store is down, settling waits for it within a bound, and
then acknowledges the message even so, where its effect is safe: returning it to the queue would send it twice. A job
that could not be listed in the ledger becomes a dead letter then.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, assert_never

from floodgate.actors.backoff import BASE, counted, next_step
from floodgate.actors.outcomes import (
    BotRefused,
    FailureReason,
    Migrated,
    NothingToDo,
    Outcome,
    Paused,
    Retry,
    Uncertain,
    error_of,
    failure_in,
    name_of,
)
from floodgate.broker.admission import contract
from floodgate.broker.admission.contract import SHED, Dead, Sent
from floodgate.broker.admission.policy import PAUSE_POLL, family_of, is_typing, leaves_letter, needs_chat
from floodgate.broker.amqp.delay_ladder import delayed
from floodgate.broker.errors import InvalidParamsError, PublishError, StateUnavailableError
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.chats import ChatKind, chat_key, chat_kind
from floodgate.broker.messages.job import Job, encode_job, unix_ms
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.metrics import DEAD, DELAYED, JOBS_SHED, RETRY_AFTER, SENDS, TOO_MANY_REQUESTS
from floodgate.broker.process.outages import OutageLog

if TYPE_CHECKING:
    from floodgate.broker.admission.contract import Ask, Settlement
    from floodgate.broker.state.calls import BatchedAdmission
    from floodgate.broker.worker.middleware.awaited import HostBroker
    from floodgate.broker.worker.queue_consumer import DeliveredMessage

logger = logging.getLogger("floodgate.send")

RECORD_RETRY_SECONDS: Final = 1.0
# Together with the call itself, this stays below RabbitMQ's consumer timeout.
RECORD_AT_MOST_SECONDS: Final = 15 * 60
# A stopping worker does not wait as long, but long enough for a store that is only being restarted.
RECORD_AT_SHUTDOWN_SECONDS: Final = 5.0
# How often a refused token is tried again: a corrected one is noticed soon, a revoked one costs one call a minute.
BOT_FAILED_PAUSE: Final = timedelta(minutes=1)


class Settler:
    """Settles outcomes. One object per process, used for all its messages, on the broker's event loop."""

    def __init__(self, broker: HostBroker) -> None:
        self._broker = broker
        self._metrics = broker.metrics
        self._outage = OutageLog()  # of the state store

    async def settle(self, message: DeliveredMessage, job: Job, outcome: Outcome, *, unanswered: bool = False) -> None:
        """Apply an outcome, and decide whether to acknowledge the message.

        Args:
            unanswered: whether Telegram did not answer, which the bot's circuit breaker counts.
        """
        assert message.ask is not None
        message.trace.outcome(name_of(outcome), failure_in(outcome))
        self._metrics.count(SENDS, job.bot, name_of(outcome))
        try:
            await self._settle(message, job, message.ask, outcome, unanswered)
        except PublishError as error:
            logger.warning("returning job %s to its queue: %s", job.id, error)
            message.give_back()

    async def _settle(self, message: DeliveredMessage, job: Job, ask: Ask, outcome: Outcome, unanswered: bool) -> None:
        if is_typing(ask) and not isinstance(outcome, Sent | NothingToDo | Dead):
            await self._end_typing(message, job, ask, outcome)
            return
        match outcome:
            case Sent(result):
                await self._record(message, ask, dataclasses.replace(outcome, late=message.late))
                await self._resolve(ask, result)
                message.done()
            case NothingToDo(description, code):
                logger.info("job %s: nothing to do: %s", job.id, description)
                await self._record(message, ask, contract.Sent(True, error=error_of(code, description)))
                message.done()
            case Dead():
                await self._bury(message, job, ask, outcome)
            case Retry() | Uncertain():
                await self._try_again(message, job, ask, outcome, unanswered)
            case Paused(retry_after, description):
                await self._pause(ask, retry_after, description)
                # The store holds the pause, which an operator may end: see ``PAUSE_POLL``.
                await self._later(message, job, ask, contract.Retrying(min(retry_after, PAUSE_POLL)))
            case Migrated(new_chat):
                await self._migrate(ask, new_chat)
                # The refused call reached the Bot API and counts there, so its permit is not returned.
                await self._later(message, job, ask, contract.Retrying(timedelta()))
            case BotRefused(description):
                await self._pause_bot(ask, description)
                await self._later(message, job, ask, contract.Retrying(BOT_FAILED_PAUSE, charged=False))
            case _:
                assert_never(outcome)

    async def _try_again(
        self, message: DeliveredMessage, job: Job, ask: Ask, outcome: Retry | Uncertain, unanswered: bool
    ) -> None:
        if isinstance(outcome, Uncertain) and outcome.retry_after is not None:
            await self._pause(ask, outcome.retry_after, outcome.reason)
        step = next_step(job, outcome, self._broker.settings, unix_ms())
        probe = unanswered and message.permit is not None and message.permit.probe
        if isinstance(step, Dead) and not (probe and step.reason == FailureReason.EXHAUSTED):
            await self._bury(message, job, ask, step, unanswered=unanswered)
        elif probe:  # the outage continues, which is not held against the job
            await self._later(message, job, ask, contract.Retrying(BASE, charged=True, unanswered=True))
        elif isinstance(step, contract.Retrying):
            logger.info("job %s: %s; retrying in %.1f s", job.id, outcome.reason, step.delay.total_seconds())
            step = dataclasses.replace(step, unanswered=unanswered)
            await self._later(message, counted(job, outcome), ask, step)

    async def _end_typing(
        self,
        message: DeliveredMessage,
        job: Job,
        ask: Ask,
        outcome: Retry | Uncertain | Paused | Migrated | BotRefused,
    ) -> None:
        """Shed typing whose call failed: another call would be late. What the answer says of the chat is kept."""
        match outcome:
            case Paused(retry_after):
                await self._report_flood_wait(ask, retry_after)
            case Migrated(new_chat):
                await self._migrate(ask, new_chat)
            case BotRefused(description):
                await self._pause_bot(ask, description)
            case Retry() | Uncertain():
                pass
        await self._shed(message, job, ask)

    async def _shed(self, message: DeliveredMessage, job: Job, ask: Ask, *, unanswered: bool = False) -> None:
        logger.debug("job %s is shed: it would be late", job.id)
        self._metrics.count(DEAD, job.bot, SHED)
        message.trace.outcome(SHED)
        self._metrics.count(JOBS_SHED, ask.bot)
        await self._record(message, ask, Dead(SHED, unanswered=unanswered, kept=False))
        message.done()

    async def _later(self, message: DeliveredMessage, job: Job, ask: Ask, settlement: contract.Retrying) -> None:
        worth = job.worth(unix_ms())
        if worth is not None and settlement.delay >= worth:
            await self._shed(message, job, ask, unanswered=settlement.unanswered)
            return
        message.trace.wait("retry", settlement.delay.total_seconds(), "job")
        await self._record(message, ask, settlement)
        body = encode_job(job, message.queue_name)
        home = Publication("", message.queue_name, body, job.id, headers=message.delivery.trace)
        await self._broker.connections.publisher.apublish(delayed(home, settlement.delay))
        self._metrics.count(DELAYED, job.bot, "retry")
        message.done()

    async def _bury(
        self, message: DeliveredMessage, job: Job, ask: Ask, dead: Dead, *, unanswered: bool = False
    ) -> None:
        reason, description = dead.reason, dead.description
        logger.warning("giving up on job %s: %s: %s", job.id, reason, description)
        message.trace.outcome(name_of(dead), failure_in(dead))
        kept = leaves_letter(ask, reason, self._broker.settings)
        if kept:
            await self._write_letter(message, job, dead)
        await self._remember(ask, reason, description)
        settlement = dataclasses.replace(dead, unanswered=unanswered, kept=kept)
        if not await self._record(message, ask, settlement) and not kept:
            await self._write_letter(message, job, dead)
        self._metrics.count(DEAD, job.bot, reason)
        message.done()

    async def _write_letter(self, message: DeliveredMessage, job: Job, dead: Dead) -> None:
        counted = job.model_copy(update={"attempts": job.attempts + 1})
        body, queue = message.delivery.body, message.queue_name
        letter = dead_letters.dead_job(counted, body, queue, dead.reason, dead.description, message.delivery.trace)
        await self._broker.connections.publisher.apublish(letter)

    async def _remember(self, ask: Ask, reason: str, description: str) -> None:
        """Remember an unreachable chat, so that its other jobs fail fast. Only calls that show something in the chat
        tell whether it can be reached."""
        chat = ask.chat
        if reason == FailureReason.CHAT_UNREACHABLE and needs_chat(ask) and chat is not None:
            await self._tell_store(lambda store: store.mark_unreachable(ask.bot, chat, description))

    async def _pause(self, ask: Ask, retry_after: timedelta, description: str) -> None:
        logger.warning("429 for bot %s, chat %s: %s", ask.bot, ask.chat, description)
        await self._report_flood_wait(ask, retry_after)

    async def _report_flood_wait(self, ask: Ask, retry_after: timedelta) -> None:
        async def say(store: BatchedAdmission) -> None:
            scope = await store.too_many_requests(ask.bot, ask.chat, retry_after, family_of(ask))
            self._metrics.count(TOO_MANY_REQUESTS, ask.bot, scope)
            self._metrics.observe(RETRY_AFTER, retry_after.total_seconds(), ask.bot, scope)

        await self._tell_store(say)

    async def _pause_bot(self, ask: Ask, description: str) -> None:
        logger.error("Telegram refuses bot %s (%s): check its token. Its jobs wait.", ask.bot, description)
        await self._tell_store(lambda store: store.pause(ask.bot, None, BOT_FAILED_PAUSE, "unauthorized"))

    async def _migrate(self, ask: Ask, new_chat: str) -> None:
        logger.info("chat %s of bot %s is now %s", ask.chat, ask.bot, new_chat)
        if ask.chat is not None:
            old_chat = ask.chat
            await self._tell_store(lambda store: store.migrate(ask.bot, old_chat, new_chat))

    async def _resolve(self, ask: Ask, result: object) -> None:
        """Learn a chat's id from a message sent to ``@name``: from now on, both share one budget."""
        if chat_kind(ask.chat) is not ChatKind.NAME or ask.chat is None:
            return
        try:
            chat = chat_key(result["chat"]["id"])  # type: ignore[index]  # any other form raises, see below
        except (TypeError, KeyError, IndexError, InvalidParamsError):
            return
        name = ask.chat
        await self._tell_store(lambda store: store.migrate(ask.bot, name, chat))

    async def _record(self, message: DeliveredMessage, ask: Ask, settlement: Settlement) -> bool:
        grant = message.permit.grant if message.permit is not None else None
        return await self._tell_store(lambda store: store.settle(ask, settlement, grant))

    async def _tell_store(self, say: Callable[[BatchedAdmission], Awaitable[object]]) -> bool:
        """Write to the store, waiting for it if it is down. Gives up after a bound, which is shorter at shutdown.

        Returns:
            Whether the store was written to.
        """
        deadline = time.monotonic() + RECORD_AT_MOST_SECONDS
        while True:
            try:
                await say(self._broker.admission)
                self._outage.end()
                return True
            except StateUnavailableError as error:
                self._complain(error)
                if self._broker.stopping.is_set():
                    deadline = min(deadline, time.monotonic() + RECORD_AT_SHUTDOWN_SECONDS)
                    await asyncio.sleep(RECORD_RETRY_SECONDS)
                else:
                    await self._broker.stopping.sleep(RECORD_RETRY_SECONDS)
                if time.monotonic() > deadline:
                    logger.error("could not record a completed call: %s", error)
                    return False

    def _complain(self, error: StateUnavailableError) -> None:
        """Log the outage. While all jobs wait here, none asks for admission, so nothing else would report it."""
        if self._outage.is_due():
            logger.error("completed calls are waiting to be recorded: %s", error)
