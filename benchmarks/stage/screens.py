"""What chats show of answers while they are written, from the calls that arrived at the Bot API. Pure.

A screen shows the answer up to the newest numbered word in its messages or its draft. Time is Unix time throughout.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.stage.figures import percentile
from benchmarks.stage.streams import StreamLoad
from floodgate.fake_telegram.control import Arrived

SAMPLE_SECONDS: Final = 0.1
LIMIT: Final = 30
"""Calls a second of a bot."""
CHAT_SECONDS: Final = 1.0
"""Between two calls in a chat."""
DRAFT_SECONDS: Final = 30.0
DRAFTS: Final = ("sendMessageDraft", "sendRichMessageDraft")
UNCOUNTED: Final = (*DRAFTS, "sendChatAction")
"""They have a budget of their own in each chat, and count for nothing else."""
STEADY: Final = (0.1, 1.0)
"""The part of the time from the first token to the last in which rates are measured: after the first words."""
ENOUGH_SECONDS, ENOUGH_CHATS = 5.0, 2 * LIMIT
"""Less time with something to show, or fewer private chats served by edits, say nothing about the use of the limit."""


def family(method: str) -> str:
    """Return the kind of call: `message`, `edit`, `draft`, `typing` or `other`."""
    if method in DRAFTS:
        return "draft"
    if method == "sendChatAction":
        return "typing"
    return next((kind for verb, kind in (("send", "message"), ("edit", "edit")) if method.startswith(verb)), "other")


def is_counted(call: Arrived) -> bool:
    """Whether a call was accepted, and charged to the bot's 30 a second."""
    return call.verdict == "ok" and call.method not in UNCOUNTED


@dataclass(slots=True)
class ChatScreen:
    """How much of its answer a chat showed, and when: ``shown[n]`` tokens from ``times[n]`` on."""

    chat: int
    times: list[float] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)
    """When calls arrived here that count against the bot's limit."""
    drafts: int = 0
    _messages: dict[int, int] = field(default_factory=dict)
    _draft: tuple[int, float] | None = None

    def take(self, call: Arrived, load: StreamLoad) -> None:
        """Follow a call for this chat. Calls come in the order of their arrival."""
        self._end_draft(call.wall)
        if is_counted(call):
            self.counted.append(call.wall)
        kind = family(call.method)
        if not call.acted or kind not in ("message", "edit", "draft"):
            return
        tokens = load.shown(str(call.params.get("text") or call.params.get("rich_message") or ""))
        if kind == "draft":
            self.drafts += 1
            self._draft = tokens, call.wall + DRAFT_SECONDS
        elif call.message_id is not None:
            self._messages[call.message_id] = tokens
            self._draft = self._draft if kind == "edit" else None  # a message ends the draft
        self._note(call.wall)

    def close(self, at: float) -> None:
        """End the record."""
        self._end_draft(at)

    @property
    def first_at(self) -> float:
        """The moment of the first words; infinity without any."""
        return self.times[0] if self.times else math.inf

    def at(self, moment: float) -> int:
        """Return how many tokens were shown at a moment."""
        index = bisect_right(self.times, moment) - 1
        return self.shown[index] if index >= 0 else 0

    def complete_at(self, load: StreamLoad) -> float:
        """Return the moment from which on the whole answer was shown in messages; infinity if it never was."""
        if not self.shown or max(self._messages.values(), default=0) < load.tokens:
            return math.inf
        index = len(self.shown)
        while index and self.shown[index - 1] >= load.tokens:
            index -= 1
        return self.times[index]

    def may_be_called(self, moment: float) -> bool:
        """Whether the last call that counts is long enough ago for another one. Of private chats."""
        before = bisect_right(self.counted, moment)
        return not before or moment - self.counted[before - 1] >= CHAT_SECONDS

    def _end_draft(self, now: float) -> None:
        if self._draft is not None and self._draft[1] <= now:
            ended = self._draft[1]
            self._draft = None
            self._note(ended)

    def _note(self, at: float) -> None:
        self.times.append(at)
        self.shown.append(max([*self._messages.values(), self._draft[0] if self._draft else 0]))


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came of a contender's answers. Seconds, and calls a second; None where there was nothing to measure."""

    calls: int
    refused: dict[str, int]
    """Calls answered 429, by family."""
    not_modified: int
    shown_per_second: float
    """Calls a second that changed what a chat shows of its answer."""
    counted_per_second: float
    """Calls a second that were accepted and count against the bot's 30."""
    busy_seconds: float
    """Time in which a private chat that is served by edits had something new to show, and its last call was a second
    old. Groups are left out, because 20 calls a minute are all that they may have."""
    use: float | None
    """Counted calls in that time, as a part of 30 a second."""
    group_calls_a_minute: float | None
    first_words_seconds: float
    """p95 of the time from an answer's first token to the first words on the screen."""
    stale_p50_seconds: float
    stale_p95_seconds: float
    stale_private_p50_seconds: float
    stale_private_p95_seconds: float
    by_drafts: int
    """Chats that were shown drafts."""
    replies: int
    replies_missing: int
    reply_p50_seconds: float
    reply_p99_seconds: float
    last_seconds: float | None
    """From the first token to the last chat's whole answer; None if one never showed it."""


