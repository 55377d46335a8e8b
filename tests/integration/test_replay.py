"""Replay on a real RabbitMQ and a real ledger: nothing lost, order kept, at whatever point a run is killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import Dead, Go, Sent, Standing, Unreachable
from floodgate.broker.admission.policy import ask_for, policy_of
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import Job, Priority, decode_job, encode_job, new_job, unix_ms
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.letters.criteria import Criteria
from floodgate.letters.replay import Fate, Replay
from tests.draining import drain
from tests.processes import run_python
from tests.services import Vhost

BOT = "b"
TOKEN = "100200300:" + "A" * 35
DEAD = queue_names.dead_queue(BOT)
EVERYTHING = 1000


class Desk:
    """An operator's tools: letters are written and replayed here, and queues inspected."""

    def __init__(self, vhost: Vhost, home: Path, *, partitions: int = 2) -> None:
        self.vhost = vhost
        self.env = {
            "FLOODGATE_RABBITMQ_URL": vhost.url,
            "FLOODGATE_STATE_URL": f"sqlite:///{home}/state.db",
            "FLOODGATE_BOTS": json.dumps({BOT: TOKEN}),
            "FLOODGATE_PARTITIONS": str(partitions),
        }
        self.settings = Settings(
            _env_file=None,
            rabbitmq_url=vhost.url,
            state_url=f"sqlite:///{home}/state.db",
            bots={BOT: TOKEN},
            partitions=partitions,
        )
        self.ledger = SqliteAdmission(home / "state.db", policy_of(self.settings))
        self.ledger.vouch_idle(BOT)
        self.connections = Connections(self.settings, "test")
        queue_admin.declare(self.connections, topology.pipeline([BOT], partitions))

    def job(self, text: str, chat: int = 5, **options: object) -> Job:
        return new_job("sendMessage", {"chat_id": chat, "text": text}, bot=BOT, job_id=f"job-{text}", **options)  # type: ignore[arg-type]

    def bury(self, job: Job, reason: str = "content", *, told: bool = True) -> Job:
        """Writes the letter and, if ``told``, the ledger."""
        queue = queue_names.send_queue(job.bot, job.priority, job.partition(self.settings.partitions))
        letter = dead_letters.dead_job(job, encode_job(job, queue), queue, reason, "")
        self.connections.publisher.publish(letter)
        if told:
            self.ledger.settle(ask_for(job, self.settings), Dead(reason))
        return job

    def replay(self, criteria: Criteria | None = None, queue: str = DEAD, settings: Settings | None = None) -> Replay:
        run = Replay(self.connections, self.ledger, settings or self.settings)
        run.run(queue, EVERYTHING, criteria or Criteria(), lambda _: None)
        return run

    def letters(self) -> list[str]:
        return [str(properties.message_id) for properties, _ in drain(self.vhost.url, DEAD)]

    def queued(self, partitions: int = 2) -> dict[str, list[Job]]:
        names = [queue_names.send_queue(BOT, priority, n) for priority in Priority for n in range(partitions)]
        return {name: [decode_job(body) for _, body in drain(self.vhost.url, name)] for name in names}

    def texts(self) -> list[str]:
        return [job.params["text"] for jobs in self.queued().values() for job in jobs]

    def close(self) -> None:
        self.connections.stop(2)
        self.ledger.close()


