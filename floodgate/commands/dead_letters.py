"""``floodgate dead-letters``."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker import topology
from broker.browse import browse
from broker.connections import Connections
from broker.dead_letters import DeadLetter, read_dead_letter
from broker.settings import load_settings

app = typer.Typer(help="Jobs that will not be sent, with the reason.", no_args_is_help=True)
SHOWN_TEXT = 60


@app.callback()
def _group() -> None:
    """Jobs that will not be sent, with the reason."""


@app.command("list")
def list_(
    bot: Annotated[str | None, typer.Option(help="One bot only. Defaults to all, and to malformed messages.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most letters read of one queue.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List dead letters, oldest first, with counts by reason. They stay where they are.

    Example: floodgate dead-letters list --bot default --json
    """
    settings = load_settings()
    bots = [bot] if bot else sorted(settings.require_bots())
    queues = [topology.dead_queue(name) for name in bots]
    if bot is None:
        queues += [topology.MALFORMED_QUEUE, topology.UNROUTABLE_QUEUE]
    with Connections(settings, "cli") as connections:
        letters = [letter for queue in queues for letter in _read(connections, queue, limit)]
    if as_json:
        print(json.dumps([_as_data(letter) for letter in letters]))
    else:
        _print(letters)


def _read(connections: Connections, queue: str, limit: int) -> list[DeadLetter]:
    return [read_dead_letter(queue, m.message_id, m.headers, m.body) for m in browse(connections, queue, limit)]


def _print(letters: list[DeadLetter]) -> None:
    console = Console(highlight=False)
    table = Table("job", "reason", "died", "chat", "method", "attempts", "what Telegram or Floodgate said")
    for letter in letters:
        table.add_row(*(Text(cell) for cell in _cells(letter)))
    console.print(table)
    counts = Counter(letter.reason for letter in letters)
    console.print(", ".join(f"{reason}: {count}" for reason, count in counts.most_common()) or "No dead letters.")


def _cells(letter: DeadLetter) -> tuple[str, ...]:
    job = letter.job
    return (
        letter.message_id,
        letter.reason,
        letter.died_at.isoformat(timespec="seconds") if letter.died_at else "",
        (job.chat or "") if job else "",
        job.method if job else "",
        str(letter.attempts),
        letter.description or repr(letter.body[:SHOWN_TEXT]),
    )


def _as_data(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.message_id,
        "reason": letter.reason,
        "description": letter.description,
        "attempts": letter.attempts,
        "died_at": letter.died_at.isoformat() if letter.died_at else None,
        "queue": letter.queue,
        "job": letter.job.model_dump(mode="json") if letter.job else None,
        # Bytes of any kind, shown safely: what is not UTF-8 is escaped.
        "body": None if letter.job else letter.body.decode("utf-8", "backslashreplace"),
    }
