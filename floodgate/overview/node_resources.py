"""What each node of RabbitMQ has left, and whether it has run out of it.

A node with less disk or more memory than its configuration allows raises an alarm, and then the whole cluster accepts
no more messages. RabbitMQ tells its publishers by AMQP, but only once it is too late; its management API also tells how
much is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from floodgate.broker.errors import FloodgateError
from floodgate.broker.settings.model import Settings
from floodgate.overview.management import AskPath, ask_management
from floodgate.overview.picture import Health, NodeResources

# Without a choice of columns, a node's answer has some hundred. They are up to five seconds old.
_PATH: Final = "nodes?columns=name,running,disk_free,disk_free_limit,disk_free_alarm,mem_alarm"
_GIGABYTE: Final = 1e9
_ALARMS: Final = {"disk": "has less free disk than its limit", "memory": "uses more memory than its limit"}


def read_node_resources(settings: Settings) -> tuple[NodeResources, ...] | None:
    """Read what each running node has left; None without ``FLOODGATE_RABBITMQ_MANAGEMENT_URL``. A node that has just
    started, or keeps no statistics, is left out.

    Raises:
        AccessRefusedError: the account is wrong or lacks the tag `monitoring`.
        RabbitMQUnreachableError: no address of the management API answers.
    """
    return ask_management(settings, _read) if settings.rabbitmq_management_urls else None


def disk_health(nodes: Sequence[NodeResources]) -> Health:
    """Describe the disk of the node that has least left, or the alarm that is in force."""
    for node in nodes:
        for resource in node.alarms:
            why = f"{node.name} {_ALARMS[resource]}, so RabbitMQ accepts no messages: free some {resource}."
            return Health(why, FloodgateError(why))
    known = [node for node in nodes if node.disk_left_bytes is not None]
    if not known:
        return Health("unknown: RabbitMQ has no statistics yet, or they are switched off")
    least = min(known, key=lambda node: node.disk_left_bytes or 0)
    where = f"{least.name}: " if len(nodes) > 1 else ""
    return Health(f"{where}{_gigabytes(least.disk_free_bytes)} free, limit {_gigabytes(least.disk_limit_bytes)}")


def _read(ask: AskPath) -> tuple[NodeResources, ...]:
    return tuple(_resources(fields) for fields in ask(_PATH) if fields["running"] and "mem_alarm" in fields)


def _resources(fields: dict[str, Any]) -> NodeResources:
    return NodeResources(
        name=str(fields["name"]),
        alarms=tuple(_alarms(fields)),
        disk_free_bytes=_number(fields.get("disk_free")),
        disk_limit_bytes=_number(fields.get("disk_free_limit")),
    )


def _alarms(fields: dict[str, Any]) -> Iterator[str]:
    if fields.get("disk_free_alarm") is True:
        yield "disk"
    if fields.get("mem_alarm") is True:
        yield "memory"


def _number(value: object) -> int | None:
    """None for a node that cannot tell on its platform."""
    return value if isinstance(value, int) else None


def _gigabytes(size_bytes: int | None) -> str:
    return f"{(size_bytes or 0) / _GIGABYTE:.1f} GB"
