"""``floodgate demo --campaign``: a campaign is sent, and its leader killed; then each recipient is accounted for.

A worker and two ``floodgate campaigns run`` are started with their own commands. The first leads the campaign until
SIGKILL; the second takes over within five seconds. Then the campaign is paused and resumed. An operator's chat shows
the progress in one message.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from floodgate.broker.errors import FloodgateError
from floodgate.demo.processes import child, child_process
from floodgate.demo.run import REFRESH_SECONDS
from floodgate.demo.stage import DemoStage, demo_stage
from floodgate.fake_telegram.control import ControlClient
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.campaigns.sending.progress import CampaignProgress
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.records import Recipient

AT_MOST_SECONDS: Final = 120.0
SILENCE_SECONDS: Final = 2.0
NAME: Final = "demo"
FIRST_USER: Final = 5_000_001
OPERATORS: Final = -1001000000009
# The leader is killed after so many messages, and the campaign paused so many after the next one took over.
BEFORE_KILL: Final = 20
BEFORE_PAUSE: Final = 10
TOO_MANY_REQUESTS: Final = 429


@dataclass(frozen=True, slots=True)
class CampaignDemoSize:
    """The number of recipients. The last of them has blocked the bot."""

    recipients: int


FULL: Final = CampaignDemoSize(500)
QUICK: Final = CampaignDemoSize(200)


class TooSlowError(FloodgateError):
    """The demo waited in vain. The message says for what."""


@dataclass(frozen=True, slots=True)
class CampaignDemoOutcome:
    """What became of the recipients, and the faults that were found."""

    expected: int
    rows: int
    states: dict[RecipientState, int]
    sent_while_paused: int
    missing: int
    twice: int
    reports: int
    too_many_requests: int

    @property
    def adds_up(self) -> bool:
        """Whether each recipient has one row and one outcome, and got the message once."""
        ended = {RecipientState.SENT: self.expected - 1, RecipientState.UNREACHABLE: 1}
        faults = (self.sent_while_paused, self.missing, self.twice, self.too_many_requests)
        return self.rows == self.expected and self.states == ended and self.reports == 1 and not any(faults)


def outcome_of(
    recipients: Iterable[Recipient],
    received: Iterable[str],
    size: CampaignDemoSize,
    *,
    sent_while_paused: int,
    reports: int,
    too_many_requests: int,
) -> CampaignDemoOutcome:
    """Compare the recipients' rows with the chats that received a message. Without I/O."""
    rows, times = list(recipients), Counter(received)
    sent = {row.chat for row in rows if row.state is RecipientState.SENT}
    return CampaignDemoOutcome(
        expected=size.recipients,
        rows=len({row.chat for row in rows}),
        states=dict(Counter(row.state for row in rows)),
        sent_while_paused=sent_while_paused,
        missing=len(sent - times.keys()) + len(times.keys() - sent),
        twice=sum(number - 1 for number in times.values()),
        reports=reports,
        too_many_requests=too_many_requests,
    )


def run_campaign_demo(console: Console, size: CampaignDemoSize = FULL) -> bool:
    """Run the demo to the end; return True if each recipient is accounted for.

    Raises:
        FloodgateError: RabbitMQ cannot be reached, a process did not start, or the campaign took too long.
    """
    with demo_stage() as stage, closing(Campaigns(stage.settings, stage.bot)) as campaigns:
        outcome = _play(console, stage, campaigns, size)
    console.print(_final(outcome))
    verdict = "Each recipient is accounted for." if outcome.adds_up else "It does not add up."
    console.print(verdict, style="green" if outcome.adds_up else "red")
    return outcome.adds_up


