"""``floodgate dead-letters``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from typing import Annotated, Any, Final

import typer

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.settings.model import load_settings
from floodgate.broker.state.stores import open_store
from floodgate.broker.worker.retention import Retention
from floodgate.commands.options import EXIT_NO, AsJson, Yes, confirm, open_to_read, say
from floodgate.letters import reading, view
from floodgate.letters.criteria import Criteria, chat_of, moment
from floodgate.letters.paging import each_once
from floodgate.letters.replay import Fate, Replay

app = typer.Typer(help="List, show, replay and drop dead letters: jobs that will not be sent.", no_args_is_help=True)

SHOWN_NOT_KEPT: Final = 1000

LetterBot = Annotated[
    str | None, typer.Option(help="Only this bot. Defaults to all bots, and includes malformed messages.")
]


@app.callback()
def _group() -> None:
    """List, show, replay and drop dead letters: jobs that will not be sent."""


def _criteria(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of jobs, or their unique beginnings. Defaults to all that match the options."),
    ] = None,
    bot: LetterBot = None,
    reason: Annotated[
        list[str] | None, typer.Option(help="Only letters with this reason; repeat it for several.")
    ] = None,
    chat: Annotated[str | None, typer.Option(help="Only letters for this chat, by id or @name.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Only jobs of this campaign.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only letters written since: `2h` ago (s, m, h, d, w), or 2026-11-20T10:00.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only letters written before this time, in the same form.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Only letters whose text or caption contains this.")
    ] = None,
) -> Criteria:
    now = datetime.now(UTC)
    return Criteria(
        ids=frozenset(ids or ()),
        bot=bot,
        reasons=frozenset(reason or ()),
        chat=chat_of(chat),
        campaign=campaign,
        since=moment(since, now),
        until=moment(until, now),
        text=text,
    )


def _with_criteria(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter ``criteria`` with the options that make one: the parameters of ``_criteria``."""
    chosen = inspect.signature(_criteria, eval_str=True).parameters
    signature = inspect.signature(command, eval_str=True)
    own = [each for name, each in signature.parameters.items() if name != "criteria"]

    @wraps(command)
    def run(**given: Any) -> None:
        criteria = _criteria(**{name: given.pop(name) for name in chosen})
        command(criteria=criteria, **given)

    vars(run)["__signature__"] = signature.replace(parameters=[*chosen.values(), *own])
    return run


