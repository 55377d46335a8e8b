"""What a failing job delays (only its own line) and how it ends, and a restart of all workers under load."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import DeadLetter, read_dead_letter
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.server import running_fake
from floodgate.fake_telegram.summary import fullest
from floodgate.producer.client import Client
from tests.chaos.hooks import Hooks, start_worker
from tests.services import RedisServer, Vhost
from tests.waiting import until

BOT, TOKEN = "order", "100200300:" + "O" * 35
STOP_SECONDS = 30.0


@dataclass
class Bench:
    """One partition per priority, so that all jobs of a priority are in one queue, and any number of workers."""

    url: str
    api_url: str
    home: Path
    control: ControlClient
    extra: dict[str, str] = field(default_factory=dict)
    workers: list[Any] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {
            "FLOODGATE_BOTS": f'{{"{BOT}": "{TOKEN}"}}',
            "FLOODGATE_RABBITMQ_URL": self.url,
            "FLOODGATE_STATE_URL": f"sqlite:///{self.home}/state.db",
            "FLOODGATE_TELEGRAM_API_URL": self.api_url,
            "FLOODGATE_PARTITIONS": self.extra.get("FLOODGATE_PARTITIONS", "1"),
            "FLOODGATE_UPDATE_PARTITIONS": "1",
            "FLOODGATE_CALL_TIMEOUT_SECONDS": "2",
            "FLOODGATE_LEASE_MARGIN_SECONDS": "1",
            "FLOODGATE_SHUTDOWN_SECONDS": "5",
            **self.extra,
        }

    @property
    def settings(self) -> Settings:
        return load_settings(
            _env_file=None,
            bots={BOT: TOKEN},
            rabbitmq_url=self.url,
            state_url=self.env["FLOODGATE_STATE_URL"],
            partitions=int(self.env["FLOODGATE_PARTITIONS"]),
        )

    def start(self, workers: int = 1, **extra: str) -> None:
        self.extra = extra
        with contextlib.closing(open_store(self.settings)) as store:
            store.vouch_idle(BOT)
        for _ in range(workers):
            self.workers.append(None)
            self.restart(len(self.workers) - 1)

    def restart(self, number: int) -> None:
        """Starts a worker in this place, after SIGTERM to its predecessor."""
        log = self.home / f"worker-{number}.log"
        ready_before = log.read_text().count("worker ready") if log.exists() else 0
        if (worker := self.workers[number]) is not None:
            if worker.exitcode is None:
                os.kill(worker.pid, signal.SIGTERM)
            worker.join(STOP_SECONDS)
            assert worker.exitcode == 0, log.read_text()[-2000:]
        self.workers[number] = start_worker(self.env, log, Hooks(notebook=self.home / "notebook"))
        until(lambda: log.exists() and log.read_text().count("worker ready") > ready_before, 60)

    def client(self) -> Client:
        return Client(self.settings, bot=BOT)

    def acted(self) -> list[str]:
        """The texts (or captions) that acted, in order of arrival."""
        return [_text(arrival.params) for arrival in self.control.arrivals() if arrival.acted]

    def await_acted(self, *texts: str, seconds: float = 30) -> list[str]:
        until(lambda: set(texts) <= set(self.acted()), seconds)
        return self.acted()

    def calls(self) -> list[tuple[float, str]]:
        """The time and text of each call, from the workers' own notebook, in order of time."""
        notes = (line.split(" ") for line in (self.home / "notebook").read_text().splitlines())
        return sorted((float(note[2]), note[1]) for note in notes if note[0] == "call")

    def dead(self) -> list[DeadLetter]:
        queue = queue_names.dead_queue(BOT)
        with Connections(self.settings, "order") as connections:
            seen = browse(connections, queue, 100)
        return [read_dead_letter(queue, one.message_id, one.headers, one.body) for one in seen]

    def await_dead(self, count: int = 1) -> list[DeadLetter]:
        until(lambda: len(self.dead()) >= count, 30)
        return self.dead()


def _text(params: dict[str, Any]) -> str:
    return str(params.get("text") or params.get("caption"))


@pytest.fixture
def bench(vhost: Vhost, tmp_path: Path) -> Iterator[Bench]:
    with running_fake() as fake:
        bench = Bench(vhost.url, fake.url, tmp_path, fake.control)
        yield bench
        for worker in bench.workers:
            worker.kill()
            worker.join()


def test_a_retry_delays_only_its_own_line(bench: Bench) -> None:
    bench.control.set_server(faults=[{"kind": "cut_before", "methods": ["sendPhoto"], "times": 3}])
    bench.start()
    with bench.client() as client:
        client.send_photo(chat_id=1, photo="https://example.org/1.jpg", caption="fails thrice", priority="bulk")
        client.send_message(chat_id=1, text="behind it", priority="bulk")
        client.send_message(chat_id=1, text="other priority", priority="interactive")
        client.send_message(chat_id=2, text="other chat", priority="bulk")
    acted = bench.await_acted("fails thrice", "behind it", "other priority", "other chat")
    assert acted.index("fails thrice") < acted.index("behind it")
    assert acted.index("other priority") < acted.index("fails thrice")
    assert acted.index("other chat") < acted.index("fails thrice")
    assert len(acted) == 4


