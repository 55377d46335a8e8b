"""``floodgate gateway``."""

from __future__ import annotations

from typing import Annotated

import typer


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Defaults to FLOODGATE_GATEWAY__HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one and prints it.")] = None,
) -> None:
    """Serve the Bot API over HTTP within Telegram's limits, until SIGTERM. Point your library's base URL here.

    Example: floodgate gateway --port 8080
    """
    from floodgate.broker.process.logs import configure_logging
    from floodgate.broker.settings.model import load_settings
    from floodgate.producer.gateway.server import run_gateway

    settings = load_settings()
    settings.require_bots()
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"gateway": settings.gateway.model_copy(update=given)})
    configure_logging(settings)
    run_gateway(settings, ready=lambda url: print(f"The gateway is ready at {url}", flush=True))
