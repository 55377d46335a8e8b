"""The contract of the SQLite store: file failures, forks, many processes, deleting old rows."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import AlreadySent, Go, Sent, Standing, Wait
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.errors import StateSchemaError, StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.sqlite import file as store_module
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.state.sqlite.file import filesystem_of
from floodgate.broker.state.sqlite.sessions import SqliteSessions
from tests.admission_bench import HandClock, ask_of, settings_of

RULES = policy_of(settings_of())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(path: Path, clock: HandClock) -> Iterator[SqliteAdmission]:
    opened = SqliteAdmission(path, RULES, clock)
    opened.vouch_idle("default")
    yield opened
    opened.close()


def count(path: Path, table: str) -> int:
    with sqlite3.connect(path) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_nothing_is_opened_before_the_first_call(path: Path) -> None:
    SqliteAdmission(path, RULES).close()
    assert not path.parent.exists()


def test_only_the_owner_can_read_the_file(store: SqliteAdmission, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


READS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print([text for (text,) in db.execute("SELECT text FROM sessions ORDER BY text")])
db.close()
"""


def test_a_short_lived_process_loses_no_writes_of_a_process_with_two_connections(path: Path) -> None:
    """SQLite deletes the log of a file that no other process has locked, and with it the later writes of others."""

    def look_in() -> str:
        return subprocess.check_output([sys.executable, "-c", READS, str(path)], text=True).strip()

    first, second = SqliteSessions(path), SqliteSessions(path)
    first.write("b", "chat_data", "1", "one")
    second.write("b", "chat_data", "2", "two")
    assert look_in() == "['one', 'two']"
    first.write("b", "chat_data", "3", "written after it went")
    assert look_in() == "['one', 'two', 'written after it went']"
    first.close()
    second.close()


def test_sent_jobs_survive_a_restart(store: SqliteAdmission, path: Path, clock: HandClock) -> None:
    ask = ask_of(5)
    store.admit(ask)
    store.settle(ask, Sent({"message_id": 1}))
    store.close()
    assert SqliteAdmission(path, RULES, clock).admit(ask) == AlreadySent({"message_id": 1})


def test_a_path_that_cannot_be_created_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteAdmission(tmp_path / "file" / "state.db", RULES)
    with pytest.raises(StateUnavailableError, match=r"state\.db cannot be opened: [A-Z][a-z ]+\. Make it"):
        store.admit(ask_of(5))


def test_an_unwritable_file_is_reported_in_one_sentence(path: Path, store: SqliteAdmission) -> None:
    assert store._file._connection is not None
    store._file._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StateUnavailableError, match=r"cannot be written\. Make it"):
        store.admit(ask_of(5))
    assert isinstance(store.admit(ask_of(5)), Go), "the next call opens the file anew"


def test_a_full_disk_is_reported_in_one_sentence_and_sending_resumes_when_there_is_room(store: SqliteAdmission) -> None:
    assert store._file._connection is not None
    (pages,) = store._file._connection.execute("PRAGMA page_count").fetchone()
    store._file._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateUnavailableError, match="the disk is full"):
        for chat in range(1, 2000):
            store.admit(ask_of(chat))
    assert isinstance(store.admit(ask_of(-5)), Wait | Go)


def test_a_damaged_file_is_reported_in_one_sentence(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(StateUnavailableError, match="damaged or no SQLite file"):
        SqliteAdmission(path, RULES).admit(ask_of(5))


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "CREATE TABLE other (a)"])
def test_a_file_that_is_not_a_state_file_is_refused(path: Path, statement: str) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute(statement)
    with pytest.raises(StateSchemaError, match="move the file away"):
        SqliteAdmission(path, RULES).admit(ask_of(5))


def test_a_locked_file_is_reported_in_one_sentence_and_sending_resumes_when_it_is_unlocked(
    store: SqliteAdmission, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateUnavailableError, match="locked"):
        store.admit(ask_of(5))
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(store.admit(ask_of(5)), Go)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "filesystem_of", lambda path: "nfs4")
    with pytest.raises(StateUnavailableError, match=r"network file system \(nfs4\)"):
        SqliteAdmission(tmp_path / "state.db", RULES).admit(ask_of(5))


