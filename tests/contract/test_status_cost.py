"""The queries of operators and gateways cost the store the same for any number of chats and waiting jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission.policy import policy_of
from floodgate.broker.messages.job import Priority
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.state.sqlite.status import snapshot, waiting
from floodgate.broker.state.sqlite.unit_of_work import SqliteUnitOfWork
from tests.admission_bench import HandClock, ask_of, settings_of

POLICY = policy_of(settings_of())
MANY = 400


def steps(path: Path, look: Callable[[SqliteUnitOfWork], object], clock: HandClock) -> int:
    """Counts SQLite's instructions for a query."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    db = sqlite3.connect(path, isolation_level=None)
    try:
        work = SqliteUnitOfWork(db, "default", POLICY, clock)
        db.set_progress_handler(count, 1)
        look(work)
    finally:
        db.close()
    return taken


@pytest.mark.parametrize("look", [snapshot, waiting])
def test_reading_the_status_costs_the_same_with_any_number_of_waiting_jobs(
    look: Callable[[SqliteUnitOfWork], object], tmp_path: Path, clock: HandClock
) -> None:
    path = tmp_path / "state.db"
    store = SqliteAdmission(path, POLICY, clock)
    store.pause("default", None, timedelta(hours=1), "test")
    costs = []
    for chats in (range(1, 11), range(11, MANY)):
        for chat in chats:
            store.admit(ask_of(chat))
        costs.append(steps(path, look, clock))
    assert store.waiting("default") == {Priority.INTERACTIVE: 0, Priority.BULK: MANY - 1}
    assert costs[1] <= 1.1 * costs[0], costs
    store.close()
