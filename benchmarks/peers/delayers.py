"""A Dramatiq program with delayed messages, on our broker or on stock Dramatiq's: the same actor, the same
worker.

``python -m benchmarks.peers.delayers BROKER lateness URL COUNT LONGEST_SECONDS`` enqueues messages with
delays between 0.1 s and the longest, evenly on a logarithmic scale, works them off and prints their lateness.
``… BROKER memory URL COUNT`` enqueues that many for an hour ahead, starts a worker, waits until it has taken
what it wants to take, and prints what it grew by.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import dramatiq
from dramatiq.middleware import AsyncIO

from floodgate.broker.amqp import queue_admin

QUEUE: Final = "bench-delays"
SHORTEST_SECONDS: Final = 0.1
HOUR_MS: Final = 3_600_000
SETTLED_SECONDS: Final = 5.0  # no growth of more than a page's worth for so long: it has taken all that it will
WORKER_THREADS: Final = 8


def our_broker(url: str) -> Any:
    from floodgate.broker.amqp import topology
    from floodgate.broker.settings.model import Settings
    from floodgate.broker.worker.dramatiq_broker import FloodgateBroker

    settings = Settings(rabbitmq_url=url, _env_file=None)  # type: ignore[call-arg, arg-type]
    made = FloodgateBroker(settings, middleware=[AsyncIO()])
    queue_admin.declare(made.connections, topology.pipeline([], 1, work_queues=[QUEUE]))
    return made


def stock_broker(url: str) -> Any:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    return RabbitmqBroker(url=url, confirm_delivery=True, middleware=[AsyncIO()])


BROKERS: Final[dict[str, Callable[[str], Any]]] = {"floodgate": our_broker, "dramatiq": stock_broker}


def lateness(broker: Any, count: int, longest_seconds: float) -> dict[str, Any]:
    late: list[float] = []
    all_came = threading.Event()

    @dramatiq.actor(queue_name=QUEUE, broker=broker)
    def note(due: float) -> None:
        late.append((time.time() - due) * 1000)
        if len(late) == count:
            all_came.set()

    worker = dramatiq.Worker(broker, worker_threads=WORKER_THREADS)
    worker.start()
    for delay in spread(count, longest_seconds):
        note.send_with_options(args=(time.time() + delay,), delay=round(delay * 1000))
    came = all_came.wait(longest_seconds + 60)
    worker.stop()
    late.sort()
    return {"came": len(late), "all": came, "p50_ms": at(late, 0.5), "p99_ms": at(late, 0.99), "max_ms": late[-1]}


def memory(broker: Any, count: int) -> dict[str, Any]:
    @dramatiq.actor(queue_name=QUEUE, broker=broker)
    def note() -> None: ...

    for _ in range(count):
        note.send_with_options(delay=HOUR_MS)
    before = resident_bytes()
    worker = dramatiq.Worker(broker, worker_threads=WORKER_THREADS)
    worker.start()
    after = settled(resident_bytes)
    worker.stop()
    return {"count": count, "before_bytes": before, "after_bytes": after}


def spread(count: int, longest_seconds: float) -> list[float]:
    """Delays in a scrambled order that is the same each time."""
    ratio = math.log(longest_seconds / SHORTEST_SECONDS)
    delays = [SHORTEST_SECONDS * math.exp(ratio * n / (count - 1)) for n in range(count)]
    step = next(step for step in range(count // 3 + 1, count) if math.gcd(step, count) == 1)
    return [delays[n * step % count] for n in range(count)]


def settled(probe: Callable[[], int]) -> int:
    value, since = probe(), time.monotonic()
    while time.monotonic() - since < SETTLED_SECONDS:
        time.sleep(0.1)
        if (now := probe()) > value + 100_000:
            value, since = now, time.monotonic()
    return value


def at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: list[str]) -> int:
    name, measure, url, count, *rest = arguments
    broker = BROKERS[name](url)
    result = lateness(broker, int(count), float(rest[0])) if measure == "lateness" else memory(broker, int(count))
    broker.close()
    print(json.dumps({"broker": name, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
