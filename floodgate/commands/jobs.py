"""``floodgate jobs``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from floodgate.broker.admission.contract import CANCELLED, Admission, Record, Standing
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.job import Priority, stand_in, unix_ms
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_result_feed, open_store
from floodgate.commands.options import EXIT_NO, AnyBot, AsJson, Yes, confirm, open_to_read, say
from floodgate.letters import reading
from floodgate.letters.criteria import harmless
from floodgate.overview.queues import QueueCounts

app = typer.Typer(help="Show, follow and cancel jobs.", no_args_is_help=True)

FOLLOW_SECONDS: Final = 1.0


@app.callback()
def _group() -> None:
    """Show, follow and cancel jobs."""


@app.command()
def show(
    job: Annotated[str, typer.Argument(help="Id of the job.")], bot: AnyBot = None, as_json: AsJson = False
) -> None:
    """Print where a job stands in the ledger. Exits with 1 if the ledger does not know it.

    Example: floodgate jobs show 3f2a9c0e8b7d4b7c9a55d0f7a4f0c1de
    """
    settings = load_settings()
    bots = reading.bots(settings, bot)
    with contextlib.closing(open_to_read(settings)) as store:
        found = _records(store, bots, job)
    if as_json:
        print(json.dumps([_as_data(name, job, record) for name, record in found.items()]))
    for name, record in found.items() if not as_json else ():
        for field, value in _as_data(name, job, record).items():
            if value is not None:
                say(f"{field:12} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    if not found:
        typer.echo(f"No worker has seen the job {job!r} yet, or the ledger has forgotten it.", err=True)
        raise typer.Exit(EXIT_NO)


@app.command()
def tail(bot: AnyBot = None, as_json: AsJson = False) -> None:
    """Print each job as it ends, until interrupted.

    Example: floodgate jobs tail --bot default
    """
    settings = load_settings()
    bots = reading.bots(settings, bot)
    with contextlib.closing(open_result_feed(settings, bots)) as feed:
        feed.skip()
        typer.echo(f"Following the jobs of {', '.join(bots)}.", err=True)
        while True:
            for ended in feed.wait(FOLLOW_SECONDS):
                fields = _as_data(ended.bot, ended.job_id, ended.record)
                print(json.dumps(fields) if as_json else _line(fields), flush=True)


@app.command()
def cancel(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of jobs.")] = None,
    campaign: Annotated[str | None, typer.Option(help="All jobs of this campaign.")] = None,
    bot: Annotated[
        str | None, typer.Option(help="Only jobs of this bot; all of them if neither ids nor --campaign is given.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take back jobs that have not been sent. Asks for confirmation.

    Without ids, each job that was enqueued before now ends when a worker comes to it, wherever it waits; jobs enqueued
    later are sent. Exits with 1 if one of the ids was sent before, is being sent, or is a dead letter.

    Example: floodgate jobs cancel --campaign spring
    """
    settings = load_settings()
    bots = reading.bots(settings, bot)
    if ids and campaign:
        raise InvalidParamsError("Ids and --campaign are both given: use one of them.")
    if not ids and not campaign and bot is None:
        raise InvalidParamsError("Say what to cancel: ids, --campaign or --bot.")
    with contextlib.closing(open_store(settings)) as store:
        if ids:
            _cancel_ids(settings, store, bots, list(dict.fromkeys(ids)), yes, as_json)
        else:
            _cancel_all(settings, store, bots, campaign, yes, as_json)


def _cancel_all(
    settings: Settings, store: Admission, bots: list[str], campaign: str | None, yes: bool, as_json: bool
) -> None:
    waiting = _waiting(settings, store, bots)
    what = f"jobs of the campaign {campaign!r}" if campaign else "jobs"
    if not yes:
        confirm(f"Cancel all {what} of {', '.join(bots)}, where {waiting} jobs wait and others may be scheduled?")
    before_ms = unix_ms() + 1  # a job of this same millisecond was enqueued before
    for name in bots:
        store.cancel_campaign(name, campaign, before_ms)
    if as_json:
        print(json.dumps({"bots": bots, "campaign": campaign, "waiting": waiting}))
    else:
        say(f"Cancelled: all {what} of {', '.join(bots)}. Each ends when a worker comes to it; `status` counts them.")


def _cancel_ids(
    settings: Settings, store: Admission, bots: list[str], ids: list[str], yes: bool, as_json: bool
) -> None:
    known = {job: _records(store, bots, job) for job in ids}
    if len(bots) > 1 and (unseen := [job for job, found in known.items() if not found]):
        raise InvalidParamsError(f"No worker has seen the job {unseen[0]!r} yet: say with --bot whose it is.")
    if not yes:
        confirm(f"Cancel {len(ids)} job{'s' * (len(ids) > 1)}?")
    records = {}
    for job, found in known.items():
        name = next(iter(found), bots[0])
        records[job] = store.cancel(ask_for(stand_in(name, job), settings))
        if not as_json:
            say(_told(job, records[job], seen=bool(found)))
    if as_json:
        print(json.dumps({job: record.reason or record.standing for job, record in records.items()}))
    if any(record.reason != CANCELLED for record in records.values()):
        raise typer.Exit(EXIT_NO)


def _told(job: str, record: Record, *, seen: bool) -> str:
    if record.reason != CANCELLED:
        return f"Job {job} cannot be cancelled: it is {record.standing}."
    return f"Job {job} is cancelled." if seen else f"Job {job} is cancelled: if it is still queued, it will be dropped."


def _waiting(settings: Settings, store: Admission, bots: list[str]) -> int:
    """Count the jobs in queues and lines. Those that are scheduled are in neither."""
    with Connections(settings, "cli") as connections:
        counted = QueueCounts(settings, connections, bots).read().by_bot.values()
    in_queues = sum(each.queued[kind] for each in counted for kind in (*map(str, Priority), "answers"))
    return in_queues + sum(sum(store.waiting(name).values()) for name in bots)


def _records(store: Admission, bots: list[str], job: str) -> dict[str, Record]:
    looked_up = {name: store.lookup(name, job) for name in bots}
    return {name: record for name, record in looked_up.items() if record is not None}


def _as_data(bot: str, job: str, record: Record) -> dict[str, Any]:
    return {
        "job": job,
        "bot": bot,
        "standing": str(record.standing),
        "due_seconds": None if record.due is None else round(record.due.total_seconds(), 3),
        "reason": record.reason,
        "error": record.error,
        "result": record.result,
    }


def _line(fields: Mapping[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = fields["reason"] if fields["standing"] == Standing.DEAD else _message(fields["result"])
    more = (fields["error"] or {}).get("description", "")
    return harmless(
        " ".join(filter(None, (now, fields["bot"], fields["job"], fields["standing"], said, more))).encode()
    )


def _message(result: Any) -> str:
    return f"message {result['message_id']}" if isinstance(result, dict) and "message_id" in result else ""
