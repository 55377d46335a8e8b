"""Options, exit codes and printing that several commands share."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer
from rich.console import Console

from floodgate.broker.admission.contract import Admission
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import missing_state_file, open_store

EXIT_NO: Final = 1
"""Exit code: the answer is no. Nothing was found or done, or a check failed."""

Bot = Annotated[
    str | None,
    typer.Option(help="Name of a bot. Defaults to the only configured bot, or else to the one named default."),
]

AnyBot = Annotated[str | None, typer.Option(help="Only this bot. Defaults to all bots.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def open_to_read(settings: Settings) -> Admission:
    """Return the state store for a command that only reads. Names a missing state file, and does not create it."""
    if (missing := missing_state_file(settings)) is not None:
        typer.echo(missing, err=True)
    return open_store(settings, create=False)


def confirm(question: str) -> None:
    """Ask before something that cannot be undone. Ends the command if the answer is no.

    Raises:
        InvalidParamsError: Nobody can answer.
    """
    if not sys.stdin.isatty():
        raise InvalidParamsError(f"{question} Nobody can answer, because standard input is not a terminal: add --yes.")
    if not typer.confirm(question, err=True):
        raise typer.Exit(EXIT_NO)


def say(text: str) -> None:
    """Print a line without markup or wrapping."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
