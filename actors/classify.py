"""Classifies an answer: one pure, total function over one table.

A refusal is looked up by its code and the start of its description, in lower case and without prefixes such as "Bad
Request: ". Telegram's wording changes over the years, so a row lists the shortest unambiguous start. The first matching
row wins. A refusal that matches no row has a default by its code, so every answer has an outcome.

Sources: the Bot API's documentation, the Bot API server's source, and texts observed by users of several libraries.

Decisions that the table alone does not show:

- Ambiguity depends on the call as much as on the answer. After a lost connection or a 5xx, the call may or may not have
  taken effect. If a second call does no harm (edits, deletions, answers:
  ``floodgate.broker.messages.methods.repeatable``), the outcome is ``Retry``; if it would send a second message, the
  outcome is ``Uncertain``, and the job's ``on_uncertain`` decides.
- If a repeated deletion finds nothing to delete, the earlier call deleted it.
- Part of an album may have been sent when Telegram reports an error for one of its items. That outweighs a "retry after
  N" in the same text: the wait is obeyed, and the job is ``Uncertain`` and never retried automatically.
- A 4xx whose body is not the Bot API's came from an intermediary that passed nothing on. This makes no difference for
  413 and 429, which Telegram's own front-end servers answer in HTML, nor for 401 and 404, which concern the bot or the
  API root as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never

from floodgate.actors.answers import Accepted, Answer, Break, Refusal, seconds_to_wait
from floodgate.actors.outcomes import (
    BotRefused,
    FailureReason,
    Migrated,
    NothingToDo,
    Outcome,
    Paused,
    Retry,
    Uncertain,
    dead,
)
from floodgate.broker.admission.contract import Sent
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.methods import repeatable

# For a 429 without a wait. Telegram's shortest waits are of this order; the next 429 may name the real one.
DEFAULT_RETRY_AFTER: Final = timedelta(seconds=5)
# Telegram fetches the URL from a server that may be down for a moment, or gone for good.
_URL_FETCHES: Final = 3
_PREFIX: Final = re.compile(
    r"(\[?error\]?: )?(bad request|forbidden|unauthorized|not found|too many requests|conflict): "
)
_RETRY_AFTER: Final = re.compile(r"retry (?:after|in) (\d{1,9})")


@dataclass(frozen=True, slots=True)
class CallFacts:
    """The facts about a call that classification needs. ``repeated``: an earlier call for this job may have taken
    effect."""

    method: str
    repeated: bool = False


def call_of(job: Job) -> CallFacts:
    """The facts about the call that a job is about to make. Calls that certainly never left are not repeats."""
    return CallFacts(job.method, repeated=job.attempts > job.unsent)


_Make = Callable[[Refusal, CallFacts], Outcome]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table. ``starts`` is a regular expression, matched at the start of the lower-cased description."""

    status: int
    starts: str
    make: _Make

    def fits(self, status: int, text: str) -> bool:
        return self.status == status and re.match(self.starts, text) is not None


def classify(answer: Answer, call: CallFacts) -> Outcome:
    """The outcome of a call. Pure and total."""
    match answer:
        case Accepted(result):
            return Sent(result)
        case Break(reason, surely_not_sent):
            return Retry(reason, surely_not_sent=True) if surely_not_sent else _ambiguous(reason, call)
        case Refusal():
            return _refused(answer, call)
        case _:
            assert_never(answer)


def _refused(refusal: Refusal, call: CallFacts) -> Outcome:
    text = _PREFIX.sub("", refusal.description.lower(), count=1)
    if refusal.migrate_to is not None:
        return Migrated(refusal.migrate_to)
    for row in _TABLE:
        if row.fits(refusal.status, text):
            return row.make(refusal, call)
    if refusal.status == 429 or (refusal.status == 400 and (refusal.retry_after or _RETRY_AFTER.search(text))):
        return Paused(_wait_asked_for(refusal) or DEFAULT_RETRY_AFTER, refusal.description)
    return _by_code(refusal, call)


