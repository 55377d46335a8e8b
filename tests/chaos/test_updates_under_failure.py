"""Updates while receiver, handler worker and RabbitMQ are killed: none lost, in order, repetitions explained.

A repetition is explained by a kill that caused it: the first run was a killed worker's and did not finish, or it was
in progress when RabbitMQ was killed. Runs that ended before are in the ledger and are not repeated.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from floodgate.fake_telegram.server import running_fake
from rabbitmq_node.node import Node
from tests.acceptance.stage import TOKEN, Stage
from tests.acceptance.updates.checks import answered, assert_within_limits, said_by
from tests.acceptance.updates.journal import Handling, completed, disorder, overlaps, read_journal, repeated
from tests.acceptance.updates.staff import Mode, Staff
from tests.waiting import until

BOT_ID = int(TOKEN.partition(":")[0])
CLERK = "tests.acceptance.updates.clerk:application"
# A run that ended shortly before RabbitMQ was killed may be unacknowledged. Its mark may be missing, too.
ENDING_SECONDS = 0.5
FIRST_USER = 1_000


@dataclass
class Kills:
    """What was killed and when. Times are monotonic seconds."""

    workers: set[int] = field(default_factory=set)
    rabbitmq: list[tuple[float, float]] = field(default_factory=list)
    """From the kill to the moment it was back."""

    def explain(self, run: Handling) -> bool:
        """Returns whether a kill explains why this run was not the last of its update."""
        if run.pid in self.workers and run.ended is None:
            return True
        return any(
            run.began <= back and (run.ended is None or run.ended >= gone - ENDING_SECONDS)
            for gone, back in self.rabbitmq
        )


@dataclass
class Scene:
    """A node, a bot with its staff, and the faults for them."""

    node: Node
    stage: Stage
    clerk_home: Path
    kills: Kills = field(default_factory=Kills)

    def runs(self) -> list[Handling]:
        return read_journal(self.clerk_home / "journal")

    def kill_receiver(self, staff: Staff) -> None:
        """Kills the active receiver; a new one stands by in its place."""
        victim = staff.active()
        victim.kill()
        staff.receivers.remove(victim)
        staff.hire(receivers=1, handlers=0)

    def kill_handler(self, staff: Staff) -> None:
        """Kills a handler worker with an update in hand; a new one takes its place."""
        pid = until(self._busy_pid)
        victim = next(one for one in staff.handlers if one.pid == pid)
        victim.kill()
        self.kills.workers.add(pid)
        staff.handlers.remove(victim)
        staff.hire(receivers=0, handlers=1)

    def kill_rabbitmq(self, staff: Staff) -> None:
        """Kills RabbitMQ while an update is in hand and starts it again."""
        until(self._busy_pid)
        gone = time.monotonic()
        self.node.kill()
        self.node.start()
        self.kills.rabbitmq.append((gone, time.monotonic()))

    def _busy_pid(self) -> int | None:
        busy = [run.pid for run in self.runs() if run.ended is None and run.pid not in self.kills.workers]
        return busy[-1] if busy else None


@pytest.fixture
def scene(new_node: Callable[..., Node], tmp_path: Path) -> Iterator[Scene]:
    node, clerk_home = new_node().start(), tmp_path / "clerk"
    clerk_home.mkdir()
    extra = {
        "FLOODGATE_UPDATE_PARTITIONS": "16",
        "FLOODGATE_HEARTBEAT_SECONDS": "3",
        # The fake judges arrivals to the millisecond, and a machine that starts RabbitMQ may be late by 300 ms.
        "FLOODGATE_LIMITS__BOT_PER_SECOND": "20",
        "CLERK_HOME": str(clerk_home),
    }
    with running_fake() as fake:
        stage = Stage(node.url, fake.url, tmp_path, partitions=8, extra=extra)
        stage.vouch_idle()
        yield Scene(node, stage, clerk_home)
        stage.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["polling", "webhook"])
@pytest.mark.parametrize(("users", "each"), [(40, 8), pytest.param(500, 10, marks=pytest.mark.full_length)])
def test_no_update_is_lost_and_every_repetition_is_explained_by_a_kill(
    scene: Scene, mode: Mode, users: int, each: int
) -> None:
    blows = {each // 4: scene.kill_receiver, each // 2: scene.kill_handler, each * 3 // 4: scene.kill_rabbitmq}
    control, said = scene.stage.control, said_by(users, each, FIRST_USER)
    with Staff(scene.stage, CLERK, mode) as staff:
        staff.hire(receivers=2, handlers=3)
        for n in range(1, each + 1):
            texts = [{"user": user, "text": f"{user}:{n}"} for user in range(FIRST_USER, FIRST_USER + users)]
            control.inject_updates(BOT_ID, texts)
            if n in blows:
                blows[n](staff)
            until(lambda through=(n - 1) * users: len(completed(scene.runs())) >= through, 60 + users / 10)
        until(lambda: said == completed(scene.runs()) == set(answered(scene.stage)), 60 + users / 10)

    assert unexplained(scene.runs(), scene.kills) == []
    assert [pair for pair in overlaps(scene.runs()) if not scene.kills.explain(pair[0])] == []
    assert disorder([run.text for run in scene.runs()]) == []
    assert disorder(answered(scene.stage)) == []
    assert_within_limits(scene.stage)
    assert_answers_repeated_for_cause(scene)


def unexplained(runs: list[Handling], kills: Kills) -> list[Handling]:
    """Runs that were repeated without a known reason."""
    by_text: defaultdict[str, list[Handling]] = defaultdict(list)
    for run in runs:
        by_text[run.text].append(run)
    superseded = [run for same in by_text.values() for run in same[:-1]]
    print(f"{len(runs)} runs of {len(by_text)} updates; repeated: {sorted(run.text for run in superseded)}")
    return [run for run in superseded if not kills.explain(run)]


def assert_answers_repeated_for_cause(scene: Scene) -> None:
    """Checks that an answer was repeated only if its update was, or if RabbitMQ was killed while it was in flight."""
    twice = {text for text, times in Counter(answered(scene.stage)).items() if times > 1}
    now, wall = time.monotonic(), time.time()
    outages = [(gone - now + wall, back - now + wall) for gone, back in scene.kills.rabbitmq]
    under_way = {
        str(call.params.get("text")).removeprefix("re ")
        for call in scene.stage.control.arrivals()
        if any(gone - 2 <= call.wall <= back + 2 for gone, back in outages)
    }
    print(f"answered more than once: {sorted(twice)}; runs of a chat side by side: {len(overlaps(scene.runs()))}")
    assert twice <= repeated(scene.runs()) | under_way
