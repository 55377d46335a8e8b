"""``floodgate worker``."""

from __future__ import annotations

from typing import Annotated

import typer


def worker(
    updates: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME", help="Handle updates with this Application or @on_update function instead."
        ),
    ] = None,
) -> None:
    """Take jobs from RabbitMQ and send them within the limits, until SIGTERM. With --updates, handle updates instead.

    Start as many of each as you like, on one machine with a SQLite state file or on several with Redis: they share the
    partitions. A bot that answers messages needs one of each, and `floodgate updates`.

    Example: FLOODGATE_BOT_TOKEN=123:ABC floodgate worker --updates myapp.bot:application
    """
    from floodgate.broker.process.logs import configure_logging
    from floodgate.broker.settings.model import load_settings
    from floodgate.worker import run_worker

    settings = load_settings()
    settings.require_bots()
    configure_logging(settings)
    if updates is None:
        run_worker(settings)
        return
    from floodgate.updates.compose import assign
    from floodgate.updates.target import load_target

    run_worker(settings, assign(updates, load_target(updates), settings))
