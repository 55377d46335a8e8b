"""Programs that publish: ours and its peers, each in a process of its own.

``python -m benchmarks.peers.publishers NAME URL QUEUE COUNT BODY_BYTES`` prints one line of JSON. Every
contender publishes persistent messages with bodies of the same size to a durable quorum queue, with up to
:data:`WINDOW` confirms under way where it can.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

WINDOW: Final = 1000
PREFILL: Final = 200  # connects, declares, warms up


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Memory:
    """Resident memory after the first ten thousand, and at the end."""

    def __init__(self) -> None:
        self.marks: dict[str, int] = {}

    def watch(self, items: Iterable[Any]) -> Iterator[Any]:
        for n, item in enumerate(items):
            if n == 10_000:
                self.marks["at_10_000"] = resident_bytes()
            yield item
        self.marks["at_end"] = resident_bytes()


def padding(encoded_size: Callable[[str], int], wanted: int) -> str:
    """Text that makes the whole body ``wanted`` bytes long."""
    return "x" * (wanted - encoded_size(""))


def _our_settings(url: str) -> Any:
    from floodgate.broker.settings.model import Settings

    state = "sqlite:////dev/null/never-opened.db"  # enqueueing needs no state store
    return Settings(rabbitmq_url=url, state_url=state, partitions=1, publish_window=WINDOW, _env_file=None)


def _our_params(size: int) -> dict[str, Any]:
    from floodgate.broker.messages.job import encode_job, new_job

    def encoded(text: str) -> int:
        return len(encode_job(new_job("sendMessage", {"chat_id": 42, "text": text or "x"}, priority="bulk"), "x" * 20))

    return {"chat_id": 42, "text": padding(encoded, size), "priority": "bulk"}


def ours_one_at_a_time(url: str, _queue: str, count: int, size: int) -> float:
    from floodgate import Client

    with Client(_our_settings(url)) as client:
        given = _our_params(size)
        return timed(lambda n: [client.send_message(**given) for _ in range(n)], count)


def ours_many(url: str, _queue: str, count: int, size: int, memory: Memory | None = None) -> float:
    from floodgate import Client

    watch = memory.watch if memory else iter
    with Client(_our_settings(url)) as client:
        given = _our_params(size)
        jobs = lambda n: (client.job("sendMessage", **given) for _ in range(n))  # noqa: E731
        return timed(lambda n: client.enqueue_many(watch(jobs(n))), count)


def ours_asyncio(url: str, _queue: str, count: int, size: int) -> float:
    from floodgate import AsyncClient

    async def run() -> float:
        async with AsyncClient(_our_settings(url)) as client:
            given = _our_params(size)
            await client.enqueue_many(client.job("sendMessage", **given) for _ in range(PREFILL))
            started = time.perf_counter()
            await client.enqueue_many(client.job("sendMessage", **given) for _ in range(count))
            return time.perf_counter() - started

    return asyncio.run(run())


def _dramatiq(url: str, queue: str, count: int, size: int, *, confirm: bool) -> float:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=url, confirm_delivery=confirm)
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name=queue, broker=broker)
    def send(chat: int, text: str) -> None: ...

    text = padding(lambda text: len(send.message(42, text).encode()), size)
    return timed(lambda n: [send.send(42, text) for _ in range(n)], count)


def dramatiq_unconfirmed(url: str, queue: str, count: int, size: int) -> float:
    return _dramatiq(url, queue, count, size, confirm=False)


def dramatiq_confirmed(url: str, queue: str, count: int, size: int) -> float:
    return _dramatiq(url, queue, count, size, confirm=True)


def pika_pipelined(url: str, queue: str, count: int, size: int) -> float:
    """A bare SelectConnection in one thread: bytes in, confirms counted; nothing validated, nothing
    repeated."""
    import pika

    body, properties = b"x" * size, pika.BasicProperties(delivery_mode=2, content_type="application/json")
    state = {"sent": 0, "confirmed": 0, "started": 0.0, "took": 0.0}
    total = PREFILL + count

    def on_open(connection: Any) -> None:
        connection.channel(on_open_callback=on_channel)

    def on_channel(channel: Any) -> None:
        channel.confirm_delivery(lambda frame: on_confirm(channel, frame), callback=lambda _: fill(channel))

    def on_confirm(channel: Any, frame: Any) -> None:
        if frame.method.multiple or frame.method.delivery_tag == state["confirmed"] + 1:
            state["confirmed"] = frame.method.delivery_tag
        else:
            state["confirmed"] += 1
        if not state["started"] and state["confirmed"] >= PREFILL:
            state["started"] = time.perf_counter()
        if state["confirmed"] >= total:
            state["took"] = time.perf_counter() - state["started"]
            channel.connection.close()
        else:
            fill(channel)

    def fill(channel: Any) -> None:
        while state["sent"] < total and state["sent"] - state["confirmed"] < WINDOW:
            channel.basic_publish("", queue, body, properties, mandatory=True)
            state["sent"] += 1

    connection = pika.SelectConnection(
        pika.URLParameters(url), on_open_callback=on_open, on_close_callback=lambda *_: connection.ioloop.stop()
    )
    connection.ioloop.start()
    return state["took"]


def aio_pika(url: str, queue: str, count: int, size: int) -> float:
    import aio_pika as peer

    async def run() -> float:
        connection = await peer.connect(url)
        channel = await connection.channel(publisher_confirms=True)
        body = b"x" * size

        async def publish() -> None:
            message = peer.Message(body, delivery_mode=2, content_type="application/json")
            await channel.default_exchange.publish(message, queue, mandatory=True)

        async def many(n: int) -> None:
            for start in range(0, n, WINDOW):
                await asyncio.gather(*(publish() for _ in range(min(WINDOW, n - start))))

        await many(PREFILL)
        started = time.perf_counter()
        await many(count)
        took = time.perf_counter() - started
        await connection.close()
        return took

    return asyncio.run(run())


def celery_confirmed(url: str, queue: str, count: int, size: int) -> float:
    from celery import Celery
    from kombu import Queue

    app = Celery(broker=url.replace("amqp://", "pyamqp://"))
    app.conf.update(
        broker_transport_options={"confirm_publish": True},
        task_queues=[Queue(queue, durable=True, queue_arguments={"x-queue-type": "quorum"})],
        task_default_queue=queue,
        task_ignore_result=True,
    )

    @app.task(name="send")  # type: ignore[untyped-decorator]
    def send(chat: int, text: str) -> None: ...

    text = "x" * max(0, size - 80)  # Celery's body is the arguments; the rest of a task travels in headers
    return timed(lambda n: [send.delay(42, text) for _ in range(n)], count)


def timed(publish: Callable[[int], object], count: int) -> float:
    publish(PREFILL)
    started = time.perf_counter()
    publish(count)
    return time.perf_counter() - started


CONTENDERS: Final[dict[str, Callable[..., float]]] = {
    "floodgate, one at a time": ours_one_at_a_time,
    "floodgate, enqueue_many": ours_many,
    "floodgate, asyncio enqueue_many": ours_asyncio,
    "dramatiq, unconfirmed": dramatiq_unconfirmed,
    "dramatiq, confirmed": dramatiq_confirmed,
    "pika pipelined, raw": pika_pipelined,
    "aio-pika pipelined": aio_pika,
    "celery, confirmed": celery_confirmed,
}


# A contender's exit code when what it publishes with is not here.
NOT_INSTALLED: Final = 3


def main(arguments: list[str]) -> int:
    name, url, queue, count, size = arguments
    memory = Memory() if name == "memory" else None
    if memory is not None:
        seconds = ours_many(url, queue, int(count), int(size), memory)
    else:
        try:
            seconds = CONTENDERS[name](url, queue, int(count), int(size))
        except ModuleNotFoundError as error:
            print(f"{error.name} is not installed: `scripts/setup --bench` does that", file=sys.stderr)
            return NOT_INSTALLED
    marks = memory.marks if memory else {}
    print(
        json.dumps(
            {"name": name, "count": int(count), "seconds": seconds, "threads": threading.active_count(), **marks}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
