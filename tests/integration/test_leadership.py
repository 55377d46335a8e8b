"""The active receiver on a real RabbitMQ: never two, and always soon one again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.settings.model import Settings
from floodgate.producer.updates import leadership
from floodgate.producer.updates.intake import Intake
from floodgate.producer.updates.leadership import Leadership
from rabbitmq_node.node import Node
from tests.proxy import Proxy
from tests.services import Vhost

BOT = "b"
QUEUE = queue_names.leader_queue(BOT)
TOKEN = "123456:" + "A" * 35
LEASE_SECONDS = 2.0
SOON = 20.0


class Candidate:
    """A receiver that only records when it was active. Times are monotonic."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.settings = Settings(
            _env_file=None, rabbitmq_url=url, bots={BOT: TOKEN}, partitions=1, update_partitions=1, heartbeat_seconds=2
        )
        self.connections = Connections(self.settings, name, on_callers_loop=True)
        self.intake = Intake(self.settings, self.connections, Metrics())
        self.leadership = Leadership(BOT, self.intake, self.connections, LEASE_SECONDS)
        self.reigns: list[list[float]] = []  # from, to
        self.active = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended_validly: list[bool] = []

    async def work(self) -> None:
        reign = [time.monotonic()]
        self.reigns.append(reign)
        self.ended.clear()
        self.active.set()
        try:
            await asyncio.Event().wait()
        finally:
            reign.append(time.monotonic())
            self.ended_validly.append(self.leadership.valid())
            self.active.clear()
            self.ended.set()

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Candidate]:
        """A candidate for the length of the block; it ends cleanly."""
        await self.intake.declare()
        task = asyncio.create_task(self.leadership.run(self.work))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
            await self.connections.aclose(2)


async def soon(event: asyncio.Event) -> float:
    """Seconds until it happened."""
    began = time.monotonic()
    async with asyncio.timeout(SOON):
        await event.wait()
    return time.monotonic() - began


def never_two(*candidates: Candidate) -> bool:
    reigns = sorted(reign for candidate in candidates for reign in candidate.reigns)
    return all(len(one) == 2 and one[1] <= other[0] for one, other in pairwise(reigns))


def run(use: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(use())


def test_the_first_is_active_at_once_and_the_second_after_the_first_resigns(vhost: Vhost) -> None:
    async def use() -> None:
        first, second = Candidate(vhost.url, "first"), Candidate(vhost.url, "second")
        async with second_after(first, second):
            pass
        assert first.ended_validly == [True]
        assert never_two(first, second)

    @asynccontextmanager
    async def second_after(first: Candidate, second: Candidate) -> AsyncIterator[None]:
        async with first.standing():
            assert await soon(first.active) < LEASE_SECONDS / 2
            standing = second.standing()
            await standing.__aenter__()
            await asyncio.sleep(0.5)
            assert not second.reigns
        try:
            assert await soon(second.active) < LEASE_SECONDS / 2
            yield
        finally:
            await standing.__aexit__(None, None, None)

    run(use)


def test_a_receiver_that_returns_after_resigning_need_not_wait(vhost: Vhost) -> None:
    async def use() -> None:
        for _ in range(3):
            async with Candidate(vhost.url, "again").standing() as candidate:
                assert await soon(candidate.active) < LEASE_SECONDS / 2

    run(use)


@pytest.mark.parametrize("loss", ["cut", "reset", "stall", "half_open"])
def test_a_disconnected_leader_stops_before_another_begins(vhost: Vhost, loss: str) -> None:
    async def use() -> None:
        with Proxy(vhost.node.port) as proxy:
            first, second = Candidate(proxy.url(vhost.url), "first"), Candidate(vhost.url, "second")
            async with first.standing():
                await soon(first.active)
                async with second.standing():
                    proxy.refuse()
                    getattr(proxy, loss)()
                    assert await soon(first.ended) < LEASE_SECONDS
                    await soon(second.active)
                    assert first.ended_validly == [False]
                    proxy.accept()
                    proxy.drop_half_open()
            assert never_two(first, second)

    run(use)


def test_a_leader_with_a_short_interruption_continues(vhost: Vhost) -> None:
    async def use() -> None:
        with Proxy(vhost.node.port) as proxy:
            async with Candidate(proxy.url(vhost.url), "first").standing() as first:
                await soon(first.active)
                proxy.stall()
                await asyncio.sleep(LEASE_SECONDS / 5)
                proxy.flow()
                await asyncio.sleep(LEASE_SECONDS * 1.5)
                assert first.active.is_set()
                assert len(first.reigns) == 1

    run(use)


def test_a_deleted_queue_ends_the_leadership_and_begins_a_new_one(vhost: Vhost) -> None:
    async def use() -> None:
        first, second = Candidate(vhost.url, "first"), Candidate(vhost.url, "second")
        async with first.standing():
            await soon(first.active)
            async with second.standing():
                await asyncio.to_thread(vhost.ctl, "delete_queue", QUEUE)
                await soon(first.ended)
                racing = [asyncio.create_task(soon(each.active)) for each in (first, second)]
                await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for task in racing:
                    task.cancel()
                assert first.active.is_set() != second.active.is_set()
        assert never_two(first, second)

    run(use)


def test_a_lost_token_is_replaced(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "LOOK_AGAIN_SECONDS", 0.3)

    async def use() -> None:
        candidate = Candidate(vhost.url, "waiting")
        candidate.leadership._seeded = True  # as far as it knows
        async with candidate.standing():
            await soon(candidate.active)

    run(use)


def test_there_is_no_leader_while_rabbitmq_accepts_nothing_and_the_same_one_continues_afterwards(
    new_node: Callable[..., Node],
) -> None:
    async def use() -> None:
        with new_node() as node:
            node.start()
            first, second = Candidate(node.url, "first"), Candidate(node.url, "second")
            async with first.standing():
                await soon(first.active)
                async with second.standing():
                    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
                    await soon(first.ended)
                    await asyncio.sleep(LEASE_SECONDS * 2)
                    assert not first.active.is_set()
                    assert not second.reigns
                    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.6")
                    await soon(first.active)
            assert never_two(first, second)

    run(use)


def test_there_is_always_exactly_one_token(vhost: Vhost) -> None:
    async def use() -> None:
        async with Candidate(vhost.url, "leader").standing() as leader:
            await soon(leader.active)
            for _ in range(3):
                async with Candidate(vhost.url, "visitor").standing():
                    await asyncio.sleep(0.2)
            await asyncio.sleep(LEASE_SECONDS)
            assert len(leader.reigns) == 1
        looking = Connections(Candidate(vhost.url, "looking").settings, "looking")
        assert await asyncio.to_thread(queue_admin.depth, looking, [QUEUE]) == {QUEUE: 1}
        await asyncio.to_thread(looking.stop, 2)

    run(use)
