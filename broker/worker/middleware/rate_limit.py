"""Admission before each send, as Dramatiq middleware.

    decide ─▶ Go            the actor runs, with the permit on the message; if the process is too busy to use the
           │                permit at once, the actor hands it back and asks again: see ``renew``
           ├▶ Wait (bot)    all jobs of the bot have to wait, so this one stays in the worker; a long pause parks it
           │                and suspends its queue, so that the backlog does not pass through the ladder
           ├▶ Wait (chat)   a short wait is slept through; for a longer one the job goes to the delay ladder and is
           │                acknowledged once that is confirmed, so that the chats behind it can proceed
           ├▶ AlreadySent, AlreadyDead   acknowledged; so is a job that was shed or superseded
           ├▶ Exhausted     dead-lettered: its calls killed their workers, or it kept being handed back before one
           ├▶ Unreachable   dead-lettered, or listed, with Telegram's error for the chat; spends no budget
           └▶ Unsettled     the job's ``on_uncertain`` decides

Deferring is not failing: it uses no attempt and logs nothing above DEBUG. Waits are timers on the event loop.

Fail closed: Dramatiq logs and swallows exceptions of middleware other than ``MiddlewareError``, and would then run the
actor without a permit. So every error here becomes a :class:`Deferral`, and the actor also refuses a message without a
permit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, NoReturn

from dramatiq.broker import MessageProxy
from dramatiq.errors import RateLimitExceeded
from dramatiq.middleware import MiddlewareError

from floodgate.broker.admission.contract import (
    CANCELLED,
    SHED,
    SUPERSEDED,
    AlreadyDead,
    AlreadySent,
    Ask,
    Dead,
    Decision,
    Exhausted,
    Go,
    Record,
    Released,
    Scope,
    Standing,
    Unreachable,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.policy import PROMPT, ask_for, leaves_letter, must_be_prompt
from floodgate.broker.amqp.delay_ladder import delayed
from floodgate.broker.amqp.topology import DELIVERY_LIMIT
from floodgate.broker.errors import PublishError, StateUnavailableError
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.job import Job, OnUncertain, unix_ms
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.job_trace import JobTrace
from floodgate.broker.process.metrics import ADMISSION, DEAD, DELAYED, JOBS_SHED, PERMITS, WAIT, Metrics
from floodgate.broker.process.outages import OutageLog
from floodgate.broker.worker.middleware.awaited import AwaitedMiddleware, HostBroker
from floodgate.broker.worker.queue_consumer import DeliveredMessage

logger = logging.getLogger("floodgate.worker")

# For shorter waits the delay ladder (its unit is 125 ms) would take longer than the wait itself.
SHORT_WAIT: Final = timedelta(milliseconds=120)
STORE_RETRY_SECONDS: Final = 1.0
# Half of RabbitMQ's consumer timeout: a job held while the store is down must be returned before RabbitMQ closes the
# channel.
STORE_HOLD_SECONDS: Final = 15 * 60
FORBIDDEN: Final = 403


class Deferral(MiddlewareError, RateLimitExceeded):  # noqa: N818  # not an error
    """Raised when a message is not processed now. Dramatiq logs it at DEBUG, like any exceeded rate limit."""

    def __init__(self, why: str) -> None:
        super().__init__(why)  # type: ignore[no-untyped-call]  # Dramatiq's


@dataclass(frozen=True, slots=True)
class Expired:
    """The job has expired, and no call for it is in flight or has ended it."""


class RateLimit(AwaitedMiddleware):
    """Asks admission before each send. One instance per process; its coroutines run on the broker's event loop."""

    def __init__(self) -> None:
        self._outage = OutageLog()  # of the state store

    def concerns(self, message: MessageProxy) -> bool:
        return getattr(message, "job", None) is not None

    async def abefore_process_message(self, broker: HostBroker, message: DeliveredMessage) -> None:
        assert message.job is not None
        await self._guard(broker, message, message.job, self._admit(broker, message, message.job))

    async def renew(self, broker: HostBroker, message: DeliveredMessage) -> None:
        """Hand back a permit that expired unused and ask for another. The job keeps its place in its line.

        Raises:
            Deferral: no permit was given, and the message has been dealt with.
        """
        assert message.job is not None
        await self._guard(broker, message, message.job, self._renew(broker, message, message.job))

    async def _guard(self, broker: HostBroker, message: DeliveredMessage, job: Job, step: Awaitable[None]) -> None:
        """Await a step. Afterwards the message has a permit, or it has been dealt with and ``Deferral`` is raised."""
        try:
            await step
        except Deferral:
            raise
        except (PublishError, StateUnavailableError) as error:
            logger.warning("job %s returns to its queue: %s", job.id, error)
            message.give_back()
            raise Deferral(str(error)) from error
        except Exception as error:
            # No exception may reach Dramatiq, which would run the actor: see the module docstring.
            logger.exception("job %s could not be admitted", job.id)
            await self._give_up_or_back(broker, message, job, error)
            raise Deferral(f"{type(error).__name__}") from error

    async def _give_up_or_back(self, broker: HostBroker, message: DeliveredMessage, job: Job, error: Exception) -> None:
        """Return a job on which admission fails; at the delivery limit, dead-letter it: RabbitMQ 4.3 does not count
        returns itself.

        The ledger is not updated, since it may be the part that fails.
        """
        message.give_back()
        if message.delivery.delivery_count < DELIVERY_LIMIT:
            return
        why = f"admission failed {message.delivery.delivery_count + 1} times: {type(error).__name__}"
        delivery, queue = message.delivery, message.queue_name
        letter = dead_letters.dead_job(job, delivery.body, queue, dead_letters.REASON_FAILED, why, delivery.trace)
        try:
            await broker.connections.publisher.apublish(letter)
        except PublishError as refused:
            logger.warning("job %s returns to its queue: %s", job.id, refused)
        else:
            broker.metrics.count(DEAD, job.bot, dead_letters.REASON_FAILED)
            message.done()

    async def _admit(self, broker: HostBroker, message: DeliveredMessage, job: Job) -> None:
        message.ask = ask = ask_for(job, broker.settings)
        started = time.monotonic()
        fresh = False
        while True:
            decision = await self._decide(broker, job, ask, fresh)
            fresh = False
            _trace(message.trace, decision)
            match decision:
                case Expired():
                    await self._bury(
                        broker, message, ask, dead_letters.REASON_EXPIRED, _expiry(job.attempts > job.unsent)
                    )
                case Go():
                    message.permit = decision
                    if must_be_prompt(ask, broker.settings):
                        message.good_until = decision.decided_at + PROMPT.total_seconds()
                    return
                case AlreadyDead(reason=reason) if reason in (SHED, SUPERSEDED):
                    self._let_go(broker, message, ask, reason)
                case AlreadySent(content=content) | AlreadyDead(content=content):
                    self._skip(message, job, content)
                case Unreachable(why=why):
                    await self._bury(broker, message, ask, dead_letters.REASON_CHAT_UNREACHABLE, why, _refusal(why))
                case Exhausted():
                    await self._bury(broker, message, ask, dead_letters.REASON_EXHAUSTED, decision.why)
                case Unsettled(age=age):
                    await self._question(broker, message, ask, job, age)
                    message.uncertain = fresh = True
                case Wait(scope=Scope.CHAT) if decision.delay > SHORT_WAIT:
                    await self._park(broker, message, ask, decision)
                case Wait():
                    await self._hold(broker, message, ask, decision, time.monotonic() - started)
                case None:
                    await self._hold_for_store(broker, message, time.monotonic() - started)

    async def _renew(self, broker: HostBroker, message: DeliveredMessage, job: Job) -> None:
        permit, message.permit = message.permit, None
        assert message.ask is not None and permit is not None
        started = time.monotonic()
        while not await self._hand_back(broker, message.ask, permit):
            await self._hold_for_store(broker, message, time.monotonic() - started)
        await self._admit(broker, message, job)

    async def _hand_back(self, broker: HostBroker, ask: Ask, permit: Go) -> bool:
        """Return whether the store took the permit back. Otherwise the job's lease must run out."""
        try:
            await broker.admission.settle(ask, Released(), permit.grant)
        except StateUnavailableError as error:
            self._complain(error)
            return False
        return True

    async def _decide(self, broker: HostBroker, job: Job, ask: Ask, fresh: bool) -> Decision | Expired | None:
        """Admission's decision, or None if the store is unavailable. ``fresh`` first forgets an uncertain send."""
        try:
            if job.expired(unix_ms()) and not _begun(await broker.admission.lookup(ask.bot, ask.job_id)):
                return Expired()
            asked = time.monotonic()
            if job.worth_until_ms is not None:
                ask = replace(ask, worth=job.worth(unix_ms()))
            decision = await broker.admission.renew_unsettled(ask) if fresh else await broker.admission.admit(ask)
        except StateUnavailableError as error:
            broker.metrics.observe(WAIT, STORE_RETRY_SECONDS, ask.bot, "store")
            self._complain(error)
            return None
        _measure(broker.metrics, ask.bot, decision, time.monotonic() - asked)
        if self._outage.end() is not None:
            logger.info("the state store is available again; sending resumes")
        return decision

    def _complain(self, error: StateUnavailableError) -> None:
        if self._outage.is_due():
            logger.error("sending is on hold: %s", error)

    async def _question(
        self, broker: HostBroker, message: DeliveredMessage, ask: Ask, job: Job, age: timedelta
    ) -> None:
        """Handle a job whose worker died during the call, perhaps after Telegram had carried it out: send it again, or
        leave it to an operator."""
        logger.warning("job %s may have been sent %.0f s ago: %s", job.id, age.total_seconds(), job.on_uncertain)
        if job.expired(unix_ms()):
            await self._bury(broker, message, ask, dead_letters.REASON_EXPIRED, _expiry(perhaps_sent=True))
        if job.on_uncertain is OnUncertain.DEAD_LETTER:
            why = "the worker ended during the call; Telegram may have sent it"
            await self._bury(broker, message, ask, dead_letters.REASON_UNCERTAIN, why)

    def _let_go(self, broker: HostBroker, message: DeliveredMessage, ask: Ask, reason: str) -> NoReturn:
        """Acknowledge a job that was shed or superseded."""
        broker.metrics.count(DEAD, ask.bot, reason)
        message.done()
        raise Deferral(reason)

    def _skip(self, message: DeliveredMessage, job: Job, content: str | None) -> NoReturn:
        if content not in (None, job.content):
            logger.warning(
                "job %s is dropped: its dedupe key %r was already used for a different method, chat or content",
                *(job.id, job.dedupe_key),
            )
        elif job.dedupe_key is not None:
            logger.info("job %s (dedupe key %r) has already ended and is not sent again", job.id, job.dedupe_key)
        message.done()
        raise Deferral("already ended")

    async def _park(self, broker: HostBroker, message: DeliveredMessage, ask: Ask, wait: Wait) -> NoReturn:
        """Publish the job to the delay ladder, and acknowledge it once that is confirmed."""
        delivery = message.delivery
        home = Publication("", message.queue_name, delivery.body, message.message_id, headers=delivery.trace)
        await broker.connections.publisher.apublish(delayed(home, wait.delay))
        broker.metrics.count(DELAYED, ask.bot, wait.why)
        message.done()
        raise Deferral("parked")

    async def _hold(
        self, broker: HostBroker, message: DeliveredMessage, ask: Ask, wait: Wait, held_seconds: float
    ) -> None:
        seconds = wait.delay.total_seconds()
        if wait.scope is Scope.BOT and held_seconds + seconds > broker.settings.hold_seconds:
            broker.suspend(message.queue_name, seconds)
            await self._park(broker, message, ask, wait)
        await self._sleep(broker, message, seconds)

    async def _hold_for_store(self, broker: HostBroker, message: DeliveredMessage, held_seconds: float) -> None:
        if held_seconds > STORE_HOLD_SECONDS:
            message.give_back()
            raise Deferral("the state store is unavailable")
        await self._sleep(broker, message, STORE_RETRY_SECONDS)

    async def _sleep(self, broker: HostBroker, message: DeliveredMessage, seconds: float) -> None:
        if await broker.stopping.sleep(seconds):
            message.give_back()
            raise Deferral("the worker is stopping")

    async def _bury(
        self,
        broker: HostBroker,
        message: DeliveredMessage,
        ask: Ask,
        reason: str,
        description: str,
        error: dict[str, Any] | None = None,
    ) -> NoReturn:
        """Write the dead letter (if kept), then the ledger, then acknowledge: a crash in between repeats a step and
        loses nothing."""
        assert message.job is not None
        message.trace.outcome("dead", (reason, description))
        kept = leaves_letter(ask, reason, broker.settings)
        if kept:
            delivery, queue = message.delivery, message.queue_name
            letter = dead_letters.dead_job(message.job, delivery.body, queue, reason, description, delivery.trace)
            await broker.connections.publisher.apublish(letter)
        await broker.admission.settle(ask, Dead(reason, error, kept=kept))
        broker.metrics.count(DEAD, ask.bot, reason)
        message.done()
        raise Deferral(reason)


