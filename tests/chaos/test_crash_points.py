"""A process kills itself at each point of the hot path and another one continues, with the guarantees of each point.

Four jobs are enqueued: `a1` and `a2` to one user (so that `a2` waits and is parked), `b` to a user who blocked the
bot (so that it is dead-lettered), `c` to another user. A worker dies at the point and a second one finishes. A
worker's publications are, in this order: the parked `a2`, the dead letter of `b`.

The runs share RabbitMQ and the fake but each has its own bot and state file, so that some run concurrently.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import read_dead_letter
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.client import Client
from tests.chaos.hooks import POINTS, Hooks, start, start_worker
from tests.services import Vhost, Vhosts
from tests.waiting import until

ANN, BLOCKED, CAROL = 11, 12, 13
TEXTS = {"a1": ANN, "a2": ANN, "b": BLOCKED, "c": CAROL}
AT_ONCE = 6
END_SECONDS = 60.0
EXPIRES_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Case:
    """A process and its crash point. ``asks``: the jobs prefer a dead letter to being sent twice."""

    who: str
    point: str
    time: int = 1
    asks: bool = False

    def __str__(self) -> str:
        nth = f" ({self.time})" if self.time > 1 else ""
        return f"{self.who} {self.point}{nth}{', asks' if self.asks else ''}"


@dataclass(slots=True)
class Result:
    """The result of a run: the texts in the order in which they acted, and each dead letter's reason by text."""

    exit_code: int
    accepted: list[str]
    acted: list[str] = field(default_factory=list)
    dead: list[tuple[str, str]] = field(default_factory=list)


# The call was made or about to be made, and the store does not know its outcome.
IN_CALL = ("after admits", "after admit", "before call", "after call", "before settle", "before records")
ACTED = ("after call", "before settle", "before records")
WORKER_CASES = [
    *(Case("worker", point) for point in POINTS),
    *(Case("worker", point, time=2) for point in POINTS if "publish" in point or "confirm" in point),
    *(Case("worker", point, asks=True) for point in IN_CALL),
]
PRODUCER_CASES = [Case("producer", point) for point in POINTS if "publish" in point or "confirm" in point]


@pytest.fixture(scope="module")
def results(vhosts: Vhosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Case, Future[Result]]]:
    vhost = vhosts.take()
    with running_fake() as fake, ThreadPoolExecutor(AT_ONCE, thread_name_prefix="crash-point") as pool:
        fake.control.set_chat(BLOCKED, trouble="blocked")
        # Settings are read here, because pytest changes a variable of the environment while the runs go on.
        runs = [
            Run(case, number, vhost.url, fake.control, fake.url, tmp_path_factory.mktemp("crash"))
            for number, case in enumerate([*WORKER_CASES, *PRODUCER_CASES])
        ]
        yield {run.case: pool.submit(run.play) for run in runs}
        pool.shutdown(cancel_futures=True)
    vhosts.give_back(vhost)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", WORKER_CASES, ids=str)
def test_a_worker_that_dies_at_any_point_loses_nothing_and_keeps_order(
    case: Case, results: dict[Case, Future[Result]]
) -> None:
    result = results[case].result()
    assert result.exit_code == -signal.SIGKILL, "the worker passed the point without dying at it"
    ended = set(result.acted) | {text for text, _ in result.dead}
    assert ended == set(TEXTS)
    if not case.asks:
        assert list(dict.fromkeys(result.acted)).index("a1") < list(dict.fromkeys(result.acted)).index("a2")


@pytest.mark.parametrize("case", WORKER_CASES, ids=str)
def test_only_a_crash_between_the_call_and_its_record_sends_twice(
    case: Case, results: dict[Case, Future[Result]]
) -> None:
    result = results[case].result()
    twice = case.point in ACTED and not case.asks
    assert {text: result.acted.count(text) for text in ("a1", "a2", "c")} == {
        "a1": 0 if case.asks and case.point not in ACTED else 2 if twice else 1,
        "a2": 1,
        "c": 1,
    }


