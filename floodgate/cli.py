"""The ``floodgate`` command. Each file of ``floodgate/commands`` defines one sub-command or group.

Exit codes: 0 done · 1 the answer is no (a check failed, a demo did not add up) · 2 settings, a job or the command line
are wrong · 3 RabbitMQ refused, failed or could not be reached · 4 the state store failed or could not be reached ·
5 the handlers of updates stopped their worker · 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Final

import typer
from rich.console import Console

from floodgate import __version__
from floodgate.broker.errors import (
    FloodgateError,
    HandlersStoppedError,
    JobError,
    RabbitMQError,
    SettingsError,
    StateError,
)
from floodgate.broker.process.forced_exit import EXIT_HANDLERS_STOPPED
from floodgate.commands import (
    campaigns,
    chats,
    dead_letters,
    demo,
    doctor,
    fake,
    gateway,
    jobs,
    metrics,
    pauses,
    send,
    status,
    top,
    topology,
    up,
    updates,
    web,
    worker,
)
from floodgate.commands.options import EXIT_NO

EXIT_USAGE: Final = 2
EXIT_RABBITMQ: Final = 3
EXIT_STATE: Final = 4
EXIT_INTERRUPTED: Final = 130

app = typer.Typer(
    name="floodgate",
    help="Send Telegram messages as fast as Telegram allows, never faster, in order per chat, losing none.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("worker")(worker.worker)
app.command("up")(up.up)
app.command("send")(send.send)
app.command("gateway")(gateway.gateway)
app.command("updates")(updates.updates)
app.command("fake-telegram")(fake.fake_telegram)
app.command("web")(web.web)
app.command("doctor")(doctor.doctor)
app.command("status")(status.status)
app.command("metrics")(metrics.metrics)
app.command("top")(top.top)
app.command("pause")(pauses.pause)
app.command("resume")(pauses.resume)
app.add_typer(topology.app, name="topology")
app.add_typer(jobs.app, name="jobs")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(chats.app, name="chats")
app.add_typer(campaigns.app, name="campaigns")


def main() -> None:
    """Run the command line. A ``FloodgateError`` is printed to standard error and sets the exit code."""
    try:
        app()
    except FloodgateError as error:
        for handler in logging.getLogger().handlers:
            handler.flush()  # so that the error is the last line: `floodgate up` reports it
        Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), style="red", markup=False)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def exit_code(error: FloodgateError) -> int:
    """Return the exit code for an error."""
    match error:
        case SettingsError() | JobError():
            return EXIT_USAGE
        case RabbitMQError():
            return EXIT_RABBITMQ
        case StateError():
            return EXIT_STATE
        case HandlersStoppedError():
            return EXIT_HANDLERS_STOPPED
        case _:
            return EXIT_NO
