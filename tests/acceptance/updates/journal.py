"""The handlers' journal and checks on it. Pure, except for reading the file.

A user's texts are `<chat>:<n>`, n from 1, so that a line shows its position in the chat.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Handling:
    """One run of the handler. Times are monotonic seconds; `ended` is None if the run did not finish."""

    pid: int
    update_id: int
    text: str
    began: float
    ended: float | None

    @property
    def chat(self) -> int:
        return int(self.text.partition(":")[0])

    @property
    def n(self) -> int:
        return int(self.text.partition(":")[2])


def read_journal(path: Path) -> list[Handling]:
    """All runs in the order in which they began."""
    begun: dict[tuple[int, int], list[Handling]] = defaultdict(list)
    order: list[tuple[tuple[int, int], int]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        event, pid, update_id, text, at = line.split(" ")
        key = (int(pid), int(update_id))
        if event == "begin":
            order.append((key, len(begun[key])))
            begun[key].append(Handling(*key, text, float(at), None))
        else:
            run = begun[key][-1]
            begun[key][-1] = Handling(*key, text, run.began, float(at))
    return [begun[key][position] for key, position in order]


def completed(runs: Iterable[Handling]) -> set[str]:
    """Texts that were handled to the end at least once."""
    return {run.text for run in runs if run.ended is not None}


def repeated(runs: Iterable[Handling]) -> set[str]:
    """Texts with more than one run."""
    times = Counter(run.text for run in runs)
    return {text for text, count in times.items() if count > 1}


def disorder(texts: Sequence[str]) -> list[str]:
    """Texts first seen after a later one of their chat; each text counts at its first position."""
    latest: dict[str, int] = {}
    wrong = []
    for text in dict.fromkeys(texts):
        chat, _, n = text.partition(":")
        if int(n) < latest.get(chat, 0):
            wrong.append(text)
        latest[chat] = max(int(n), latest.get(chat, 0))
    return wrong


def overlaps(runs: Iterable[Handling]) -> list[tuple[Handling, Handling]]:
    """Pairs of runs of one chat in which the second began before the first ended."""
    chats: defaultdict[int, list[Handling]] = defaultdict(list)
    for run in runs:
        chats[run.chat].append(run)
    return [
        (earlier, later)
        for chat in chats.values()
        for earlier, later in pairwise(chat)
        if earlier.ended is None or earlier.ended > later.began
    ]
