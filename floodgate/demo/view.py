"""The demo's output: a live panel while it runs, and at the end a table that accounts for every job."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from floodgate.demo.account import Account


@dataclass(frozen=True, slots=True)
class Moment:
    """The figures of one moment."""

    elapsed_seconds: float
    accepted: int
    sent: int
    dead: int
    rate: int
    limit: float
    too_many_requests: int

    @property
    def waiting(self) -> int:
        """The number of jobs that have not ended."""
        return max(0, self.accepted - self.sent - self.dead)


def live(moment: Moment) -> RenderableType:
    """Build the panel that is shown while the demo runs."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("rate", ProgressBar(total=moment.limit, completed=moment.rate, width=40), f"{moment.rate}/s")
    grid.add_row("limit", "", f"{moment.limit:g}/s")
    grid.add_row("accepted", "", str(moment.accepted))
    grid.add_row("sent", "", str(moment.sent))
    grid.add_row("waiting", "", str(moment.waiting))
    grid.add_row("dead-lettered", "", str(moment.dead))
    grid.add_row("answers 429", "", str(moment.too_many_requests))
    return Panel(grid, title=f"Floodgate, {moment.elapsed_seconds:.0f} s", width=76, title_align="left")


def final(account: Account) -> Table:
    """Build the table that accounts for every job."""
    table = Table("", "accepted", "sent", "dead-lettered", "missing", "sent twice", title="What became of every job")
    for part in account.parts:
        figures = (part.accepted, part.sent, part.dead, part.missing, part.doubled)
        table.add_row(part.part, *map(str, figures))
    return table


def verdict(account: Account) -> str:
    """Return the last lines: the faults and the verdict."""
    lines = [
        f"answers 429: {account.too_many_requests}",
        f"order violations: {account.order_violations}",
        f"unexpected endings: {account.wrong_outcomes}",
        "Every job is accounted for." if account.adds_up else "It does not add up.",
    ]
    return "\n".join(lines)