def test_after_a_permanent_failure_the_next_job_of_the_line_is_sent(bench: Bench) -> None:
    refusal = {"code": 400, "description": "Bad Request: can't parse entities", "times": 1}
    bench.control.set_chat(1, trouble="answer", **refusal)
    bench.start()
    with bench.client() as client:
        refused = client.send_message(chat_id=1, text="refused")
        client.send_message(chat_id=1, text="second")
        client.send_message(chat_id=1, text="third")
    assert bench.await_acted("second", "third") == ["second", "third"]
    (letter,) = bench.await_dead()
    assert (letter.message_id, letter.reason, letter.attempts) == (refused.id, "content", 1)


def test_the_dead_letter_states_the_limit_on_calls(bench: Bench) -> None:
    bench.control.set_server(faults=[{"kind": "error", "code": 502}])
    bench.start(FLOODGATE_MAX_ATTEMPTS="2")
    with bench.client() as client:
        client.send_message(chat_id=1, text="in vain")
    (letter,) = bench.await_dead()
    assert (letter.reason, letter.attempts) == ("exhausted", 2)
    assert letter.description == "2 calls failed and the limit is 2; last call: HTTP 502 Bad Gateway"


def test_the_dead_letter_states_the_limit_on_age(bench: Bench) -> None:
    bench.control.set_server(faults=[{"kind": "error", "code": 502}])
    bench.start(FLOODGATE_MAX_AGE_SECONDS="0.5", FLOODGATE_MAX_ATTEMPTS="100")
    with bench.client() as client:
        client.send_message(chat_id=1, text="in vain")
    (letter,) = bench.await_dead()
    assert letter.reason == "exhausted"
    assert letter.description.startswith("the job was older than 0.5 s after ")


def test_a_job_that_expires_in_its_line_is_dead_and_the_next_is_sent(bench: Bench) -> None:
    bench.start()
    bench.control.pause(int(TOKEN.partition(":")[0]), 3, 1)
    with bench.client() as client:
        late = client.send_message(chat_id=1, text="late", expires=1.5)
        client.send_message(chat_id=1, text="patient")
    assert bench.await_acted("patient") == ["patient"]
    (letter,) = bench.await_dead()
    assert (letter.message_id, letter.reason) == (late.id, "expired")


def test_the_jobs_of_a_migrated_chat_follow_it_in_order(bench: Bench) -> None:
    old, new = -4001, -1004004004001
    bench.control.set_chat(old, trouble="migrated", migrate_to=new)
    bench.start()
    with bench.client() as client:
        jobs = [client.send_message(chat_id=old, text=f"{n}") for n in range(4)]
        assert bench.await_acted("3") == ["0", "1", "2", "3"]
        chats = [arrival.chat_id for arrival in bench.control.arrivals()]
        assert chats == [old, new, new, new, new], "only the first call finds out"
        assert client.result(jobs[3])["chat"]["id"] == new, "and the caller is told"


def test_a_partly_sent_album_is_never_resent_automatically(bench: Bench) -> None:
    bench.control.set_chat(1, trouble="partial_album", times=1)
    bench.start()
    album = [{"type": "photo", "media": f"https://example.org/{n}.jpg"} for n in range(3)]
    with bench.client() as client:
        job = client.send_media_group(chat_id=1, media=album)
        client.send_message(chat_id=1, text="next")
    bench.await_acted("next")
    (letter,) = bench.await_dead()
    assert (letter.message_id, letter.reason) == (job.id, "uncertain")
    assert [arrival.method for arrival in bench.control.arrivals()] == ["sendMediaGroup", "sendMessage"]


def test_a_stopping_worker_records_what_it_sent_in_a_store_that_is_restarting(
    bench: Bench, new_redis: Callable[[], RedisServer]
) -> None:
    redis = new_redis().start()
    bench.control.set_server(latency_ms=(1000, 1000))
    bench.start(FLOODGATE_STATE_URL=redis.url)
    with bench.client() as client:
        client.send_message(chat_id=1, text="in flight")
        bench.await_acted("in flight")
        redis.kill()
        os.kill(bench.workers[0].pid, signal.SIGTERM)
        time.sleep(2)  # meanwhile the answer arrives, for a stopping worker and an unavailable store
        redis.start()
        bench.workers[0].join(STOP_SECONDS)
        client.send_message(chat_id=1, text="next")
    bench.restart(0)
    assert bench.await_acted("next", seconds=20) == ["in flight", "next"]


@pytest.mark.timeout(180)
def test_a_rolling_restart_under_load_loses_repeats_and_reorders_nothing_and_keeps_the_limits(bench: Bench) -> None:
    bench.control.set_server(latency_ms=(20, 60))
    bench.start(workers=3, FLOODGATE_PARTITIONS="4")
    chats = range(100, 140)
    with bench.client() as client:
        jobs = [client.job("sendMessage", chat_id=chat, text=f"{chat}/{n}") for n in range(8) for chat in chats]
        assert client.enqueue_many(jobs) == len(jobs)
    until(lambda: len(bench.acted()) > 20, 60)
    for number in range(3):
        bench.restart(number)
    assert len(bench.acted()) < len(jobs), "all was sent before the last restart, which shows nothing"
    until(lambda: len(set(bench.acted())) == len(jobs), 90)
    acted = bench.acted()
    assert len(acted) == len(jobs)
    for chat in chats:
        own = [text for text in acted if text.startswith(f"{chat}/")]
        assert own == [f"{chat}/{n}" for n in range(8)]
    # By the time of the call: on a machine too busy to make a call within the margin, the fake may see two at once.
    calls = bench.calls()
    assert fullest(((0, at, 1) for at, _ in calls), 1.0) <= 30
    assert fullest(((text.partition("/")[0], at, 1) for at, text in calls), 1.0) == 1
