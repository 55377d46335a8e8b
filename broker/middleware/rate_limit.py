"""Admission before each send, as Dramatiq middleware.

    decide ─▶ Go            the actor runs, with the permit on the message; one that cannot use it at once (a busy
           │                moment of the process) hands it back and is decided again: see ``renew``
           ├▶ Wait (bot)    every job of the bot waits alike, so this one stays in hand; a long pause parks it and
           │                hands its queue back, so that the backlog is not pumped through the ladder
           ├▶ Wait (chat)   a moment is waited out; anything longer goes to the delay ladder, confirmed, then acked,
           │                and the chats behind it go on
           ├▶ AlreadySent, AlreadyDead   acknowledged
           ├▶ Unreachable   dead-lettered with what Telegram said of the chat, and no budget spent
           └▶ Unknown       the job's ``on_uncertain`` decides

A deferral is no failure: no attempt is spent, nothing is logged above DEBUG.

Fail closed: Dramatiq logs and swallows what middleware raises unless it is a ``MiddlewareError``, and would then run
the actor unmetered. So everything that can go wrong here ends in a :class:`Deferral`, and the actor refuses a message
without a permit besides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import RateLimitExceeded
from dramatiq.middleware import Middleware, MiddlewareError

from broker import dead_letters
from broker.admission.contract import (
    AlreadyDead,
    AlreadySent,
    Ask,
    Dead,
    Decision,
    Go,
    Record,
    Released,
    Scope,
    Standing,
    Unknown,
    Unreachable,
    Wait,
)
from broker.admission.policy import PROMPT, ask_for, must_be_prompt
from broker.errors import PublishError, StateUnavailableError
from broker.job import Job, OnUncertain, unix_ms
from broker.ladder import delayed
from broker.publication import Publication

if TYPE_CHECKING:
    from broker.dramatiq_broker import FloodgateBroker
    from broker.dramatiq_consumer import DeliveredMessage

logger = logging.getLogger("floodgate.worker")

# Below this a trip through the ladder (its unit is 125 ms) takes longer than the wait itself.
SHORT_WAIT: Final = timedelta(milliseconds=120)
STORE_RETRY_SECONDS: Final = 1.0
# Half of RabbitMQ's consumer timeout: a job held for a store that is down must be back before the channel is closed.
STORE_HOLD_SECONDS: Final = 15 * 60
# A suspended queue looks again this often, in case an operator ended the pause.
SUSPEND_AT_MOST_SECONDS: Final = 60.0
COMPLAIN_EVERY_SECONDS: Final = 60.0
FORBIDDEN: Final = 403


class Deferral(MiddlewareError, RateLimitExceeded):  # noqa: N818  # a word for what it is: no error
    """The message is not processed now. Dramatiq logs it at DEBUG, as it does any exceeded rate limit."""

    def __init__(self, why: str) -> None:
        super().__init__(why)  # type: ignore[no-untyped-call]  # Dramatiq's


@dataclass(frozen=True, slots=True)
class Expired:
    """The job's time has passed, and no call for it is under way or has ended it."""


