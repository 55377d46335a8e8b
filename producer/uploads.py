"""Files that callers give: found in a call's parameters, and put into the spool before their job is accepted.

``detached`` is pure: it takes files out of a call and leaves ``attach://…`` in their places, as the Bot API has it.
:class:`UploadStore` does the work on disks. A job's files are kept under names of their own, so that a second job of
the same id touches none of the first's, neither when it is kept nor when it is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import IO, Any, Final

from floodgate.broker.errors import InvalidParamsError, SpoolError
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.local_files import FILE_FIELDS
from floodgate.broker.messages.spooled_file import SpooledFile
from floodgate.broker.uploads.spool import ByteSource, Spool

logger = logging.getLogger("floodgate.uploads")

FileContent = PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""A file itself: where it is, what is in it, or it, open for reading bytes."""

# Where the walk through a call's parameters turns round; `checked` says what is wrong with what lies deeper.
_DEPTH: Final = 8
# Telegram knows no way to quote these in a file's name.
_UNQUOTABLE: Final = re.compile(r'[\x00-\x1f"\\/]+')
_LONGEST_NAME: Final = 200


class Attached(str):
    """A reference to a file that was taken out of the call."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a call. ``name`` is the form part that it leaves as; ``where`` it was given, for messages."""

    name: str
    where: str
    filename: str
    content: FileContent

    @contextmanager
    def opened(self) -> Iterator[ByteSource]:
        """The file, to be read from where it stands. One that the caller had opened stays open.

        Raises:
            InvalidParamsError: it cannot be read; also from ``read``.
        """
        if isinstance(self.content, bytes | bytearray | memoryview):
            yield BytesIO(self.content)
        elif isinstance(self.content, PathLike):
            with self._open(self.content) as source:
                yield _Reader(source, self.where)
        else:
            yield _Reader(self.content, self.where)

    def check_size(self, size: int) -> None:
        """
        Raises:
            InvalidParamsError: it is empty.
        """
        if not size:
            raise InvalidParamsError(f"{self.where} is empty: Telegram takes no empty file.")

    def _open(self, path: PathLike[str]) -> IO[bytes]:
        try:
            return Path(path).open("rb")
        except OSError as error:
            raise InvalidParamsError(f"{self.where}: {path} cannot be read ({error.strerror}).") from None


def detached(params: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Attachment, ...]]:
    """The parameters with references in place of files, and the files. A file where none belongs is left there."""
    found: list[Attachment] = []
    return {name: _without_files(name, name, value, found, _DEPTH) for name, value in params.items()}, tuple(found)


def quotable(filename: str) -> str:
    """A name that Telegram can be told."""
    return _UNQUOTABLE.sub("_", filename)[-_LONGEST_NAME:] or "file"


def is_file(value: object) -> bool:
    """Whether a parameter is a file rather than what JSON can carry."""
    return isinstance(value, bytes | bytearray | memoryview | PathLike) or hasattr(value, "read")


def _without_files(field: str, where: str, value: Any, found: list[Attachment], depth: int) -> Any:
    if isinstance(value, str) or depth == 0:
        return value
    if isinstance(value, dict):
        return {key: _without_files(str(key), f"{where}.{key}", item, found, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_files("", f"{where}[{at}]", item, found, depth - 1) for at, item in enumerate(value)]
    if field not in FILE_FIELDS or not is_file(value):
        return value
    name = where if where == field else f"upload{len(found)}"
    found.append(Attachment(name, where, quotable(_filename(value) or field), value))
    return Attached(f"attach://{name}")


def _filename(content: FileContent) -> str:
    name = content if isinstance(content, PathLike) else getattr(content, "name", "")
    return Path(name).name if isinstance(name, str | PathLike) else ""  # of a pipe it is a number


class UploadStore:
    """Puts files into the spool. Blocking; any thread may use it. Nothing is opened before the first use."""

    def __init__(self, spool_url: str) -> None:
        self._spool = Spool(spool_url)
        self._prepared = False  # whichever thread comes first, to the same effect

    @property
    def spool(self) -> Spool:
        return self._spool

    def prepare(self) -> None:
        """Make the spool, once: a folder that vanishes later is a disk that is not mounted.

        Raises:
            SettingsError: the spool's URL is of no use, or fsspec is not installed.
            SpoolError: it cannot be made.
        """
        if not self._prepared:
            self._prepared = True
            self._spool.prepare()

    def keep(self, job: Job, attachments: Sequence[Attachment]) -> Job:
        """The job with references to its files, which are safe now.

        Raises:
            InvalidParamsError: a file is not there, is empty, or does not give bytes. Nothing is kept.
            SettingsError, SpoolError: the spool is of no use, missing, full or not to be written. Nothing is kept.
        """
        self.prepare()
        kept: list[SpooledFile] = []
        try:
            for number, attachment in enumerate(attachments):
                kept.append(self._put(job, number, attachment))
                attachment.check_size(kept[-1].size)
        except (InvalidParamsError, SpoolError):
            self.discard(job, kept)
            raise
        return job.model_copy(update={"files": tuple(kept)})

    def discard(self, job: Job, files: Sequence[SpooledFile]) -> None:
        """Forget files of a job that was not accepted. What cannot be removed is swept one day."""
        try:
            self._spool.discard(job.bot, job.id, files)
        except SpoolError as error:
            logger.warning("the files of job %s stay until they are swept: %s", job.id, error)

    def _put(self, job: Job, number: int, attachment: Attachment) -> SpooledFile:
        with attachment.opened() as source:
            return self._spool.put(
                job.bot, job.id, number, attachment.name, attachment.filename, source, due_ms=job.not_before_ms
            )


class _Reader:
    """Tells what is wrong with the caller's file from what is wrong with the spool."""

    def __init__(self, source: IO[bytes], where: str) -> None:
        self._source = source
        self._where = where

    def read(self, size: int, /) -> bytes:
        try:
            piece = self._source.read(size)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise InvalidParamsError(f"{self._where} cannot be read ({error}).") from None
        if not isinstance(piece, bytes):
            raise InvalidParamsError(f"{self._where} gives no bytes when it is read: open it with mode 'rb'.")
        return piece