def _trace(trace: JobTrace, decision: Decision | Expired | None) -> None:
    if decision is None:
        trace.wait("store", STORE_RETRY_SECONDS, Scope.BOT)
    elif isinstance(decision, Wait):
        trace.wait(decision.why, decision.delay.total_seconds(), decision.scope)
    elif isinstance(decision, AlreadySent | AlreadyDead):
        reason = decision.reason if isinstance(decision, AlreadyDead) else None
        trace.outcome(reason if reason in (CANCELLED, SHED, SUPERSEDED) else "already-ended")


def _measure(metrics: Metrics, bot: str, decision: Decision, seconds: float) -> None:
    metrics.observe(ADMISSION, seconds)
    if isinstance(decision, Go):
        metrics.count(PERMITS, bot)
    elif isinstance(decision, Wait):
        metrics.observe(WAIT, decision.delay.total_seconds(), bot, decision.why)
    elif isinstance(decision, AlreadyDead) and decision.reason == SHED:
        metrics.count(JOBS_SHED, bot)


def _begun(record: Record | None) -> bool:
    """Whether a job is past waiting in the ledger: for example, it was sent and its ack was lost, or superseded."""
    return record is not None and (record.standing is not Standing.WAITING or record.chain is not None)


def _expiry(perhaps_sent: bool) -> str:
    """The description of an expired job's dead letter, for an operator who considers replaying it."""
    passed = "its time to be sent has passed"
    return f"{passed}; an earlier call for it may have been carried out" if perhaps_sent else passed


def _refusal(why: str) -> dict[str, Any]:
    """Telegram's earlier error for an unreachable chat, in the form in which it would be returned again."""
    return {"error_code": FORBIDDEN, "description": why}
