"""Uploads in a folder and in an fsspec store: stored completely, returned, removed; errors say what to do."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from floodgate.broker.errors import SettingsError, SpoolError, UploadMissingError
from floodgate.broker.messages.spooled_file import SpooledFile
from floodgate.broker.uploads.spool import Spool

CONTENT = os.urandom(600_000)


@pytest.fixture(params=["folder", "memory"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    where = str(tmp_path / "a" / "spool") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    spool = Spool(where)
    spool.prepare()
    return spool


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(where)], check=False)
    if mounted.returncode:
        pytest.skip("a disk can only be made by root")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def put(spool: Spool, content: bytes = CONTENT, job: str = "job-1", number: int = 0) -> object:
    return spool.put("bot", job, number, "photo", "cat.png", io.BytesIO(content))


def test_a_stored_file_is_returned_complete_and_is_gone_after_removal(spool: Spool) -> None:
    file = spool.put("bot", "job-1", 0, "photo", "cat.png", io.BytesIO(CONTENT))
    assert (file.size, file.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    with spool.open("bot", "job-1", file) as source:
        assert source.read() == CONTENT
    put(spool, b"other", "job-2")
    spool.remove("bot", "job-1")
    spool.remove("bot", "job-1")
    with pytest.raises(UploadMissingError, match="is not in the spool"):
        spool.open("bot", "job-1", file)


def test_two_callers_storing_files_for_one_job_affect_only_their_own(spool: Spool) -> None:
    first = spool.put("bot", "job-1", 0, "photo", "cat.png", io.BytesIO(CONTENT))
    second = spool.put("bot", "job-1", 0, "photo", "cat.png", io.BytesIO(b"other"))
    spool.discard("bot", "job-1", [second])
    spool.discard("bot", "job-1", [second])
    with spool.open("bot", "job-1", first) as source:
        assert source.read() == CONTENT
    with pytest.raises(SpoolError):
        spool.open("bot", "job-1", second)


class BreaksOff(io.BytesIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        if self.tell():
            raise ConnectionError("the caller has gone")
        return super().read(10)


def test_an_interrupted_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    with pytest.raises(SpoolError):
        spool.put("bot", "job-1", 0, "photo", "cat.png", BreaksOff(CONTENT))
    assert list((tmp_path / "jobs" / "bot").iterdir()) == []


def test_file_ids_are_remembered_per_bot_and_kind_until_forgotten(spool: Spool) -> None:
    assert spool.known("bot", "photo", "ab") is None
    spool.know("bot", "photo", "ab", "id-1")
    assert spool.known("bot", "photo", "ab") == "id-1"
    assert spool.known("bot", "document", "ab") is None
    assert spool.known("other", "photo", "ab") is None
    spool.know("bot", "photo", "ab", None)
    spool.know("bot", "photo", "ab", None)
    assert spool.known("bot", "photo", "ab") is None


def test_old_files_are_swept_and_the_rest_are_kept(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    old, young = (
        spool.put("b", "old", 0, "x", "x", io.BytesIO(b"1")),
        spool.put("b", "new", 0, "x", "x", io.BytesIO(b"2")),
    )
    long_ago = time.time() - 1000
    os.utime(tmp_path / old.key, (long_ago, long_ago))
    assert spool.sweep(500) == 1
    spool.open("b", "new", young).close()
    with pytest.raises(SpoolError):
        spool.open("b", "old", old)


def test_the_file_of_a_scheduled_job_ages_from_its_due_time(spool: Spool) -> None:
    in_a_minute = int((time.time() + 60) * 1000)
    later = spool.put("b", "later", 0, "x", "x", io.BytesIO(b"1"), due_ms=in_a_minute)
    past = spool.put("b", "past", 0, "x", "x", io.BytesIO(b"2"), due_ms=1_000)
    spool.put("b", "now", 0, "x", "x", io.BytesIO(b"3"))
    assert spool.sweep(-30) == 2, "of three files that would be too old, that of the job for later stays"
    with spool.open("b", "later", later) as source:
        assert source.read() == b"1"
    with pytest.raises(UploadMissingError):
        spool.open("b", "past", past)
    assert spool.sweep(-90) == 1
    spool.discard("b", "later", [later])


def test_only_the_owner_can_read_the_files_with_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        spool = Spool(str(tmp_path / "spool"))
        spool.prepare()
        put(spool)
        spool.know("bot", "photo", "0" * 64, "id")
    finally:
        os.umask(before)
    made = [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]
    assert len(made) == 8
    assert {oct(path.stat().st_mode & 0o777) for path in made if path.is_dir()} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in made if path.is_file()} == {"0o600"}


def test_permissions_left_open_by_an_earlier_version_are_closed_but_not_those_of_the_operators_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "jobs" / "bot").mkdir(parents=True)
    tmp_path.chmod(0o755)
    (tmp_path / "jobs").chmod(0o755)
    Spool(str(tmp_path)).prepare()
    assert [oct(path.stat().st_mode & 0o777) for path in (tmp_path, tmp_path / "jobs")] == ["0o755", "0o700"]


def test_a_deleted_folder_is_not_recreated(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.prepare()
    (tmp_path / "spool").rmdir()
    with pytest.raises(SpoolError, match="FLOODGATE_SPOOL_URL"):
        put(spool)
    assert not (tmp_path / "spool").exists()


def test_an_unmounted_spool_does_not_report_uploads_as_missing(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.prepare()
    file = spool.put("bot", "job-1", 0, "photo", "cat.png", io.BytesIO(CONTENT))
    (tmp_path / "spool").rename(tmp_path / "unmounted")
    with pytest.raises(SpoolError, match="Mount or create it") as caught:
        spool.open("bot", "job-1", file)
    assert not isinstance(caught.value, UploadMissingError)


def test_a_full_disk_is_reported_as_such(small_disk: Path) -> None:
    spool = Spool(str(small_disk))
    with pytest.raises(SpoolError, match="is full"):
        put(spool)
    spool.remove("bot", "job-1")
    put(spool, b"small enough")


def test_a_missing_store_package_is_named() -> None:
    with pytest.raises(SettingsError, match="FLOODGATE_SPOOL_URL"):
        Spool("nonsense://bucket").prepare()


@pytest.mark.parametrize("name", ["..", ".", "-x", "_x", "a/b", "", "../bot/job-1"])
def test_job_and_bot_names_cannot_leave_their_folder(spool: Spool, name: str) -> None:
    kept = spool.put("bot", "job-1", 0, "photo", "cat.png", io.BytesIO(CONTENT))
    for refused in (
        lambda: spool.remove("bot", name),
        lambda: spool.remove(name, "job-1"),
        lambda: spool.put("bot", name, 0, "photo", "cat.png", io.BytesIO(CONTENT)),
        lambda: spool.discard("bot", name, [kept]),
    ):
        with pytest.raises(SpoolError):
            refused()
    spool.open("bot", "job-1", kept).close()


@pytest.mark.parametrize(
    "key",
    [
        "../../../proc/self/environ",
        "jobs/bot/job-1/../../../secret",
        "jobs/other/job-1/0-0123abcd",
        "jobs/bot/job-2/0-0123abcd",
        "jobs/bot/job-1/0-0123abcd/",
        "jobs/bot/job-1/0-0123abcd\n",
        "/etc/passwd",
        "known/bot/photo-x",
    ],
)
def test_only_a_key_made_for_the_job_is_read_or_removed(spool: Spool, tmp_path: Path, key: str) -> None:
    (tmp_path / "secret").write_bytes(b"token")
    foreign = SpooledFile(name="photo", key=key, size=5, sha256="0" * 64)
    with pytest.raises(UploadMissingError, match="does not belong to job job-1 of bot bot"):
        spool.open("bot", "job-1", foreign)
    with pytest.raises(UploadMissingError, match="does not belong"):
        spool.discard("bot", "job-1", [foreign])
    assert (tmp_path / "secret").exists()


@pytest.mark.parametrize("changed", [{"size": len(CONTENT) - 1}, {"size": len(CONTENT) + 1}, {"sha256": "0" * 64}])
def test_content_that_does_not_match_the_job_is_cut_off_before_its_end(
    spool: Spool, changed: dict[str, object]
) -> None:
    file = spool.put("bot", "job-1", 0, "photo", "cat.png", io.BytesIO(CONTENT)).model_copy(update=changed)
    read = 0
    with spool.open("bot", "job-1", file) as source:
        with pytest.raises(UploadMissingError, match="is not the file that its job names"):
            while piece := source.read(64 * 1024):
                read += len(piece)
        assert source.fault is not None
    assert read < len(CONTENT) or changed == {"size": len(CONTENT) + 1}
