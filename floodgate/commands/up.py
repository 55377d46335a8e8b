"""``floodgate up``."""

from __future__ import annotations

import signal
from typing import Annotated, Final

import typer

MOST_PROCESSES: Final = 64  # of one part


def up(
    workers: Annotated[int, typer.Option(min=0, max=MOST_PROCESSES, help="Number of workers.")] = 1,
    updates: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Handle updates with this Application or @on_update function."),
    ] = None,
    handler_workers: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Number of workers that handle updates.")
    ] = 1,
    with_: Annotated[
        list[str], typer.Option("--with", metavar="PART", help="Run this part as well. May be repeated.")
    ] = [],  # noqa: B006
    without: Annotated[list[str], typer.Option(metavar="PART", help="Leave out this part. May be repeated.")] = [],  # noqa: B006
) -> None:
    """Run everything on this machine, until Ctrl-C or SIGTERM: workers, gateway, updates, campaigns and pages.

    The parts are `worker`, `gateway`, `web`, `updates` and `handlers` (with --updates; with a webhook's URL in the
    settings, `updates` alone), and `campaigns` (once there is a database). A part that ends is started again. A second
    Ctrl-C ends all at once. For trying Floodgate and for small installations.

    Example: floodgate up --workers 2 --updates myapp.bot:application
    """
    from floodgate.broker.amqp.connections import Connections
    from floodgate.broker.process.forced_exit import EXIT_FORCED
    from floodgate.broker.settings.model import load_settings
    from floodgate.supervision.parts import PartOptions, check_names, part_processes
    from floodgate.supervision.prefixes import configure_prefixed_logging, log_line
    from floodgate.supervision.supervisor import Supervisor

    settings = load_settings()
    settings.require_bots()
    processes = part_processes(
        PartOptions(settings, workers, updates, handler_workers, check_names(with_), check_names(without))
    )
    with Connections(settings, "up") as connections:
        connections.connect()
    configure_prefixed_logging(settings, [process.name for process in processes])
    supervisor = Supervisor(processes, log_line)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, lambda *_signal: supervisor.stop())
    if not supervisor.run():
        raise typer.Exit(EXIT_FORCED)
