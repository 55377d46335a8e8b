"""RabbitMQ's own view of a vhost."""

from __future__ import annotations

import json
from typing import Any

from tests.services import Vhost


def rows(vhost: Vhost, command: str, *columns: str) -> list[dict[str, Any]]:
    """Reads a table that `rabbitmqctl` prints: rows(vhost, "list_queues", "name", "type")."""
    listed: list[dict[str, Any]] = json.loads(vhost.ctl(command, *columns, "--formatter=json"))
    return listed


def active_consumers(vhost: Vhost) -> dict[str, int]:
    """Maps each partition's queue to the process id of the worker that consumes it."""
    consumers = rows(vhost, "list_consumers", "queue_name", "consumer_tag", "active")
    return {
        row["queue_name"]: _process_id(row["consumer_tag"], row["queue_name"]) for row in consumers if row["active"]
    }


def _process_id(consumer_tag: str, queue: str) -> int:
    """A tag is `<host>-<process>-<random>.<queue>`."""
    return int(consumer_tag.removesuffix(f".{queue}").split("-")[-2])
