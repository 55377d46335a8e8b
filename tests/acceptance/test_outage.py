"""An outage of Telegram during a broadcast, calls that kill their worker, and jobs that never reach their call."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from floodgate.broker.admission import policy
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.server import FakeTelegramThread
from rabbitmq_node.engine import free_ports
from tests.acceptance.conftest import MakeStage
from tests.acceptance.stage import BOT, Stage
from tests.chaos.hooks import Hooks, run_worker, start
from tests.proxy import Proxy
from tests.services import RedisServer, Vhost
from tests.waiting import until

CHATS: Final = 40
PARTS: Final = 3
PARTITIONS: Final = 4
JOBS: Final = CHATS * PARTS
NAME: Final = "api.telegram.test"
FIRST_CHAT: Final = 1_000
LASTS: Final = timedelta(seconds=5)
CALL_SECONDS: Final = 1.0
# For a call of this file: its timeout plus a second.
LEASE_SECONDS: Final = 2.0

Texts = list[str]


@dataclass
class BotApi:
    """A fake Telegram at a fixed address that can be out of service in four ways."""

    home: Path
    port: int = field(default_factory=lambda: free_ports().amqp)
    _before: Texts = field(default_factory=list)  # calls that took effect before a restart, which clears the record
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self.fake = FakeTelegramThread(port=self.port)
        self.fake.start()
        self._open.callback(self.fake.stop)
        self.proxy = self._open.enter_context(Proxy(self.port))

    @property
    def no_names(self) -> Path:
        """While this file exists, :data:`NAME` does not resolve."""
        return self.home / "no-names"

    def acted(self) -> Texts:
        """Texts in order of arrival."""
        return self._before + [str(call.params["text"]) for call in self.fake.control.arrivals() if call.acted]

    def fail(self) -> None:
        self.fake.control.set_server(faults=[{"kind": "error", "code": 502}])

    def work(self) -> None:
        self.fake.control.set_server(faults=[])

    def go(self) -> None:
        self._before = self.acted()
        self.fake.stop()

    def come_back(self) -> None:
        self.fake.start()

    def fall_silent(self) -> None:
        self.proxy.stall()

    def speak(self) -> None:
        """Stalled calls are never delivered: their callers have given up."""
        self.proxy.cut()
        self.proxy.flow()

    def lose_name(self) -> None:
        self.no_names.touch()

    def find_name(self) -> None:
        self.no_names.unlink()

    def close(self) -> None:
        self._open.close()


@dataclass(frozen=True)
class Kind:
    """A kind of outage. ``sent_before``: how much is sent before; a name is only resolved at the start."""

    name: str
    begin: Callable[[BotApi], None]
    end: Callable[[BotApi], None]
    url: Callable[[BotApi], str] = lambda api: api.fake.url
    sent_before: int = CHATS


KINDS = (
    Kind("502", BotApi.fail, BotApi.work),
    Kind("refused", BotApi.go, BotApi.come_back),
    Kind("no-answer", BotApi.fall_silent, BotApi.speak, lambda api: f"http://127.0.0.1:{api.proxy.port}"),
    Kind("no-name", BotApi.lose_name, BotApi.find_name, lambda api: f"http://{NAME}:{api.port}", sent_before=0),
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[BotApi]:
    api = BotApi(tmp_path)
    yield api
    api.close()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a ``floodgate worker`` that logs its calls in a notebook; it ends with the test."""
    workers: list[Any] = []

    def started(stage: Stage, target: Callable[..., None], *arguments: Any) -> Any:
        log = tmp_path / f"worker-{len(workers)}.log"
        workers.append(start(target, stage.env, log, *arguments))
        until(lambda: log.exists() and "worker ready" in log.read_text(), 30)
        return workers[-1]

    yield started
    for worker in workers:
        worker.kill()
        worker.join()


def run_worker_with_names(hooks: Hooks, no_names: Path) -> None:
    """A worker for which :data:`NAME` is this machine and resolves only while the file does not exist."""
    look_up = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        if host == NAME and no_names.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up("127.0.0.1" if host == NAME else host, *rest, **options)

    socket.getaddrinfo = resolve
    run_worker(hooks)


