"""``floodgate fake-telegram``."""

from __future__ import annotations

from typing import Annotated

import typer

from floodgate.broker.errors import SettingsError


def fake_telegram(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one and prints it.")] = 8081,
) -> None:
    """Serve a local Bot API with Telegram's limits, for development and tests without a token.

    Example: floodgate fake-telegram --port 8081
    """
    from floodgate.fake_telegram.server import run

    try:
        run(ready=lambda line: print(line, flush=True), host=host, port=port)
    except OSError as error:
        raise SettingsError(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port.") from None
