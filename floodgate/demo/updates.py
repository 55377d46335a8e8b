"""``floodgate demo --updates``: simulated people talk to a bot while its receivers and workers start and stop.

Two receivers, three handler workers and a send worker are started with their own commands. Half-way through, the
active receiver and a handler worker end, and another worker joins. Each message must be answered once, in its chat's
order.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from floodgate.demo.processes import child
from floodgate.demo.run import REFRESH_SECONDS
from floodgate.demo.stage import FAKE_TOKEN, DemoStage, demo_stage
from floodgate.fake_telegram.control import ControlClient

AT_MOST_SECONDS: Final = 120.0
CONFLICT: Final = 409
TOO_MANY_REQUESTS: Final = 429
BOT_ID: Final = int(FAKE_TOKEN.partition(":")[0])


@dataclass(frozen=True, slots=True)
class UpdateDemoSize:
    """The number of people, and of messages from each."""

    users: int
    messages: int

    @property
    def total(self) -> int:
        """The number of messages."""
        return self.users * self.messages


FULL: Final = UpdateDemoSize(users=150, messages=4)
QUICK: Final = UpdateDemoSize(users=60, messages=3)


@dataclass(frozen=True, slots=True)
class UpdateDemoOutcome:
    """The answers that people got, and the faults that were found."""

    said: int
    answered: int
    missing: int
    twice: int
    disordered: int
    conflicts: int
    too_many_requests: int

    @property
    def adds_up(self) -> bool:
        """Whether every message was answered and there are no faults."""
        faults = (self.missing, self.twice, self.disordered, self.conflicts, self.too_many_requests)
        return self.answered == self.said and not any(faults)


def outcome_of(
    answers: Iterable[tuple[int, str]], size: UpdateDemoSize, conflicts: int, too_many_requests: int
) -> UpdateDemoOutcome:
    """Compare the answers, as pairs of chat and text in order of arrival, with the messages. Without I/O."""
    by_chat: defaultdict[int, list[str]] = defaultdict(list)
    for chat, text in answers:
        by_chat[chat].append(text)
    said = [str(n) for n in range(1, size.messages + 1)]
    firsts = [list(dict.fromkeys(texts)) for texts in by_chat.values()]
    distinct, total = sum(map(len, firsts)), sum(map(len, by_chat.values()))
    return UpdateDemoOutcome(
        said=size.total,
        answered=distinct,
        missing=size.total - distinct,
        twice=total - distinct,
        disordered=sum(texts != [text for text in said if text in texts] for texts in firsts),
        conflicts=conflicts,
        too_many_requests=too_many_requests,
    )


def run_updates_demo(console: Console, size: UpdateDemoSize = FULL) -> bool:
    """Run the demo to the end; return True if everybody was answered once, in order.

    Raises:
        FloodgateError: RabbitMQ cannot be reached, or a process did not start.
    """
    with demo_stage() as stage:
        outcome = _play(console, stage, size)
    console.print(_final(outcome))
    verdict = "Everybody was answered once, in order." if outcome.adds_up else "It does not add up."
    console.print(verdict, style="green" if outcome.adds_up else "red")
    return outcome.adds_up


def _play(console: Console, stage: DemoStage, size: UpdateDemoSize) -> UpdateDemoOutcome:
    control, staying = stage.control, stage.stack
    leaving = staying.enter_context(contextlib.ExitStack())

    def start(*command: str, name: str, until: contextlib.ExitStack) -> None:
        log, back = stage.home / f"{name}.log", name != "sends"
        until.enter_context(child(list(command), stage.env, log, "ready", stands_back=back))

    def handler(name: str, until: contextlib.ExitStack) -> None:
        start("worker", "--updates", "floodgate.demo.echo:application", name=name, until=until)

    control.set_server(latency_ms=(40, 80))
    console.print("Starting two receivers, three handler workers and a send worker …")
    start("worker", name="sends", until=staying)
    handler("handler-1", leaving)
    handler("handler-2", staying)
    handler("handler-3", staying)
    start("updates", name="receiver-1", until=leaving)
    start("updates", name="receiver-2", until=staying)
    half = size.messages // 2
    console.print(f"{size.users} people say {size.messages} things each.")
    _say(control, size.users, range(1, half + 1))
    with Live(console=console, transient=True) as screen:
        _watch(screen, control, size, size.users * half // 2)
        screen.console.print("The active receiver and a handler worker stop; another worker starts.")
        _say(control, size.users, range(half + 1, size.messages + 1))
        leaving.close()
        handler("handler-4", staying)
        _watch(screen, control, size, size.total)
    by_code = control.summary().by_code
    return outcome_of(_answers(control), size, by_code.get(CONFLICT, 0), by_code.get(TOO_MANY_REQUESTS, 0))


def _say(control: ControlClient, users: int, numbers: Iterable[int]) -> None:
    for number in numbers:
        control.inject_crowd(BOT_ID, users=users, text=str(number))


def _watch(screen: Live, control: ControlClient, size: UpdateDemoSize, enough: int) -> None:
    """Show the figures until ``enough`` answers have arrived or time is up."""
    started = time.monotonic()
    while time.monotonic() - started < AT_MOST_SECONDS:
        answered = sum(1 for _ in _answers(control))
        screen.update(_live(answered, size, control.stats().acted_last_second))
        if answered >= enough:
            return
        time.sleep(REFRESH_SECONDS)


def _answers(control: ControlClient) -> Iterable[tuple[int, str]]:
    return (
        (int(call.params["chat_id"]), str(call.params["text"]))
        for call in control.arrivals()
        if call.acted and call.method == "sendMessage"
    )


def _live(answered: int, size: UpdateDemoSize, rate: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("answered", ProgressBar(total=size.total, completed=answered, width=40), f"{answered} of {size.total}")
    grid.add_row("rate", "", f"{rate}/s of 30/s")
    return Panel(grid, title="Floodgate, updates", width=76, title_align="left")


def _final(outcome: UpdateDemoOutcome) -> Table:
    table = Table("said", "answered", "missing", "answered twice", "chats out of order", "answers 409", "answers 429")
    table.add_row(
        *map(
            str,
            (
                outcome.said,
                outcome.answered,
                outcome.missing,
                outcome.twice,
                outcome.disordered,
                outcome.conflicts,
                outcome.too_many_requests,
            ),
        )
    )
    return table
