"""The actor ``send``: one Bot API call, from the permit to the settlement, as one coroutine.

:class:`Sender` holds a worker process's objects (sessions, settler). It is a middleware whose hooks open and close them
with the worker. All of this runs on the broker's event loop, even if a thread of Dramatiq's own worker runs the actor.
"""

from __future__ import annotations

import dataclasses
import math
import time
from datetime import timedelta
from functools import partial
from typing import Any, Final

import dramatiq
from dramatiq.middleware import CurrentMessage

from floodgate.actors.answers import Answer, is_silence
from floodgate.actors.classify import call_of, classify
from floodgate.actors.lateness import UsualDuration
from floodgate.actors.outcomes import NothingToDo
from floodgate.actors.sessions import BotSessions
from floodgate.actors.settle import Settler
from floodgate.actors.uploads import JobUploads
from floodgate.broker.admission.contract import Go, Sent
from floodgate.broker.admission.policy import call_timeout
from floodgate.broker.messages.job import SEND_ACTOR, Job
from floodgate.broker.process.metrics import CALL
from floodgate.broker.uploads.spool import Spool
from floodgate.broker.uploads.sweeper import Sweeper
from floodgate.broker.worker.middleware.awaited import AwaitedMiddleware, HostBroker
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from floodgate.broker.worker.setup import current_broker

# A process so busy that five permits in a row expire before they are used sends anyway: better late than never.
PERMITS: Final = 5


class Sender(AwaitedMiddleware):
    """The objects that a worker sends with. Opened before its first message, closed after its last."""

    def __init__(self) -> None:
        self._sessions: BotSessions | None = None
        self._settler: Settler | None = None
        self._uploads: JobUploads | None = None
        self._sweeper: Sweeper | None = None
        self._usual = UsualDuration()

    async def abefore_worker_boot(self, broker: HostBroker) -> None:
        """Open the sessions and start sweeping the spool, if this worker sends."""
        if not broker.takes(SEND_ACTOR):
            return
        settings = broker.settings
        self._sessions = BotSessions(settings)
        self._settler = Settler(broker)
        spool = Spool(settings.spool_url)
        self._uploads = JobUploads(spool)
        self._sweeper = Sweeper(spool, settings.spool_seconds)
        await self._sessions.open()
        await self._sweeper.start()

    async def aafter_worker_shutdown(self, broker: HostBroker) -> None:
        """Stop sweeping the spool and close the sessions."""
        sessions, self._sessions = self._sessions, None
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            await sweeper.stop()
        if sessions is not None:
            await sessions.close()

    async def deliver(self, message: DeliveredMessage) -> None:
        """Call, classify, settle. Without a permit nothing is sent, and the message goes back to its queue."""
        job = message.job
        if job is None or message.permit is None or self._settler is None:
            message.give_back()
            return
        call = call_of(job)
        answer = await self._answer(message, job)
        message.trace.event("answer")
        outcome = classify(answer, dataclasses.replace(call, repeated=call.repeated or message.uncertain))
        await self._settler.settle(message, job, outcome, unanswered=is_silence(answer))
        if job.files and isinstance(outcome, Sent | NothingToDo):
            assert self._uploads is not None
            await self._uploads.forget(job)

    async def _answer(self, message: DeliveredMessage, job: Job) -> Answer:
        """Make the call and return its answer. A permit that expired before the call began is renewed first."""
        broker = current_broker()
        for tries_left in reversed(range(PERMITS)):
            good_until = message.good_until if tries_left else math.inf
            if time.monotonic() <= good_until:
                break
            await broker.rate_limit.renew(broker, message)
        return await self._call(message, job)

    async def _call(self, message: DeliveredMessage, job: Job) -> Answer:
        assert self._sessions is not None and message.permit is not None
        broker = current_broker()
        timeout = call_timeout(job, broker.settings)
        started = time.monotonic()
        params = params_to_send(job, message.permit)
        message.trace.event("call")
        if job.files:
            answer = await self._call_with_files(job, params, timeout)
        else:
            answer = await self._sessions.call(job.bot, job.method, params, timeout)
            message.late = self._usual.lateness(time.monotonic() - started)
        broker.metrics.observe(CALL, time.monotonic() - started, job.bot)
        return answer

    async def _call_with_files(self, job: Job, params: dict[str, Any], timeout: timedelta) -> Answer:
        sessions = self._sessions
        assert sessions is not None
        assert self._uploads is not None
        make = partial(sessions.call, job.bot, job.method, timeout=timeout)
        return await self._uploads.send(job, params, timeout.total_seconds(), make)


def params_to_send(job: Job, permit: Go) -> dict[str, Any]:
    """The call's parameters, with the new id of a chat that has migrated since the job was enqueued."""
    if permit.chat is None or permit.chat == job.chat or "chat_id" not in job.params:
        return job.params
    return job.params | {"chat_id": int(permit.chat)}


_sender = Sender()
current_broker().add_middleware(_sender)


@dramatiq.actor(broker=current_broker(), actor_name=SEND_ACTOR, queue_name=SEND_ACTOR)
async def send(job: dict[str, Any]) -> None:
    """Make the Bot API call that ``job`` describes (:mod:`floodgate.broker.messages.job`), and record its outcome."""
    message = CurrentMessage.get_current_message()
    assert isinstance(message, DeliveredMessage), "only a worker can run send: to enqueue, use floodgate.Client"
    await current_broker().connections.io.join(_sender.deliver(message))
