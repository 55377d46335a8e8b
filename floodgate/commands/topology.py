"""``floodgate topology``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.settings.model import load_settings
from floodgate.commands.options import EXIT_NO, AsJson, say
from floodgate.letters.view import print_table
from floodgate.overview import replicas

if TYPE_CHECKING:
    from floodgate.broker.settings.model import Settings

app = typer.Typer(help="Show, create and verify the exchanges and queues on RabbitMQ.", no_args_is_help=True)


@app.command()
def show(as_json: AsJson = False) -> None:
    """Print the exchanges and queues that the settings require. Does not connect to RabbitMQ.

    Example: floodgate topology show --json
    """
    wanted = _wanted(load_settings())
    if as_json:
        print(json.dumps(_as_data(wanted)))
        return
    rows = [
        *(
            (each.name, f"{each.kind} exchange", json.dumps(topology.exchange_arguments(each)))
            for each in _exchanges(wanted)
        ),
        *((each.name, f"{each.role.name.lower()} queue", json.dumps(_arguments(each))) for each in wanted.queues),
    ]
    print_table(("name", "type", "arguments"), rows, whole=("name",))


@app.command()
def apply(
    change_partitions: Annotated[
        bool,
        typer.Option(
            "--change-partitions",
            help="Record the settings' numbers of partitions instead of other ones. Stop all other processes first.",
        ),
    ] = False,
) -> None:
    """Create missing exchanges and queues. Leaves existing ones alone, and reports those declared differently.

    Example: floodgate topology apply
    """
    settings = load_settings()
    wanted = _wanted(settings)
    with _connected(settings) as connections:
        if change_partitions:
            queue_admin.forget_other_counts(connections, wanted.counts)
        queue_admin.declare(connections, wanted, must=True)
    Console().print(f"{len(_exchanges(wanted))} exchanges and {len(wanted.queues)} queues exist.")


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Compare the server with the settings. Changes nothing; exits with 1 if they differ.

    Also shows the queues that hold messages and have no consumer. One beyond the settings' number of partitions is a
    fault, since no worker with these settings will read it. With FLOODGATE_RABBITMQ_MANAGEMENT_URL, replicas that are
    missing or offline, unevenly spread leaders and unresolved partitions of a cluster are faults, too.

    Example: floodgate topology verify
    """
    settings = load_settings()
    wanted = _wanted(settings)
    with _connected(settings) as connections:
        faults = queue_admin.verify(connections, wanted)
        unread = queue_admin.unread(queue_admin.partition_loads(connections, wanted.counts))
    ours = {queue.name for queue in wanted.queues}
    told = {name: f"Queue {name} has no consumer; messages in it: {count}" for name, count in unread.items()}
    faults += [f"{text}. Its number is beyond the settings'." for name, text in told.items() if name not in ours]
    if settings.rabbitmq_management_urls:
        faults += replicas.faults(replicas.read_cluster(settings).of(ours))
    if as_json:
        print(json.dumps({"faults": faults, "unread": unread}))
    else:
        waiting = [f"{text}." for name, text in told.items() if name in ours]
        for line in (*waiting, *faults, "Everything matches the settings." if not faults else f"{len(faults)} faults."):
            say(line)
    if faults:
        raise typer.Exit(EXIT_NO)


def _wanted(settings: Settings) -> topology.Topology:
    return topology.pipeline_of(settings, settings.require_bots())


def _exchanges(wanted: topology.Topology) -> list[topology.Exchange]:
    return [*wanted.exchanges, *(exchange for count in wanted.counts for exchange in count.exchanges)]


def _connected(settings: Settings) -> Connections:
    return Connections(settings, "cli")


def _arguments(queue: topology.Queue) -> dict[str, Any]:
    newest_known = (4, 3)
    return topology.arguments(queue, newest_known)


def _as_data(wanted: topology.Topology) -> dict[str, Any]:
    return {
        "exchanges": [
            {"name": each.name, "type": each.kind, "arguments": topology.exchange_arguments(each)}
            for each in _exchanges(wanted)
        ],
        "queues": [
            {"name": each.name, "role": each.role.name.lower(), "arguments": _arguments(each)} for each in wanted.queues
        ],
        "bindings": [dataclasses.asdict(each) for each in wanted.bindings],
    }
