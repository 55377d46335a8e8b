"""Where a call's files are sent, and which file ids are learnt: as values, and with a function as the Bot API."""

from __future__ import annotations

import asyncio
import io
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from telegram import InputFile

from floodgate.actors.answers import Accepted, Answer, Break, Refusal
from floodgate.actors.uploads import JobUploads, file_id_in, places_of, substituted
from floodgate.broker.errors import SpoolError
from floodgate.broker.messages.job import Job, new_job
from floodgate.broker.messages.spooled_file import SpooledFile
from floodgate.broker.uploads.spool import Spool, Upload

MESSAGE = {"message_id": 1, "photo": [{"file_id": "small"}, {"file_id": "large"}]}


def file(name: str, sha: str = "0") -> SpooledFile:
    return SpooledFile(name=name, key=f"jobs/b/j/{name}", filename=f"{name}.png", size=1, sha256=sha * 64)


@pytest.mark.parametrize(
    ("names", "params", "expected"),
    [
        (["photo"], {"chat_id": 1}, [("photo", "photo", None)]),
        (["x"], {"photo": "attach://x"}, [("photo", "photo", None)]),
        (["photo", "t"], {"thumbnail": "attach://t"}, [("thumbnail", None, None), ("photo", "photo", None)]),
        (
            ["a", "b", "t"],
            {
                "media": [
                    {"type": "video", "media": "attach://a", "thumbnail": "attach://t"},
                    {"type": "photo", "media": "attach://b"},
                ]
            },
            [("media", "video", 0), ("thumbnail", None, 0), ("media", "photo", 1)],
        ),
        (["a"], {"media": {"type": "document", "media": "attach://a"}}, [("media", "document", 0)]),
        (["certificate"], {}, [("certificate", None, None)]),
        (["a"], {"media": ["attach://a", 7]}, [("a", None, None)]),
    ],
)
def test_each_file_has_a_place_in_the_parameters(
    names: list[str], params: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    places = places_of(tuple(file(name) for name in names), params)
    assert [(place.parameter, place.kind, place.item) for place in places] == expected


def test_a_file_that_cannot_be_sent_by_file_id_is_uploaded_each_time() -> None:
    photo = file("photo")
    assert [place.kind for place in places_of((photo,), {"photo": "attach://photo"}, reusable=False)] == [None]
    # The parameter is an object that refers to another part of this name: an id must not replace the object.
    assert [place.kind for place in places_of((photo,), {"photo": {"type": "static", "photo": "attach://photo"}})] == [
        None
    ]


def test_a_known_file_is_replaced_by_its_id_in_place() -> None:
    params = {"media": [{"type": "photo", "media": "attach://a"}, {"type": "photo", "media": "attach://b"}]}
    second = places_of((file("a"), file("b")), params)[1]
    assert substituted(params, {second: "ID"})["media"][1] == {"type": "photo", "media": "ID"}
    assert params["media"][1]["media"] == "attach://b"
    [own] = places_of((file("photo"),), {})
    assert substituted({"chat_id": 1}, {own: "ID"}) == {"chat_id": 1, "photo": "ID"}


def test_only_the_file_id_of_the_largest_photo_size_is_learnt() -> None:
    [photo] = places_of((file("photo"),), {})
    [document] = places_of((file("document"),), {})
    assert file_id_in(MESSAGE, photo) == "large"
    assert file_id_in(MESSAGE, document) is None
    assert file_id_in(True, photo) is None
    assert file_id_in([], photo) is None


class Telegram:
    """Accepts uploads and ids, and can forget its ids."""

    def __init__(self) -> None:
        self.uploads = 0
        self.forgetful = False

    async def call(self, params: dict[str, Any]) -> Answer:
        if isinstance(params["photo"], InputFile):
            self.uploads += 1
            await asyncio.sleep(0)
            assert params["photo"].input_file_content.read() == b"bytes"  # type: ignore[union-attr]
            return Accepted(MESSAGE)
        return (
            Refusal(400, "Bad Request: wrong file identifier/HTTP URL specified")
            if self.forgetful
            else Accepted(MESSAGE)
        )

    async def swallow(self, params: dict[str, Any]) -> Answer:
        """Fails like a connection whose body ends early."""
        try:
            params["photo"].input_file_content.read()
        except SpoolError as error:
            return Break(f"cut off: {type(error).__name__}", surely_not_sent=False)
        raise AssertionError("the body was whole")


def job_with_photo(spool: Spool, number: int) -> Job:
    job = new_job("sendPhoto", {"chat_id": number + 1}, job_id=f"j{number}")
    kept = spool.put(job.bot, job.id, 0, "photo", "cat.png", io.BytesIO(b"bytes"))
    return job.model_copy(update={"files": (kept,)})


def test_many_jobs_with_one_content_upload_it_once_and_again_if_its_id_is_rejected(tmp_path: Path) -> None:
    spool, telegram = Spool(str(tmp_path)), Telegram()
    uploads = JobUploads(spool)

    async def send(number: int) -> Answer:
        job = job_with_photo(spool, number)
        return await uploads.send(job, dict(job.params), 30, telegram.call)

    async def play() -> None:
        answers = await asyncio.gather(*(send(number) for number in range(10)))
        assert answers == [Accepted(MESSAGE)] * 10
        assert telegram.uploads == 1
        telegram.forgetful = True
        assert await send(11) == Accepted(MESSAGE)
        assert telegram.uploads == 2

    asyncio.run(play())


def test_a_missing_upload_ends_the_job_with_a_clear_error(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    job = job_with_photo(spool, 1)
    spool.remove(job.bot, job.id)
    answer = asyncio.run(JobUploads(spool).send(job, dict(job.params), 30, Telegram().call))
    assert isinstance(answer, Refusal)
    assert answer.status == 410
    assert "not in the spool" in answer.description


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"key": "../../../proc/self/environ"}, "does not belong to job"), ({"sha256": "0" * 64}, "is not the file")],
)
def test_a_file_that_does_not_belong_to_the_job_ends_it_and_is_not_sent(
    tmp_path: Path, changed: dict[str, str], why: str
) -> None:
    spool, telegram = Spool(str(tmp_path)), Telegram()
    job = job_with_photo(spool, 1)
    (kept,) = job.files
    forged = job.model_copy(update={"files": (kept.model_copy(update=changed),)})
    answer = asyncio.run(JobUploads(spool).send(forged, dict(job.params), 30, telegram.swallow))
    assert isinstance(answer, Refusal)
    assert (answer.status, why in answer.description) == (410, True)


