"""Handler workers that end with a full window of updates, by SIGKILL and by SIGTERM: another one continues.

One partition, so that RabbitMQ has one window to return; more updates than a window holds, so that some
are behind it; several chats, so that lanes end in a different order from the queue.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from floodgate.broker.messages import queue_names
from floodgate.broker.state.stores import open_sessions
from floodgate.fake_telegram.server import running_fake
from tests.acceptance.server import rows
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.acceptance.updates.journal import Handling, completed, disorder, overlaps, read_journal, repeated
from tests.acceptance.updates.post import Post
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

WINDOW = 32
HELD_FROM = 3  # of each chat, so that much has been settled before the window is full
CHATS = range(1_001, 1_009)
EACH = 12  # 96 updates: three windows
SHUTDOWN_SECONDS = 6.0
# In addition to updates that have begun: the Application writes its persistence, connections close, Python ends.
ENDING_SECONDS = 5.0
SAID = {f"{chat}:{n}" for chat in CHATS for n in range(1, EACH + 1)}


@dataclass
class Room:
    """Two handler workers and their controls."""

    stage: Stage
    vhost: Vhost
    home: Path
    post: Post
    workers: list[FloodgateProcess]

    @property
    def hold(self) -> Path:
        """While this file exists, handlers do not return."""
        return self.home / "hold"

    def runs(self) -> list[Handling]:
        return read_journal(self.home / "journal")

    def say_all(self) -> None:
        """All chats' first messages, then all second ones, and so on."""
        for n in range(1, EACH + 1):
            for chat in CHATS:
                self.post.says(chat, f"{chat}:{n}")

    def await_full_window(self) -> None:
        """Waits until one update of each chat is being handled and the window behind them is full."""
        until(lambda: sum(run.ended is None for run in self.runs()) == len(CHATS), 30)
        until(lambda: self._in_hand() == WINDOW, 30)

    def _in_hand(self) -> int:
        queues = rows(self.vhost, "list_queues", "name", "messages_unacknowledged")
        name = queue_names.updates_queue(BOT, 0)
        return next(int(row["messages_unacknowledged"]) for row in queues if row["name"] == name)

    def active(self) -> FloodgateProcess:
        """The worker that has the window."""
        pid = until(self.runs)[-1].pid
        return next(worker for worker in self.workers if worker.pid == pid)

    def heard(self, chat: int) -> list[int]:
        """The contents of the chat's data."""
        with contextlib.closing(open_sessions(self.stage.settings)) as sessions:
            text = sessions.read(TOKEN.partition(":")[0], "chat_data", str(chat))
        return list(json.loads(text)["heard"]) if text else []


@pytest.fixture
def room(vhost: Vhost, tmp_path: Path) -> Iterator[Room]:
    home = tmp_path / "listener"
    home.mkdir()
    extra = {
        "FLOODGATE_UPDATE_PARTITIONS": "1",
        "FLOODGATE_UPDATES__WINDOW": str(WINDOW),
        "FLOODGATE_SHUTDOWN_SECONDS": str(SHUTDOWN_SECONDS),
        "FLOODGATE_CALL_TIMEOUT_SECONDS": "1",
        "LISTENER_HOME": str(home),
        "LISTENER_HELD_FROM": str(HELD_FROM),
    }
    with contextlib.ExitStack() as stack:
        stage = Stage(vhost.url, stack.enter_context(running_fake()).url, tmp_path, extra=extra)
        post = stack.enter_context(contextlib.closing(Post(stage.settings.model_copy(update={"update_partitions": 1}))))
        workers = [
            FloodgateProcess(
                *("worker", "--updates", "tests.chaos.listener:application"),
                env=stage.env,
                home=stage.home,
                name=f"handler-{n}",
            )
            for n in (1, 2)
        ]
        for worker in workers:
            stack.enter_context(worker).start("worker ready")
        yield Room(stage, vhost, home, post, workers)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["all-at-work", "between-two"])
def test_another_worker_handles_a_killed_workers_window_and_keeps_each_chats_order_and_data(
    room: Room, moment: str
) -> None:
    """Moments of the kill: a handler of each chat is running; one ends every few milliseconds."""
    room.hold.touch()
    room.say_all()
    room.await_full_window()
    victim = room.active()
    if moment == "between-two":
        room.hold.unlink()
        until(lambda: len(completed(room.runs())) >= len(SAID) // 2)
    victim.kill()
    room.hold.unlink(missing_ok=True)
    until(lambda: completed(room.runs()) == SAID, 60)
    until(lambda: all(set(room.heard(chat)) == set(range(1, EACH + 1)) for chat in CHATS))

    runs = room.runs()
    last_of_victim = {run.chat: run for run in runs if run.pid == victim.pid}
    assert disorder([run.text for run in runs]) == []
    assert {run.pid for run in runs} == {worker.pid for worker in room.workers}, "both had a share"
    assert repeated(runs) <= {run.text for run in last_of_victim.values()}, "only what was begun and not yet noted"
    assert [pair for pair in overlaps(runs) if pair[0].pid != victim.pid] == []
    for chat in CHATS:
        assert_no_update_lost(room.heard(chat), last_of_victim[chat].n)


def assert_no_update_lost(heard: list[int], repeatable: int) -> None:
    """Checks that each number is in the chat's data, in order, once; twice is allowed for a killed run's."""
    again = [number for number, following in pairwise(heard) if number == following]
    assert again in ([], [repeatable])
    assert list(dict.fromkeys(heard)) == list(range(1, EACH + 1))


@pytest.mark.timeout(180)
def test_a_stopped_worker_finishes_begun_updates_and_the_rest_of_its_window_is_handled_once_in_order(
    room: Room,
) -> None:
    room.hold.touch()
    room.say_all()
    room.await_full_window()
    stopped = room.active()
    asked = time.monotonic()
    stopped.signal()
    until(lambda: "stopping" in stopped.log)
    assert len(room.runs()) == HELD_FROM * len(CHATS), "nothing begins while the window is held"
    room.hold.unlink()
    assert stopped.wait(30) == 0
    assert time.monotonic() - asked <= SHUTDOWN_SECONDS + ENDING_SECONDS
    until(lambda: completed(room.runs()) == SAID, 60)
    until(lambda: all(len(room.heard(chat)) == EACH for chat in CHATS))

    runs = room.runs()
    assert [run.n for run in runs if run.pid == stopped.pid and run.ended is None] == []
    assert max(run.n for run in runs if run.pid == stopped.pid) == HELD_FROM, "what had not begun went back"
    assert repeated(runs) == set()
    assert disorder([run.text for run in runs]) == []
    assert overlaps(runs) == []
    for chat in CHATS:
        assert room.heard(chat) == list(range(1, EACH + 1))
