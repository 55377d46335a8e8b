"""A worker process has a handful of threads for any number of bots and partitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from floodgate.broker.amqp import queue_admin
from floodgate.broker.messages import queue_names
from tests.acceptance.conftest import MakeStage
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.acceptance.updates.post import Post
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

MOST_THREADS = 7
PARTITIONS = 32
DECLARE_SECONDS = 90.0
HANDLER = """
from floodgate import AsyncClient, Update, on_update

@on_update
async def answer(update: Update, client: AsyncClient) -> None:
    await client.send_message(update.chat, f"heard {update.body['message']['text']}")
"""


def bots(count: int) -> dict[str, str]:
    return {BOT: TOKEN, **{f"bot{n}": f"{100200300 + n}:" + "A" * 35 for n in range(1, count)}}


def threads(process: FloodgateProcess) -> list[str]:
    """Thread names from the kernel."""
    return sorted((task / "comm").read_text().strip() for task in Path(f"/proc/{process.pid}/task").iterdir())


def answers(post: Post) -> int:
    queues = [queue_names.send_queue(BOT, "interactive", n) for n in range(PARTITIONS)]
    return sum(depth or 0 for depth in queue_admin.depth(post.connections, queues).values())


@pytest.fixture(params=["sqlite", "redis"])
def state(request: pytest.FixtureRequest) -> dict[str, str]:
    return {} if request.param == "sqlite" else {"FLOODGATE_STATE_URL": request.getfixturevalue("redis_url")}


@pytest.fixture
def stage(new_stage: MakeStage, vhost: Vhost, state: dict[str, str]) -> Stage:
    return new_stage(vhost.url, partitions=PARTITIONS, extra={**state, "FLOODGATE_UPDATE_PARTITIONS": str(PARTITIONS)})


@pytest.mark.parametrize("count", [1, 10])
def test_a_worker_has_few_threads_for_any_number_of_bots(stage: Stage, count: int) -> None:
    stage.extra["FLOODGATE_BOTS"] = json.dumps(bots(count))
    worker = FloodgateProcess("worker", env=stage.env, home=stage.home, name="worker")
    with worker.start("worker ready", DECLARE_SECONDS):
        client = stage.client()
        for chat in range(1, 6):
            client.send_photo(chat, b"\xff\xd8\xff a photo \xff\xd9" + b"%d" % chat)
            client.send_message(chat + 100, "hi")
        until(lambda: sum(call.acted for call in stage.control.arrivals()) == 10, 60)
        assert len(threads(worker)) <= MOST_THREADS, threads(worker)


@pytest.mark.parametrize("count", [1, 10])
def test_a_handler_worker_has_few_threads_for_any_number_of_bots(stage: Stage, count: int) -> None:
    stage.extra["FLOODGATE_BOTS"] = json.dumps(bots(count))
    (stage.home / "their_bot.py").write_text(HANDLER)
    handler = FloodgateProcess(
        "worker", "--updates", "their_bot:answer", env=stage.env, home=stage.home, name="handler"
    )
    post = Post(stage.settings.model_copy(update={"update_partitions": PARTITIONS}))
    try:
        with handler.start("worker ready", DECLARE_SECONDS):
            for chat in range(1, 21):
                post.says(chat, "hello")
            until(lambda: answers(post) == 20, 60)
            assert len(threads(handler)) <= MOST_THREADS, threads(handler)
    finally:
        post.close()