def judge(load: StreamLoad, chats: Sequence[int], arrivals: Sequence[Arrived], began: float, ended: float) -> Streamed:
    """Add up a run.

    Args:
        chats: those that the contender streams to.
        began: when the first tokens were due.
        ended: when the record was read. A chat without its whole answer counts as stale until then.
    """
    screens = {chat: ChatScreen(chat) for chat in chats}
    for call in arrivals:
        if call.chat_id in screens:
            screens[call.chat_id].take(call, load)
    for screen in screens.values():
        screen.close(ended)
    everyone = list(screens.values())
    ages = {screen.chat: list(staleness(screen, load, began, ended)) for screen in everyone}
    stale = [age for of_one in ages.values() for age in of_one]
    private = [age for chat, of_one in ages.items() for age in of_one if chat > 0]
    busy, counted_meanwhile = _busy(load, everyone, arrivals, began)
    complete = max(screen.complete_at(load) for screen in everyone)
    refused = Counter(family(call.method) for call in arrivals if call.code == 429)
    window = _window(load, began)
    waits = _replies(load, arrivals, min(complete, ended) - began) or [math.inf]
    groups = [len(_within(screen.counted, window)) for screen in everyone if screen.chat < 0]
    return Streamed(
        calls=len(arrivals),
        refused=dict(refused),
        not_modified=sum(call.verdict == "ok" and call.code == 400 for call in arrivals),
        shown_per_second=_rate((at for screen in everyone for at in screen.times), window),
        counted_per_second=_rate((call.wall for call in arrivals if is_counted(call)), window),
        busy_seconds=busy,
        use=counted_meanwhile / (LIMIT * busy) if busy >= ENOUGH_SECONDS else None,
        group_calls_a_minute=sum(groups) / len(groups) / (window[1] - window[0]) * 60 if groups else None,
        first_words_seconds=percentile([screen.first_at - began for screen in everyone], 0.95),
        stale_p50_seconds=percentile(stale, 0.5),
        stale_p95_seconds=percentile(stale, 0.95),
        stale_private_p50_seconds=percentile(private, 0.5),
        stale_private_p95_seconds=percentile(private, 0.95),
        by_drafts=sum(screen.drafts > 0 for screen in everyone),
        replies=len(waits),
        replies_missing=waits.count(math.inf),
        reply_p50_seconds=percentile(waits, 0.5),
        reply_p99_seconds=percentile(waits, 0.99),
        last_seconds=complete - began if complete < math.inf else None,
    )


def staleness(screen: ChatScreen, load: StreamLoad, began: float, ended: float) -> Iterable[float]:
    """The age of the oldest token not yet shown, ten times a second until the whole answer is; 0 if all are shown."""
    until = min(screen.complete_at(load), ended)
    for moment in _samples(began, until):
        shown = screen.at(moment)
        yield 0.0 if shown >= load.tokens else max(0.0, moment - began - shown / load.rate)


def _busy(
    load: StreamLoad, screens: Sequence[ChatScreen], arrivals: Sequence[Arrived], began: float
) -> tuple[float, int]:
    """Seconds in which an edited chat could have shown something new, and the counted calls in them."""
    edited = [screen for screen in screens if screen.chat > 0 and not screen.drafts]
    if len(edited) < ENOUGH_CHATS:
        return 0.0, 0
    counted = [call.wall for call in arrivals if is_counted(call)]
    seconds, calls = 0.0, 0
    for moment in _samples(*_window(load, began)):
        produced = min(load.tokens, int((moment - began) * load.rate) + 1)
        if any(screen.at(moment) < produced and screen.may_be_called(moment) for screen in edited):
            seconds += SAMPLE_SECONDS
            calls += len(_within(counted, (moment, moment + SAMPLE_SECONDS)))
    return seconds, calls


def _replies(load: StreamLoad, arrivals: Sequence[Arrived], due_for_seconds: float) -> list[float]:
    """Seconds from the moment written in each reply to its arrival; infinity for one that never was accepted."""
    waits = dict.fromkeys(range(int(due_for_seconds / load.reply_seconds)), math.inf)
    for call in arrivals:
        words = str(call.params.get("text", "")).split()
        if call.acted and words[:1] == ["reply"]:
            number, enqueued = int(words[1]), float(words[2])
            waits[number] = min(waits.get(number, math.inf), call.wall - enqueued)
    return list(waits.values())


def _window(load: StreamLoad, began: float) -> tuple[float, float]:
    first, last = (began + load.seconds * part for part in STEADY)
    return first, last


def _within(times: Sequence[float], window: tuple[float, float]) -> Sequence[float]:
    return times[bisect_left(times, window[0]) : bisect_left(times, window[1])]


def _rate(times: Iterable[float], window: tuple[float, float]) -> float:
    return len(_within(sorted(times), window)) / (window[1] - window[0])


def _samples(first: float, until: float) -> Iterable[float]:
    for number in range(max(0, math.ceil((until - first) / SAMPLE_SECONDS))):
        yield first + number * SAMPLE_SECONDS