def _play(console: Console, stage: DemoStage, campaigns: Campaigns, size: CampaignDemoSize) -> CampaignDemoOutcome:
    stage.control.set_server(latency_ms=(40, 80))
    stage.control.set_chat(FIRST_USER + size.recipients - 1, trouble="blocked")
    definition = {"name": NAME, "content": {"text": "Hello {{ first_name }}!"}, "report_to": OPERATORS}
    campaigns.create(definition, _audience(size))
    left_out = sum(refused.number for refused in campaigns.refused(NAME))
    console.print(f"A campaign for {size.recipients} recipients. Rows of the audience that were left out: {left_out}.")
    console.print("Starting a worker and two processes that send campaigns …")
    stage.stack.enter_context(child(["worker"], stage.env, stage.home / "worker.log", "worker ready"))
    command = ["campaigns", "run"]
    first, _line = stage.stack.enter_context(
        child_process(command, stage.env, stage.home / "first.log", "campaigns ready")
    )
    campaigns.start(NAME)
    stage.stack.enter_context(child(command, stage.env, stage.home / "second.log", "ready", stands_back=True))
    with Live(console=console, transient=True) as screen:
        watch = _Watch(screen, campaigns)
        watch.until("messages", lambda now: now.ended >= BEFORE_KILL)
        first.kill()
        first.wait()
        released = _begun(campaigns.progress(NAME))
        screen.console.print(f"The leader was killed after {campaigns.progress(NAME).ended} messages.")
        watch.until("another leader", lambda now: _begun(now) >= released + BEFORE_PAUSE)
        campaigns.pause(NAME)
        silent = watch.until("silence", lambda now: not now.counts.get(RecipientState.RELEASED))
        screen.console.print(f"Another leader took over. The campaign is paused after {silent.ended} messages.")
        time.sleep(SILENCE_SECONDS)
        sent_while_paused = campaigns.progress(NAME).ended - silent.ended
        campaigns.resume(NAME)
        watch.until("the end", lambda now: now.campaign.state is CampaignState.DONE)
        watch.until("the last report", lambda _now: "done" in _last_report(stage.control))
    return outcome_of(
        campaigns.recipients(NAME),
        _received(stage.control),
        size,
        sent_while_paused=sent_while_paused,
        reports=sum(each["method"] == "sendMessage" for each in _reports(stage.control)),
        too_many_requests=stage.control.stats().by_code.get(TOO_MANY_REQUESTS, 0),
    )


def _audience(size: CampaignDemoSize) -> Iterator[dict[str, object]]:
    """Yield the recipients, a chat that comes twice, and a row without a chat."""
    for number in range(size.recipients):
        yield {"chat_id": FIRST_USER + number, "first_name": f"user {number}"}
    yield {"chat_id": FIRST_USER, "first_name": "again"}
    yield {"first_name": "nobody"}


@dataclass(frozen=True, slots=True)
class _Watch:
    screen: Live
    campaigns: Campaigns

    def until(self, what: str, reached: Callable[[CampaignProgress], bool]) -> CampaignProgress:
        """Show the progress until it is as far as that."""
        deadline = time.monotonic() + AT_MOST_SECONDS
        while time.monotonic() < deadline:
            progress = self.campaigns.progress(NAME)
            self.screen.update(_live(progress))
            if reached(progress):
                return progress
            time.sleep(REFRESH_SECONDS)
        raise TooSlowError(f"The demo waited for {what} for {AT_MOST_SECONDS:g} s. Is the machine very busy?")


def _begun(progress: CampaignProgress) -> int:
    """The number of recipients whose jobs have been released."""
    return progress.ended + progress.counts.get(RecipientState.RELEASED, 0)


def _received(control: ControlClient) -> Iterator[str]:
    return (
        str(call.params["chat_id"])
        for call in control.arrivals()
        if call.acted and int(call.params["chat_id"]) != OPERATORS
    )


def _reports(control: ControlClient) -> list[dict[str, Any]]:
    calls = [call for call in control.arrivals() if call.acted and int(call.params["chat_id"]) == OPERATORS]
    return [{"method": call.method, "text": str(call.params["text"])} for call in calls]


def _last_report(control: ControlClient) -> str:
    shown = _reports(control)
    return shown[-1]["text"].partition("\n")[0] if shown else ""


def _live(progress: CampaignProgress) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=progress.total, completed=progress.ended, width=40)
    grid.add_row(str(progress.campaign.state), bar, f"{progress.ended} of {progress.total}")
    return Panel(grid, title="Floodgate, a campaign", width=76, title_align="left")


def _final(outcome: CampaignDemoOutcome) -> Table:
    sent, unreachable = (outcome.states.get(state, 0) for state in (RecipientState.SENT, RecipientState.UNREACHABLE))
    columns = ("recipients", "rows", "sent", "unreachable", "missing", "sent twice", "while paused", "answers 429")
    values = (
        outcome.expected,
        outcome.rows,
        sent,
        unreachable,
        outcome.missing,
        outcome.twice,
        outcome.sent_while_paused,
        outcome.too_many_requests,
    )
    table = Table(*columns)
    table.add_row(*map(str, values))
    return table
