"""Dramatiq's own test_actors.py, on our broker."""

from __future__ import annotations

from tests.dramatiq_suite.upstream import taken_from

IN_MEMORY = "looks into the stub broker's queues in memory"

globals().update(
    taken_from(
        "test_actors",
        does_not_apply={
            "test_actors_can_be_sent_messages": IN_MEMORY,
            "test_worker_handles_non_numeric_eta_and_logs_warning": f"{IN_MEMORY}; an eta is dropped here",
            "test_worker_handles_none_eta": f"{IN_MEMORY}; an eta is dropped here",
        },
    )
)
