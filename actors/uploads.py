"""Streams uploads from the spool to Telegram, and uploads the same content only once per bot.

Telegram throttles a bot that uploads the same file repeatedly, while sending a ``file_id`` costs nothing. So the id in
a sent message is remembered by content, bot and kind (a photo's id is not valid for a document), and the next job with
the same content sends the id. A job that starts while the first upload is under way waits for it, for part of its own
time-out. Other worker processes do not know about it, so each may upload the file once.

Thumbnails and covers have no id of their own and are uploaded every time. If Telegram no longer accepts an id, it is
forgotten and the file is uploaded within the same job.

If an upload no longer exists, its job fails for good. If the spool is unavailable, the job is retried, as after a
network error: nothing was sent. The same holds for a request whose files were not read to the end, since no server acts
on an incomplete request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final, cast
from weakref import WeakValueDictionary

from telegram import InputFile

from floodgate.actors.answers import Accepted, Answer, Break, Refusal, is_silence
from floodgate.broker.errors import SpoolError, UploadMissingError
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.spooled_file import SpooledFile
from floodgate.broker.uploads.spool import Spool, Upload

logger = logging.getLogger("floodgate.send")

# Parameters that accept a file_id, and the fields of a sent message that return one.
KINDS: Final = frozenset(["photo", "video", "document", "audio", "animation", "voice", "video_note", "sticker"])
MISSING_STATUS: Final = 410
# The share of a call's time-out spent waiting for another job's upload of the same file.
_PATIENCE: Final = 0.25
_STALE: Final = ("wrong file identifier", "wrong remote file", "file reference expired", "invalid file_id")

CallParams = dict[str, Any]
Make = Callable[[CallParams], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Place:
    """A reference to a file in a call's parameters. ``item`` is its index in an album."""

    file: SpooledFile
    parameter: str
    kind: str | None
    """The kind that the file is sent as; None if it has no file_id."""
    item: int | None = None


@dataclass(slots=True)
class Request:
    """The progress of a call with files."""

    begun: bool = False
    files: list[Upload] = field(default_factory=list)

    @property
    def surely_unsent(self) -> bool:
        """Whether the request certainly was not sent completely."""
        return not (self.begun and all(file.all_read for file in self.files))

    @property
    def held_up_here(self) -> bool:
        """Whether it is waiting for the spool, which says nothing about Telegram."""
        return not self.begun or any(file.reading for file in self.files)


