"""The scenarios of ``python -m benchmarks limits``, as values: load, Bot API, disturbances, and what must come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from benchmarks.stage.loads import FIRST_USER, Line, broadcast, group_messages, replies

USUAL_LATENCY_MS: Final = (80.0, 120.0)


class Act(Enum):
    """What happens to a running scenario."""

    PAUSE_CHAT = auto()  # the Bot API answers 429 for one chat
    PAUSE_BOT = auto()  # … for the whole bot
    JOIN = auto()  # a worker more
    LEAVE = auto()  # a worker less, by SIGTERM
    DIE = auto()  # a worker less, by SIGKILL


@dataclass(frozen=True, slots=True)
class Event:
    at_seconds: float
    act: Act
    seconds: float = 0.0
    chat: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one figure, from above or from below."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, figures: Mapping[str, float]) -> bool:
        value = figures.get(self.figure)
        if value is None:
            return False
        low, high = self.at_least, self.at_most
        return (low is None or value >= low) and (high is None or value <= high)

    def __str__(self) -> str:
        return (
            f"{self.figure} ≥ {self.at_least:g}" if self.at_least is not None else f"{self.figure} ≤ {self.at_most:g}"
        )


NEVER: Final = (Target("429", at_most=0), Target("disorder", at_most=0), Target("in 1 s", at_most=30))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load under one behaviour of the Bot API.

    ``watch_seconds`` bounds it; a scenario that ends when all has arrived has some room there.
    ``peers`` and ``former`` say whether they play it, too. ``busy_loops`` are processes that only use CPU. What is
    ``alone`` measures the machine as well, so its contenders never play side by side.
    """

    name: str
    about: str
    lines: list[Line]
    watch_seconds: float
    targets: tuple[Target, ...]
    latency_ms: tuple[float, float] = USUAL_LATENCY_MS
    to_the_end: bool = True
    slow_chats: Mapping[int, float] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    peers: bool = False
    workers: tuple[int, ...] = (1, 3)
    former: bool = False
    busy_loops: int = 0
    alone: bool = False


def scenarios(quick: bool) -> list[Scenario]:
    """All of them. The quick ones are too short to be judged by their last percent."""
    users = 300 if quick else 1000
    grouped = 300 if quick else 900
    watch = 40.0 if quick else 120.0
    return [
        Scenario(
            "broadcast",
            f"{users} users, one message each",
            broadcast(users),
            users / 30 * 4 + 30,
            (Target("use", at_least=0.97), *NEVER),
            peers=True,
            workers=(1, 3, 10),
        ),
        Scenario(
            "busy",
            f"{users} users while four busy loops use the machine",
            broadcast(users),
            users / 30 * 4 + 30,
            (Target("use", at_least=0.95), Target("429", at_most=5), *NEVER[1:2]),
            workers=(1,),
            former=True,
            busy_loops=4,
            alone=True,
        ),
        Scenario(
            "group",
            f"1000 messages to one group queued first, then {grouped} users",
            [*group_messages(1000), *broadcast(grouped)],
            # Ten seconds into the group's third minute, so that its rate shows.
            75 if quick else 135,
            (Target("use", at_least=0.95 * 0.98), Target("group a minute", at_least=18.5), *NEVER),
            to_the_end=False,
            peers=True,
        ),
        Scenario(
            "interactive",
            f"a reply every 0.5 s during a broadcast of {2_000 if quick else 20_000}",
            [*broadcast(2_000 if quick else 20_000), *replies(watch - 8)],
            watch,
            (
                Target("reply p50 s", at_most=0.1),
                Target("reply p99 s", at_most=0.5),
                Target("use", at_least=0.97),
                *NEVER,
            ),
            to_the_end=False,
            peers=True,
        ),
        Scenario(
            "interactive-quick-answers",
            "the same, answers take 40 to 80 ms",
            [*broadcast(2_000 if quick else 20_000), *replies(watch - 8)],
            watch,
            (Target("answered p99 s", at_most=0.15), Target("use", at_least=0.97), *NEVER),
            latency_ms=(40, 80),
            to_the_end=False,
            former=True,
        ),
        Scenario(
            "latency-0.5",
            f"{users} users, answers take 0.5 s, default settings",
            broadcast(users),
            users / 30 * 3 + 30,
            (Target("use", at_least=0.97), *NEVER),
            latency_ms=(500, 500),
        ),
        Scenario(
            "latency-2",
            f"{users} users, answers take 2 s, partitions by the formula of docs/performance.md",
            broadcast(users),
            users / 30 * 3 + 30,
            (Target("use", at_least=0.9), *NEVER),
            latency_ms=(2000, 2000),
            settings={"partitions": 100},
        ),
        Scenario(
            "slow-chat",
            "500 users, one chat that holds every request for 10 s with ten messages",
            [*(Line("slow", FIRST_USER - 1, f"slow {number}") for number in range(10)), *broadcast(500)],
            50,
            (Target("use", at_least=0.95), *NEVER),
            slow_chats={FIRST_USER - 1: 10.0},
            to_the_end=False,
        ),
        Scenario(
            "three-parts",
            f"{users} users, three messages each",
            broadcast(users, parts=3),
            users * 3 / 30 * 2 + 30,
            (Target("use", at_least=0.95), *NEVER),
            peers=True,
        ),
        Scenario(
            "paid",
            "a paid broadcast at 1000/s, 160 partitions",
            broadcast(3_000 if quick else 10_000, paid=True),
            120,
            (Target("rate", at_least=900), Target("429", at_most=0), Target("disorder", at_most=0)),
            settings={"partitions": 160},
            workers=(1, 2),
            former=True,
            alone=True,
        ),
        Scenario(
            "429",
            "a broadcast; at 8 s one chat is paused for 30 s, at 12 s the bot for 5 s",
            [*(Line("paused", FIRST_USER - 2, f"paused {number}") for number in range(60)), *broadcast(1200)],
            60,
            (
                Target("into pauses late", at_most=0),
                Target("disorder", at_most=0),
                Target("in 1 s", at_most=30),
                Target("in 0.25 s after", at_most=12),
            ),
            events=(Event(8, Act.PAUSE_CHAT, 30, FIRST_USER - 2), Event(12, Act.PAUSE_BOT, 5)),
            to_the_end=False,
        ),
        Scenario(
            "churn",
            f"{users} users while workers join, leave and die",
            broadcast(users),
            users / 30 * 4 + 40,
            (Target("use", at_least=0.95), *NEVER[:1], NEVER[2]),
            events=(
                Event(3, Act.JOIN),
                Event(6, Act.LEAVE),
                Event(9, Act.JOIN),
                Event(9, Act.JOIN),
                Event(14, Act.DIE),
            ),
        ),
    ]