@pytest.mark.parametrize("case", WORKER_CASES, ids=str)
def test_after_a_crash_each_dead_letter_is_written_once_or_twice(
    case: Case, results: dict[Case, Future[Result]]
) -> None:
    dead = results[case].result().dead
    letters_of_b = [reason for text, reason in dead if text == "b"]
    assert set(letters_of_b) == {"chat-unreachable"}
    # A crash between a dead letter and its record in the store may repeat the letter but never lose it.
    written_and_not_known = case.time == 2 and case.point != "before publish"
    assert len(letters_of_b) == 1 or (len(letters_of_b) == 2 and written_and_not_known)
    others = [(text, reason) for text, reason in dead if text != "b"]
    assert others == ([("a1", "uncertain")] if case.asks else [])


@pytest.mark.parametrize("case", PRODUCER_CASES, ids=str)
def test_a_producer_that_dies_has_enqueued_every_confirmed_job_exactly_once(
    case: Case, results: dict[Case, Future[Result]]
) -> None:
    result = results[case].result()
    assert result.exit_code == -signal.SIGKILL, "the producer passed the point without dying at it"
    assert sorted(result.acted) == ["a1", "a2", "c"]
    assert [text for text, _ in result.dead] == ["b"]


class Run:
    """One case: what dies, what goes on afterwards, and how it ends."""

    def __init__(
        self, case: Case, number: int, rabbitmq_url: str, control: ControlClient, api_url: str, home: Path
    ) -> None:
        self.case = case
        self._bot, self._token = f"crash{number}", f"{100_000 + number}:" + "K" * 35
        self._control = control
        self._home = home
        self._env = _env(self._bot, self._token, rabbitmq_url, api_url, home)
        self._settings = load_settings(
            _env_file=None, bots={self._bot: self._token}, rabbitmq_url=rabbitmq_url, partitions=1
        )
        self._with_store = load_settings(_env_file=None, state_url=self._env["FLOODGATE_STATE_URL"])

    def play(self) -> Result:
        """Kill it at the point, start another worker, and wait until all four jobs have ended."""
        _vouch_idle(self._bot, self._with_store)
        exit_code = self._die()
        if self.case.who == "producer":
            self._put_in()  # the next incarnation does not know what the first one did
        second = start_worker(self._env, self._home / "worker.log")
        try:
            result = Result(exit_code, list(TEXTS))
            return _await_end(result, self._settings, self._bot, self._token, self._control)
        finally:
            second.kill()
            second.join()

    def _die(self) -> int:
        hooks = Hooks(crash_at=self.case.point, crash_time=self.case.time)
        if self.case.who == "worker":
            self._put_in()
            first = start_worker(self._env, self._home / "worker.log", hooks)
        else:
            first = start(_produce, self._env, self._home / "producer.log", self._bot, hooks)
        first.join(END_SECONDS)
        if first.exitcode is None:
            first.kill()
            first.join()
            raise AssertionError(f"nobody died:\n{(self._home / f'{self.case.who}.log').read_text()}")
        return first.exitcode

    def _put_in(self) -> None:
        put_in(self._bot, self.case.asks, self._settings)


def _await_end(result: Result, settings: Settings, bot: str, token: str, control: ControlClient) -> Result:
    """Waits until all four jobs have ended and the queues are empty."""
    queues = [queue_names.send_queue(bot, "interactive", 0), queue_names.dead_queue(bot)]
    bot_id = int(token.partition(":")[0])
    with Connections(settings, "crash-point") as connections:

        def look() -> bool:
            result.acted = [str(a.params["text"]) for a in control.arrivals() if a.bot_id == bot_id and a.acted]
            seen = browse(connections, queues[1], 100)
            letters = [read_dead_letter(queues[1], s.message_id, s.headers, s.body) for s in seen]
            result.dead = [(letter.job.params["text"] if letter.job else "?", letter.reason) for letter in letters]
            ended = set(result.acted) | {text for text, _ in result.dead}
            return ended == set(TEXTS) and not queue_admin.depth(connections, queues[:1])[queues[0]]

        until(look, END_SECONDS)
        time.sleep(0.3)  # gives an unexpected third copy time to arrive
        look()
    return result


