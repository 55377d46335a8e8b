"""Criteria that select dead letters, and the times and durations of the command line. Without I/O."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.dead_letters import DeadLetter

_AGO: Final = re.compile(r"(\d{1,6})([smhdw])")
LONGEST_PAUSE: Final = timedelta(weeks=4)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Criteria:
    """Conditions that a letter must all meet. Empty and None mean any. Times have a time zone."""

    ids: frozenset[str] = frozenset()
    bot: str | None = None
    reasons: frozenset[str] = frozenset()
    chat: str | None = None
    campaign: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    """A part of the message's text or caption, or of a body that is not a job. Case is ignored."""

    def match(self, letter: DeadLetter) -> bool:
        """Return whether the letter meets all conditions."""
        return (
            (not self.ids or letter.message_id in self.ids)
            and (not self.reasons or letter.reason in self.reasons)
            and self._in_time(letter.died_at)
            and self._fits(letter)
            and (self.text is None or self.text.casefold() in words_of(letter).casefold())
        )

    def _in_time(self, died_at: datetime | None) -> bool:
        if self.since is None and self.until is None:
            return True
        if died_at is None:
            return False
        return (self.since is None or died_at >= self.since) and (self.until is None or died_at < self.until)

    def _fits(self, letter: DeadLetter) -> bool:
        wanted = (self.bot, self.chat, self.campaign)
        found = _whose(letter)
        return all(want is None or want == have for want, have in zip(wanted, found, strict=True))


def full_id(given: str, begun: Collection[str]) -> str | None:
    """Return the id that is meant by ``given``, which is an id or the beginning of one; None if no id begins so.

    Args:
        begun: The ids that begin with ``given``.

    Raises:
        InvalidParamsError: Several ids begin so, and none of them is ``given`` itself.
    """
    if given in begun:
        return given
    if len(begun) > 1:
        raise InvalidParamsError(f"Several ids begin with {given!r}: write more of the one you mean.")
    return next(iter(begun), None)


def _whose(letter: DeadLetter) -> tuple[str | None, str | None, str | None]:
    """Return the letter's bot, chat and campaign."""
    if letter.job is not None:
        return letter.job.bot, letter.job.chat, letter.job.campaign
    if letter.update is not None:
        return letter.update.bot, letter.update.chat, None
    return None, None, None


def words_of(letter: DeadLetter) -> str:
    """Return the text and caption of a letter's job; without a job, its escaped body."""
    if letter.job is None:
        return harmless(letter.body)
    return "\n".join(str(letter.job.params[name]) for name in ("text", "caption") if name in letter.job.params)


def harmless(body: bytes) -> str:
    """Return bytes as text that is safe to print on a terminal, with unprintable characters escaped."""
    text = body.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def chat_of(text: str | None) -> str | None:
    """Return the chat key for the value of an option.

    Raises:
        InvalidParamsError: The value does not name a chat.
    """
    return text if text is None or text.startswith("inline:") else chat_key(text)


def moment(text: str | None, now: datetime, *, ahead: bool = False) -> datetime | None:
    """Parse a time: an age (`90s`, `15m`, `2h`, `7d`, `1w`), or ISO 8601, which is local time if it has no zone.

    Args:
        ahead: whether `2h` means in two hours instead of two hours ago.

    Raises:
        InvalidParamsError: The text is neither.
    """
    if text is None:
        return None
    if _AGO.fullmatch(text):
        return now + span(text) if ahead else now - span(text)
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        meaning = "in two hours" if ahead else "two hours ago"
        raise InvalidParamsError(f"{text[:40]!r} is not a time: write 2h for {meaning}, or 2026-11-20T10:00.") from None


def span(text: str) -> timedelta:
    """Parse a duration: `90s`, `15m`, `2h`, `7d`, `1w`.

    Raises:
        InvalidParamsError: The text is not a duration.
    """
    found = _AGO.fullmatch(text)
    if found is None:
        raise InvalidParamsError(f"{text[:40]!r} is not a duration: write 90s, 15m, 2h, 7d or 1w.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def pause_span(text: str) -> timedelta:
    """Parse how long a pause lasts.

    Raises:
        InvalidParamsError: The text is not a duration, or the pause would last longer than :data:`LONGEST_PAUSE`.
    """
    duration = span(text)
    if not timedelta(0) < duration <= LONGEST_PAUSE:
        raise InvalidParamsError(f"A pause cannot last {text}: write between 1s and 4w.")
    return duration
