"""Dramatiq's own test_composition.py, on our broker."""

from __future__ import annotations

from tests.dramatiq_suite.upstream import taken_from

HURRIED = (
    "wants everything within half a second, in which a busy machine does not even make the queue; "
    "tests/integration/test_plain_actors.py has the messages of a group wait for each other"
)

globals().update(
    taken_from(
        "test_composition",
        does_not_apply={
            "test_groups_execute_jobs_in_parallel": HURRIED,
            "test_groups_execute_inner_groups": HURRIED,
        },
    )
)