@app.command("list")
@_with_criteria
def list_(
    criteria: Criteria,
    limit: Annotated[
        int, typer.Option(min=0, max=100_000, help="Maximum number of letters shown. All are counted.")
    ] = 1000,
    counts: Annotated[bool, typer.Option("--counts", help="Print only the number of letters per reason.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first, with counts by reason. Changes nothing.

    Example: floodgate dead-letters list --reason chat-unreachable --since 2h
    """
    with _letters(criteria) as (connections, depths, criteria), _looking(depths) as looked:
        found = reading.look(connections, depths, criteria, 0 if counts else limit, looked)
    if not as_json:
        view.print_list(found)
    elif counts:
        print(json.dumps(dict(found.counts.most_common())))
    else:
        print(json.dumps([view.as_data(letter) for letter in found.letters]))


@app.command()
def show(
    job: Annotated[str, typer.Argument(help="Id of the job, or its unique beginning.")],
    bot: LetterBot = None,
    as_json: AsJson = False,
) -> None:
    """Print everything about one dead letter. Exits with 1 if no letter has this id.

    Example: floodgate dead-letters show 3f2a9c0e8b7d4b7c9a55d0f7a4f0c1de
    """
    with _letters(_criteria([job], bot)) as (connections, depths, criteria), _looking(depths) as looked:
        found = reading.look(connections, depths, criteria, 100, looked)
    if as_json and found.letters:
        print(json.dumps([view.as_data(letter) for letter in found.letters]))
        return
    for letter in found.letters:
        view.print_letter(letter)


@app.command()
@_with_criteria
def replay(criteria: Criteria, yes: Yes = False, as_json: AsJson = False) -> None:
    """Enqueue the jobs of dead letters again, in their order. Exits with 1 if some of them cannot be replayed.

    Asks for confirmation if no option and no id says which letters. You can interrupt it at any time and run it again:
    no job is lost, and none is sent twice.

    Example: floodgate dead-letters replay --reason rights --chat -1001234567890
    """
    settings = load_settings()
    with (
        _letters(criteria) as (connections, depths, meant),
        contextlib.closing(open_store(settings)) as admission,
    ):
        if criteria == Criteria() and depths and not yes:
            with _looking(depths) as looked:
                counts = reading.look(connections, depths, meant, 0, looked).counts
            confirm(f"Replay all dead letters of all bots ({view.counted(counts)})?")
        run = Replay(connections, admission, settings)
        try:
            with _looking(depths, "replaying") as looked:
                for queue, depth in depths.items():
                    run.run(queue, depth, meant, looked)
        finally:
            _report(run, as_json)
        if any(fate.stays for fate in run.fates):
            raise typer.Exit(EXIT_NO)


@app.command()
@_with_criteria
def drop(criteria: Criteria, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete dead letters permanently. Asks for confirmation; exits with 1 if the answer is no.

    Example: floodgate dead-letters drop --reason malformed --yes
    """
    with _letters(criteria) as (connections, depths, meant), contextlib.ExitStack() as held:
        with _looking(depths) as looked:
            counts, remove = held.enter_context(reading.held(connections, depths, meant, looked))
        if counts and not yes:
            confirm(f"Delete permanently: {view.counted(counts)}?")
        remove()
        if as_json:
            print(json.dumps(dict(counts.most_common())))
        else:
            say(f"Deleted: {view.counted(counts)}." if counts else "No dead letters match; nothing was deleted.")


@app.command("not-kept")
def not_kept(
    bot: LetterBot = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of jobs per bot. Defaults to 1000 in a table, and to all otherwise."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """List jobs that ended without a dead letter, latest first: cancelled ones, bulk jobs for unreachable chats, and
    typing and drafts that were refused.

    They cannot be replayed. `floodgate status` counts them all; the latest FLOODGATE_DEAD_LETTERS__LISTED are listed.

    Example: floodgate dead-letters not-kept --csv > unreachable.csv
    """
    settings = load_settings()
    bots = reading.bots(settings, bot)
    with contextlib.closing(open_to_read(settings)) as store:
        most = limit or (settings.dead_letters.listed if as_csv or as_json else SHOWN_NOT_KEPT)
        found = {name: each_once(partial(store.not_kept, name), lambda job: job.job_id, most) for name in bots}
        counts = {name: store.snapshot(name).not_kept for name in bots}
    if as_json:
        print(json.dumps([view.not_kept_as_data(name, job) for name, jobs in found.items() for job in jobs]))
    elif as_csv:
        view.print_not_kept_csv(found)
    else:
        view.print_not_kept(found, counts)


@app.command()
def sweep(as_json: AsJson = False) -> None:
    """Drop expired dead letters, and the oldest ones beyond the limit.

    Workers do this every few minutes. Run it if their RabbitMQ account may not read dead letters, or to apply new
    settings at once.

    Example: floodgate dead-letters sweep
    """
    settings = load_settings()
    settings.require_bots()
    with Connections(settings, "cli") as connections, contextlib.closing(open_store(settings)) as store:

        async def count(bot: str, reason: str, letters: int) -> None:
            await asyncio.to_thread(store.count_dropped, bot, reason, letters)

        retention = Retention(settings, connections, count, Stopping(), pause=timedelta(0))
        dropped = connections.io.run(retention.sweep(), None)  # each queue's part is bounded
    reasons = Counter[str]()
    for (_, reason), number in dropped.items():
        reasons[reason] += number
    if as_json:
        print(json.dumps(reasons))
        return
    say(f"Dropped: {view.counted(reasons)}." if reasons else "No dead letters have expired or exceed the limit.")


@contextlib.contextmanager
def _letters(criteria: Criteria) -> Iterator[tuple[Connections, dict[str, int], Criteria]]:
    """Yield a connection, the number of dead letters in each queue that holds some, and the criteria with full ids.

    In the end, names the ids that no letter has, and ends the command with 1 if there are any.
    """
    settings = load_settings()
    names = reading.queues(settings, criteria.bot)
    with Connections(settings, "cli") as connections:
        depths = reading.depths(connections, names)
        with _looking(depths) as looked:
            meant, unknown = reading.with_full_ids(connections, depths, criteria, looked)
        yield connections, depths, meant
    for given in unknown:
        typer.echo(f"No dead letter matches the id {given!r}: `floodgate dead-letters list` lists them.", err=True)
    if unknown:
        raise typer.Exit(EXIT_NO)


@contextlib.contextmanager
def _looking(depths: dict[str, int], doing: str = "reading") -> Iterator[Callable[[int], object]]:
    with view.progress() as progress:
        task = progress.add_task(doing, total=sum(depths.values()))
        yield lambda count: progress.advance(task, count)


_TOLD: Final = {
    Fate.REPLAYED: "replayed",
    Fate.SENT_BEFORE: "removed: the job had already been sent",
    Fate.DUPLICATE: "removed: another letter of the job was replayed",
    Fate.NO_JOB: "kept: not a job, so it can only be dropped",
    Fate.UNKNOWN_BOT: "kept: the bot is not configured here; add it to FLOODGATE_BOTS",
}


def _report(run: Replay, as_json: bool) -> None:
    if as_json:
        print(json.dumps({str(fate): run.fates[fate] for fate in Fate}))
        return
    for fate, words in _TOLD.items():
        if run.fates[fate]:
            say(f"{run.fates[fate]} {words}.")
    if not run.fates:
        say("No dead letters match; nothing was replayed.")