def test_a_call_whose_files_were_not_all_read_was_certainly_not_sent(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    job = job_with_photo(spool, 1)

    async def read_and_break(size: int, params: dict[str, Any]) -> Answer:
        params["photo"].input_file_content.read(size)
        return Break("cut off", surely_not_sent=False)

    def answer(size: int) -> Answer:
        return asyncio.run(JobUploads(spool).send(job, dict(job.params), 30, partial(read_and_break, size)))

    assert answer(4) == Break("cut off, before all of the request was sent", surely_not_sent=True)
    assert answer(5) == Break("cut off", surely_not_sent=False)


def test_a_file_that_hangs_before_the_call_was_certainly_not_sent_and_does_not_blame_telegram(tmp_path: Path) -> None:
    spool, released = Spool(str(tmp_path)), threading.Event()
    job = job_with_photo(spool, 1)
    spool.open = lambda *_: released.wait(30)  # type: ignore[method-assign, assignment, return-value]

    async def send() -> Answer:
        try:
            return await JobUploads(spool).send(job, dict(job.params), 0.1, Telegram().call)
        finally:
            released.set()

    reason = "no answer within 0.1 s, before all of the request was sent"
    assert asyncio.run(send()) == Break(reason, surely_not_sent=True, ours=True)


def test_a_server_that_fails_before_receiving_the_whole_request_has_not_acted(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    job = job_with_photo(spool, 1)
    refusal = Refusal(502, "HTTP 502 Bad Gateway", from_bot_api=False)

    async def read_and_fail(size: int, params: dict[str, Any]) -> Answer:
        params["photo"].input_file_content.read(size)
        return refusal

    def answer(size: int) -> Answer:
        return asyncio.run(JobUploads(spool).send(job, dict(job.params), 30, partial(read_and_fail, size)))

    assert answer(4) == Break("HTTP 502 Bad Gateway, before all of the request was sent", surely_not_sent=True)
    assert answer(5) == refusal


class HangingFile(io.RawIOBase):
    """A file on a disk that does not respond."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: Any) -> int:
        self.entered.set()
        self.released.wait(10)
        return 0


def test_a_hanging_read_blocks_neither_the_loop_nor_the_bot(tmp_path: Path) -> None:
    spool, disk = Spool(str(tmp_path)), HangingFile()
    job = job_with_photo(spool, 1)
    source = io.BufferedReader(disk)
    spool.open = lambda _bot, _job, kept: Upload(source, kept)  # type: ignore[method-assign]

    async def read_all(params: dict[str, Any]) -> Answer:
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(None, params["photo"].input_file_content.read)
        await loop.run_in_executor(None, disk.entered.wait, 10)
        await reading
        raise AssertionError("it was read")

    async def send() -> tuple[Answer, bool]:
        try:
            answer = await JobUploads(spool).send(job, dict(job.params), 0.2, read_all)
            return answer, disk.released.is_set()
        finally:
            disk.released.set()

    releaser = threading.Timer(5, disk.released.set)
    releaser.start()
    answer, waited = asyncio.run(send())
    releaser.cancel()
    reason = "no answer within 0.2 s, before all of the request was sent"
    assert (answer, waited) == (Break(reason, surely_not_sent=True, ours=True), False)
    assert source.closed, "it is closed by the read's own end"


def test_an_unavailable_spool_causes_a_retry(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.prepare()
    job = job_with_photo(spool, 1)
    (tmp_path / "spool").rename(tmp_path / "unmounted")
    answer = asyncio.run(JobUploads(spool).send(job, dict(job.params), 30, Telegram().call))
    assert answer == Break(
        f"not sent: The spool {tmp_path}/spool is missing. Mount or create it, or correct FLOODGATE_SPOOL_URL.",
        True,
        ours=True,
    )
