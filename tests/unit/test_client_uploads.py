"""Files passed to a client's methods: where they are found, and the errors for unusable ones."""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import telegram

from floodgate.broker.errors import InvalidParamsError, JobError, SpoolError
from floodgate.broker.messages.job import Job, decode_job, encode_job
from floodgate.broker.messages.local_files import FILE_FIELDS
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import Composer
from floodgate.producer.uploads import Attachment, UploadStore
from floodgate.testing import RecordingClient

CAT = b"\x89PNG cat"


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "the cat.png"
    path.write_bytes(CAT)
    return path


def call(method: str, **given: Any) -> tuple[Job, tuple[Attachment, ...]]:
    return Composer(Settings(_env_file=None)).call(method, given)  # type: ignore[call-arg]


def test_a_file_is_replaced_by_a_reference_and_the_rest_is_unchanged(cat: Path) -> None:
    job, (photo,) = call("sendPhoto", chat_id=7, photo=cat, caption="a cat", priority="bulk")
    assert job.params == {"chat_id": 7, "photo": "attach://photo", "caption": "a cat"}
    assert (photo.name, photo.filename) == ("photo", "the cat.png")
    assert decode_job(encode_job(job, "send.default.bulk.00")) == job


def test_files_in_an_album_are_found_with_their_thumbnails(cat: Path) -> None:
    album = [
        {"type": "photo", "media": cat, "caption": "one"},
        {"type": "video", "media": CAT, "thumbnail": io.BytesIO(CAT)},
        {"type": "photo", "media": "a-file-id"},
    ]
    job, files = call("sendMediaGroup", chat_id=7, media=album)
    assert job.cost == 3
    assert job.params["media"] == [
        {"type": "photo", "media": "attach://upload0", "caption": "one"},
        {"type": "video", "media": "attach://upload1", "thumbnail": "attach://upload2"},
        {"type": "photo", "media": "a-file-id"},
    ]
    assert [file.where for file in files] == ["media[0].media", "media[1].media", "media[1].thumbnail"]
    assert album[0]["media"] is cat


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("sendMessage", {"chat_id": 1, "text": CAT}),
        ("sendMessage", {"chat_id": Path("1"), "text": "hi"}),
        ("sendPhoto", {"chat_id": 1, "photo": "x", "caption": Path("caption.txt")}),
        ("sendMediaGroup", {"chat_id": 1, "media": Path("album")}),
        ("sendMediaGroup", {"chat_id": 1, "media": [Path("a"), Path("b")]}),
        ("sendPhoto", {"chat_id": 1, "photo": "attach://photo"}),
    ],
)
def test_a_file_in_a_parameter_that_takes_none_is_refused(method: str, given: dict[str, Any]) -> None:
    with pytest.raises(JobError):
        call(method, **given)


def test_a_prepared_job_cannot_contain_a_file(cat: Path) -> None:
    with pytest.raises(InvalidParamsError, match="only as file parameters"):
        RecordingClient().job("sendPhoto", chat_id=1, photo=cat)


def file_parameters() -> set[str]:
    """According to python-telegram-bot's annotations."""
    methods = [inspect.getmembers(telegram.Bot, inspect.isfunction)]
    return {
        parameter.name
        for name, method in methods[0]
        if not name.startswith("_")
        for parameter in inspect.signature(method).parameters.values()
        if "FileInput" in str(parameter.annotation)
    }


def test_every_parameter_that_takes_a_file_is_known() -> None:
    assert {"photo", "thumbnail", "document"} <= file_parameters() <= FILE_FIELDS


Open = Callable[[Path], Any]


@pytest.mark.parametrize(
    "given",
    [
        lambda cat: cat,
        lambda cat: cat.read_bytes(),
        lambda cat: bytearray(CAT),
        lambda cat: memoryview(CAT),
        lambda cat: cat.open("rb"),
        lambda cat: io.BytesIO(CAT),
        lambda cat: cat.open("rb", buffering=0),
    ],
    ids=["path", "bytes", "bytearray", "memoryview", "open", "in-memory", "unbuffered"],
)
def test_every_kind_of_file_is_stored_completely(tmp_path: Path, cat: Path, given: Open) -> None:
    content = given(cat)
    job, files = call("sendDocument", chat_id=1, document=content)
    kept = UploadStore(str(tmp_path / "spool")).keep(job, files)
    (file,) = kept.files
    assert (file.name, file.size, file.sha256) == ("document", len(CAT), hashlib.sha256(CAT).hexdigest())
    assert (tmp_path / "spool" / file.key).read_bytes() == CAT
    if hasattr(content, "close"):
        assert not content.closed
        content.close()


def closed() -> io.BytesIO:
    file = io.BytesIO(CAT)
    file.close()
    return file


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (Path("/no/such/cat.png"), "photo: /no/such/cat.png cannot be read (No such file or directory)."),
        (Path("/"), "photo: / cannot be read (Is a directory)."),
        (b"", "photo is empty: Telegram does not accept empty files."),
        (io.StringIO("text"), "photo is open in text mode: open it with mode 'rb'."),
        (closed(), "photo cannot be read (I/O operation on closed file.)."),
    ],
    ids=["missing", "folder", "empty", "text", "closed"],
)
def test_an_unusable_file_is_refused_before_anything_is_queued(tmp_path: Path, content: Any, sentence: str) -> None:
    job, files = call("sendPhoto", chat_id=1, photo=content)
    with pytest.raises(InvalidParamsError) as caught:
        UploadStore(str(tmp_path / "spool")).keep(job, files)
    assert str(caught.value) == sentence
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def test_an_album_with_one_unusable_file_leaves_no_files_behind(tmp_path: Path, cat: Path) -> None:
    album = [{"type": "photo", "media": cat}, {"type": "photo", "media": tmp_path / "none"}]
    job, files = call("sendMediaGroup", chat_id=1, media=album)
    with pytest.raises(InvalidParamsError, match=r"media\[1\].media"):
        UploadStore(str(tmp_path / "spool")).keep(job, files)
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def test_a_spool_folder_that_disappears_is_not_recreated(tmp_path: Path, cat: Path) -> None:
    upload_store = UploadStore(str(tmp_path / "spool"))
    upload_store.keep(*call("sendPhoto", chat_id=1, photo=cat))
    (tmp_path / "spool").rename(tmp_path / "unmounted")
    with pytest.raises(SpoolError, match="FLOODGATE_SPOOL_URL"):
        upload_store.keep(*call("sendPhoto", chat_id=1, photo=cat))


def test_a_recording_client_shows_what_would_be_uploaded(cat: Path) -> None:
    client = RecordingClient()
    (file,) = client.send_photo(1, cat, caption="a cat").files
    assert (file.filename, file.size, file.sha256) == ("the cat.png", len(CAT), hashlib.sha256(CAT).hexdigest())
    with pytest.raises(InvalidParamsError, match="cannot be read"):
        client.send_photo(1, Path("/no/such/cat.png"))
    assert len(client.jobs) == 1
