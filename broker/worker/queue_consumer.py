"""Hands one queue's messages to Dramatiq's worker and settles each of them.

Dramatiq acknowledges every message it has finished with, even one that its middleware failed to re-enqueue: an
exception in ``after_process_message`` is logged and swallowed, and the ack follows. Here an ack must be explicit: a
message carries a :class:`Disposition`, and only a message marked ``DONE`` (its effect is durable elsewhere) is
acknowledged. Every other message returns to its queue, and RabbitMQ's delivery limit bounds how often.

Threads: Dramatiq's consumer thread iterates; worker threads call ``ack`` and ``nack``. Deliveries arrive from the event
loop through a ``SimpleQueue``, the only object that these threads share.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import queue
import re
import traceback
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, auto
from typing import Final

import dramatiq
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.encoder import JSONEncoder
from dramatiq.errors import ActorNotFound, DecodeError

from floodgate.broker.admission.contract import Ask, Go
from floodgate.broker.amqp.consumer import ANSWERS_PREFETCH, PREFETCH, Delivery, Subscription
from floodgate.broker.amqp.publisher import Publisher
from floodgate.broker.errors import MalformedJobError, MalformedUpdateError, PublishError
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import SEND_ACTOR, Job, parse_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.update import UPDATE_ACTOR, Update, parse_update
from floodgate.broker.process.job_trace import NOT_TRACED, JobTrace
from floodgate.broker.process.logs import redact
from floodgate.broker.process.stopping import Stopping

logger = logging.getLogger("floodgate.worker")

# A requeued message is redelivered at once. This pause keeps a lasting fault from using up the delivery limit within a
# second. Each queue has a thread of its own, so no other queue waits.
GIVE_BACK_PAUSE_SECONDS: Final = 1.0


# Actors that have a family of queues, with the prefix of the family's names.
FAMILIES: Final = {SEND_ACTOR: "send.", UPDATE_ACTOR: "updates."}
_JSON: Final = JSONEncoder()  # for jobs and updates, whatever encoder the plain actors use
MAX_TRACEBACK: Final = 8000  # characters, from the end, which says most
MAX_MESSAGE_ID_BYTES: Final = 255  # AMQP's limit; a dead letter keeps its message's id
# JSON allows the escape of an unpaired surrogate; no log, header or store can hold one. Pairs (emoji) match as well.
_HALF_A_PAIR: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class Disposition(Enum):
    """The fate of a message once Dramatiq has finished with it."""

    OPEN = auto()  # undecided: return it to its queue, unless a plain actor simply returned
    DONE = auto()  # its effect is durable: acknowledge it
    RETURN = auto()  # return it to its queue


class DeliveredMessage(MessageProxy):
    """A Dramatiq message with the delivery that carried it. Belongs to one thread at a time."""

    def __init__(
        self, message: dramatiq.Message[object], delivery: Delivery, job: Job | None, update: Update | None = None
    ) -> None:
        super().__init__(message)
        self.delivery = delivery
        self.job = job
        self.update = update
        self.ask: Ask | None = None
        self.permit: Go | None = None
        self.good_until = math.inf  # when the permit expires, in time.monotonic()
        self.late = timedelta()  # its call's arrival delay, beyond the usual
        self.uncertain = False  # Telegram may have carried out an earlier call for this job
        self.disposition = Disposition.OPEN
        self.trace: JobTrace = NOT_TRACED

    def done(self) -> None:
        """Mark the message for its ack: its effect is durable elsewhere."""
        self.disposition = Disposition.DONE

    def give_back(self) -> None:
        """Mark the message for its return to the queue, ahead of the messages behind it."""
        self.disposition = Disposition.RETURN

    @property
    def settled(self) -> bool:
        """Whether the message is to be acknowledged."""
        if self.disposition is Disposition.OPEN:
            return self.job is None and self.update is None and self._exception is None
        return self.disposition is Disposition.DONE


class QueueConsumer(Consumer):
    """The consumer of one queue that Dramatiq's worker iterates over."""

    def __init__(
        self,
        queue_name: str,
        subscribe: Callable[[Callable[[Delivery], None]], Subscription],
        publisher: Publisher,
        idle_timeout_seconds: float,
        stopping: Stopping,
    ) -> None:
        self.queue_name = queue_name
        self._deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._publisher = publisher
        self._idle_timeout_seconds = idle_timeout_seconds
        self._stopping = stopping
        self.subscription = subscribe(self._deliveries.put)

    def __next__(self) -> DeliveredMessage | None:
        try:
            delivery = self._deliveries.get(timeout=self._idle_timeout_seconds)
        except queue.Empty:
            return None
        try:
            return read_message(delivery, self.queue_name)
        except MalformedJobError as error:
            self._bury(delivery, letter_of_malformed(delivery, str(error)))
            return None

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge the message if it is settled; otherwise return it to its queue."""
        assert isinstance(message, DeliveredMessage)
        if message.settled:
            message.delivery.ack()
        else:
            self._give_back(message.delivery)

    def nack(self, message: MessageProxy) -> None:
        """Dead-letter a message that Dramatiq gave up on (no such actor, retries exhausted, too old), then acknowledge
        it. A message marked for its return goes back to its queue instead."""
        assert isinstance(message, DeliveredMessage)
        if message.disposition is Disposition.RETURN:
            self._give_back(message.delivery)
        else:
            self._bury(message.delivery, letter_of_failed(message))

    def close(self) -> None:
        """Stop consuming."""
        self.subscription.close()

    def _give_back(self, delivery: Delivery) -> None:
        self._stopping.wait(GIVE_BACK_PAUSE_SECONDS)
        delivery.requeue()

    def _bury(self, delivery: Delivery, letter: Publication) -> None:
        try:
            self._publisher.publish(letter)
        except PublishError as error:
            logger.warning("could not write a dead letter; its message goes back to %s: %s", self.queue_name, error)
            self._give_back(delivery)
        else:
            delivery.ack()


def letter_of_failed(message: DeliveredMessage) -> Publication:
    """Return the dead letter of a message on which Dramatiq gave up."""
    reason, description, told = _failure(message)
    delivery = message.delivery
    return dead_letters.dead_message(
        queue_names.dead_queue_of(delivery.queue),
        message.message_id,
        delivery.body,
        delivery.queue,
        reason,
        redact(description),
        traceback=redact(told)[-MAX_TRACEBACK:],
        trace=delivery.trace,
    )


def letter_of_malformed(delivery: Delivery, why: str) -> Publication:
    """Log a message that cannot be parsed and build its dead letter."""
    logger.error("malformed message in %s, moved to dead.malformed: %s", delivery.queue, why)
    return dead_letters.malformed(delivery.message_id or "", delivery.body, delivery.queue, why)


def in_family(queue_name: str) -> bool:
    """Return whether a queue on the server holds jobs or updates."""
    return queue_name.startswith(tuple(FAMILIES.values()))


def prefetch_of(queue_name: str) -> int:
    """The prefetch count for a queue of jobs or updates. Only answers, which need no order, have more than one."""
    return ANSWERS_PREFETCH if queue_names.is_answers_queue(queue_name) else PREFETCH


def _failure(message: DeliveredMessage) -> tuple[str, str, str]:
    """Return the reason, description and traceback of a plain actor's dead letter."""
    error = message._exception
    if error is None:
        return dead_letters.REASON_FAILED, "middleware rejected it", ""
    if isinstance(error, ActorNotFound):
        return dead_letters.REASON_NO_ACTOR, f"no actor named {message.actor_name!r} in this worker", ""
    return dead_letters.REASON_FAILED, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))


