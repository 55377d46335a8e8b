"""Simulated failures of single chats or of the whole server.

A chat has at most one *state* of each kind, which lasts for a number of calls or until it is cleared. A server *fault*
affects calls that match its methods and chats, each with a probability from a seeded generator, a number of times or
until it is cleared: the same seed and the same calls give the same faults. Used by the event loop only.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.chats import LAST_BASIC_GROUP
from floodgate.fake_telegram.errors import ApiError, bad_request, forbidden


class ChatTrouble(StrEnum):
    """Kinds of failing chats."""

    BLOCKED = "blocked"
    DEACTIVATED = "deactivated"
    KICKED = "kicked"
    NOT_FOUND = "not_found"
    MIGRATED = "migrated"  # needs migrate_to
    TOPIC_CLOSED = "topic_closed"
    NO_RIGHTS = "no_rights"
    SLOW_MODE = "slow_mode"  # needs seconds: acts at arrival and answers that much later
    PARTIAL_ALBUM = "partial_album"  # the first of an album appears, the rest fails
    ANSWER = "answer"  # needs code and description


class FaultKind(StrEnum):
    """Kinds of server faults."""

    ERROR = "error"  # an HTML page with `code`; acted on first if `acts`
    CUT_BEFORE = "cut_before"  # the connection is dropped before the call is seen
    CUT_AFTER = "cut_after"  # the call is acted on, then the connection is dropped
    STALL = "stall"  # the call is acted on and never answered
    RETRY_AFTER_IN_400 = "retry_after_in_400"  # a flood wait of `seconds`, worded as a 400
    UNAUTHORIZED = "unauthorized"  # 401


UNREACHABLE: Final = frozenset({ChatTrouble.NOT_FOUND, ChatTrouble.MIGRATED})
"""Troubles that affect reads of the chat, too; the others affect writes only."""


@dataclass(slots=True)
class ChatState:
    """A trouble of a chat. ``times`` counts down; None means until cleared."""

    trouble: ChatTrouble
    times: int | None = None
    seconds: float = 0.0
    migrate_to: int | None = None
    code: int = 400
    description: str = ""
    parameters: dict[str, Any] | None = None

    def refusal(self, chat_id: int) -> ApiError | None:
        """Return Telegram's error for a call; None if the call succeeds."""
        group = "group" if chat_id >= LAST_BASIC_GROUP else "supergroup"
        match self.trouble:
            case ChatTrouble.BLOCKED:
                return forbidden("bot was blocked by the user")
            case ChatTrouble.DEACTIVATED:
                return forbidden("user is deactivated")
            case ChatTrouble.KICKED:
                return forbidden(f"bot was kicked from the {group} chat")
            case ChatTrouble.NOT_FOUND:
                return bad_request("chat not found")
            case ChatTrouble.MIGRATED:
                moved = {"migrate_to_chat_id": self.migrate_to}
                return bad_request("group chat was upgraded to a supergroup chat", moved)
            case ChatTrouble.TOPIC_CLOSED:
                return bad_request("TOPIC_CLOSED")
            case ChatTrouble.NO_RIGHTS:
                return bad_request("not enough rights to send text messages to the chat")
            case ChatTrouble.ANSWER:
                return ApiError(self.code, self.description, self.parameters)
            case ChatTrouble.SLOW_MODE | ChatTrouble.PARTIAL_ALBUM:
                return None


@dataclass(slots=True)
class Fault:
    """A fault of the server. Empty ``methods`` and ``chats`` match every call."""

    kind: FaultKind
    times: int | None = None
    probability: float = 1.0
    methods: frozenset[str] = frozenset()
    chats: frozenset[int] = frozenset()
    code: int = 502
    seconds: int = 5
    acts: bool = False

    def matches(self, method: str, chat_id: int | None) -> bool:
        """Return whether the fault applies to a call."""
        return (not self.methods or method in self.methods) and (not self.chats or chat_id in self.chats)

    @property
    def before_acting(self) -> bool:
        """Whether the fault occurs before the call takes effect."""
        after = self.kind in (FaultKind.CUT_AFTER, FaultKind.STALL)
        return not (after or (self.kind is FaultKind.ERROR and self.acts))


@dataclass(slots=True)
class Scenarios:
    """The current faults, latencies and chat troubles."""

    seed: int = 0
    latency_ms: tuple[float, float] = (0.0, 0.0)
    faults: list[Fault] = field(default_factory=list)
    _chats: dict[int, dict[ChatTrouble, ChatState]] = field(default_factory=dict)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.reseed(self.seed)

    def reseed(self, seed: int) -> None:
        """Restart the random sequence of faults and latencies."""
        self.seed = seed
        self._random = random.Random(seed)

    def set_chat(self, chat_id: int, state: ChatState) -> None:
        """Set a state of a chat, in place of an earlier one of the same kind."""
        self._chats.setdefault(chat_id, {})[state.trouble] = state

    def clear_chats(self, chat_ids: Iterable[int] | None = None) -> None:
        """Clear the states of these chats, or of all chats."""
        for chat_id in list(self._chats) if chat_ids is None else chat_ids:
            self._chats.pop(chat_id, None)

    def latency_seconds(self) -> float:
        """Return the latency of the next answer."""
        low, high = self.latency_ms
        return 0.0 if high <= 0 else self._random.uniform(low, high) / 1000

    def strike(self, call: Call, chat_id: int | None) -> Fault | None:
        """Return the fault that affects this call, if any, and count it."""
        for fault in self.faults:
            if not fault.matches(call.method, chat_id):
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            if fault.times is not None:
                fault.times -= 1
                self.faults = [other for other in self.faults if other.times != 0]
            return fault
        return None

    def refuse(self, chat_id: int, *, writes: bool) -> None:
        """Raise the error of a chat's trouble, if it has one.

        Raises:
            ApiError: Telegram's error for a call to a chat in that state.
        """
        for state in list(self._chats.get(chat_id, {}).values()):
            if writes or state.trouble in UNREACHABLE:
                refusal = state.refusal(chat_id)
                if refusal is not None:
                    self._use_up(chat_id, state)
                    raise refusal

    def held_seconds(self, chat_id: int) -> float:
        """Return for how long the chat's slow mode delays an answer."""
        state = self._take(chat_id, ChatTrouble.SLOW_MODE)
        return state.seconds if state else 0.0

    def breaks_album(self, chat_id: int) -> bool:
        """Return whether the next album in the chat fails part-way."""
        return self._take(chat_id, ChatTrouble.PARTIAL_ALBUM) is not None

    def _take(self, chat_id: int, trouble: ChatTrouble) -> ChatState | None:
        state = self._chats.get(chat_id, {}).get(trouble)
        if state is not None:
            self._use_up(chat_id, state)
        return state

    def _use_up(self, chat_id: int, state: ChatState) -> None:
        if state.times is None:
            return
        state.times -= 1
        if state.times <= 0:
            del self._chats[chat_id][state.trouble]