class JobUploads:
    """Sends calls with files. Belongs to one event loop; the spool's I/O runs on threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._under_way: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    async def send(self, job: Job, params: CallParams, seconds: float, make: Make) -> Answer:
        """Make a call with its files.

        Args:
            seconds: the time-out of the whole call.
            make: makes the call, given the parameters in the form that python-telegram-bot accepts.
        """
        request = Request()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._send(job, params, seconds * _PATIENCE, make, request)
        except TimeoutError:
            answer = Break(f"no answer within {seconds:g} s", surely_not_sent=False, ours=request.held_up_here)
        except UploadMissingError as error:
            return Refusal(MISSING_STATUS, f"Gone: {error}")
        except SpoolError as error:
            return Break(f"not sent: {error}", surely_not_sent=True, ours=True)
        if request.surely_unsent and (isinstance(answer, Break) or is_silence(answer)):
            return _unsent(answer)
        return answer

    async def _send(
        self, job: Job, params: CallParams, patience_seconds: float, make: Make, request: Request
    ) -> Answer:
        places = places_of(job.files, params, reusable=_takes_file_ids(job.method))
        async with self._alone(job.bot, places, patience_seconds):
            known = await self._known(job.bot, places)
            answer = await self._make(job, params, places, known, make, request)
            if known and _stale(answer):
                for place in known:
                    await self._know(job.bot, place, None)
                known = {}
                answer = await self._make(job, params, places, known, make, request)
            if isinstance(answer, Accepted):
                await self._learn(job.bot, places, known, answer.result)
            return answer

    async def forget(self, job: Job) -> None:
        """Delete the files of a job that was sent."""
        try:
            await asyncio.to_thread(self._spool.remove, job.bot, job.id)
        except SpoolError as error:
            logger.warning("could not delete the files of job %s; the sweeper will: %s", job.id, error)

    @asynccontextmanager
    async def _alone(self, bot: str, places: list[Place], patience_seconds: float) -> AsyncIterator[None]:
        """Allow one upload of the same content at a time, waiting no longer than ``patience_seconds``."""
        keys = sorted({(bot, place.kind, place.file.sha256) for place in places if place.kind})
        locks = [self._under_way.setdefault(key, asyncio.Lock()) for key in keys]
        held: list[asyncio.Lock] = []
        try:
            async with asyncio.timeout(patience_seconds):
                for lock in locks:  # sorted, so that two albums cannot deadlock
                    await lock.acquire()
                    held.append(lock)
        except TimeoutError:
            pass  # the file is then uploaded twice
        try:
            yield
        finally:
            for lock in held:
                lock.release()

    async def _known(self, bot: str, places: list[Place]) -> dict[Place, str]:
        found: dict[Place, str] = {}
        for place in places:
            if place.kind and (
                file_id := await asyncio.to_thread(self._spool.known, bot, place.kind, place.file.sha256)
            ):
                found[place] = file_id
        return found

    async def _make(
        self,
        job: Job,
        params: CallParams,
        places: list[Place],
        known: Mapping[Place, str],
        make: Make,
        request: Request,
    ) -> Answer:
        with ExitStack() as stack:
            given = substituted(params, known)
            opened = request.files = []
            request.begun = False
            for file in {place.file.name: place.file for place in places if place not in known}.values():
                opened.append(stack.enter_context(await asyncio.to_thread(self._spool.open, job.bot, job.id, file)))
                given[file.name] = InputFile(
                    cast("IO[bytes]", opened[-1]), filename=file.filename, read_file_handle=False
                )
            request.begun = True
            answer = await make(given)
            for upload in opened:
                if upload.fault is not None:
                    raise upload.fault
            return answer

    async def _learn(self, bot: str, places: list[Place], known: Mapping[Place, str], result: Any) -> None:
        for place in places:
            if place not in known and (file_id := file_id_in(result, place)) is not None:
                await self._know(bot, place, file_id)

    async def _know(self, bot: str, place: Place, file_id: str | None) -> None:
        assert place.kind is not None
        try:
            await asyncio.to_thread(self._spool.know, bot, place.kind, place.file.sha256, file_id)
        except SpoolError as error:
            logger.warning("could not record a file_id: %s", error)


def _unsent(answer: Answer) -> Break:
    """Convert an answer to a request that was not sent completely, a broken call or a 5xx, to a ``Break``."""
    assert isinstance(answer, Break | Refusal)
    failed = answer if isinstance(answer, Break) else Break(answer.description, surely_not_sent=True)
    return replace(failed, reason=f"{failed.reason}, before all of the request was sent", surely_not_sent=True)


def places_of(files: tuple[SpooledFile, ...], params: Mapping[str, Any], *, reusable: bool = True) -> list[Place]:
    """Find each file's place: the parameter of its name, or ``attach://name`` in a parameter or an album's item.

    Args:
        reusable: whether the method accepts a file_id in place of a file.
    """
    by_name = {file.name: file for file in files}

    def kind(name: Any) -> str | None:
        return name if reusable and name in KINDS else None

    found = [
        Place(file, parameter, kind(parameter))
        for parameter, value in params.items()
        if (file := _attached(value, by_name)) is not None
    ]
    for number, item in enumerate(_items(params.get("media"))):
        for name, value in item.items():
            if (file := _attached(value, by_name)) is not None:
                found.append(Place(file, name, kind(item.get("type")) if name == "media" else None, number))
    referred_to = {place.file.name for place in found}
    return found + [
        Place(by_name[name], name, kind(name) if name not in params else None)
        for name in by_name
        if name not in referred_to
    ]


def _items(media: Any) -> list[dict[str, Any]]:
    items = media if isinstance(media, list) else [media]
    return [item if isinstance(item, dict) else {} for item in items]


def _takes_file_ids(method: str) -> bool:
    """Whether a method accepts file_ids. The photo of a chat or of the bot itself is always uploaded."""
    return method.startswith("send") or method == "editMessageMedia"


def _attached(value: Any, files: Mapping[str, SpooledFile]) -> SpooledFile | None:
    if isinstance(value, str) and value.startswith("attach://"):
        return files.get(value.removeprefix("attach://"))
    return None


def substituted(params: Mapping[str, Any], known: Mapping[Place, str]) -> CallParams:
    """Replace files by file_ids where they are known."""
    given = dict(params)
    for place, file_id in known.items():
        if place.item is None:
            given[place.parameter] = file_id
        elif isinstance(media := given["media"], list):
            given["media"] = [
                item | {place.parameter: file_id} if number == place.item else item for number, item in enumerate(media)
            ]
        else:
            given["media"] = media | {place.parameter: file_id}
    return given


def file_id_in(result: Any, place: Place) -> str | None:
    """Find the file_id of a file in the sent message."""
    message = result
    if isinstance(result, list):
        message = result[place.item] if place.item is not None and place.item < len(result) else None
    sent = message.get(place.kind) if isinstance(message, dict) and place.kind else None
    if isinstance(sent, list):
        sent = sent[-1] if sent else None  # the largest of a photo's sizes
    file_id = sent.get("file_id") if isinstance(sent, dict) else None
    return file_id if isinstance(file_id, str) else None


def _stale(answer: Answer) -> bool:
    return isinstance(answer, Refusal) and any(text in answer.description.lower() for text in _STALE)
