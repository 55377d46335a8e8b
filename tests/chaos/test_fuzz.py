"""Arbitrary bodies and answers: they end no worker, and each is accounted for.

2,000 bodies and 500 answers by default, 20,000 of each with --chaos. The seed is in the test's name; the same seed
gives the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import Admission, Standing
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.client import Client
from tests.chaos.fuzz import WildServer, body
from tests.chaos.hooks import Hooks, run_worker, start
from tests.publishing import publish_all
from tests.services import Vhost
from tests.waiting import until

BOT, TOKEN = "fuzz", "100200300:" + "F" * 35
QUEUE = queue_names.send_queue(BOT, "interactive", 0)
PARTITIONS = 24  # the number of calls in flight at once
SECONDS_FOR = 0.06  # for one message on a busy machine, with its share of retries

StartWorker = Callable[[str], "Worker"]


@pytest.fixture
def count(pytestconfig: pytest.Config) -> int:
    return 20_000 if pytestconfig.getoption("--chaos") else 2_000


@pytest.fixture
def answers(pytestconfig: pytest.Config) -> int:
    return 20_000 if pytestconfig.getoption("--chaos") else 500


class Worker:
    """A worker process without limits, and the settings to reach its servers."""

    def __init__(self, vhost: Vhost, home: Path, api_url: str) -> None:
        self.log = home / "worker.log"
        env = {
            "FLOODGATE_BOTS": json.dumps({BOT: TOKEN}),
            "FLOODGATE_RABBITMQ_URL": vhost.url,
            "FLOODGATE_STATE_URL": f"sqlite:///{home}/state.db",
            "FLOODGATE_TELEGRAM_API_URL": api_url,
            "FLOODGATE_PARTITIONS": str(PARTITIONS),
            "FLOODGATE_UPDATE_PARTITIONS": "1",
            "FLOODGATE_LIMITS__ENABLED": "false",
            "FLOODGATE_CALL_TIMEOUT_SECONDS": "0.5",
            "FLOODGATE_LEASE_MARGIN_SECONDS": "0.5",
            "FLOODGATE_SHUTDOWN_SECONDS": "4",
            "FLOODGATE_MAX_ATTEMPTS": "2",
        }
        self.process = start(impatient_worker, env, self.log)
        self.settings: Settings = load_settings(
            _env_file=None,
            bots={BOT: TOKEN},
            rabbitmq_url=vhost.url,
            state_url=env["FLOODGATE_STATE_URL"],
            partitions=PARTITIONS,
        )

    def assert_alive(self) -> None:
        assert self.process.exitcode is None, self.log.read_text()[-3000:]

    def await_account(self, connections: Connections, unaccounted: Callable[[], int], seconds: float) -> None:
        """Waits until no message is ready in any queue of the pipeline and none is unaccounted for."""
        names = [
            queue.name for queue in topology.pipeline([BOT], PARTITIONS).queues if queue.role is not topology.Role.DEAD
        ]

        def done() -> bool:
            self.assert_alive()
            return not any(queue_admin.depth(connections, names).values()) and not unaccounted()

        until(done, seconds)
        # An unforeseen exception returns the message to its queue, and so may end well by chance.
        # Dramatiq itself logs an exception for each message with an unknown actor.
        said = self.log.read_text(errors="replace")
        assert said.count("Traceback") == said.count("no actor named")


def impatient_worker() -> None:
    """A worker that pauses a refused bot only briefly, and blames neither 429s nor nonsense on the whole bot."""
    import floodgate.actors.settle
    import floodgate.broker.admission.policy
    import floodgate.broker.worker.runner

    floodgate.actors.settle.BOT_FAILED_PAUSE = timedelta(milliseconds=20)  # type: ignore[misc]
    floodgate.broker.admission.policy.EVIDENCE_CHATS = 10**9  # type: ignore[misc]
    floodgate.broker.admission.policy.OUTAGE_CHATS = 10**9  # type: ignore[misc]
    floodgate.broker.worker.runner.GIVE_BACK_PAUSE_SECONDS = 0.01  # type: ignore[misc]
    run_worker(Hooks())


@pytest.fixture
def start_worker(vhost: Vhost, tmp_path: Path) -> Iterator[StartWorker]:
    made: list[Worker] = []

    def make(api_url: str) -> Worker:
        made.append(Worker(vhost, tmp_path, api_url))
        return made[-1]

    yield make
    for worker in made:
        worker.process.kill()
        worker.process.join()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1])
def test_any_bytes_in_a_send_queue_end_as_sent_or_as_a_dead_letter(
    seed: int, count: int, vhost: Vhost, start_worker: StartWorker
) -> None:
    draw = random.Random(seed)
    bodies = [body(draw, n, BOT) for n in range(count)]
    with running_fake() as fake:
        fake.control.limits(enabled=False)
        worker = start_worker(fake.url)
        with Connections(worker.settings, "fuzz") as connections:
            queue_admin.declare(connections, topology.pipeline([BOT], PARTITIONS))
            put_in = publish_all(
                connections.publisher, (Publication("", QUEUE, each, f"m{n}") for n, each in enumerate(bodies))
            )
            assert not [error for _, error in put_in if error]
            with contextlib.closing(open_store(worker.settings)) as store:

                def unaccounted() -> int:
                    """Bodies without a dead letter that the ledger does not record as sent."""
                    left = Counter(bodies) - Counter(_dead_bodies(connections))
                    return sum(not was_sent(store, each) for each in left)

                worker.await_account(connections, unaccounted, 60 + count * SECONDS_FOR)
            assert 0 < len(_dead_bodies(connections)) < count


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1])
def test_with_any_bot_api_answer_each_job_ends_as_sent_or_as_a_dead_letter(
    seed: int, answers: int, vhost: Vhost, start_worker: StartWorker
) -> None:
    with WildServer(seed) as server:
        worker = start_worker(f"http://127.0.0.1:{server.port}")
        with Client(worker.settings, bot=BOT) as client:
            jobs = [client.job("sendMessage", chat_id=1000 + n, text=f"{n}") for n in range(answers)]
            assert client.enqueue_many(jobs) == answers
        with (
            Connections(worker.settings, "fuzz") as connections,
            contextlib.closing(open_store(worker.settings)) as store,
        ):

            def unaccounted() -> int:
                dead = {job_id(each) for each in _dead_bodies(connections)}
                return sum(job.id not in dead and not _sent(store, job.id) for job in jobs)

            worker.await_account(connections, unaccounted, 60 + answers * SECONDS_FOR)
            assert 0 < len(_dead_bodies(connections)) < answers
    assert server.answers >= answers


def was_sent(store: Admission, body: bytes) -> bool:
    """Returns whether a worker took the body for a job and sent it. Independent of the worker's own parsing."""
    sent_id = job_id(body)
    return sent_id is not None and _sent(store, sent_id)


def _sent(store: Admission, job: str) -> bool:
    fate = store.lookup(BOT, job)
    return fate is not None and fate.standing is Standing.SENT


def job_id(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["kwargs"]["job"]["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _dead_bodies(connections: Connections) -> list[bytes]:
    queues = (queue_names.dead_queue(BOT), queue_names.MALFORMED_QUEUE)
    return [seen.body for queue in queues for seen in browse(connections, queue, 100_000)]
