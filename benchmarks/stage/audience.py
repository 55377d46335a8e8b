"""Users who write to a bot and wait for its answer: what they say and when, and what came of it.

What is said is unique and is answered with itself, so an answer tells what it answers. Times are of this machine's
clock: the moment before the fake Telegram is told of an update, and the arrival of the answer there.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.stage.figures import percentile, steady_rate
from floodgate.fake_telegram.control import Arrived, ControlClient

BATCH_SECONDS: Final = 0.05
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a user, and the Unix time at which Telegram had it."""

    chat: int
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a load. Seconds are from an update's arrival at Telegram to that of its answer."""

    said: int
    answered: int
    doubled: int
    disorder: int
    """Answers that came before one to an earlier message of the same chat."""
    per_second: float
    p50_seconds: float
    p99_seconds: float
    last_seconds: float


@dataclass(slots=True)
class Audience:
    """So many users of one bot. One thread only."""

    control: ControlClient
    bot_id: int
    users: int
    _first_user: int = 1_000_000
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def at_once(self, count: int, word: str = "said") -> list[Said]:
        """All of it now, in turns of the users. ``word`` begins each message."""
        return self._say(count, word)

    def steadily(self, per_second: float, seconds: float) -> list[Said]:
        """So much a second, in batches of a twentieth of one."""
        said: list[Said] = []
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            if due := int(passed * per_second) - len(said):
                said += self._say(due)
            time.sleep(BATCH_SECONDS)
        return said

    def hear(self, said: Sequence[Said], at_most_seconds: float) -> Heard:
        """Wait until all are answered, or so long after the last of them."""
        wanted = {one.text for one in said}
        deadline = time.monotonic() + at_most_seconds
        while True:
            arrivals = self.control.arrivals()
            answers = [call for call in arrivals if call.acted and call.params.get("text") in wanted]
            if len(answers) >= len(wanted) or time.monotonic() > deadline:
                return account(said, answers)
            self._await_more(deadline)

    def _await_more(self, deadline: float) -> None:
        """Until nothing came for a moment: reading all arrivals is dear, and would slow down what is measured."""
        last = -1
        while (acted := self.control.stats().acted) != last and time.monotonic() < deadline:
            last = acted
            time.sleep(POLL_SECONDS * 5)

    def _say(self, count: int, word: str = "said") -> list[Said]:
        numbers = list(itertools.islice(self._numbers, count))
        now = time.time()
        said = [Said(self._first_user + number % self.users, f"{word} {number}", now) for number in numbers]
        self.control.inject_updates(self.bot_id, [{"user": one.chat, "text": one.text} for one in said])
        return said


def account(said: Sequence[Said], answers: Sequence[Arrived]) -> Heard:
    """Match answers, in order of arrival, to what was said, in order."""
    first: dict[str, Arrived] = {}
    for call in answers:
        first.setdefault(str(call.params["text"]), call)
    waits = [first[one.text].wall - one.at for one in said if one.text in first] or [float("nan")]
    return Heard(
        said=len(said),
        answered=len(first),
        doubled=len(answers) - len(first),
        disorder=_disorder(said, list(first)),
        per_second=steady_rate([call.at for call in first.values()]),
        p50_seconds=percentile(waits, 0.5),
        p99_seconds=percentile(waits, 0.99),
        last_seconds=max(waits),
    )


def _disorder(said: Sequence[Said], answered: Sequence[str]) -> int:
    position = {text: number for number, text in enumerate(answered)}
    chats: defaultdict[int, list[int]] = defaultdict(list)
    for one in said:
        if one.text in position:
            chats[one.chat].append(position[one.text])
    return sum(later < earlier for chat in chats.values() for earlier, later in itertools.pairwise(chat))