def read_message(delivery: Delivery, queue_name: str) -> DeliveredMessage:
    """Parse a delivery into a Dramatiq message that carries the name of the queue it came from.

    Drops ``eta``: stock Dramatiq would hold the message in memory until then, but here RabbitMQ keeps delays.

    Raises:
        MalformedJobError: the body is not a Dramatiq message, or the actor is ``send`` and its argument is not a job of
            the queue's bot.
        MalformedUpdateError: the actor is ``handle_update`` and its argument is not an update of the queue's bot.
    """
    message = _decode(delivery.body, queue_name)
    message.options.pop("eta", None)
    job = _job_in(message, queue_name) if message.actor_name == SEND_ACTOR else None
    update = _update_in(message, queue_name) if message.actor_name == UPDATE_ACTOR else None
    return DeliveredMessage(dataclasses.replace(message, queue_name=queue_name), delivery, job, update)


def _job_in(message: dramatiq.Message[object], queue_name: str) -> Job:
    """Parse the job. Arguments that the actor does not accept are rejected here, or the message would loop forever."""
    if message.args or message.kwargs.keys() != {"job"}:
        raise MalformedJobError("Not a job: the actor takes one argument, `job`.")
    job = parse_job(message.kwargs["job"])
    if not queue_name.startswith(f"{SEND_ACTOR}.{job.bot}."):
        raise MalformedJobError(f"Not a job of this queue: it belongs to bot {job.bot}.")
    return job


def _update_in(message: dramatiq.Message[object], queue_name: str) -> Update:
    if message.args or message.kwargs.keys() != {"update"}:
        raise MalformedUpdateError("Not an update: the actor takes one argument, `update`.")
    update = parse_update(message.kwargs["update"])
    if not queue_name.startswith(f"updates.{update.bot}."):
        raise MalformedUpdateError(f"Not an update of this queue: it belongs to bot {update.bot}.")
    return update


def _decode(body: bytes, queue_name: str) -> dramatiq.Message[object]:
    decode = _decoded_json if in_family(queue_name) else dramatiq.Message[object].decode
    try:
        message = decode(body)
    except DecodeError as error:
        raise MalformedJobError(f"Not a Dramatiq message: {type(error.error).__name__}.") from None
    shapes = ((message.kwargs, dict), (message.options, dict), (message.actor_name, str), (message.message_id, str))
    if not all(isinstance(value, shape) for value, shape in shapes):
        raise MalformedJobError("Not a Dramatiq message: a field has the wrong type.")
    if _HALF_A_PAIR.search(body) and not _is_text(message):
        raise MalformedJobError("Not a Dramatiq message: it contains an unpaired surrogate.")
    if len(message.message_id.encode()) > MAX_MESSAGE_ID_BYTES:
        raise MalformedJobError(f"Not a Dramatiq message: its id is longer than {MAX_MESSAGE_ID_BYTES} bytes.")
    return message


def _decoded_json(body: bytes) -> dramatiq.Message[object]:
    try:
        return dramatiq.Message(**_JSON.decode(body))
    except (TypeError, ValueError, RecursionError) as error:  # not an object, wrong fields, or nested too deeply
        raise DecodeError("not a message", body, error) from error  # type: ignore[no-untyped-call]  # Dramatiq's


def _is_text(message: dramatiq.Message[object]) -> bool:
    try:
        json.dumps(message.asdict(), ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError:
        return False
    return True
