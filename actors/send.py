"""The actor ``send``: one Bot API call, from the permit to the settlement.

The actor is synchronous on its worker thread, which holds the job from admission to ack; the call itself runs on the
process's one event loop. What belongs to a worker process (sessions, settler) lives in :class:`Sender`, a middleware
whose hooks open and close it with the worker.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from datetime import timedelta
from functools import partial
from typing import Any, Final

import dramatiq
from dramatiq.asyncio import EventLoopThread, get_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.middleware import CurrentMessage, Middleware

from actors.answers import Answer, Break
from actors.classify import call_of, classify
from actors.lateness import UsualDuration
from actors.loop_calls import LoopCalls
from actors.outcomes import Done, Sent
from actors.sessions import BotSessions
from actors.settle import Settler
from actors.uploads import Uploads
from broker.admission.contract import Go
from broker.dramatiq_consumer import DeliveredMessage
from broker.job import SEND_ACTOR, Job
from broker.setup import current_broker
from broker.spool import Spool
from broker.sweeping import Sweeper

# A process so busy that it is late for as many permits in a row sends all the same: late is better than never.
PERMITS: Final = 5


class Sender(Middleware):
    """What a worker needs to send. Opened before its threads start, closed after they ended."""

    def __init__(self) -> None:
        self._sessions: BotSessions | None = None
        self._settler: Settler | None = None
        self._calls: LoopCalls | None = None
        self._uploads: Uploads | None = None
        self._sweeper: Sweeper | None = None
        self._timeout = timedelta()
        self._patience_seconds = 0.0
        self._usual = UsualDuration()

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        ours = current_broker()
        if not ours.takes(SEND_ACTOR):
            return
        self._sessions = BotSessions(ours.settings)
        self._settler = Settler(ours)
        spool = Spool(ours.settings.spool_url)
        self._uploads = Uploads(spool)
        self._sweeper = Sweeper(spool, ours.settings.spool_seconds)
        self._calls = LoopCalls(_event_loop().loop)
        self._timeout = timedelta(seconds=ours.settings.call_timeout_seconds)
        self._patience_seconds = ours.settings.lease_seconds
        _event_loop().run_coroutine(self._sessions.open())
        _event_loop().run_coroutine(self._sweeper.start())

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        sessions, self._sessions = self._sessions, None
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            _event_loop().run_coroutine(sweeper.stop())
        if sessions is not None:
            _event_loop().run_coroutine(sessions.close())

    def deliver(self, message: DeliveredMessage) -> None:
        """Call, classify, settle. Without a permit nothing is sent: the message goes back to its queue."""
        job = message.job
        if job is None or message.permit is None or self._settler is None:
            message.give_back()
            return
        call = call_of(job)
        answer = self._answer(message, job)
        outcome = classify(answer, dataclasses.replace(call, repeated=call.repeated or message.uncertain))
        self._settler.settle(message, job, outcome)
        if job.files and isinstance(outcome, Sent | Done):
            assert self._uploads is not None
            self._uploads.forget(job)

    def _answer(self, message: DeliveredMessage, job: Job) -> Answer:
        """What the Bot API says. The permit is renewed when the moment for it has passed before the call began."""
        assert self._calls is not None
        for tries_left in reversed(range(PERMITS)):
            good_until = message.good_until if tries_left else math.inf
            try:
                answer = self._calls.run(self._call(message, job, good_until), self._patience_seconds)
            except TimeoutError as error:
                return Break(str(error), surely_not_sent=False)
            if answer is not None:
                return answer
            assert message.renew is not None
            message.renew(message)
        raise AssertionError("the last permit is used whenever")

    async def _call(self, message: DeliveredMessage, job: Job, good_until: float) -> Answer | None:
        """None: it is too late for this permit, and nothing was sent."""
        assert self._sessions is not None and message.permit is not None
        started = time.monotonic()
        if started > good_until:
            return None
        params = params_to_send(job, message.permit)
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                if job.files:
                    return await self._call_with_files(job, params)
                answer = await self._sessions.call(job.bot, job.method, params, self._timeout)
        except TimeoutError:
            return Break(f"no answer within {self._timeout.total_seconds():g} s", surely_not_sent=False)
        message.late = self._usual.lateness(time.monotonic() - started)
        return answer

    async def _call_with_files(self, job: Job, params: dict[str, Any]) -> Answer:
        sessions = self._sessions
        assert sessions is not None
        assert self._uploads is not None
        make = partial(sessions.call, job.bot, job.method, timeout=self._timeout)
        return await self._uploads.send(job, params, self._timeout.total_seconds(), make)


def params_to_send(job: Job, permit: Go) -> dict[str, Any]:
    """The call's parameters; a chat that has migrated since is addressed by its new id."""
    if permit.chat is None or permit.chat == job.chat or "chat_id" not in job.params:
        return job.params
    return job.params | {"chat_id": int(permit.chat)}


def _event_loop() -> EventLoopThread:
    thread = get_event_loop_thread()
    assert thread is not None, "Dramatiq's AsyncIO middleware starts it before the worker's threads"
    return thread


_sender = Sender()
current_broker().add_middleware(_sender)


@dramatiq.actor(broker=current_broker(), actor_name=SEND_ACTOR, queue_name=SEND_ACTOR)
def send(job: dict[str, Any]) -> None:
    """Make the Bot API call that ``job`` describes (see :mod:`broker.job`) and say what became of it."""
    message = CurrentMessage.get_current_message()
    assert isinstance(message, DeliveredMessage), "send is run by a worker; to enqueue, use producer.Client"
    _sender.deliver(message)
