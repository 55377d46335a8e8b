"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Bot = Annotated[
    str | None,
    typer.Option(help="Name of a bot. Defaults to the only configured bot, or else to the one named default."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