def test_the_file_system_is_determined_by_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nserver:/x /mnt/with\\040space nfs4 rw 0 0\n/dev/b /mnt xfs rw 0 0\n")
    assert filesystem_of(Path("/mnt/with space/state.db"), mounts) == "nfs4"
    assert filesystem_of(Path("/mnt/state.db"), mounts) == "xfs"
    assert filesystem_of(Path("/mntx/state.db"), mounts) == "ext4"
    assert filesystem_of(Path("/x"), tmp_path / "none") == ""


def test_a_deleted_file_is_noticed_and_its_replacement_starts_cautiously(store: SqliteAdmission, path: Path) -> None:
    assert isinstance(store.admit(ask_of(5)), Go)
    for file in path.parent.iterdir():
        file.unlink()
    assert isinstance(store.admit(ask_of(6)), Wait)
    assert path.exists()


def test_a_forked_child_opens_its_own_connection_to_the_file(store: SqliteAdmission) -> None:
    assert isinstance(store.admit(ask_of(5)), Go)
    ask = ask_of(6)
    child = os.fork()
    if not child:
        os._exit(0 if isinstance(store.admit(ask), Go) else 1)
    assert os.waitpid(child, 0)[1] == 0
    found = store.lookup("default", ask.job_id)
    assert found is not None
    assert found.standing is Standing.SENDING


def test_threads_share_one_budget(store: SqliteAdmission) -> None:
    goes: list[Go] = []

    def ask_for_some(first: int) -> None:
        decisions = [store.admit(ask_of(chat)) for chat in range(first, first + 10)]
        goes.extend(decision for decision in decisions if isinstance(decision, Go))

    threads = [threading.Thread(target=ask_for_some, args=(number * 100 + 1,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(goes) == 5


HAMMER = """
import sys, time
from pathlib import Path
from floodgate.broker.admission.contract import Go, Sent
from floodgate.broker.state.stores import open_store
from floodgate.broker.settings.model import Settings
from tests.admission_bench import ask_of

number, seconds = int(sys.argv[1]), float(sys.argv[2])
store = open_store(Settings(_env_file=None))
end = time.monotonic() + seconds
chat = 1000 * number
while time.monotonic() < end:
    ask = ask_of(chat, job_id=f"{number}-{chat}")
    decision = store.admit(ask)
    if isinstance(decision, Go):
        store.settle(ask, Sent(True), decision.grant)
        print(decision.grant)
        chat += 1
    else:
        time.sleep(decision.delay.total_seconds())
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_processes_share_one_budget_and_use_all_of_it(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/state.db" if kind == "sqlite" else request.getfixturevalue("redis_url")
    environment = os.environ | {"FLOODGATE_STATE_URL": url, "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(number), "4"], env=environment, stdout=subprocess.PIPE, text=True
        )
        for number in (1, 2, 3)
    ]
    outputs = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    grants = sorted(int(line) for output in outputs for line in output)
    assert all(outputs), "each had a share"
    assert all(later - earlier >= 1_000_000 for earlier, later in zip(grants, grants[30:], strict=False))
    assert len(grants) >= 60


def test_the_ledger_deletes_old_rows_and_the_file_stays_small(path: Path, clock: HandClock) -> None:
    rules = policy_of(
        Settings(_env_file=None, ledger_seconds=3600, limits={"enabled": False})  # type: ignore[call-arg, arg-type]
    )
    store = SqliteAdmission(path, rules, clock)
    ghost = ask_of(-77)
    blocker = ask_of(-77)
    store.admit(blocker)
    store.admit(ghost)
    store.settle(blocker, Sent(True))
    for _ in range(6):
        for chat in range(1, 501):
            ask = ask_of(chat)
            decision = store.admit(ask)
            assert isinstance(decision, Go)
            store.settle(ask, Sent(True), decision.grant)
        clock.advance(timedelta(hours=1))
    assert count(path, "jobs") <= 1100
    clock.advance(timedelta(hours=3))
    for chat in range(10_000, 11_500):
        ask = ask_of(chat)
        store.admit(ask)
        store.settle(ask, Sent(True))
        clock.advance(1)
    assert store.lookup("default", ghost.job_id) is None
    assert store.snapshot("default").longest_lines == ()
    assert count(path, "chats") <= 1500
    store.close()
