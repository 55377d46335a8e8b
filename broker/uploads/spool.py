"""The spool stores uploads until their job is sent, since files never travel through RabbitMQ.

    jobs/<bot>/<job id>/<n>-<random>[@<due>]   the n-th file of a job; removed when the job was sent or cancelled
    known/<bot>/<kind>-<sha256>                the file_id that Telegram gave this content, of this kind, for this bot

A spool is a folder, or any store that fsspec supports, so that gateways and workers on many machines can share one. A
job is published only after its files are completely stored; a gateway that dies in between leaves an orphan. Orphans,
the files of dead letters (which may be replayed) and old file_ids are removed by age. The file of a scheduled job has
the job's due time, as a Unix second, in its name, and its age counts from then.

In a folder, everything the spool creates is accessible to its user only (0700, 0600), whatever the umask; other stores
have their own rules.

Every failure becomes one ``SpoolError`` that says what is wrong and what to do.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Protocol

from floodgate.broker.errors import FloodgateError, SettingsError, SpoolError, UploadMissingError
from floodgate.broker.messages.spooled_file import SpooledFile

PIECE_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")  # of a bot or a job: never "." or ".."
_FILE: Final = re.compile(r"[0-9]{1,3}-[0-9a-f]{8}(?:@([0-9]{1,12}))?")
# Stores other than a folder raise these without an errno.
_ERRNO: Final[dict[type[OSError], int]] = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}


class ByteSource(Protocol):
    """A source of an upload's bytes. ``read`` returns no bytes at its end."""

    def read(self, size: int, /) -> bytes: ...


