"""The demo's messages and their recipients, generated from a seed. Without I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from floodgate.broker.messages.job import Priority

GROUP: Final = -1001000000001
OLD_GROUP: Final = -2002
NEW_GROUP: Final = -1001000002002
BLOCKED_USER: Final = 6_000_001
FIRST_USER: Final = 5_000_001


@dataclass(frozen=True, slots=True)
class DemoMessage:
    """One message of the demo. ``part`` is its row in the final table."""

    part: str
    chat: int
    text: str
    priority: Priority
    expect_dead: bool = False


@dataclass(frozen=True, slots=True)
class DemoSize:
    """The demo's load. ``reply_seconds`` is the time over which the replies are spread."""

    users: int
    group_messages: int
    replies: int
    reply_seconds: float


FULL: Final = DemoSize(users=300, group_messages=30, replies=40, reply_seconds=12)
QUICK: Final = DemoSize(users=90, group_messages=12, replies=12, reply_seconds=4)


def broadcast(size: DemoSize) -> list[DemoMessage]:
    """Return the broadcast: news to every user, with messages to a group, to a user who has blocked the bot and to a
    group that has become a supergroup among them."""
    news = [
        DemoMessage("broadcast to users", FIRST_USER + n, f"news for user {n}", Priority.BULK)
        for n in range(size.users)
    ]
    group = [
        DemoMessage("messages to one group", GROUP, f"group message {n}", Priority.BULK)
        for n in range(size.group_messages)
    ]
    moved = [DemoMessage("a migrated group", OLD_GROUP, f"for the moved group {n}", Priority.BULK) for n in range(3)]
    blocked = [DemoMessage("a user who blocked the bot", BLOCKED_USER, "to a blocker", Priority.BULK, expect_dead=True)]
    # The group's messages come first: they wait longest, and show that no other chat waits for them.
    return [*group, *news[: size.users // 2], *blocked, *moved, *news[size.users // 2 :]]


def replies(size: DemoSize, seed: int = 1) -> list[tuple[float, DemoMessage]]:
    """Return the interactive replies, each with its time in seconds from the start."""
    dice = random.Random(seed)
    moments = sorted(dice.uniform(0.5, size.reply_seconds) for _ in range(size.replies))
    return [
        (
            moment,
            DemoMessage(
                "replies to people", FIRST_USER + dice.randrange(size.users), f"reply {n}", Priority.INTERACTIVE
            ),
        )
        for n, moment in enumerate(moments)
    ]
