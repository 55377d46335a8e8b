"""Options, exit codes and printing that several commands share."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console

EXIT_NO: Final = 1
"""Exit code: the answer is no. Nothing was found or done, or a check failed."""

Bot = Annotated[
    str | None,
    typer.Option(help="Name of a bot. Defaults to the only configured bot, or else to the one named default."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str) -> None:
    """Print a line without markup or wrapping."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