class Upload(io.BufferedIOBase):
    """An upload being read. One thread reads at a time; another may ``close`` it meanwhile, also twice.

    Closing never waits for a read that hangs, as closing a buffered file would: the file is closed when that read ends.

    If the content is not what the job names, reading fails before the last piece, so that no server accepts the upload
    as complete.
    """

    def __init__(self, source: IO[bytes], file: SpooledFile) -> None:
        self._source = source
        self._file = file
        self._digest, self._left = hashlib.sha256(), file.size
        self.fault: UploadMissingError | None = None
        """Why the content was cut off; None while it was not."""
        self.reading = False
        """Whether a read is under way. One that still is when time is up hangs."""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next piece; empty at the end.

        Raises:
            UploadMissingError: the content's size or hash differs from what the job names.
        """
        piece = self._read(-1 if size is None else size)
        self._left -= len(piece)
        self._digest.update(piece)
        if (
            self._left < 0
            or (self._left and not piece)
            or (not self._left and self._digest.hexdigest() != self._file.sha256)
        ):
            self.fault = UploadMissingError(
                f"The upload {self._file.key} is not the file that its job names (size or hash differ): send it again."
            )
            raise self.fault
        return piece

    def _read(self, size: int) -> bytes:
        self.reading = True
        try:
            return self._source.read(size)
        finally:
            self.reading = False
            if self.closed:
                self._source.close()

    def fileno(self) -> int:
        return self._source.fileno()

    def tell(self) -> int:
        return self._file.size - self._left

    @property
    def all_read(self) -> bool:
        """Whether the last byte has been read. Until then, no request that contains the upload is complete."""
        return self._left == 0

    def close(self) -> None:
        super().close()
        if not self.reading:
            self._source.close()


class Spool:
    """Reads and writes uploads. Blocking; any thread may use it. Nothing is opened before the first use.

    Raises:
        SettingsError: at the first use, if the URL's kind of store is unknown or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: tuple[Any, str] | None = None  # written by the first thread; concurrent ones write equal values

    @property
    def missing_folder(self) -> Path | None:
        """The spool's folder if it does not exist yet; None if it exists, or if the spool is in another store."""
        fs, root = self._fs
        return Path(root) if _is_folder(fs) and not fs.exists(root) else None

    def prepare(self) -> None:
        """Create the folder. Only at start: a folder that is missing later means that a disk is not mounted.

        Raises:
            SpoolError: it cannot be created.
        """
        with self._faults():
            fs, root = self._fs
            _make_root(fs, root)
            for ours in ("jobs", "known"):  # earlier versions left them open to all users of the machine
                _close_folder(fs, f"{root}/{ours}")

    def put(
        self,
        bot: str,
        job_id: str,
        number: int,
        name: str,
        filename: str,
        source: ByteSource,
        *,
        due_ms: int | None = None,
    ) -> SpooledFile:
        """Store an upload. When this returns it is on the disk, or in the store. An incomplete one is removed.

        Args:
            due_ms: when its job is due, as Unix time in milliseconds; None is now.

        Raises:
            SpoolError: the spool is missing, full or read-only.
        """
        due = f"@{due_ms // 1000}" if due_ms is not None else ""
        key = f"{_folder(bot, job_id)}/{number}-{secrets.token_hex(4)}{due}"
        digest, size = hashlib.sha256(), 0
        with self._faults():
            fs, root = self._fs
            _check_mounted(fs, root)
            _make_folder(fs, root, "jobs", bot, job_id)
            try:
                with _create(fs, f"{root}/{key}") as target:
                    while piece := source.read(PIECE_BYTES):
                        digest.update(piece)
                        size += len(piece)
                        target.write(piece)
                    _sync(target)
            except BaseException:
                with suppress(OSError):  # the first error is the one to report
                    _discard(fs, f"{root}/{key}")
                raise
        return SpooledFile(name=name, key=key, filename=filename, size=size, sha256=digest.hexdigest())

    def open(self, bot: str, job_id: str, file: SpooledFile) -> Upload:
        """Open an upload of a job for reading. Its size and hash are checked as it is read.

        Raises:
            UploadMissingError: it is not in the spool, or its key does not belong to this job.
            SpoolError: the spool cannot be read.
        """
        _check_key(bot, job_id, file)
        with self._faults():
            fs, root = self._fs
            try:
                opened: IO[bytes] = fs.open(f"{root}/{file.key}", "rb")
            except FileNotFoundError:
                _check_mounted(fs, root)
                raise UploadMissingError(
                    f"The upload {file.key} is not in the spool {self._url}: send it again. Uploads are kept for "
                    "FLOODGATE_SPOOL_SECONDS; clients, gateways and workers must share one FLOODGATE_SPOOL_URL."
                ) from None
            return Upload(opened, file)

    def remove(self, bot: str, job_id: str) -> None:
        """Remove a job's files, if it has any.

        Raises:
            SpoolError: they cannot be removed.
        """
        with self._faults():
            fs, root = self._fs
            if fs.exists(folder := f"{root}/{_folder(bot, job_id)}"):
                fs.rm(folder, recursive=True)

    def discard(self, bot: str, job_id: str, files: Sequence[SpooledFile]) -> None:
        """Remove these files of a job and no others. Missing files are ignored.

        Raises:
            SpoolError: they cannot be removed, or a key does not belong to this job.
        """
        with self._faults():
            fs, root = self._fs
            for file in files:
                _check_key(bot, job_id, file)
                _discard(fs, f"{root}/{file.key}")

    def known(self, bot: str, kind: str, sha256: str) -> str | None:
        """Return the file_id of content that this bot has sent before as this kind, or None.

        Raises:
            SpoolError: it cannot be read.
        """
        with self._faults():
            fs, root = self._fs
            try:
                return str(fs.cat_file(f"{root}/known/{bot}/{kind}-{sha256}").decode())
            except FileNotFoundError:
                return None

    def know(self, bot: str, kind: str, sha256: str, file_id: str | None) -> None:
        """Store a file_id; None removes it.

        Raises:
            SpoolError: it cannot be written.
        """
        with self._faults():
            fs, root = self._fs
            path = f"{root}/known/{bot}/{kind}-{sha256}"
            if file_id is not None:
                _make_folder(fs, root, "known", bot)
                with _create(fs, path) as target:
                    target.write(file_id.encode())
            elif fs.exists(path):
                fs.rm_file(path)

    def sweep(self, older_than_seconds: float) -> int:
        """Remove older files; the age of a job's files counts from when it is due. Return how many were removed.

        Raises:
            SpoolError: the spool cannot be read or written.
        """
        removed, before = 0, time.time() - older_than_seconds
        with self._faults():
            fs, root = self._fs
            for path, about in fs.find(root, detail=True).items():
                if max(_written_at(about), _due_at(path)) < before:
                    fs.rm_file(path)
                    removed += 1
        return removed

    @property
    def _fs(self) -> tuple[Any, str]:
        if self._opened is None:
            self._opened = _open(self._url)
        self._opened[0].invalidate_cache()  # other processes write here, too
        return self._opened

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SpoolError(self._explain(error)) from error
        except FloodgateError:
            raise
        except Exception as error:  # a store's library has its own errors, for example botocore's
            raise SpoolError(self._failed(type(error).__name__)) from error

    def _explain(self, error: OSError) -> str:
        match error.errno or _ERRNO.get(type(error)):
            case errno.ENOSPC | errno.EDQUOT:
                return f"The spool {self._url} is full. Free some space, then try again."
            case errno.ENOENT:
                return f"The spool {self._url} is missing. Mount or create it, or correct FLOODGATE_SPOOL_URL."
            case errno.EACCES | errno.EROFS | errno.EPERM | errno.ENOTDIR:
                return (
                    f"The spool {self._url} cannot be written ({error.strerror}). Correct that, or FLOODGATE_SPOOL_URL."
                )
            case _:
                why = error.strerror or type(error).__name__
                return self._failed(why)

    def _failed(self, why: str) -> str:
        return f"The spool {self._url} failed ({why}). Find the cause, then try again."


