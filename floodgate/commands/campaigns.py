"""``floodgate campaigns``."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from floodgate.broker.errors import CampaignError, InvalidParamsError
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.commands.options import EXIT_NO, AsJson, Bot, Yes, confirm, say

if TYPE_CHECKING:
    from floodgate.producer.campaigns.audience.queries import AudienceQuery
    from floodgate.producer.campaigns.audience.rows import AudienceFile
    from floodgate.producer.campaigns.operations.service import Campaigns
    from floodgate.producer.campaigns.sending.progress import CampaignProgress
    from floodgate.producer.campaigns.storage.records import Campaign

app = typer.Typer(help="Send one message to very many chats, and account for each.", no_args_is_help=True)

CampaignArgument = Annotated[str, typer.Argument(help="Name of the campaign.")]

WATCH_SECONDS: Final = 0.5


@app.callback()
def _group() -> None:
    """Send one message to very many chats, and account for each."""


@app.command()
def run() -> None:
    """Send the campaigns that are started, until SIGTERM. Any number of these processes may run.

    Example: floodgate campaigns run
    """
    from floodgate.broker.process.logs import configure_logging

    settings = load_settings()
    settings.require_bots()
    _campaigns(settings).close()
    configure_logging(settings)
    from floodgate.producer.async_client import AsyncClient
    from floodgate.producer.campaigns.sending.process import run_campaigns

    run_campaigns(
        settings,
        lambda connections: AsyncClient(settings, connections=connections),
        lambda: print("campaigns ready", flush=True),
    )


@app.command()
def create(
    definition: Annotated[Path, typer.Argument(help="TOML file with the campaign's definition.")],
    audience: Annotated[
        Path | None, typer.Option(help="CSV file with a header, or JSON Lines (.jsonl). Or give --query.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="SQL query whose rows are the audience.")] = None,
    query_file: Annotated[Path | None, typer.Option(help="File with the query.")] = None,
    database: Annotated[
        str | None,
        typer.Option(help="Database of the query: sqlite:////absolute/path.db or postgresql://user@host/name."),
    ] = None,
    query_seconds: Annotated[int, typer.Option(min=1, help="How long to wait for the query's next rows.")] = 300,
    exclude: Annotated[list[Path], typer.Option(help="File of chats that are left out. May be repeated.")] = [],  # noqa: B006
    exclude_campaign: Annotated[
        list[str], typer.Option(help="Earlier campaign whose recipients are left out if they got it. May be repeated.")
    ] = [],  # noqa: B006
    bot: Bot = None,
) -> None:
    """Create a campaign, import its audience and freeze it. Sends nothing: see check, test and start.

    Example: floodgate campaigns create spring.toml --audience customers.csv
    """
    from floodgate.producer.campaigns.audience.rows import AudienceFile
    from floodgate.producer.campaigns.states import CampaignState

    if audience and (query or query_file):
        raise InvalidParamsError("--audience and a query are both given: use one of them.")
    file = AudienceFile(audience) if audience else None
    given = file or _query(query, query_file, database, query_seconds)
    with _opened() as campaigns, _counting("importing", file) as count:
        campaign = campaigns.create(
            definition, given, exclude=exclude, exclude_campaigns=exclude_campaign, bot=bot, on_rows=count
        )
        for refused in campaigns.refused(campaign.name):
            say(f"Rows left out: {refused.number} (the first in line {refused.line}) because {refused.why}")
        if campaign.state is CampaignState.DRAFT:
            raise CampaignError(f"{campaign.name} has no recipients: no row was taken. Create it again.")
        recipients = sum(campaigns.progress(campaign.name).counts.values())
        say(f"{campaign.name} is {campaign.state}. Recipients: {recipients}")


@app.command()
def check(name: CampaignArgument, as_json: AsJson = False) -> None:
    """Render the message of every recipient, and report what Telegram would refuse.

    Example: floodgate campaigns check spring
    """
    with _opened() as campaigns, _counting("checking") as count:
        report = campaigns.check(name, on_rows=count)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        say(f"Messages rendered: {report.checked}. The longest has {report.longest} characters.")
        if report.skipped:
            say(f"Recipients skipped because they lack a field: {report.skipped}")
        for finding in report.findings:
            say(f"Recipients with an error: {finding.recipients} (the first is {finding.first}). {finding.why}")
    if report.findings:
        raise typer.Exit(EXIT_NO)


@app.command("test")
def test_(
    name: CampaignArgument,
    to: Annotated[str, typer.Option(help="Chat that gets the message: its id, or its @name.")],
    recipient: Annotated[
        str | None, typer.Option("--as", help="Chat of the recipient whose message it is. Defaults to the first.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Wait up to this many seconds for Telegram's answer.", min=0)] = 30,
) -> None:
    """Send one recipient's message to another chat, to look at it. Exits with 1 if it was not sent.

    Example: floodgate campaigns test spring --to 42 --as 1001
    """
    from floodgate.broker.errors import DeadLetteredError
    from floodgate.producer import Client

    with Client(load_settings()) as client:
        job = client.enqueue(client.campaigns.sample(name, to, recipient=recipient))
        say(f"Accepted: job {job.id}, {job.method} to {job.chat}.")
        try:
            result = client.result(job, timeout=wait)
        except DeadLetteredError as error:
            description = (error.error or {}).get("description")
            say(f"Not sent: {': '.join(filter(None, (error.reason, description)))}")
            raise typer.Exit(EXIT_NO) from None
        say(
            f"Sent: message {result['message_id']}." if isinstance(result, dict) and "message_id" in result else "Sent."
        )


@app.command()
def start(
    name: CampaignArgument,
    report_to: Annotated[str | None, typer.Option(help="Chat in which one message shows the progress.")] = None,
    yes: Yes = False,
) -> None:
    """Check a campaign, then start it. A `floodgate campaigns run` process sends it.

    Example: floodgate campaigns start spring
    """
    with _opened() as campaigns:
        if not yes:
            confirm(f"Send {name} to {campaigns.progress(name).left} recipients?")
        with _counting("checking") as count:
            _say_state(campaigns.start(name, report_to=report_to, on_rows=count))


@app.command()
def pause(name: CampaignArgument) -> None:
    """Pause a campaign. What waits in RabbitMQ is taken back within a second.

    Example: floodgate campaigns pause spring
    """
    with _opened() as campaigns:
        _say_state(campaigns.pause(name))


@app.command()
def resume(name: CampaignArgument) -> None:
    """Resume a campaign that was paused, or that a rule stopped.

    Example: floodgate campaigns resume spring
    """
    with _opened() as campaigns:
        _say_state(campaigns.resume(name))


@app.command()
def cancel(name: CampaignArgument, yes: Yes = False) -> None:
    """End a campaign for good. Recipients who have not got their message will not get it.

    Example: floodgate campaigns cancel spring
    """
    with _opened() as campaigns:
        if not yes:
            confirm(f"{campaigns.progress(name).left} recipients have not got {name}. Cancel it?")
        _say_state(campaigns.cancel(name))


@app.command()
def edit(
    name: CampaignArgument,
    definition: Annotated[Path, typer.Argument(help="TOML file with the campaign's changed definition.")],
) -> None:
    """Change the message, the rules, the schedule or the weight for the recipients who have not got their message.

    Their messages are checked first. What waits in RabbitMQ is taken back within a second, and sent as changed.

    Example: floodgate campaigns edit spring spring.toml
    """
    with _opened() as campaigns, _counting("checking") as count:
        campaign = campaigns.edit(name, definition, on_rows=count)
        say(f"{name} has version {campaign.version}. Recipients who get it: {campaigns.progress(name).left}")


@app.command()
def edit_sent(
    name: CampaignArgument,
    content: Annotated[Path, typer.Argument(help="TOML file with the changed content, or definition.")],
    yes: Yes = False,
) -> None:
    """Edit the messages that a campaign has sent, by a campaign of its own. Asks for confirmation.

    What the file leaves out, such as buttons, stays as it is.

    Example: floodgate campaigns edit-sent spring spring.toml
    """
    with _opened() as campaigns:
        _confirm_correction(campaigns, name, "Edit", yes)
        with _counting("checking") as count:
            correction = campaigns.edit_sent(name, content, on_rows=count)
        _say_correction(campaigns, correction)


@app.command()
def delete_sent(name: CampaignArgument, yes: Yes = False) -> None:
    """Delete the messages that a campaign has sent, by a campaign of its own. Asks for confirmation.

    Telegram does not delete a message from a private chat that is older than 48 hours.

    Example: floodgate campaigns delete-sent spring
    """
    with _opened() as campaigns:
        _confirm_correction(campaigns, name, "Delete", yes)
        _say_correction(campaigns, campaigns.delete_sent(name))


@app.command()
def retry(
    name: CampaignArgument,
    state: Annotated[
        list[str],
        typer.Option(help="Recipients in this state: failed, unreachable or uncertain. May be repeated."),
    ] = [],  # noqa: B006
    reason: Annotated[
        str | None,
        typer.Option(help="Recipients whose error contains this text, or matches this regular expression."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Try recipients again who failed or were unreachable; those who are uncertain only with --state uncertain.

    Asks for confirmation. A campaign that is done runs again. Exits with 1 if there are no such recipients.

    Example: floodgate campaigns retry spring --reason "not enough rights"
    """
    with _opened() as campaigns:
        number = campaigns.retryable(name, states=state, reason=reason)
        if not number:
            say(f"{name} has no such recipients.")
            raise typer.Exit(EXIT_NO)
        if not yes:
            confirm(f"Try {number} recipients of {name} again?")
        retried = campaigns.retry(name, states=state, reason=reason)
        say(f"{name} is {campaigns.progress(name).campaign.state}. Recipients who wait again: {retried}")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all campaigns, the latest first.

    Example: floodgate campaigns list
    """
    with _opened() as campaigns:
        found = campaigns.list()
    if as_json:
        print(json.dumps([progress.as_json() for progress in found]))
        return
    table = Table("campaign", "bot", "state", "recipients", "left")
    for progress in found:
        campaign = progress.campaign
        table.add_row(campaign.name, campaign.bot, campaign.state, str(progress.total), str(progress.left))
    Console(highlight=False).print(table)


@app.command()
def show(name: CampaignArgument, as_json: AsJson = False) -> None:
    """Show a campaign: its state, what became of its recipients, and when it is expected to be done.

    Example: floodgate campaigns show spring --json
    """
    with _opened() as campaigns:
        progress = campaigns.progress(name)
    if as_json:
        print(json.dumps(progress.as_json()))
        return
    for line in _lines(progress):
        say(line)


@app.command()
def watch(name: CampaignArgument) -> None:
    """Follow a campaign until it is done.

    Example: floodgate campaigns watch spring
    """
    from floodgate.producer.campaigns.states import CampaignState

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[eta]}"))
    with _opened() as campaigns, Bars(*columns) as bars:
        task = bars.add_task(name, total=None, eta="")
        while True:
            progress = campaigns.progress(name)
            eta = f"about {progress.eta} left" if progress.eta else progress.campaign.reason or ""
            description = f"{name} ({progress.campaign.state})"
            bars.update(task, description=description, total=progress.total, completed=progress.ended, eta=eta)
            if progress.campaign.state in (CampaignState.DONE, CampaignState.CANCELLED):
                return
            time.sleep(WATCH_SECONDS)


@app.command()
def results(name: CampaignArgument, as_json: AsJson = False) -> None:
    """Show how recipients responded, by variant, and which variant is better.

    Example: floodgate campaigns results spring --json
    """
    with _opened() as campaigns:
        found = campaigns.results(name)
    if as_json:
        print(json.dumps(found.as_json()))
        return
    for variant in found.variants:
        say(f"{variant.name}: {variant.recipients} recipients, {variant.sent} sent")
        for kind, its in variant.responses.items():
            low, high = its.interval
            say(f"  {kind.name.lower():12} {its.number:8} {its.share:6.1%} ({low:.1%} to {high:.1%})")
    for sentence in found.sentences():
        say(sentence)
    if not found.has_responses:
        say("No responses have been recorded. Set FLOODGATE_CAMPAIGNS_RESPONSE_HOURS for the handler workers.")


@app.command()
def unsubscribe(
    chat: Annotated[str, typer.Argument(help="Id of the chat, or its @name.")],
    bot: Bot = None,
) -> None:
    """Leave a chat out of all campaigns of a bot.

    Example: floodgate campaigns unsubscribe 42
    """
    from floodgate.broker.messages.chats import chat_key

    settings, key = load_settings(), chat_key(chat)
    with closing(_campaigns(settings)) as campaigns:
        campaigns.unsubscribe(chat, bot=bot)
    say(f"Chat {key} will get no more campaigns of bot {bot or settings.default_bot}.")


@app.command()
def export(
    name: CampaignArgument,
    as_json: Annotated[bool, typer.Option("--jsonl", help="JSON Lines instead of CSV.")] = False,
) -> None:
    """Print a line for each recipient: its chat, state, variant, the version of its message, message id, error and
    times (Unix milliseconds).

    Example: floodgate campaigns export spring > spring.csv
    """
    columns = ("chat", "state", "variant", "version", "message_id", "error", "released_ms", "ended_ms")
    with _opened() as campaigns:
        writer = csv.DictWriter(sys.stdout, columns)
        if not as_json:
            writer.writeheader()
        for recipient in campaigns.recipients(name):
            if as_json:
                print(json.dumps(recipient.as_json()))
            else:
                writer.writerow(recipient.as_json())


def _query(query: str | None, file: Path | None, database: str | None, seconds: int) -> AudienceQuery:
    from floodgate.producer.campaigns.audience.queries import AudienceQuery, read_statement

    if (query is None) == (file is None):
        raise InvalidParamsError("Give the audience: --audience, or --database and either --query or --query-file.")
    if database is None:
        raise InvalidParamsError("--database is missing: write the URL of the database that the query is for.")
    statement = query if file is None else read_statement(file)
    return AudienceQuery(SecretStr(database), statement or "", timedelta(seconds=seconds))


def _campaigns(settings: Settings) -> Campaigns:
    from floodgate.producer.campaigns.operations.service import Campaigns

    return Campaigns(settings)


def _opened() -> closing[Campaigns]:
    return closing(_campaigns(load_settings()))


def _say_state(campaign: Campaign) -> None:
    say(f"{campaign.name} is {campaign.state}.")


def _confirm_correction(campaigns: Campaigns, name: str, verb: str, yes: bool) -> None:
    from floodgate.producer.campaigns.states import RecipientState

    if not yes:
        sent = campaigns.progress(name).counts.get(RecipientState.SENT, 0)
        confirm(f"{verb} the messages of {sent} recipients of {name}?")


def _say_correction(campaigns: Campaigns, correction: Campaign) -> None:
    for refused in campaigns.refused(correction.name):
        say(f"Messages left out: {refused.number} (the first to {refused.sample}) because {refused.why}")
    say(f"{correction.name} is {correction.state}. Messages: {campaigns.progress(correction.name).total}")


def _lines(progress: CampaignProgress) -> Iterator[str]:
    campaign = progress.campaign
    yield f"{campaign.name}: {campaign.state}" + (f", because {campaign.reason}" if campaign.reason else "")
    for state, number in progress.counts.items():
        yield f"  {state.name.lower():12} {number}"
    if progress.eta is not None:
        yield f"  done in about {progress.eta}"


@contextmanager
def _counting(what: str, file: AudienceFile | None = None) -> Iterator[Callable[[int], None]]:
    """Show the number of rows that have been read, and how much of the file that is."""
    total = file.size if file else None
    part = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) if total else ()
    columns = (TextColumn("{task.description}"), *part, TextColumn("{task.fields[rows]}"))
    console = Console(stderr=True)
    with Bars(*columns, transient=True, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=total, rows="")
        yield lambda rows: bars.update(task, completed=file.position if file else rows, rows=f"{rows} rows")
