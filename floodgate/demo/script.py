"""What the demo sends, and who to. Pure: a list of jobs to be, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from broker.job import Priority

USERS: Final = 300
GROUP_MESSAGES: Final = 30
REPLIES: Final = 40
GROUP: Final = -1001000000001
OLD_GROUP: Final = -2002
NEW_GROUP: Final = -1001000002002
BLOCKED_USER: Final = 6_000_001
FIRST_USER: Final = 5_000_001


@dataclass(frozen=True, slots=True)
class Line:
    """One message of the demo. ``part`` is its row in the final table."""

    part: str
    chat: int
    text: str
    priority: Priority
    expect_dead: bool = False


def broadcast() -> list[Line]:
    """The same news to every user, the group's messages among them, one user who has blocked the bot, a group that
    has become a supergroup."""
    news = [Line("broadcast to users", FIRST_USER + n, f"news for user {n}", Priority.BULK) for n in range(USERS)]
    group = [Line("messages to one group", GROUP, f"group message {n}", Priority.BULK) for n in range(GROUP_MESSAGES)]
    moved = [Line("a migrated group", OLD_GROUP, f"for the moved group {n}", Priority.BULK) for n in range(3)]
    blocked = [Line("a user who blocked the bot", BLOCKED_USER, "to a blocker", Priority.BULK, expect_dead=True)]
    # The group's first: they wait longest, and show that nobody else waits for them.
    return [*group, *news[: USERS // 2], *blocked, *moved, *news[USERS // 2 :]]


def replies(seed: int = 1) -> list[tuple[float, Line]]:
    """People dropping in: at so many seconds from the start, an answer that somebody waits for."""
    dice = random.Random(seed)
    moments = sorted(dice.uniform(0.5, 12) for _ in range(REPLIES))
    return [
        (moment, Line("replies to people", FIRST_USER + dice.randrange(USERS), f"reply {n}", Priority.INTERACTIVE))
        for n, moment in enumerate(moments)
    ]
