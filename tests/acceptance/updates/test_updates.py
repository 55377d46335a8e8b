"""Three handler workers and two receivers, polling and webhook: each update is handled once, in order per chat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeStage
from tests.acceptance.stage import TOKEN
from tests.acceptance.updates.checks import answered, assert_answers_in_order, assert_within_limits, counts, said_by
from tests.acceptance.updates.journal import disorder, overlaps, read_journal, repeated
from tests.acceptance.updates.staff import Mode, Staff
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

BOT_ID = int(TOKEN.partition(":")[0])
CLERK = "tests.acceptance.updates.clerk:application"
PARTITIONS = 16


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FloodgateProcess]:
    """Runs in its own process: arrivals are judged to a few milliseconds."""
    with FloodgateProcess("fake-telegram", "--port", "0", env={}, home=tmp_path, name="fake") as process:
        yield process.start("http://")


@pytest.mark.parametrize("mode", ["polling", "webhook"])
@pytest.mark.parametrize(
    ("users", "each"),
    [(60, 5), pytest.param(500, 10, marks=[pytest.mark.full_length, pytest.mark.timeout(420)])],
)
def test_each_update_is_handled_once_and_in_order_across_all_workers(
    new_stage: MakeStage, vhost: Vhost, fake: FloodgateProcess, tmp_path: Path, mode: Mode, users: int, each: int
) -> None:
    """Also: the data handlers keep about a chat is never lost to another handler, and answers respect the limits."""
    clerk_home = tmp_path / "clerk"
    clerk_home.mkdir()
    extra = {
        "FLOODGATE_UPDATE_PARTITIONS": str(PARTITIONS),
        # The fake judges arrivals to the millisecond, and this machine runs eight processes: some are late by 100 ms.
        "FLOODGATE_LIMITS__BOT_PER_SECOND": "27",
        "CLERK_HOME": str(clerk_home),
    }
    stage = new_stage(vhost.url, telegram_url=fake.said("http://").split()[-1], partitions=8, extra=extra)
    said = said_by(users, each)
    with Staff(stage, CLERK, mode) as staff:
        staff.hire(receivers=2, handlers=3)
        staff.active()
        stage.control.inject_crowd(BOT_ID, users=users, per_user=each, text="{user}:{n}")
        until(lambda: len(answered(stage)) >= len(said), 20 + len(said) / 20)

    runs = read_journal(clerk_home / "journal")
    assert Counter(run.text for run in runs) == Counter(said)
    assert repeated(runs) == set()
    assert disorder([run.text for run in runs]) == []
    assert overlaps(runs) == []
    assert counts(clerk_home) == {each: users}
    assert len({run.pid for run in runs}) > 1, "one worker did it all"
    assert Counter(answered(stage)) == Counter(said)
    assert_answers_in_order(stage)
    assert_within_limits(stage)