@pytest.mark.parametrize(
    "kind", [*KINDS[:-1], pytest.param(KINDS[-1], marks=pytest.mark.full_length)], ids=lambda kind: kind.name
)
def test_an_outage_during_a_broadcast_costs_no_job_and_few_calls(
    kind: Kind, api: BotApi, new_stage: MakeStage, vhost: Vhost, start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    stage = new_stage(vhost.url, telegram_url=kind.url(api), partitions=PARTITIONS, extra=short_calls())
    texts = broadcast(stage)
    notebook = tmp_path / "notebook"
    if not kind.sent_before:
        kind.begin(api)
    start_worker(stage, run_worker_with_names, Hooks(notebook=notebook), api.no_names)
    if kind.sent_before:
        until(lambda: len(api.acted()) >= kind.sent_before)
        kind.begin(api)

    before = len(calls(notebook))
    until(lambda: outage_of(stage) is not None, 10)
    assert_status_tells(stage)
    lasted = until(lambda: outage if (outage := outage_of(stage)) and outage >= LASTS else None)
    made = calls(notebook)[before:]
    kind.end(api)

    until(lambda: set(api.acted()) == set(texts), 20)
    assert len(made) <= most_calls(lasted), made
    assert outage_of(stage) is None, "the first answer ended it"
    assert_each_chat_in_order(api.acted())
    assert len(api.acted()) == JOBS, "none of these outages hides a call that acted"
    assert dead_letters(stage) == {}
    told = api.fake.control.summary()
    assert (told.answers_429, told.bot_in_1s <= 30) == (0, True), "sends go on at the even rate"


def test_failures_in_one_chat_do_not_begin_an_outage(stage: Stage) -> None:
    """No other chat is sent to meanwhile, so no answer in between shows that Telegram is available."""
    stage.control.set_server(faults=[{"kind": "error", "code": 502, "chats": [1]}])
    stage.worker(FLOODGATE_MAX_ATTEMPTS="4")
    client = stage.client()
    client.send_message(chat_id=1, text="fails")
    until(lambda: dead_letters(stage) == {"exhausted": 1}, 20)
    assert [call.chat_id for call in stage.control.arrivals()] == [1] * 4
    assert json.loads(stage.floodgate("status", "--json").stdout)[0]["outage_seconds"] is None
    client.send_message(chat_id=2, text="another chat")
    until(lambda: stage.sent() == ["another chat"], 1)


def test_a_call_that_repeatedly_kills_its_worker_is_exhausted(new_stage: MakeStage, vhost: Vhost) -> None:
    """The Bot API never answers, and each worker is killed while it waits. A fourth call would be answered."""
    stage = new_stage(vhost.url, extra=short_calls() | {"FLOODGATE_MAX_ATTEMPTS": "3"})
    stage.control.set_server(faults=[{"kind": "stall", "times": 3}])
    client = stage.client()
    client.send_message(chat_id=1, text="kills")
    client.send_message(chat_id=1, text="behind it")
    for killed in range(3):
        worker = stage.worker()
        until(lambda: len(stage.control.arrivals()) > killed)  # noqa: B023  # called at once
        worker.signal(signal.SIGKILL)
        worker.wait()
    stage.worker()
    until(lambda: "behind it" in stage.sent(), 20)
    assert stage.sent() == ["kills", "kills", "kills", "behind it"]
    [letter] = json.loads(stage.floodgate("dead-letters", "list", "--json").stdout)
    assert (letter["reason"], letter["description"]) == (
        "exhausted",
        "3 workers ended during a call for it; Telegram may have sent it",
    )


def run_worker_that_fails_before_the_call(hooks: Hooks) -> None:
    """A worker with a bug: a job with the text `broken` raises when its call is made."""
    from floodgate.actors.sessions import BotSessions

    call = BotSessions.call

    async def failing(self: BotSessions, bot: str, method: str, params: dict[str, Any], timeout: Any) -> Any:
        if params["text"] == "broken":
            raise ValueError("a bug")
        return await call(self, bot, method, params, timeout)

    BotSessions.call = failing  # type: ignore[method-assign]
    run_worker(hooks)


def test_a_job_that_always_fails_before_its_call_is_exhausted(
    new_stage: MakeStage, vhost: Vhost, start_worker: Callable[..., Any]
) -> None:
    stage = new_stage(vhost.url, extra=short_calls() | {"FLOODGATE_MAX_ATTEMPTS": "2"})
    client = stage.client()
    client.send_message(chat_id=1, text="broken")
    client.send_message(chat_id=1, text="behind it")
    start_worker(stage, run_worker_that_fails_before_the_call, Hooks())
    until(lambda: stage.sent() == ["behind it"], 20)
    assert dead_letters(stage) == {"exhausted": 1}


def test_a_full_state_store_stops_sending_and_loses_no_job(
    new_stage: MakeStage, vhost: Vhost, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis("--maxmemory-policy", "noeviction").start()
    stage = new_stage(vhost.url, partitions=PARTITIONS, extra={"FLOODGATE_STATE_URL": server.url})
    admin = redis.Redis.from_url(server.url)
    texts = broadcast(stage)
    worker = stage.worker()
    until(lambda: len(stage.sent()) >= CHATS)
    admin.config_set("maxmemory", 1)
    full_at = stage.control.stats().acted
    until(lambda: "has no memory left. Raise its maxmemory; sends then resume by themselves" in worker.log)
    assert dead_letters(stage) == {}, "and asking takes a second, in which a bot sends 29"
    assert stage.control.stats().acted - full_at <= 2 * PARTITIONS, "a call for each job in hand, and the next one's"
    admin.config_set("maxmemory", 0)
    until(lambda: len(stage.sent()) >= JOBS, 20)
    assert_each_chat_in_order(stage.sent())
    assert sorted(stage.sent()) == sorted(texts), "each once: calls under way were recorded when there was room"
    assert dead_letters(stage) == {}


def short_calls() -> dict[str, str]:
    margin = LEASE_SECONDS - CALL_SECONDS
    return {
        "FLOODGATE_CALL_TIMEOUT_SECONDS": str(CALL_SECONDS),
        "FLOODGATE_LEASE_MARGIN_SECONDS": str(margin),
        "FLOODGATE_SHUTDOWN_SECONDS": "5",
    }


def broadcast(stage: Stage) -> Texts:
    """Enqueues the first parts of all chats, then the second ones, and so on."""
    client = stage.client()
    parts = [(FIRST_CHAT + chat, f"{FIRST_CHAT + chat} {part}") for part in range(PARTS) for chat in range(CHATS)]
    client.enqueue_many(client.job("sendMessage", chat_id=chat, text=text, priority="bulk") for chat, text in parts)
    return [text for _, text in parts]


def calls(notebook: Path) -> list[str]:
    """Counts the calls that the worker began, from its own notebook: refused calls are recorded nowhere else."""
    return [line for line in notebook.read_text().splitlines() if line.startswith("call ")] if notebook.exists() else []


def most_calls(lasted: timedelta) -> int:
    """Two calls per partition, and the probes.

    An outage is noticed when calls in three chats have failed. Each partition has one call in flight and may begin
    one more before the third failure is recorded. After that, only the probes due within this time are sent.
    """
    probes, at_us = 0, policy.probe_interval(0)
    while at_us <= lasted / timedelta(microseconds=1):
        probes += 1
        at_us += policy.probe_interval(probes)
    return 2 * PARTITIONS + probes


def outage_of(stage: Stage) -> timedelta | None:
    with contextlib.closing(open_store(stage.settings)) as store:
        return store.snapshot(BOT).outage


def assert_status_tells(stage: Stage) -> None:
    [told] = json.loads(stage.floodgate("status", "--json").stdout)
    assert 0 <= told["outage_seconds"] <= LASTS.total_seconds() + 5
    [line] = [line for line in stage.floodgate("status").stdout.splitlines() if "Telegram does not answer" in line]
    assert " s; calls are made one at a time until one is answered" in line


def assert_each_chat_in_order(texts: Texts) -> None:
    for chat in range(FIRST_CHAT, FIRST_CHAT + CHATS):
        mine = [text for text in texts if text.startswith(f"{chat} ")]
        assert mine == sorted(mine)


def dead_letters(stage: Stage) -> dict[str, int]:
    """Counts dead letters by reason."""
    counts: dict[str, int] = json.loads(stage.floodgate("dead-letters", "list", "--counts", "--json").stdout)
    return counts
