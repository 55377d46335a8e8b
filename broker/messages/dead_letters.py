"""Dead letters: jobs that will not be sent and updates that were not handled, kept in ``dead.<bot>`` with the reason
until an operator acts or their time is over (:mod:`floodgate.broker.worker.retention`).

A dead letter has the job's own message body and message id, and describes its end in the headers below; an update's
likewise. RabbitMQ adds ``x-death`` itself when a message exceeds its delivery limit (it killed its worker too often).
Bytes that are neither a job nor an update go to ``dead.malformed`` unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from floodgate.broker.errors import MalformedJobError, MalformedUpdateError
from floodgate.broker.messages.job import Job, decode_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.queue_names import DEAD_EXCHANGE, MALFORMED_QUEUE, UNROUTABLE_QUEUE, dead_queue
from floodgate.broker.messages.update import Update, decode_update

CHAT_UNREACHABLE: Final = "chat-unreachable"
# Reasons of dead letters.
REASONS: Final = frozenset(
    {
        CHAT_UNREACHABLE,
        "chat-not-found",
        "content",
        "delivery-limit",
        "exhausted",
        "expired",
        "failed",
        "handler-failed",
        "late",
        "malformed",
        "method",
        "refused",
        "rights",
        "time-limit",
        "uncertain",
        "unknown-bot",
        "unreadable-update",
        "unroutable",
    }
)

REASON: Final = "x-floodgate-reason"
DESCRIPTION: Final = "x-floodgate-description"
ATTEMPTS: Final = "x-floodgate-attempts"
DIED_US: Final = "x-floodgate-died-us"
QUEUE: Final = "x-floodgate-queue"
TRACEBACK: Final = "x-floodgate-traceback"  # of the handler that failed, without secrets

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Telegram's descriptions are one line; an exception's text may be a page, which is too long for a header.
MAX_DESCRIPTION: Final = 500

REASON_DELIVERY_LIMIT: Final = "delivery-limit"
REASON_EXPIRED: Final = "expired"
REASON_MALFORMED: Final = "malformed"
REASON_UNCERTAIN: Final = "uncertain"
REASON_EXHAUSTED: Final = "exhausted"
REASON_NO_ACTOR: Final = "no-actor"
REASON_FAILED: Final = "failed"
REASON_UNKNOWN_BOT: Final = "unknown-bot"
REASON_CHAT_UNREACHABLE: Final = CHAT_UNREACHABLE  # found by Telegram for one job, by us for the jobs after it
REASON_HANDLER: Final = "handler-failed"  # an update's handlers raised, at every attempt
REASON_TIME_LIMIT: Final = "time-limit"  # … or took too long
REASON_UNREADABLE: Final = "unreadable-update"  # … or were never asked: the library cannot read the update
REASON_UNROUTABLE: Final = "unroutable"  # it left the delay ladder and its queue did not exist


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as an operator sees it. ``job`` and ``update`` are None if the body is not a job or an update."""

    queue: str
    message_id: str
    reason: str
    description: str
    attempts: int
    died_at: datetime | None
    body: bytes
    job: Job | None
    update: Update | None = None
    traceback: str = ""


def dead_job(
    job: Job,
    body: bytes,
    queue: str,
    reason: str,
    description: str = "",
    trace: Mapping[str, str] | None = None,
) -> Publication:
    """Return the dead letter of a job. It stays in the job's trace."""
    return _publication(dead_queue(job.bot), job.id, body, queue, reason, description, job.attempts, trace)


def dead_update(
    update: Update, body: bytes, queue: str, reason: str, description: str, *, attempts: int, traceback: str
) -> Publication:
    """Return the dead letter of an update."""
    target = dead_queue(update.bot)
    more = _traceback_header(traceback)
    return _publication(target, update.message_id, body, queue, reason, description, attempts, more)


