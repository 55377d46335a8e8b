"""The names that Dramatiq's test modules import from their own ``common``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pika
import pytest

RABBITMQ_USERNAME = RABBITMQ_PASSWORD = "guest"
RABBITMQ_CREDENTIALS = pika.PlainCredentials(RABBITMQ_USERNAME, RABBITMQ_PASSWORD)

_always = pytest.mark.skipif(False, reason="")
skip_in_ci = skip_on_windows = skip_on_pypy = skip_with_gevent = skip_unless_rabbit_mq = _always


@contextmanager
def worker(*args: Any, **options: Any) -> Iterator[dramatiq.Worker]:
    """Runs a worker for the length of the block."""
    made = dramatiq.Worker(*args, **options)
    made.start()
    try:
        yield made
    finally:
        made.stop()
