"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Bot = Annotated[
    str | None,
    typer.Option(help="Name of a bot. Defaults to the only one that is configured, or else the one named default."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
