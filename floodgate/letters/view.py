"""Prints dead letters on a terminal and as JSON. Unprintable bytes are escaped."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from floodgate.broker.admission.contract import NotKept
from floodgate.broker.messages.dead_letters import DeadLetter
from floodgate.letters.criteria import harmless
from floodgate.letters.paging import ago
from floodgate.letters.reading import Found

NotKeptJobs = Mapping[str, Sequence[NotKept]]
"""By bot."""

SHOWN_TEXT: Final = 60
SHOWN_BODY: Final = 4000


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], whole: Collection[str]) -> None:
    """Print a table. Cells of the columns ``whole`` are never broken or cut, however narrow the terminal."""
    table = Table(highlight=False)
    for number, name in enumerate(columns):
        longest = max((len(row[number]) for row in rows), default=0) if name in whole else None
        table.add_column(name, overflow="fold", no_wrap=name in whole, min_width=longest)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table, crop=False)


def print_list(found: Found) -> None:
    """Print a table of letters, and their number by reason."""
    console = Console(highlight=False)
    if found.letters:
        columns = ("job", "reason", "died", "chat", "method", "attempts", "description")
        print_table(columns, [_cells(letter) for letter in found.letters], whole=("job", "chat"))
    if (more := found.counts.total() - len(found.letters)) > 0:
        console.print(f"{more} more are not shown: raise --limit.")
    console.print(counted(found.counts) or "No dead letters.")


def counted(counts: Counter[str]) -> str:
    """Format counts by reason, as in ``chat-unreachable: 12, content: 3``."""
    return ", ".join(f"{harmless(word.encode())}: {count}" for word, count in counts.most_common())


def print_letter(letter: DeadLetter) -> None:
    """Print everything about one letter."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("", "", show_header=False, box=None)
    for name, value in _facts(letter).items():
        table.add_row(name, Text(value))
    console.print(table)
    if letter.traceback:
        console.print(Text(_shown(letter.traceback)))
    if letter.job is not None:
        console.print(Text(_shown(json.dumps(letter.job.params, indent=2, ensure_ascii=False))))
    elif letter.update is not None:
        console.print(Text(_shown(json.dumps(letter.update.body, indent=2, ensure_ascii=False))))
    else:
        console.print(Text(_shown(harmless(letter.body))))


def as_data(letter: DeadLetter) -> dict[str, Any]:
    """Return a letter as JSON data."""
    return {
        "id": letter.message_id,
        "reason": letter.reason,
        "description": letter.description,
        "attempts": letter.attempts,
        "died_at": letter.died_at.isoformat() if letter.died_at else None,
        "queue": letter.queue,
        "job": letter.job.model_dump(mode="json") if letter.job else None,
        "update": letter.update.body if letter.update else None,
        "traceback": letter.traceback or None,
        # Arbitrary bytes: those that are not UTF-8 are escaped.
        "body": None if letter.job or letter.update else letter.body.decode("utf-8", "backslashreplace"),
    }


def print_not_kept(found: NotKeptJobs, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print the jobs without a dead letter, then their total number by reason."""
    console = Console(highlight=False)
    rows = [
        (bot, harmless((job.chat or "").encode()), job.job_id, job.reason, f"{ago(job.age)} ago")
        for bot, jobs in found.items()
        for job in jobs
    ]
    if rows:
        print_table(("bot", "chat", "job", "reason", "ended"), rows, whole=("chat", "job"))
    for bot, reasons in counts.items():
        if reasons:
            console.print(f"{bot}, since the state store was created: {counted(Counter(reasons))}")
    if not any(counts.values()):
        console.print("Every dead job has a dead letter.")


def print_not_kept_csv(found: NotKeptJobs) -> None:
    """Write the jobs without a dead letter to standard output as CSV."""
    lines = csv.DictWriter(sys.stdout, ["bot", "chat", "job", "reason", "ended_at"])
    lines.writeheader()
    lines.writerows(not_kept_as_data(bot, job) for bot, jobs in found.items() for job in jobs)


def not_kept_as_data(bot: str, job: NotKept) -> dict[str, str | None]:
    """Return a job without a dead letter as JSON data."""
    ended_at = (datetime.now(UTC) - job.age).isoformat(timespec="seconds")
    return {"bot": bot, "chat": job.chat, "job": job.job_id, "reason": job.reason, "ended_at": ended_at}


def progress() -> Progress:
    """Return a progress bar on standard error, shown only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not Console(stderr=True).is_terminal,
    )


def _cells(letter: DeadLetter) -> tuple[str, ...]:
    job = letter.job
    said = letter.description or (harmless(letter.body[:SHOWN_TEXT]) if job is None else "")
    cells = (
        letter.message_id,
        letter.reason,
        letter.died_at.isoformat(timespec="seconds") if letter.died_at else "",
        _chat(letter),
        job.method if job else _kind(letter),
        str(letter.attempts),
        said,
    )
    return tuple(harmless(cell.encode("utf-8", "backslashreplace")) for cell in cells)


def _facts(letter: DeadLetter) -> dict[str, str]:
    job = letter.job
    facts = {
        "job": letter.message_id,
        "reason": letter.reason,
        "said": letter.description,
        "died": letter.died_at.isoformat(timespec="seconds") if letter.died_at else "",
        "attempts": str(letter.attempts),
        "queue": letter.queue,
        "bot": job.bot if job else letter.update.bot if letter.update else "",
        "chat": _chat(letter),
        "update": _kind(letter),
        "method": job.method if job else "",
        "priority": str(job.priority) if job else "",
        "campaign": (job.campaign or "") if job else "",
        "dedupe key": (job.dedupe_key or "") if job else "",
        "size": f"{len(letter.body)} bytes",
    }
    return {name: harmless(value.encode("utf-8", "backslashreplace")) for name, value in facts.items() if value}


def _chat(letter: DeadLetter) -> str:
    of = letter.job or letter.update
    return (of.chat or "") if of else ""


def _kind(letter: DeadLetter) -> str:
    """Return the type of an update, as in ``message``; empty if the letter is not an update's."""
    return next((name for name in letter.update.body if name != "update_id"), "") if letter.update else ""


def _shown(text: str) -> str:
    """Return a text of many lines, escaped and truncated to ``SHOWN_BODY`` characters."""
    lines = "\n".join(harmless(line.encode("utf-8", "backslashreplace")) for line in text.split("\n"))
    return lines if len(lines) <= SHOWN_BODY else f"{lines[:SHOWN_BODY]}… ({len(lines) - SHOWN_BODY} characters more)"
