"""What is sent in a scenario: lines, as values. A line's text is unique in its run: an arrival tells its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

FIRST_USER: Final = 10_000
GROUP: Final = -1001000000001
VISITOR: Final = 5_000  # the first of those who write to the bot during a broadcast

Lines = Sequence["Line"]


@dataclass(frozen=True, slots=True)
class Line:
    """One message to be sent.

    ``at_seconds`` counts from when the workers are ready; what has 0 is handed over at once, in order.
    """

    part: str
    chat: int
    text: str
    bulk: bool = True
    at_seconds: float = 0.0
    paid: bool = False

    @property
    def params(self) -> dict[str, Any]:
        """Of ``sendMessage``."""
        paid = {"allow_paid_broadcast": True} if self.paid else {}
        return {"chat_id": self.chat, "text": self.text, **paid}


def broadcast(users: int, *, parts: int = 1, paid: bool = False) -> list[Line]:
    """Every user's messages one after the other, users in turn, as a program would loop over its subscribers."""
    return [
        Line("users", FIRST_USER + user, f"user {user} part {part}", paid=paid)
        for user in range(users)
        for part in range(parts)
    ]


def group_messages(count: int) -> list[Line]:
    return [Line("group", GROUP, f"group {number}") for number in range(count)]


def replies(seconds: float, every_seconds: float = 0.5) -> list[Line]:
    """Answers to people, one after the other, each to another one; the first after four seconds."""
    return [
        Line("interactive", VISITOR + number, f"reply {number}", bulk=False, at_seconds=4.0 + number * every_seconds)
        for number in range(int(seconds / every_seconds))
    ]
