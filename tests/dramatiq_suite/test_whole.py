"""Dramatiq's test modules that are not used, and why."""

from __future__ import annotations

from pathlib import Path

from tests.dramatiq_suite.upstream import module_names

NO_BROKER = "needs no broker"
NOT_TAKEN = {
    "test_bucket_rate_limiter": NO_BROKER,
    "test_canteen": NO_BROKER,
    "test_common": "is about the names of stock's delay and dead-letter queues, which ours has not",
    "test_concurrent_rate_limiter": NO_BROKER,
    "test_cli": (
        "names its own module `tests.test_cli`, on Redis; the command on our broker is in "
        "tests/acceptance/test_plain_actors.py"
    ),
    "test_pidfile": "is about the command, on the stub broker",
    "test_redis": "is about Dramatiq's Redis broker",
    "test_stub_broker": "is about Dramatiq's stub broker",
    "test_types": "is for a type checker",
    "test_watch": "is about the command reloading, on Redis",
    "test_window_rate_limiter": NO_BROKER,
}


def test_every_module_of_dramatiqs_suite_is_used_or_excluded_with_a_reason() -> None:
    taken = {path.stem for path in Path(__file__).parent.glob("test_*.py")} - {"test_whole", "test_middleware"}
    assert taken.isdisjoint(NOT_TAKEN)
    assert module_names() == taken | NOT_TAKEN.keys()
