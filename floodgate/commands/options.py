"""Options, exit codes and printing that several commands share."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console

EXIT_NO: Final = 1
"""Nothing was found or done; what was asked for is not so."""

Bot = Annotated[
    str | None,
    typer.Option(help="Name of a bot. Defaults to the only one that is configured, or else the one named default."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str) -> None:
    """Print a line as it is, of any length."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
