"""A small file beside the state file, which tells a new process whether the state file is as the last one left it.

Overview. With each transaction a process notes in the witness what it writes: a bot's epoch and number of writes, and
the time of the last outcome. Transactions follow one another, so a state file that holds the last one holds all. The
note is a store into shared memory: no system call, nothing to wait for. It outlives the process, but not the machine,
so it names the boot in which it was made.

A state file that lacks what the witness names has gone back in time: an older file was restored, or a part of its log
is missing. Without a witness of this boot nobody can tell, and the file is treated as if it had: a crash of the machine
loses what was not yet on disk.

Failure handling: the witness is an aid. If it cannot be read or written, the state file is used all the same, and the
next process treats it as if the machine had started in between.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import struct
from pathlib import Path
from typing import Final, NamedTuple

SUFFIX: Final = "-witness"

# The latest note, the last one that is known to have been committed, and the number of the latest that was.
_NOTE: Final = struct.Struct("<4s64s64sqqqqq")
_COMMITTED: Final = _NOTE.size
_FLAG: Final = 2 * _NOTE.size
_NUMBER: Final = struct.Struct("@q")  # copied as a whole, so that two processes may write it at the same time
_MARK: Final = b"FGW1"
_SELECT_BOT: Final = "SELECT epoch, writes FROM bots WHERE bot = ?"
_LAST_OUTCOME: Final = "SELECT since FROM results ORDER BY number DESC LIMIT 1"


class Testimony(NamedTuple):
    """What the last transactions of a boot wrote: of a bot, the time of the last outcome (0: none), and when that was.
    Times are the store's."""

    boot: str
    bot: str
    epoch: int
    writes: int
    outcome: int
    at: int


class Witness:
    """The witness of one state file. It is mapped at first use. ``close`` is safe to call twice, and unused.

    ``note`` is called within a transaction, whose lock keeps others from it; ``confirm`` after the commit.
    """

    def __init__(self, state_file: Path) -> None:
        self._path = state_file.with_name(state_file.name + SUFFIX)
        self._memory: mmap.mmap | None = None
        self._missing = False

    def read(self) -> Testimony | None:
        """The last committed note; None if there is none."""
        memory = self._open()
        if memory is None:
            return None
        told, number = _unpacked(memory, 0)
        return told if number == _NUMBER.unpack_from(memory, _FLAG)[0] else _unpacked(memory, _COMMITTED)[0]

    def note(self, boot: str, bot: tuple[str, int, int] | None, outcome: int, at: int) -> int:
        """Note what a transaction is about to commit: a bot with its epoch and writes (None: it wrote none), the time
        of an outcome (0: none), and its own time. Returns the note's number, for :meth:`confirm`."""
        memory = self._open()
        if memory is None:
            return 0
        told, number = _unpacked(memory, 0)
        if number == _NUMBER.unpack_from(memory, _FLAG)[0]:
            memory[_COMMITTED:_FLAG] = memory[:_COMMITTED]
        if told is not None and told.boot == boot:
            bot, outcome = bot or told[1:4], outcome or told.outcome
        name, epoch, writes = bot or ("", 0, 0)
        _NOTE.pack_into(memory, 0, _MARK, boot.encode(), name.encode(), epoch, writes, outcome, at, number + 1)
        return number + 1

    def confirm(self, number: int) -> None:
        """Note that the transaction has been committed."""
        if self._memory is not None and number:
            _NUMBER.pack_into(self._memory, _FLAG, number)

    def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def _open(self) -> mmap.mmap | None:
        if self._memory is None and not self._missing:
            try:
                self._memory = _mapped(self._path)
            except (OSError, ValueError):
                self._missing = True
        return self._memory


def _unpacked(memory: mmap.mmap, offset: int) -> tuple[Testimony | None, int]:
    mark, boot, bot, epoch, writes, outcome, at, number = _NOTE.unpack_from(memory, offset)
    if mark != _MARK:
        return None, 0
    return Testimony(_text(boot), _text(bot), epoch, writes, outcome, at), number


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")


def _mapped(path: Path) -> mmap.mmap:
    size = _FLAG + _NUMBER.size
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            os.truncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def contradicts(db: sqlite3.Connection, told: Testimony) -> bool:
    """Whether the state file lacks what a witness of this boot names. One whose epoch is later is another file."""
    if told.bot:
        found = db.execute(_SELECT_BOT, (told.bot,)).fetchone()
        if found is not None and found[0] > told.epoch:
            return False
        if found is None or (found[0], found[1]) < (told.epoch, told.writes):
            return True
    (outcome,) = db.execute(_LAST_OUTCOME).fetchone() or (0,)
    return int(outcome) < told.outcome
