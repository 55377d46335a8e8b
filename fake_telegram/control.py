"""A synchronous client of the control API, for tests, demos and benchmarks. Uses only the standard library.

Do not use it on the event loop that runs the server: access ``FakeTelegram.exchange`` directly there.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

TIMEOUT_SECONDS: Final = 60.0
PAGE: Final = 10_000


class ControlRefusedError(Exception):
    """The control API refused a request. The message is the API's own."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A call that arrived, as described by ``floodgate.fake_telegram.arrivals.Arrival``."""

    seq: int
    bot_id: int
    method: str
    chat_id: int | None
    params: dict[str, Any]
    at: float
    wall: float
    cost: int
    in_flight: int
    verdict: str
    acted: bool
    message_id: int | None
    code: int | None


@dataclass(frozen=True, slots=True)
class Duplicated:
    """A text that took effect more than once in one chat."""

    bot_id: int
    chat_id: int | None
    method: str
    text: str
    times: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The figures of a run, as described by ``floodgate.fake_telegram.summary.Summary``."""

    arrived: int
    acted: int
    by_code: dict[int, int]
    refused_by: dict[str, int]
    bot_in_1s: int
    paid_in_1s: int
    chat_in_1s: int
    group_in_60s: int
    typing_in_5s: int
    typing_in_30s: int
    in_flight_in_a_chat: int
    chats: int
    duplicated: int
    duplicates: tuple[Duplicated, ...]

    @property
    def answers_429(self) -> int:
        """The number of calls refused with 429."""
        return self.by_code.get(429, 0)


@dataclass(frozen=True, slots=True)
class Screen:
    """What a chat shows of a bot."""

    messages: list[dict[str, Any]]
    """The latest messages, oldest first, as edited."""
    draft: dict[str, Any] | None
    """The draft: ``draft_id``, and its text or rich message. None if there is none, or its 30 seconds are over."""


@dataclass(frozen=True, slots=True)
class LiveCounters:
    """Counters of a running server, cheap enough to read several times a second."""

    arrived: int
    acted: int
    unanswered: int
    refused_by_limits: int
    acted_last_second: int
    most_in_flight_in_a_chat: int
    pending_updates: int
    by_code: dict[int, int]


class ControlClient:
    """A client of the server at ``url``. Keeps no connection open; threads may share it."""

    def __init__(self, url: str) -> None:
        self._base = url.rstrip("/") + "/control/"

    def set_chat(self, *chats: int | str, trouble: str, **details: Any) -> None:
        """Make calls to chats fail, for ``times=n`` calls or until cleared.

        ``trouble`` is `blocked`, `deactivated`, `kicked`, `not_found`, `topic_closed`, `no_rights`,
        `migrated` (``migrate_to=``), `slow_mode` (``seconds=``), `partial_album`, or `answer` (``code=``,
        ``description=``, ``parameters=``).
        """
        self._ask("chat", {"chats": list(chats), "trouble": trouble, **details})

    def clear_chats(self, *chats: int | str) -> None:
        """Clear the troubles of these chats, or of all chats."""
        self._ask("chat/clear", {"chats": list(chats)})

    def describe_chat(self, chat: int | str, **fields: Any) -> None:
        """Set a chat's properties: ``type=``, ``title=``, ``username=``, ``first_name=``."""
        self._ask("chat/describe", {"chats": [chat], **fields})

    def set_server(
        self,
        *,
        faults: Iterable[dict[str, Any]] | None = None,
        latency_ms: tuple[float, float] | None = None,
        seed: int | None = None,
    ) -> None:
        """Replace the server's faults or latency, or reset its random seed. None leaves a value unchanged.

        A fault is ``{"kind": …}`` of `error` (``code``, ``acts``), `cut_before`, `cut_after`, `stall`,
        `retry_after_in_400` (``seconds``) or `unauthorized`, with ``times``, ``probability``, ``methods``, ``chats``.
        """
        values: dict[str, Any] = {}
        if faults is not None:
            values["faults"] = list(faults)
        if latency_ms is not None:
            values["latency_ms"] = list(latency_ms)
        if seed is not None:
            values["seed"] = seed
        self._ask("server", values)

    def limits(self, **changes: Any) -> dict[str, Any]:
        """Change limits: ``enabled=``; ``bot=``, ``paid=``, ``chat=``, ``group=``, ``edits=``, ``typing=``,
        ``long_typing=`` and ``cool_down=`` as (count, seconds) or None; ``growth_seconds=``, ``grace_seconds=``,
        ``longest_wait_seconds=``, ``repeat_factor=`` and ``forgiven_seconds=`` as numbers.

        Returns:
            All limits in force.
        """
        return self._ask("limits", changes)

    def pause(self, bot_id: int, seconds: float, chat_id: int | str | None = None) -> None:
        """Answer 429 to all sends of a bot, or of a bot to one chat, for ``seconds``."""
        self._ask("pause", {"bot_id": bot_id, "seconds": seconds, "chat_id": chat_id})

    def inject_updates(self, bot_id: int, updates: Sequence[dict[str, Any]]) -> list[int]:
        """Simulate users: ``{"user": 42, "text": "hi"}``, with ``"chat"`` in a group, ``{"user": 42, "callback":
        "data", "message_id": 7}``, or raw updates without ids. Returns the update ids."""
        ids: list[int] = self._ask("updates", {"bot_id": bot_id, "updates": list(updates)})["update_ids"]
        return ids

    def inject_crowd(
        self, bot_id: int, *, users: int, per_user: int = 1, text: str = "{n}", first_user: int = 1_000
    ) -> list[int]:
        """Simulate messages from many users in turn. ``text`` may contain ``{user}`` and ``{n}``, the ordinal of the
        message among the user's. Returns the update ids."""
        crowd = {"users": users, "per_user": per_user, "text": text, "first_user": first_user}
        ids: list[int] = self._ask("updates", {"bot_id": bot_id, "crowd": crowd})["update_ids"]
        return ids

    def arrivals(self, after: int = 0, limit: int | None = None) -> list[Arrived]:
        """Return the calls that arrived, in order: all, or at most ``limit`` with a number above ``after``."""
        if limit is not None and limit <= PAGE:
            return self._page(after, limit)
        found: list[Arrived] = []
        for page in self._pages(after):
            found += page
            if limit is not None and len(found) >= limit:
                break
        return found[:limit]

    def shown(self, bot_id: int, chat_id: int | str) -> Screen:
        """Return what a chat shows of a bot: its latest hundred messages, and its draft."""
        return Screen(**self._ask("shown", {"bot_id": bot_id, "chat_id": chat_id}))

    def summary(self) -> Totals:
        """Return the figures of all calls since the start or the last reset."""
        answer = self._ask("summary")
        duplicates = tuple(Duplicated(**one) for one in answer.pop("duplicates"))
        return Totals(**{**answer, "by_code": _codes(answer)}, duplicates=duplicates)

    def stats(self) -> LiveCounters:
        """Return the current counters."""
        answer = self._ask("stats")
        return LiveCounters(**{**answer, "by_code": _codes(answer)})

    def reset(self) -> None:
        """Reset the server to its state at start, including what this API has set."""
        self._ask("reset", {})

    def _pages(self, after: int) -> Iterator[list[Arrived]]:
        while page := self._page(after, PAGE):
            yield page
            after = page[-1].seq

    def _page(self, after: int, limit: int) -> list[Arrived]:
        answer = self._ask("arrivals", {"after": after, "limit": limit})
        return [Arrived(**arrival) for arrival in answer["arrivals"]]

    def _ask(self, path: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
        body = json.dumps(values or {}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            raise ControlRefusedError(_sentence(error)) from None
        return answer


def _codes(answer: dict[str, Any]) -> dict[int, int]:
    return {int(code): count for code, count in answer["by_code"].items()}


def _sentence(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            return str(json.load(error)["error"])
        except (ValueError, KeyError, TypeError):
            return f"The control API answered {error.code}."
