"""``floodgate metrics``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

DEFAULT_ADDRESS: Final = "127.0.0.1:9464"


def metrics(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to serve at; a port alone is on the loopback, and port 0 takes a free one. Defaults to "
            f"FLOODGATE_METRICS_ADDRESS, or to {DEFAULT_ADDRESS}.",
        ),
    ] = None,
) -> None:
    """Serve metrics for Prometheus, read from the state store, RabbitMQ and the campaigns' database, until SIGTERM.

    One is enough for all bots and machines, and it needs no worker to run. What a worker counts itself, it serves at
    FLOODGATE_METRICS_ADDRESS.

    Example: floodgate metrics --listen 9464
    """
    from floodgate.broker.errors import SettingsError
    from floodgate.broker.process.logs import configure_logging
    from floodgate.broker.settings.listen_address import ListenAddress
    from floodgate.broker.settings.model import load_settings
    from floodgate.exporter import run_exporter

    settings = load_settings()
    settings.require_bots()
    configure_logging(settings)
    try:
        address = ListenAddress.parse(listen or settings.metrics_address or DEFAULT_ADDRESS)
    except ValueError as error:
        raise SettingsError(f"--listen {error}.") from None
    run_exporter(settings, address, ready=lambda url: print(f"The exporter is ready at {url}", flush=True))
