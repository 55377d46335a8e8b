"""How a waiting caller can hear of its result: a feed from the state store, or a reply queue in RabbitMQ.

A process settles jobs as a worker does; this one listens. Each result carries the time at which it was settled, so the
way to the listener is what is measured. ``base`` is the settling alone, for the cost that a way adds to it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pika

from benchmarks.stage import servers
from floodgate.broker.admission.contract import Sent
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages.job import new_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Limits, Settings
from floodgate.broker.state.stores import open_result_feed, open_store

BOT: Final = "default"
QUEUE: Final = "floodgate.bench.replies"
MESSAGE: Final = {"message_id": 1, "date": 1, "chat": {"id": 42, "type": "private"}, "text": "x" * 200}


@dataclass(frozen=True, slots=True)
class Measured:
    way: str
    rate: float
    latencies: list[float]
    settle_cpu_us: float
    listen_cpu_us: float

    def __str__(self) -> str:
        ordered = sorted(self.latencies) or [float("nan")]
        p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        heard = f"{p50 * 1e3:8.2f} {p99 * 1e3:8.2f}" if self.latencies else f"{'':8} {'':8}"
        return f"{self.way:14} {self.rate:9.0f} {heard} {self.settle_cpu_us:12.0f} {self.listen_cpu_us:12.0f}"


def _settle(settings: Settings, replies: bool, rate: float, count: int, cpu: Any) -> None:
    """A worker's part: admit and settle, at ``rate`` a second or as fast as it goes, and reply if asked to."""
    store = open_store(settings)
    connections = Connections(settings, "bench") if replies else None
    started, began = time.monotonic(), time.process_time()
    for number in range(count):
        if rate:
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
        ask = ask_for(new_job("sendMessage", {"chat_id": number + 1, "text": "x"}), settings)
        store.admit(ask)
        result = {**MESSAGE, "at": time.monotonic()}
        store.settle(ask, Sent(result))
        if connections is not None:
            connections.publisher.submit(Publication("", QUEUE, b"%r" % result["at"] + b" " * 250, ask.job_id))
    cpu.put(((time.process_time() - began) / count * 1e6, time.monotonic() - started))
    store.close()
    if connections is not None:
        connections.stop()


@contextmanager
def _feed(settings: Settings) -> Iterator[Callable[[], list[float]]]:
    feed = open_result_feed(settings, [BOT])
    feed.skip()
    yield lambda: [time.monotonic() - one.record.result["at"] for one in feed.wait(0.2)]
    feed.close()


@contextmanager
def _queue(settings: Settings) -> Iterator[Callable[[], list[float]]]:
    connection = pika.BlockingConnection(pika.URLParameters(settings.rabbitmq_urls[0]))
    channel = connection.channel()
    channel.queue_declare(QUEUE, exclusive=True, auto_delete=True)
    found: list[float] = []
    channel.basic_consume(QUEUE, lambda _c, _m, _p, body: found.append(time.monotonic() - float(body)), auto_ack=True)

    def look() -> list[float]:
        found.clear()
        connection.process_data_events(0.2)
        return list(found)

    yield look
    connection.close()


def _measure(way: str, settings: Settings, listen: Any, rate: float, count: int) -> Measured:
    context = multiprocessing.get_context("spawn")
    cpu = context.Queue()
    replies = way == "reply queue"
    latencies: list[float] = []
    with ExitStack() as stack:
        look = stack.enter_context(listen(settings)) if listen else None
        writer = context.Process(target=_settle, args=(settings, replies, rate, count, cpu))
        writer.start()
        cpu_began = None
        while look is not None and len(latencies) < count and (writer.is_alive() or cpu.empty()):
            latencies += look()
            if cpu_began is None and latencies:
                cpu_began = time.thread_time()
        mine = (time.thread_time() - cpu_began) / max(1, len(latencies)) * 1e6 if cpu_began else 0.0
        settle_cpu, seconds = cpu.get()
        writer.join()
    return Measured(way, count / seconds, latencies, settle_cpu, mine)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks results", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="jobs at full speed")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        url = stack.enter_context(servers.rabbitmq())
        redis_url = stack.enter_context(servers.redis())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make = partial(Settings, _env_file=None, rabbitmq_url=url, limits=Limits(enabled=False))
        sqlite, redis = make(state_url=f"sqlite:///{home}/state.db"), make(state_url=redis_url)
        print(f"{'':14} {'jobs/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'settle µs':>12} {'listen µs':>12}")
        for rate, count in ((30.0, 150), (0.0, options.count)):
            for way, settings, listen in (
                ("base sqlite", sqlite, None),
                ("feed sqlite", sqlite, _feed),
                ("feed redis", redis, _feed),
                ("base redis", redis, None),
                ("reply queue", sqlite, _queue),
            ):
                print(_measure(way, settings, listen, rate, count), flush=True)
    return 0