def dead_message(
    target: str,
    message_id: str,
    body: bytes,
    queue: str,
    reason: str,
    description: str,
    *,
    traceback: str = "",
    trace: Mapping[str, str] | None = None,
) -> Publication:
    """Return the dead letter of a plain actor's message. It stays in the message's trace."""
    more = _traceback_header(traceback) | dict(trace or {})
    return _publication(target, message_id, body, queue, reason, description, 0, more)


def malformed(message_id: str, body: bytes, queue: str, description: str) -> Publication:
    """Return the dead letter of bytes that cannot be read, unchanged."""
    return _publication(MALFORMED_QUEUE, message_id, body, queue, REASON_MALFORMED, description, 0)


def _publication(
    target: str,
    message_id: str,
    body: bytes,
    queue: str,
    reason: str,
    description: str,
    attempts: int,
    more: Mapping[str, Any] | None = None,
) -> Publication:
    headers = {
        REASON: reason,
        DESCRIPTION: _header_text(description[:MAX_DESCRIPTION]),
        ATTEMPTS: attempts,
        # In microseconds, since letters are sorted by it if RabbitMQ has shuffled them: see browse.
        DIED_US: time.time_ns() // 1000,
        QUEUE: queue,
        **(more or {}),
    }
    return Publication(exchange=DEAD_EXCHANGE, routing_key=target, body=body, message_id=message_id, headers=headers)


def _traceback_header(traceback: str) -> dict[str, Any]:
    return {TRACEBACK: _header_text(traceback)} if traceback else {}


def _header_text(text: str) -> str:
    return text.encode(errors="replace").decode()


def read_dead_letter(queue: str, message_id: str | None, headers: Mapping[str, Any] | None, body: bytes) -> DeadLetter:
    """Read a message of a dead-letter queue. Accepts any headers and any bytes."""
    headers = headers or {}
    return DeadLetter(
        queue=str(headers.get(QUEUE) or _first_death(headers, "queue") or queue),
        message_id=message_id or "",
        reason=str(headers.get(REASON) or _broker_reason(queue, headers)),
        description=str(headers.get(DESCRIPTION) or ""),
        attempts=attempts if isinstance(attempts := headers.get(ATTEMPTS), int) else 0,
        died_at=_died_at(headers),
        body=body,
        job=(job := _job_or_none(body)),
        update=_update_or_none(body) if job is None else None,
        traceback=str(headers.get(TRACEBACK) or ""),
    )


def reason_of(letter: Publication) -> str:
    """Return the reason of a dead letter that is to be published."""
    return str((letter.headers or {})[REASON])


def in_order_of_death(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Sort letters, oldest first. Letters whose time is unknown come before all others, in the given order."""
    return sorted(letters, key=lambda letter: letter.died_at or EPOCH)


def _died_at(headers: Mapping[str, Any]) -> datetime | None:
    died_us = headers.get(DIED_US)
    if isinstance(died_us, int):
        try:
            return EPOCH + timedelta(microseconds=died_us)
        except OverflowError:  # beyond what datetime supports
            return None
    died = _first_death(headers, "time")
    return died.replace(tzinfo=died.tzinfo or UTC) if isinstance(died, datetime) else None


def _broker_reason(queue: str, headers: Mapping[str, Any]) -> str:
    """Return RabbitMQ's reason for dead-lettering the message itself."""
    if queue == UNROUTABLE_QUEUE:
        return REASON_UNROUTABLE
    word = _first_death(headers, "reason") or headers.get("x-first-death-reason")
    return REASON_DELIVERY_LIMIT if word == "delivery_limit" else str(word or "unknown")


def _first_death(headers: Mapping[str, Any], field: str) -> Any:
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first.get(field) if isinstance(first, dict) else None


def _job_or_none(body: bytes) -> Job | None:
    try:
        return decode_job(body)
    except MalformedJobError:
        return None


def _update_or_none(body: bytes) -> Update | None:
    try:
        return decode_update(body)
    except MalformedUpdateError:
        return None
