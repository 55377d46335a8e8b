"""The core that both clients share: turns keyword arguments into a job, and a job into a publication. No I/O, no state.

A keyword that names one of :class:`JobOptions` says how the job is sent; every other keyword is a parameter of the Bot
API method, unless it looks like a misspelt option. No Bot API parameter has or resembles the name of an option.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final, Literal, TypedDict

from floodgate.broker.amqp import topology
from floodgate.broker.amqp.delay_ladder import MAX_DELAY, delayed
from floodgate.broker.errors import InvalidParamsError, UnknownBotError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Job, OnUncertain, Priority, encode_job, new_job, unix_ms
from floodgate.broker.messages.method_table import METHODS
from floodgate.broker.messages.methods import canonical_method
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.trace_context import active_trace
from floodgate.broker.settings.model import Settings, unknown_bot_message
from floodgate.producer.checks import checked
from floodgate.producer.uploads import Attachment, detached


class JobOptions(TypedDict, total=False):
    """Options for sending a job. All are optional."""

    bot: str
    """Name of the configured bot that sends it. Defaults to the client's own bot."""
    priority: Priority | Literal["interactive", "bulk"]
    """`interactive` (default): a person is waiting for it. `bulk`: a broadcast; sent when no interactive job waits."""
    at: datetime | None
    """Earliest time to send, with a time zone; a time in the past means now. At most 388 days ahead."""
    delay: timedelta | float | None
    """Earliest time to send, relative to now; a number is seconds. Use either this or `at`."""
    expires: datetime | timedelta | float | None
    """Latest time to send, absolute or relative to now (a number is seconds). After it, the job is dead-lettered as
    `expired`."""
    worth_until: datetime | timedelta | float | None
    """Until when the job is worth sending, absolute or relative to now (a number is seconds). A job that would be sent
    later ends as `shed`, at once and without a dead letter."""
    dedupe_key: str | None
    """Jobs of one bot with the same key are one job: a second one is not sent."""
    campaign: str | None
    """A label by which to find related jobs later."""
    coalesce: str | None
    """A key within the bot and chat, at most 100 characters. Of the jobs with the same key and priority that wait, only
    the newest is sent; the others end as `superseded`, and their results are those of the one that is sent."""
    final: bool
    """Whether the job is sent even if a newer one with the same `coalesce` key arrives while it waits."""
    on_uncertain: OnUncertain | Literal["resend", "dead-letter"]
    """What to do if a call was cut off and may have taken effect. `resend` (default) may send the message twice;
    `dead-letter` leaves the decision to an operator."""


OPTIONS: Final = frozenset(JobOptions.__annotations__)
# How much a name must resemble an option, by difflib's ratio. Of the Bot API's parameters none exceeds 0.67.
_RESEMBLANCE: Final = 0.75
_PARAMETERS: Final = frozenset[str]().union(*(method.parameters for method in METHODS.values()))


