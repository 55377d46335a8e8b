"""Three workers on one state file, one of them killed: a single run of some 70 s under Telegram's real limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Job, Priority
from tests.acceptance.conftest import MakeStage
from tests.acceptance.server import active_consumers
from tests.acceptance.stage import BOT, Stage
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

PARTITIONS = 16
USERS = 600
GROUP_JOBS = 24  # more than a window of 60 s allows
REPLIES = 40
WRITERS = 10
GROUP = -1001000000001
FIRST_USER = 5_000_001
JOBS = USERS + GROUP_JOBS + REPLIES
TAKEN_OVER_SECONDS = 5.0
# The group's last message is sent 65 s after the start; jobs held by the killed worker, 35 s after it died.
WHOLE_RUN_SECONDS = 95.0


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FloodgateProcess]:
    """Runs in its own process: arrivals are judged to a few milliseconds, and this process is busy enqueueing."""
    with FloodgateProcess("fake-telegram", "--port", "0", env={}, home=tmp_path, name="fake") as process:
        yield process.start("http://")


@pytest.mark.timeout(240)
def test_three_workers_share_one_budget_and_survive_the_loss_of_one(
    new_stage: MakeStage, vhost: Vhost, fake: FloodgateProcess
) -> None:
    """No 429; order per chat and priority; nothing lost; all took part; the killed one's partitions continue."""
    url = fake.said("http://").split()[-1]
    stage = new_stage(vhost.url, telegram_url=url, partitions=PARTITIONS)
    stage.control.set_server(latency_ms=(40, 80))
    workers = {worker.pid: worker for worker in (stage.worker(), stage.worker(), stage.worker())}
    owners = until(lambda: shared_out(vhost, set(workers)))

    jobs = enqueue(stage)
    until(lambda: stage.control.stats().acted >= 150, 30)
    bulk = Counter(owners[queue] for queue in {queue_of(job) for job in jobs if job.priority is Priority.BULK})
    victim = next(pid for pid, _ in bulk.most_common() if pid != owners[queue_of(group_job(jobs))])
    workers[victim].kill()
    killed = time.time()

    until(
        lambda: stage.control.stats().acted >= JOBS and set(stage.sent()) == {text(job) for job in jobs},
        WHOLE_RUN_SECONDS,
    )
    assert_taken_over(stage, jobs, queues={queue for queue, pid in owners.items() if pid == victim}, killed=killed)
    assert_all_as_it_should(stage, jobs, doubtful=owned_by(victim, owners, jobs), killed=killed)
    survivors = set(workers) - {victim}
    assert shared_out(vhost, survivors)
    assert [workers[pid].stop() for pid in survivors] == [0, 0]


def assert_taken_over(stage: Stage, jobs: list[Job], *, queues: set[str], killed: float) -> None:
    """Checks that each of the killed worker's partitions soon continues. It looks at arrivals: asking RabbitMQ takes a
    program that would itself slow down the measurement."""
    queue_of_text = {text(job): queue_of(job) for job in jobs if job.priority is Priority.BULK}
    first: dict[str, float] = {}
    for call in stage.control.arrivals():
        if call.wall > killed + 0.1 and (queue := queue_of_text.get(str(call.params["text"]))) is not None:
            first.setdefault(queue, call.wall)
    waits = {queue: first[queue] - killed for queue in queues if queue in first}
    assert waits, "some of their backlog was still to send when their worker died"
    assert max(waits.values()) <= TAKEN_OVER_SECONDS, waits


def shared_out(vhost: Vhost, pids: set[int]) -> dict[str, int]:
    """Maps partitions to workers, once these workers have all partitions and each has some."""
    active = active_consumers(vhost)
    complete = len(active) == len(queue_names.send_queues(BOT, PARTITIONS)) and set(active.values()) == pids
    return active if complete else {}


def enqueue(stage: Stage) -> list[Job]:
    """All jobs in order of acceptance: the group's first, the replies spread over the broadcast."""
    client = stage.client()
    group = [client.job("sendMessage", chat_id=GROUP, text=f"group {n}", priority="bulk") for n in range(GROUP_JOBS)]
    news = [client.job("sendMessage", chat_id=FIRST_USER + n, text=f"news {n}", priority="bulk") for n in range(USERS)]
    replies = [client.job("sendMessage", chat_id=FIRST_USER + n % WRITERS, text=f"reply {n}") for n in range(REPLIES)]
    accepted = [*group, *news[:200], *replies[:20], *news[200:], *replies[20:]]
    assert client.enqueue_many(accepted) == JOBS
    return accepted


def assert_all_as_it_should(stage: Stage, jobs: list[Job], *, doubtful: set[str], killed: float) -> None:
    arrivals = stage.control.arrivals()
    seen = Counter(str(call.params["text"]) for call in arrivals if call.acted)
    assert seen.keys() == {text(job) for job in jobs}, "none lost, none invented"
    twice = {said for said, times in seen.items() if times > 1}
    under_way = {str(call.params["text"]) for call in arrivals if killed - 2 <= call.wall <= killed + 0.5}
    assert twice <= doubtful & under_way, "sent twice is only what the killed worker had under way"
    assert max(seen.values()) <= 2

    summary = stage.control.summary()
    assert summary.answers_429 == 0, summary
    assert summary.bot_in_1s <= 30
    assert summary.chat_in_1s == 1
    assert summary.group_in_60s <= 20
    assert order_violations(jobs, [str(call.params["text"]) for call in arrivals if call.acted]) == []


def order_violations(jobs: list[Job], arrived: list[str]) -> list[str]:
    """Texts that arrived before an earlier one of their chat and priority."""
    first = {said: position for position, said in reversed(list(enumerate(arrived)))}
    latest: dict[tuple[str | None, Priority], int] = {}
    wrong = []
    for job in jobs:
        line, position = (job.chat, job.priority), first[text(job)]
        if position < latest.get(line, -1):
            wrong.append(text(job))
        latest[line] = max(position, latest.get(line, -1))
    return wrong


def owned_by(pid: int, owners: dict[str, int], jobs: list[Job]) -> set[str]:
    return {text(job) for job in jobs if owners[queue_of(job)] == pid}


def queue_of(job: Job) -> str:
    return queue_names.send_queue(BOT, job.priority, job.partition(PARTITIONS))


def group_job(jobs: list[Job]) -> Job:
    return next(job for job in jobs if job.params["chat_id"] == GROUP)


def text(job: Job) -> str:
    return str(job.params["text"])
