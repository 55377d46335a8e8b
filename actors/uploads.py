"""Uploads on their way out: streamed from the spool, and for the same content only once per bot.

Telegram slows a bot down that uploads one file again and again, while a ``file_id`` costs nothing. So what a message
brought back is remembered by content, bot and kind (a photo's id is no document's), and whoever sends the same content
sends the id. Who comes while the first upload is under way waits for it, for a part of its own time; the other worker
processes do not know of it, so each may upload once.

Thumbnails and covers have no id of their own and are uploaded every time. An id that Telegram does not take any more is
forgotten, and the file uploaded, within the same call.

An upload that is gone ends its job. A spool that is away is waited for, as a network is: nothing was sent. Nor was a
request whose files were not read to their end: no server acts on a part of one.
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

# Parameters that take a file_id, and the field of a message that brings one back.
KINDS: Final = frozenset(["photo", "video", "document", "audio", "animation", "voice", "video_note", "sticker"])
MISSING_STATUS: Final = 410
# Of a call's time, this much goes to waiting for somebody else's upload of the same file.
_PATIENCE: Final = 0.25
_STALE: Final = ("wrong file identifier", "wrong remote file", "file reference expired", "invalid file_id")

CallParams = dict[str, Any]
Make = Callable[[CallParams], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call refers to one of its files. ``item`` is its place in an album."""

    file: SpooledFile
    parameter: str
    kind: str | None
    """What the file is sent as; None when it has no file_id."""
    item: int | None = None


@dataclass(slots=True)
class Request:
    """How far a call with files has come."""

    begun: bool = False
    files: list[Upload] = field(default_factory=list)

    @property
    def surely_unsent(self) -> bool:
        return not (self.begun and all(file.all_read for file in self.files))

    @property
    def held_up_here(self) -> bool:
        """Whether it waits for the spool, which says nothing of Telegram."""
        return not self.begun or any(file.reading for file in self.files)


class JobUploads:
    """Belongs to one event loop; the spool's work is done on threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._under_way: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    async def send(self, job: Job, params: CallParams, seconds: float, make: Make) -> Answer:
        """Make the call with its files, within so many seconds. ``make`` is given the parameters as python-telegram-bot
        takes them."""
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
        """Remove the files of a job that was sent."""
        try:
            await asyncio.to_thread(self._spool.remove, job.bot, job.id)
        except SpoolError as error:
            logger.warning("the files of job %s stay until they are swept: %s", job.id, error)

    @asynccontextmanager
    async def _alone(self, bot: str, places: list[Place], patience_seconds: float) -> AsyncIterator[None]:
        """One upload of a content at a time, as far as patience goes."""
        keys = sorted({(bot, place.kind, place.file.sha256) for place in places if place.kind})
        locks = [self._under_way.setdefault(key, asyncio.Lock()) for key in keys]
        held: list[asyncio.Lock] = []
        try:
            async with asyncio.timeout(patience_seconds):
                for lock in locks:  # sorted, so that two albums never wait for each other
                    await lock.acquire()
                    held.append(lock)
        except TimeoutError:
            pass  # then it is uploaded twice
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
            logger.warning("a file_id was not remembered: %s", error)


def _unsent(answer: Answer) -> Break:
    """A broken call, or a server on the way that failed (5xx), before the request was whole."""
    assert isinstance(answer, Break | Refusal)
    failed = answer if isinstance(answer, Break) else Break(answer.description, surely_not_sent=True)
    return replace(failed, reason=f"{failed.reason}, before all of the request was sent", surely_not_sent=True)


def places_of(files: tuple[SpooledFile, ...], params: Mapping[str, Any], *, reusable: bool = True) -> list[Place]:
    """Where each file goes: a parameter of its own name, ``attach://name`` in one, or in an item of an album.

    ``reusable``: whether the method takes a file_id there.
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
    """A photo of a chat or of the bot itself is always uploaded."""
    return method.startswith("send") or method == "editMessageMedia"


def _attached(value: Any, files: Mapping[str, SpooledFile]) -> SpooledFile | None:
    if isinstance(value, str) and value.startswith("attach://"):
        return files.get(value.removeprefix("attach://"))
    return None


def substituted(params: Mapping[str, Any], known: Mapping[Place, str]) -> CallParams:
    """The parameters with file_ids where they are known."""
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
    """The file_id that a message brought back for a file."""
    message = result
    if isinstance(result, list):
        message = result[place.item] if place.item is not None and place.item < len(result) else None
    sent = message.get(place.kind) if isinstance(message, dict) and place.kind else None
    if isinstance(sent, list):
        sent = sent[-1] if sent else None  # of a photo's sizes the largest
    file_id = sent.get("file_id") if isinstance(sent, dict) else None
    return file_id if isinstance(file_id, str) else None


def _stale(answer: Answer) -> bool:
    return isinstance(answer, Refusal) and any(text in answer.description.lower() for text in _STALE)
