"""Finds the files in a call's parameters, and writes them to the spool before their job is accepted.

``detached`` is pure: it takes files out of a call and leaves ``attach://…`` in their place, the Bot API's own notation.
:class:`UploadStore` does the I/O. Each job's files get unique names, so a second job with the same id never touches the
first one's files, whether it is accepted or refused.
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
"""A file: its path, its content, or the file itself, open for reading in binary mode."""

# How deep files are searched for in a call's parameters; `checked` reports files nested deeper.
_DEPTH: Final = 8
# Telegram has no way to quote these in a file name.
_UNQUOTABLE: Final = re.compile(r'[\x00-\x1f"\\/]+')
_LONGEST_NAME: Final = 200


class Attached(str):
    """A reference to a file that was taken out of the call."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a call. ``name`` is its part in the multipart form; ``where`` names its parameter in error messages."""

    name: str
    where: str
    filename: str
    content: FileContent

    @contextmanager
    def opened(self) -> Iterator[ByteSource]:
        """Open the file. A file that the caller passed open is read from its current position and stays open.

        Raises:
            InvalidParamsError: the file cannot be read; ``read`` may raise it as well.
        """
        if isinstance(self.content, bytes | bytearray | memoryview):
            yield BytesIO(self.content)
        elif isinstance(self.content, PathLike):
            with self._open(self.content) as source:
                yield _Reader(source, self.where)
        else:
            yield _Reader(self.content, self.where)

    def check_size(self, size: int) -> None:
        """Reject an empty file.

        Raises:
            InvalidParamsError: the size is 0.
        """
        if not size:
            raise InvalidParamsError(f"{self.where} is empty: Telegram does not accept empty files.")

    def _open(self, path: PathLike[str]) -> IO[bytes]:
        try:
            return Path(path).open("rb")
        except OSError as error:
            raise InvalidParamsError(f"{self.where}: {path} cannot be read ({error.strerror}).") from None


def detached(params: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Attachment, ...]]:
    """Replace the files in a call's parameters with references, and return both. A file in a parameter that takes none
    is left in place."""
    found: list[Attachment] = []
    return {name: _without_files(name, name, value, found, _DEPTH) for name, value in params.items()}, tuple(found)


def quotable(filename: str) -> str:
    """Make a file name that can be sent to Telegram."""
    return _UNQUOTABLE.sub("_", filename)[-_LONGEST_NAME:] or "file"


def is_file(value: object) -> bool:
    """Whether a parameter is a file rather than a JSON value."""
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
    return Path(name).name if isinstance(name, str | PathLike) else ""  # a pipe's name is a number


class UploadStore:
    """Writes files to the spool. Blocking; safe to use from any thread. Opens nothing before first use."""

    def __init__(self, spool_url: str) -> None:
        self._spool = Spool(spool_url)
        self._prepared = False  # a race between threads is harmless

    @property
    def spool(self) -> Spool:
        """The spool that the files are written to."""
        return self._spool

    def prepare(self) -> None:
        """Create the spool, once: a folder that is missing later means that its disk is not mounted.

        Raises:
            SettingsError: the spool's URL is invalid, or fsspec is not installed.
            SpoolError: the spool cannot be created.
        """
        if not self._prepared:
            self._prepared = True
            self._spool.prepare()

    def keep(self, job: Job, attachments: Sequence[Attachment]) -> Job:
        """Store a job's files and return the job with references to them.

        Raises:
            InvalidParamsError: a file is missing, empty, or not open in binary mode. Nothing is stored.
            SettingsError: the spool's URL is invalid, or fsspec is not installed. Nothing is stored.
            SpoolError: the spool is missing, full or not writable. Nothing is stored.
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
        """Delete the files of a job that was not accepted. The sweeper deletes later what cannot be deleted now."""
        try:
            self._spool.discard(job.bot, job.id, files)
        except SpoolError as error:
            logger.warning("could not delete the files of job %s; the sweeper will: %s", job.id, error)

    def _put(self, job: Job, number: int, attachment: Attachment) -> SpooledFile:
        with attachment.opened() as source:
            return self._spool.put(
                job.bot, job.id, number, attachment.name, attachment.filename, source, due_ms=job.not_before_ms
            )


class _Reader:
    """Reads the caller's file, and raises its faults as ``InvalidParamsError`` to tell them from the spool's."""

    def __init__(self, source: IO[bytes], where: str) -> None:
        self._source = source
        self._where = where

    def read(self, size: int, /) -> bytes:
        try:
            piece = self._source.read(size)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise InvalidParamsError(f"{self._where} cannot be read ({error}).") from None
        if not isinstance(piece, bytes):
            raise InvalidParamsError(f"{self._where} is open in text mode: open it with mode 'rb'.")
        return piece