def _open(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise SettingsError(
            "Uploads need fsspec, which is not installed: install telegram-floodgate[uploads]."
        ) from None
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SettingsError(f"FLOODGATE_SPOOL_URL cannot be used: {error}.") from None
    return fs, root.rstrip("/")


def _check_mounted(fs: Any, root: str) -> None:
    """Check that the folder exists. In other stores a folder exists only while it contains files."""
    if _is_folder(fs) and not fs.exists(root):
        raise FileNotFoundError(errno.ENOENT, "it is missing")


def _is_folder(fs: Any) -> bool:
    return "file" in fs.protocol


def _make_root(fs: Any, root: str) -> None:
    """Create the spool's own folder. Its parents get the umask's permissions."""
    if _is_folder(fs):
        Path(root).mkdir(0o700, parents=True, exist_ok=True)
    else:
        fs.makedirs(root, exist_ok=True)


def _make_folder(fs: Any, root: str, *names: str) -> None:
    """Create nested folders of these names in the root."""
    if not _is_folder(fs):
        fs.makedirs("/".join((root, *names)), exist_ok=True)
        return
    for count in range(1, len(names) + 1):
        Path(root, *names[:count]).mkdir(0o700, exist_ok=True)


def _close_folder(fs: Any, path: str) -> None:
    folder = Path(path)
    if _is_folder(fs) and folder.is_dir() and folder.stat().st_uid == os.geteuid():
        folder.chmod(0o700)


def _create(fs: Any, path: str) -> IO[bytes]:
    if _is_folder(fs):
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    opened: IO[bytes] = fs.open(path, "wb")
    return opened


def _folder(bot: str, job_id: str) -> str:
    """Return the folder of a job's files.

    Raises:
        SpoolError: one of the names could lead out of the bot's folder.
    """
    if not (_NAME.fullmatch(bot) and _NAME.fullmatch(job_id)):
        raise SpoolError(
            f"The spool has no folder for job {job_id!r} of bot {bot!r}: names must start with a letter or a digit."
        )
    return f"jobs/{bot}/{job_id}"


def _check_key(bot: str, job_id: str, file: SpooledFile) -> None:
    """Refuse a key that :meth:`Spool.put` would not have made: anyone who may write to a queue can write any key."""
    folder, _, name = file.key.rpartition("/")
    if folder != _folder(bot, job_id) or not _FILE.fullmatch(name):
        raise UploadMissingError(
            f"The upload {file.key!r} does not belong to job {job_id} of bot {bot}: send it again."
        )


def _discard(fs: Any, path: str) -> None:
    if fs.exists(path):
        fs.rm_file(path)
    with suppress(OSError):  # not empty, or only a part of names
        fs.rmdir(path.rpartition("/")[0])


def _sync(target: Any) -> None:
    """Sync a file to disk: after a power loss, no job may be left without its file. Other stores sync on close."""
    target.flush()
    try:
        descriptor = target.fileno()
    except (AttributeError, OSError, ValueError):
        return
    os.fsync(descriptor)


def _due_at(path: str) -> float:
    """Return when a file's job is due, in Unix seconds; 0 for a job that is sent at once."""
    found = _FILE.fullmatch(path.rpartition("/")[2])
    return float(found[1]) if found and found[1] else 0.0


def _written_at(about: dict[str, Any]) -> float:
    """Return when a file was written, in Unix seconds; now if its store does not tell, so that the file stays."""
    at = about.get("mtime") or about.get("LastModified") or about.get("created")
    if isinstance(at, datetime):
        return at.astimezone(UTC).timestamp()
    return float(at) if isinstance(at, int | float) else time.time()