def put_in(bot: str, asks: bool, settings: Settings) -> None:
    with Client(settings, bot=bot) as client:
        for text, chat in TEXTS.items():
            client.send_message(
                chat_id=chat, text=text, on_uncertain="dead-letter" if asks else "resend", dedupe_key=text
            )


def _produce(bot: str, hooks: Hooks) -> None:
    hooks.put_on()
    put_in(bot, False, load_settings())


def _env(bot: str, token: str, rabbitmq_url: str, api_url: str, home: Path) -> dict[str, Any]:
    return {
        "FLOODGATE_BOTS": f'{{"{bot}": "{token}"}}',
        "FLOODGATE_RABBITMQ_URL": rabbitmq_url,
        "FLOODGATE_STATE_URL": f"sqlite:///{home}/state.db",
        "FLOODGATE_TELEGRAM_API_URL": api_url,
        "FLOODGATE_PARTITIONS": "1",
        "FLOODGATE_UPDATE_PARTITIONS": "1",
        "FLOODGATE_CALL_TIMEOUT_SECONDS": "1",
        "FLOODGATE_LEASE_MARGIN_SECONDS": "0.3",
        "FLOODGATE_SHUTDOWN_SECONDS": "3",
    }


@pytest.mark.parametrize(
    ("point", "result"), [("after settle", "sent"), ("after call", "perhaps"), ("before admit", "no")]
)
def test_a_job_that_expires_while_no_worker_runs_ends_with_its_known_outcome(
    point: str, result: str, vhost: Vhost, tmp_path: Path
) -> None:
    bot, token = "expiring", "777000:" + "E" * 35
    with running_fake() as fake:
        env = _env(bot, token, vhost.url, fake.url, tmp_path)
        settings = load_settings(_env_file=None, bots={bot: token}, rabbitmq_url=vhost.url, partitions=1)
        _vouch_idle(bot, load_settings(_env_file=None, state_url=env["FLOODGATE_STATE_URL"]))
        with Client(settings, bot=bot) as client:
            client.send_message(chat_id=ANN, text="soon or never", expires=EXPIRES_SECONDS)
        first = start_worker(env, tmp_path / "worker.log", Hooks(crash_at=point))
        first.join(END_SECONDS)
        time.sleep(EXPIRES_SECONDS)  # there is no event for the passing of this time
        second = start_worker(env, tmp_path / "worker.log")
        try:
            with Client(settings, bot=bot) as client:
                client.send_message(chat_id=CAROL, text="behind it")
            until(lambda: "behind it" in _acted(fake.control), END_SECONDS)
            with Connections(settings, "crash-point") as connections:
                letters = browse(connections, queue_names.dead_queue(bot), 10)
        finally:
            second.kill()
            second.join()
        acted = _acted(fake.control)
    assert acted.count("soon or never") == (0 if result == "no" else 1)
    described = [read_dead_letter("", s.message_id, s.headers, s.body) for s in letters]
    assert [letter.reason for letter in described] == ([] if result == "sent" else ["expired"])
    assert all(("may have been carried out" in letter.description) is (result == "perhaps") for letter in described)


def _acted(control: ControlClient) -> list[str]:
    return [str(arrival.params["text"]) for arrival in control.arrivals() if arrival.acted]


def _vouch_idle(bot: str, settings: Settings) -> None:
    """Makes the first job that asks be admitted."""
    with contextlib.closing(open_store(settings)) as store:
        store.vouch_idle(bot)
