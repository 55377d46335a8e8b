"""Process reports as the stores keep them, and which of the processes hold which queues."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from floodgate.broker.messages.partitions import rendezvous_score
from floodgate.broker.messages.queue_names import is_answers_queue
from floodgate.broker.state.activity import ProcessReport


def text_of(process: ProcessReport) -> str:
    """Return the text that is kept of a process, without its uptime."""
    its = (process.id, process.role, process.host, process.pid, process.version, " ".join(process.partitions))
    return json.dumps(its, separators=(",", ":"))


def report_of(text: str, uptime: timedelta) -> ProcessReport:
    """Return the report that a text was made of."""
    its_id, role, host, pid, version, partitions = json.loads(text)
    return ProcessReport(its_id, role, host, pid, version, uptime, tuple(partitions.split()))


def active(processes: Iterable[ProcessReport]) -> tuple[ProcessReport, ...]:
    """Return the processes in order, each with those of its queues of which it is the active consumer.

    RabbitMQ does not tell its consumers which of them is active. It is the one with the highest consumer priority, once
    the one before has settled what it has in hand; the queue of answers to queries is consumed by all.
    """
    reports = sorted(processes, key=lambda each: (each.role, each.host, each.pid, each.id))
    holders: dict[str, tuple[int, str]] = {}
    for each in reports:
        for queue in each.partitions:
            claim = rendezvous_score(each.id, queue), each.id
            holders[queue] = max(claim, holders.get(queue, claim))
    return tuple(
        replace(each, partitions=tuple(queue for queue in each.partitions if _holds(each.id, queue, holders)))
        for each in reports
    )


def _holds(process_id: str, queue: str, holders: dict[str, tuple[int, str]]) -> bool:
    return is_answers_queue(queue) or holders[queue][1] == process_id
