"""Programs that open a new SQLite file at the same time."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from floodgate.broker.state.sqlite.file import enter_wal_mode

PROGRAMS = 4
ROUNDS = 40


def test_a_new_file_can_be_opened_by_several_programs_at_once(tmp_path: Path) -> None:
    """Without a retry, SQLite reports the file as locked in one of seventy rounds."""
    failures = list[sqlite3.Error]()

    def open_new(path: Path, together: threading.Barrier) -> None:
        together.wait()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            try:
                enter_wal_mode(connection)
                connection.execute("CREATE TABLE IF NOT EXISTS numbers (number)")
            except sqlite3.Error as error:
                failures.append(error)

    for number in range(ROUNDS):
        together = threading.Barrier(PROGRAMS)
        threads = [
            threading.Thread(target=open_new, args=(tmp_path / f"{number}.db", together)) for _ in range(PROGRAMS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
