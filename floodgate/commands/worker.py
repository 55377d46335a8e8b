"""``floodgate worker``."""

from __future__ import annotations


def worker() -> None:
    """Take jobs out of RabbitMQ and send them, under the limits, until SIGTERM.

    Start as many as you like, on one machine with a SQLite state file or on many with Redis: they share the partitions.

    Example: FLOODGATE_BOT_TOKEN=123:ABC floodgate worker
    """
    from broker.logs import configure_logging
    from broker.settings import load_settings
    from floodgate.worker import run_worker

    settings = load_settings()
    settings.require_bots()
    configure_logging(settings)
    run_worker(settings)