@pytest.fixture
def desk(vhost: Vhost, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(vhost, tmp_path)
    yield made
    made.close()


def test_dead_letters_become_new_jobs_in_their_order(desk: Desk) -> None:
    buried = [desk.bury(desk.job(f"{n}").model_copy(update={"attempts": 8, "unsent": 2})) for n in range(250)]
    before = unix_ms()
    run = desk.replay()
    assert run.fates == {Fate.REPLAYED: 250}
    found = [job for jobs in desk.queued().values() for job in jobs]
    assert [job.id for job in found] == [job.id for job in buried]
    assert all((job.attempts, job.unsent) == (0, 0) and job.created_ms >= before for job in found)
    assert desk.letters() == []
    assert isinstance(desk.ledger.admit(ask_for(found[0], desk.settings)), Go)


def test_a_replayed_job_stays_in_its_trace(desk: Desk, vhost: Vhost) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    job = desk.job("1")
    letter = dead_letters.dead_job(job, encode_job(job, "q"), "q", "content", "", trace)
    desk.connections.publisher.publish(letter)
    desk.replay()
    queue = queue_names.home_of(job, desk.settings.partitions)
    assert [properties.headers for properties, _ in drain(vhost.url, queue)] == [trace]


def test_only_matching_letters_are_replayed_and_the_rest_keep_their_order(desk: Desk) -> None:
    for n in range(6):
        desk.bury(desk.job(f"{n}"), "rights" if n % 2 else "content")
    desk.replay(Criteria(reasons=frozenset({"rights"})))
    assert desk.texts() == ["1", "3", "5"]
    assert desk.letters() == ["job-0", "job-2", "job-4"]


def test_a_replayed_job_goes_to_the_current_queue_of_its_chat(desk: Desk, vhost: Vhost, tmp_path: Path) -> None:
    jobs = [desk.bury(desk.job(f"{chat}", chat)) for chat in range(1, 20)]
    five = desk.settings.model_copy(update={"partitions": 5})
    queue_admin.forget_other_counts(desk.connections, topology.pipeline_of(five, [BOT]).counts)
    desk.replay(settings=five)
    for queue, found in desk.queued(partitions=5).items():
        here = [job.id for job in jobs if queue_names.send_queue(BOT, job.priority, job.partition(5)) == queue]
        assert [job.id for job in found] == here


def test_a_replayed_answer_goes_to_the_queue_of_answers(desk: Desk, vhost: Vhost) -> None:
    params = {"callback_query_id": "1"}
    job = desk.bury(new_job("answerCallbackQuery", params, bot=BOT, job_id="job-answer"), "expired")
    assert desk.replay().fates == {Fate.REPLAYED: 1}
    [(_, body)] = drain(vhost.url, queue_names.answers_queue(BOT))
    assert (decode_job(body).id, decode_job(body).expires_ms) == (job.id, None)


def test_a_dead_letter_of_a_sent_job_is_not_replayed(desk: Desk) -> None:
    job = desk.bury(desk.job("sent"), told=False)
    desk.ledger.settle(ask_for(job, desk.settings), Sent(True))
    assert desk.replay().fates == {Fate.SENT_BEFORE: 1}
    assert (desk.texts(), desk.letters()) == ([], [])


def test_a_job_dead_lettered_by_rabbitmq_is_replayed_even_if_waiting_or_sending_in_the_ledger(desk: Desk) -> None:
    jobs = [desk.bury(desk.job(text), told=False) for text in ("under-way", "waiting", "never-seen")]
    desk.ledger.admit(ask_for(jobs[0], desk.settings))
    desk.ledger.admit(ask_for(jobs[1], desk.settings))
    assert desk.replay().fates == {Fate.REPLAYED: 3}
    assert desk.texts() == ["under-way", "waiting", "never-seen"]
    record = desk.ledger.lookup(BOT, jobs[0].id)
    assert record is not None and record.standing is Standing.SENDING, "the call under way is not forgotten"


def test_two_letters_of_one_job_make_one_job(desk: Desk) -> None:
    job = desk.bury(desk.job("one"))
    desk.bury(job)
    assert desk.replay().fates == {Fate.REPLAYED: 1, Fate.DUPLICATE: 1}
    assert (desk.texts(), desk.letters()) == (["one"], [])


def test_an_expired_job_is_replayed_without_its_expiry_and_others_keep_theirs(desk: Desk) -> None:
    past = unix_ms() - 1000
    desk.bury(desk.job("expired", expires_ms=past), dead_letters.REASON_EXPIRED)
    desk.bury(desk.job("refused", expires_ms=past), "content")
    desk.replay()
    found = [job.expires_ms for jobs in desk.queued().values() for job in jobs]
    assert found == [None, past]


def test_replaying_jobs_for_an_unreachable_chat_tries_the_chat_again(desk: Desk) -> None:
    job = desk.bury(desk.job("hello-again"), dead_letters.REASON_CHAT_UNREACHABLE)
    desk.ledger.mark_unreachable(BOT, "5", "Forbidden: bot was blocked by the user")
    assert isinstance(desk.ledger.admit(ask_for(desk.job("other"), desk.settings)), Unreachable)
    desk.replay()
    assert isinstance(desk.ledger.admit(ask_for(job, desk.settings)), Go)


def test_malformed_letters_and_those_of_an_unknown_bot_are_not_replayed(desk: Desk) -> None:
    desk.connections.publisher.publish(Publication(queue_names.DEAD_EXCHANGE, DEAD, b"\xff\x00 no job", "bytes"))
    stranger = new_job("sendMessage", {"chat_id": 5, "text": "hi"}, bot="gone", job_id="stranger")
    letter = Publication(queue_names.DEAD_EXCHANGE, DEAD, encode_job(stranger, "send.gone.bulk.00"), "stranger")
    desk.connections.publisher.publish(letter)
    desk.bury(desk.job("fine"))
    assert desk.replay().fates == {Fate.NO_JOB: 1, Fate.UNKNOWN_BOT: 1, Fate.REPLAYED: 1}
    assert desk.letters() == ["bytes", "stranger"]


def test_an_unroutable_message_from_the_ladder_can_be_replayed(desk: Desk) -> None:
    job = desk.job("late")
    body = encode_job(job, "send.b.bulk.99")
    desk.connections.publisher.publish(Publication("", queue_names.UNROUTABLE_QUEUE, body, job.id))
    desk.replay(queue=queue_names.UNROUTABLE_QUEUE)
    assert desk.texts() == ["late"]


def test_a_job_that_dies_again_is_not_replayed_in_the_same_run(desk: Desk) -> None:
    desk.bury(desk.job("one"))
    run = Replay(desk.connections, desk.ledger, desk.settings)
    run.run(DEAD, 1, Criteria(), lambda _: desk.bury(desk.job("one")))
    assert run.fates == {Fate.REPLAYED: 1}
    assert desk.letters() == ["job-one"]


KILLED = """
import os, signal, sys
from floodgate.broker.amqp.publisher import Publisher
from floodgate.broker.amqp.queue_reader import QueueReader

def at(owner, name, when, nth):
    method = getattr(owner, name)
    left = [nth]
    def reached():
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    def crashing(*args, **kwargs):
        if when == "before":
            reached()
        result = method(*args, **kwargs)
        if when == "after":
            reached()
        return result
    setattr(owner, name, crashing)

owner, name, when, nth = sys.argv.pop(1).split()
at({"Publisher": Publisher, "QueueReader": QueueReader}[owner], name, when, int(nth))
from floodgate.cli import main
main()
"""


@pytest.mark.parametrize(
    "point",
    [
        "Publisher submit_many before 1",  # the ledger has reopened the jobs, nothing is published
        "Publisher submit_many before 2",
        "QueueReader remove before 1",  # published and confirmed, the letters are still there
        "QueueReader remove after 1",
        "QueueReader remove before 2",
        "Publisher _on_confirm before 1",  # published, not yet confirmed
        "Publisher _on_confirm after 2",
    ],
)
def test_a_replay_that_is_killed_and_repeated_neither_loses_nor_repeats_a_job(
    point: str, desk: Desk, tmp_path: Path
) -> None:
    for n in range(230):
        desk.bury(desk.job(f"{n}"))
    replay = ["dead-letters", "replay", "--bot", BOT]
    killed = run_python("-c", KILLED, point, *replay, env=desk.env, home=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = run_python("-m", "floodgate", *replay, "--json", env=desk.env, home=tmp_path)
    assert (again.returncode, again.stderr) == (0, ""), again
    assert desk.letters() == []
    found = desk.texts()
    assert list(dict.fromkeys(found)) == [f"{n}" for n in range(230)], "each is there, and first seen in order"
    assert len(found) <= 230 + 200, "at most what was in hand is there twice; under one id, so one is sent"