class RateLimit(Middleware):
    """Asks admission before each send. One object a process; its hooks run on worker threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._complained_at: float | None = None  # monotonic; None while the store answers. Under _lock.

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        job: Job | None = getattr(message, "job", None)
        if job is None:
            return
        ours: DeliveredMessage = message  # type: ignore[assignment]  # it has a job
        ours.renew = partial(self.renew, broker)
        self._guard(self._admit, broker, ours, job)

    def renew(self, broker: Broker, message: DeliveredMessage) -> None:
        """Hand back a permit that was not used in time, and ask again. The job keeps its place.

        Raises:
            Deferral: the message is dealt with; there is no permit.
        """
        assert message.job is not None
        self._guard(self._renew, broker, message, message.job)

    def _guard(
        self,
        step: Callable[[FloodgateBroker, DeliveredMessage, Job], None],
        broker: Broker,
        message: DeliveredMessage,
        job: Job,
    ) -> None:
        """Take a step after which the message has a permit, or is dealt with and a ``Deferral`` is raised."""
        try:
            step(broker, message, job)  # type: ignore[arg-type]  # this middleware is for our broker only
        except Deferral:
            raise
        except (PublishError, StateUnavailableError) as error:
            logger.warning("job %s goes back to its queue: %s", job.id, error)
            message.give_back()
            raise Deferral(str(error)) from error
        except Exception as error:
            # Any fault at all must not reach Dramatiq, which would go on and send: see the essay above.
            logger.exception("job %s could not be admitted and goes back to its queue", job.id)
            message.give_back()
            raise Deferral(f"{type(error).__name__}") from error

    def _admit(self, broker: FloodgateBroker, message: DeliveredMessage, job: Job) -> None:
        message.ask = ask = ask_for(job, broker.settings)
        started = time.monotonic()
        fresh = False
        while True:
            decision = self._decide(broker, job, ask, fresh)
            fresh = False
            match decision:
                case Expired():
                    self._bury(broker, message, ask, dead_letters.REASON_EXPIRED, _expiry(job.attempts > job.unsent))
                case Go():
                    message.permit = decision
                    if must_be_prompt(ask, broker.settings):
                        message.good_until = time.monotonic() + PROMPT.total_seconds()
                    return
                case AlreadySent() | AlreadyDead():
                    self._skip(message, job)
                case Unreachable(why=why):
                    self._bury(broker, message, ask, dead_letters.REASON_CHAT_UNREACHABLE, why, _refusal(why))
                case Unknown(age=age):
                    self._question(broker, message, ask, job, age)
                    message.uncertain = fresh = True
                case Wait(scope=Scope.CHAT, delay=delay) if delay > SHORT_WAIT:
                    self._park(broker, message, delay)
                case Wait():
                    self._hold(broker, message, decision, time.monotonic() - started)
                case None:
                    self._hold_for_store(broker, message, time.monotonic() - started)

    def _renew(self, broker: FloodgateBroker, message: DeliveredMessage, job: Job) -> None:
        permit, message.permit = message.permit, None
        assert message.ask is not None and permit is not None
        broker.admission.settle(message.ask, Released(), permit.grant)
        self._admit(broker, message, job)

    def _decide(self, broker: FloodgateBroker, job: Job, ask: Ask, fresh: bool) -> Decision | Expired | None:
        """Admission's word, or None when the store cannot answer. ``fresh`` forgets an uncertain send first."""
        try:
            if job.expired(unix_ms()) and not _begun(broker.admission.lookup(ask.bot, ask.job_id)):
                return Expired()
            decision = broker.admission.renew_unknown(ask) if fresh else broker.admission.admit(ask)
        except StateUnavailableError as error:
            self._complain(error)
            return None
        if self._complained_at is not None:
            self._recovered()
        return decision

    def _question(self, broker: FloodgateBroker, message: DeliveredMessage, ask: Ask, job: Job, age: timedelta) -> None:
        """A worker died in mid-call, perhaps after Telegram had acted: send again, or leave it to an operator."""
        logger.warning("job %s may have been sent %.0f s ago: %s", job.id, age.total_seconds(), job.on_uncertain)
        if job.expired(unix_ms()):
            self._bury(broker, message, ask, dead_letters.REASON_EXPIRED, _expiry(perhaps_sent=True))
        if job.on_uncertain is OnUncertain.DEAD_LETTER:
            why = "the worker ended during the call; Telegram may have sent it"
            self._bury(broker, message, ask, dead_letters.REASON_UNCERTAIN, why)

    def _skip(self, message: DeliveredMessage, job: Job) -> NoReturn:
        if job.dedupe_key is not None:
            logger.info("job %s (dedupe key %r) had ended before and is not sent again", job.id, job.dedupe_key)
        message.done()
        raise Deferral("ended before")

    def _park(self, broker: FloodgateBroker, message: DeliveredMessage, delay: timedelta) -> NoReturn:
        """Hand the job to RabbitMQ's timer; only then is it acknowledged."""
        home = Publication("", message.queue_name, message.delivery.body, message.message_id)
        broker.connections.publisher.publish(delayed(home, delay))
        message.done()
        raise Deferral("parked")

    def _hold(self, broker: FloodgateBroker, message: DeliveredMessage, wait: Wait, held_seconds: float) -> None:
        seconds = wait.delay.total_seconds()
        if wait.scope is Scope.BOT and held_seconds + seconds > broker.settings.hold_seconds:
            broker.suspend(message.queue_name, min(seconds, SUSPEND_AT_MOST_SECONDS))
            self._park(broker, message, wait.delay)
        self._sleep(broker, message, seconds)

    def _hold_for_store(self, broker: FloodgateBroker, message: DeliveredMessage, held_seconds: float) -> None:
        if held_seconds > STORE_HOLD_SECONDS:
            message.give_back()
            raise Deferral("the state store is down")
        self._sleep(broker, message, STORE_RETRY_SECONDS)

    def _sleep(self, broker: FloodgateBroker, message: DeliveredMessage, seconds: float) -> None:
        if broker.stopping.wait(seconds):
            message.give_back()
            raise Deferral("the worker is stopping")

    def _bury(
        self,
        broker: FloodgateBroker,
        message: DeliveredMessage,
        ask: Ask,
        reason: str,
        description: str,
        error: dict[str, Any] | None = None,
    ) -> NoReturn:
        """Dead letter first, then the ledger, then the ack: a crash in between repeats, and never drops."""
        assert message.job is not None
        letter = dead_letters.dead_job(message.job, message.delivery.body, message.queue_name, reason, description)
        broker.connections.publisher.publish(letter)
        broker.admission.settle(ask, Dead(reason, error))
        message.done()
        raise Deferral(reason)

    def _complain(self, error: StateUnavailableError) -> None:
        now = time.monotonic()
        with self._lock:
            silent = self._complained_at is not None and now - self._complained_at < COMPLAIN_EVERY_SECONDS
            if not silent:
                self._complained_at = now
        if not silent:
            logger.error("sends wait: %s", error)

    def _recovered(self) -> None:
        with self._lock:
            was_down, self._complained_at = self._complained_at is not None, None
        if was_down:
            logger.info("the state store answers again; sends go on")


def _begun(record: Record | None) -> bool:
    """Whether admission has more to say of a job than that it waits: it was sent, say, and its ack was lost."""
    return record is not None and record.standing is not Standing.WAITING


def _expiry(perhaps_sent: bool) -> str:
    """For whoever thinks of replaying the job."""
    passed = "its time to be sent has passed"
    return f"{passed}; an earlier call for it may have been carried out" if perhaps_sent else passed


def _refusal(why: str) -> dict[str, Any]:
    """Telegram's error for a chat that it refused before, as it would give it again."""
    return {"error_code": FORBIDDEN, "description": why}