def _by_code(refusal: Refusal, call: CallFacts) -> Outcome:
    """The default outcome for a refusal that matches no row."""
    status = refusal.status
    if status >= 500 or 200 <= status <= 299:
        return _ambiguous(refusal.description, call)
    if status in (401, 404) and (status == 401 or not refusal.from_bot_api):
        return BotRefused(refusal.description)
    if status == 413:
        return dead(FailureReason.CONTENT, refusal.description, status)
    if status < 400 or status == 409 or not refusal.from_bot_api:
        return Retry(refusal.description, surely_not_sent=True)
    return dead(_REASON_BY_CODE.get(status, FailureReason.REFUSED), refusal.description, status)


_REASON_BY_CODE: Final = {
    400: FailureReason.CONTENT,
    403: FailureReason.RIGHTS,  # not chat-unreachable: that condemns the chat's other jobs too
    404: FailureReason.METHOD,
}


def _ambiguous(reason: str, call: CallFacts) -> Retry | Uncertain:
    return Retry(reason, surely_not_sent=False) if repeatable(call.method) else Uncertain(reason)


def _wait_asked_for(refusal: Refusal) -> timedelta | None:
    if refusal.retry_after is not None:
        return refusal.retry_after
    found = _RETRY_AFTER.search(refusal.description.lower())
    return seconds_to_wait(int(found[1])) if found else None


def _fail(reason: FailureReason) -> _Make:
    return lambda refusal, _: dead(reason, refusal.description, refusal.status)


def _done(refusal: Refusal, call: CallFacts) -> Outcome:
    return NothingToDo(refusal.description, None if call.repeated else refusal.status)


def _partial(refusal: Refusal, _: CallFacts) -> Outcome:
    return Uncertain(refusal.description, retry_after=_wait_asked_for(refusal), partly=True)


def _fetch_again(refusal: Refusal, _: CallFacts) -> Outcome:
    return Retry(refusal.description, surely_not_sent=False, at_most=_URL_FETCHES)


def _gone(refusal: Refusal, call: CallFacts) -> Outcome:
    if call.repeated:
        return NothingToDo(refusal.description)
    return dead(FailureReason.CONTENT, refusal.description, refusal.status)


_TABLE: Final = (
    _Row(400, r"failed to send message #\d+ with the error message|group send failed", _partial),
    _Row(400, r"message is not modified", _done),
    _Row(
        400,
        r"chat not found|user not found|peer_id_invalid|group is deactivated|chat_id is empty|channel_private"
        r"|group chat was upgraded to a supergroup",
        _fail(FailureReason.CHAT_NOT_FOUND),
    ),
    _Row(
        400,
        r"not enough rights|have no rights|need administrator rights|chat_write_forbidden|chat_send_\w+_forbidden"
        r"|chat_admin_required|chat_restricted|topic_closed|topic_deleted|message thread not found",
        _fail(FailureReason.RIGHTS),
    ),
    _Row(400, r"user_is_blocked|input_user_deactivated", _fail(FailureReason.CHAT_UNREACHABLE)),
    _Row(400, r"query is too old|query_id_invalid", _fail(FailureReason.LATE)),
    _Row(400, r"message to delete not found", _gone),
    _Row(
        400,
        r"failed to get http url content|wrong type of the web page content|webpage_curl_failed|webpage_media_empty",
        _fetch_again,
    ),
    _Row(
        400,
        r"message is too long|message text is empty|text must be non-empty|can't parse|(message )?caption is too long"
        r"|media_caption_too_long|button_\w*invalid|reply markup is too long|reply_markup_too_long"
        r"|wrong (remote )?file (identifier|id)|file is too big|photo_invalid_dimensions|photo_crop_size_small"
        r"|message to \w+ not found|(reply|replied) message not found|message to be replied not found"
        r"|message can't be \w+",
        _fail(FailureReason.CONTENT),
    ),
    _Row(
        403,
        r"bot was blocked by the user|user is deactivated|bot can't initiate conversation"
        r"|bots? can't send messages to (the )?bots?|bot was kicked|bot is not a member|the group chat was deleted"
        r"|bot is not a participant",
        _fail(FailureReason.CHAT_UNREACHABLE),
    ),
)