class Composer:
    """Creates jobs and picks their queues. Immutable; safe to use from any thread."""

    def __init__(self, settings: Settings, bot: str | None = None) -> None:
        self._settings = settings
        self.bot = bot or settings.default_bot
        """The bot of jobs that name none."""
        self._known = settings.tokens

    def job(self, method: str, given: Mapping[str, Any]) -> Job:
        """Create a valid job from a method and its keyword arguments.

        Raises:
            JobError: the method, the bot, a parameter or an option is wrong.
        """
        method = canonical_method(method)
        params = checked(method, _parameters(given))
        return self.unchecked(method, params, given)

    def call(self, method: str, given: Mapping[str, Any]) -> tuple[Job, tuple[Attachment, ...]]:
        """Like :meth:`job`, for a call that may contain files. Return the job without its files, and the files.

        Raises:
            JobError: as in :meth:`job`.
        """
        without, attachments = detached(_parameters(given))
        method = canonical_method(method)
        return self.unchecked(method, checked(method, without), given), attachments

    def unchecked(self, method: str, params: Mapping[str, Any], options: Mapping[str, Any], **fields: Any) -> Job:
        """Create a job that skips local validation, for callers that want Telegram's own error messages.

        Raises:
            JobError: the method, the bot, the chat id or an option is wrong.
        """
        now_ms = unix_ms()
        charge = self._settings.own_charge(method)
        return new_job(method, dict(params), now_ms=now_ms, charge=charge, **self._options(options, now_ms), **fields)

    def publication(self, job: Job) -> Publication:
        """Address a job: to its chat's partition, to its bot's answers queue or, before its time, to the delay ladder.

        Raises:
            UnknownBotError: no bot with this name is configured.
            InvalidParamsError: the job is too large for a queue.
        """
        self._check_bot(job.bot)
        queue = queue_names.home_of(job, self._settings.partitions)
        publication = Publication("", queue, encode_job(job, queue), job.id, headers=active_trace())
        wait_ms = job.not_before_ms - unix_ms() if job.not_before_ms is not None else 0
        return delayed(publication, timedelta(milliseconds=wait_ms)) if wait_ms > 0 else publication

    def topology(self, bot: str) -> topology.Topology:
        """The queues and exchanges that must exist before a job of this bot can be published."""
        return topology.pipeline((bot,), self._settings.partitions)

    def _options(self, given: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        options = {name: given[name] for name in given.keys() & OPTIONS if given[name] is not None}
        bot = options.setdefault("bot", self.bot)
        self._check_bot(bot)
        if (key := options.get("dedupe_key")) is not None:
            options["job_id"] = job_id_of(bot, key)
        not_before = not_before_ms(options.pop("at", None), options.pop("delay", None), now_ms)
        ends = {name: end_ms(name, options.pop(name, None), now_ms) for name in ("expires", "worth_until")}
        for name, end in ends.items():
            if end is not None and end <= (not_before or now_ms):
                raise InvalidParamsError(f"{name} is before the job's earliest time to send: it would never be sent.")
        return {**options, "not_before_ms": not_before, **{f"{name}_ms": end for name, end in ends.items()}}

    def _check_bot(self, bot: str) -> None:
        """Reject an unknown bot, unless this process has no tokens at all: producers need none."""
        if self._known and bot not in self._known:
            raise UnknownBotError(unknown_bot_message(bot, self._known))


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are parameters of the Bot API.

    Raises:
        InvalidParamsError: an argument looks like a misspelt option.
    """
    params = {name: value for name, value in given.items() if name not in OPTIONS}
    for name in params:
        if meant := option_meant(name):
            raise InvalidParamsError(f"{name!r} is neither an option nor a Bot API parameter: did you mean {meant!r}?")
    return params


@lru_cache(maxsize=1024)
def option_meant(name: str) -> str | None:
    """Return the option that a parameter's name resembles, if any. Parameters in the table of methods are exempt."""
    if name in _PARAMETERS:
        return None
    return next(iter(get_close_matches(name.lower(), OPTIONS, n=1, cutoff=_RESEMBLANCE)), None)


def job_id_of(bot: str, dedupe_key: str) -> str:
    """The job id for a dedupe key. The same key gives the same id in every process, so the ledger sees one job."""
    digest = hashlib.blake2b(f"{bot}\x00{dedupe_key}".encode(), digest_size=16)
    return f"dedupe-{digest.hexdigest()}"


def not_before_ms(at: datetime | None, delay: timedelta | float | None, now_ms: int) -> int | None:
    """The earliest time to send, in Unix milliseconds; None means at once.

    Raises:
        InvalidParamsError: both are given, `at` has no time zone, `delay` is negative, or the time is too far ahead.
    """
    if at is not None and delay is not None:
        raise InvalidParamsError("at and delay are both given: use one of them.")
    if at is not None:
        moment = _moment_ms("at", at)
    elif delay is not None:
        moment = now_ms + _span_ms("delay", delay)
    else:
        return None
    if moment - now_ms > MAX_DELAY / timedelta(milliseconds=1):
        raise InvalidParamsError(f"The job is scheduled more than {MAX_DELAY.days} days ahead: enqueue it later.")
    return moment if moment > now_ms else None


def end_ms(name: str, end: datetime | timedelta | float | None, now_ms: int) -> int | None:
    """The time after which the job is not sent, in Unix milliseconds; None means never.

    Raises:
        InvalidParamsError: it has no time zone, or is in the past.
    """
    if end is None:
        return None
    moment = _moment_ms(name, end) if isinstance(end, datetime) else now_ms + _span_ms(name, end)
    if moment <= now_ms:
        raise InvalidParamsError(f"{name} is not in the future: the job would never be sent.")
    return moment


def _moment_ms(name: str, moment: object) -> int:
    if not isinstance(moment, datetime):
        raise InvalidParamsError(f"{name} must be a datetime with a time zone, not {type(moment).__name__}.")
    if moment.utcoffset() is None:
        raise InvalidParamsError(f"{name} has no time zone: give one, as in datetime.now(UTC) + timedelta(hours=1).")
    return int(moment.timestamp() * 1000)


def _span_ms(name: str, span: object) -> int:
    if isinstance(span, bool) or not isinstance(span, timedelta | int | float):
        raise InvalidParamsError(f"{name} must be a timedelta or a number of seconds, not {type(span).__name__}.")
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if not 0 <= seconds < 1e12:
        raise InvalidParamsError(f"{name} must not be negative, and must be less than 1e12 seconds.")
    return round(seconds * 1000)


def as_job(job: object) -> Job:
    """Return ``job`` if it is a job.

    Raises:
        InvalidParamsError: it is not.
    """
    if not isinstance(job, Job):
        raise InvalidParamsError(f"This is a {type(job).__name__}, not a job: make one with client.job(method, …).")
    return job
