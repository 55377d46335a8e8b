"""The campaign API. OpenAPI describes it at ``/docs``.

A campaign is looked up by its name among those of the caller's bot. All operations run on the threads of
``AsyncClient.campaigns``, none on the loop. An audience that is uploaded is kept in a temporary file first, so that a
slow or broken upload holds no transaction and leaves no half of an audience.

Bounds: an upload has at most ``FLOODGATE_GATEWAY__MAX_BODY_BYTES``, a list :data:`MOST_LISTED` campaigns, and
:data:`MOST_STREAMS` streams of events are open at once. Each reads the progress once a second.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from floodgate.broker.errors import CampaignError, InvalidParamsError, JobError, SettingsError, StateError
from floodgate.producer.campaigns.definition import Definition
from floodgate.producer.campaigns.states import CampaignState
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.api import BoundedRoute, Caller, error_responses, gateway_of
from floodgate.producer.gateway.request_body import bounded
from floodgate.producer.gateway.state import Running

if TYPE_CHECKING:  # their modules need an extra of their own
    from floodgate.producer.campaigns.operations.async_service import AsyncCampaigns
    from floodgate.producer.campaigns.sending.progress import CampaignProgress

MOST_LISTED: Final = 1000
MOST_STREAMS: Final = 100
POLL_SECONDS: Final = 1.0
HEARTBEAT_SECONDS: Final = 15.0
_STREAM_RETRY_SECONDS: Final = 10
_PIECE_BYTES: Final = 1024 * 1024
_JSON_LINES: Final = "application/x-ndjson"
_EVENTS: Final = "text/event-stream"
_SUFFIXES: Final[Mapping[str, str]] = MappingProxyType({"text/csv": ".csv", _JSON_LINES: ".jsonl"})

_errors: Final = partial(
    error_responses,
    {
        400: "The request, the definition or the audience is wrong.",
        401: "Unknown token or key.",
        403: "The key does not belong to this bot.",
        404: "The bot has no campaign of this name.",
        408: "The body arrived too slowly.",
        409: "The campaign's state does not allow the operation, or there is a campaign of this name.",
        413: "The request is too large.",
        415: "The audience is neither CSV nor JSON Lines.",
        422: "The request does not have this form.",
        429: "Too many streams are open; `parameters.retry_after` is the number of seconds to wait.",
        501: "The gateway's installation lacks what campaigns need.",
        503: "The campaigns' database is unavailable.",
        507: "The audience cannot be stored.",
    },
)


class NewCampaign(BaseModel):
    """A campaign to create."""

    model_config = ConfigDict(extra="forbid")

    definition: Definition
    audience: list[dict[str, Any]] | None = Field(
        None,
        description="The recipients: `chat_id` and the fields of the template. Without it the campaign is a draft, and "
        "its audience is uploaded.",
        examples=[[{"chat_id": 42, "first_name": "Ann"}]],
    )
    exclude: list[int | str] = Field(default_factory=list, description="Chats that are left out.")
    exclude_campaigns: list[str] = Field(
        default_factory=list, description="Campaigns of the bot whose recipients are left out if they got the message."
    )


class CampaignStatus(BaseModel):
    """A campaign, and what became of its recipients."""

    name: str
    bot: str
    state: CampaignState
    reason: str | None = Field(description="Why it was stopped.")
    version: int = Field(description="Of the content.")
    fingerprint: str | None = Field(description="Of the frozen audience.")
    recipients: int
    left: int = Field(description="Recipients who have not ended.")
    eta_seconds: int | None = Field(description="Estimated time until it is done.")
    counts: dict[str, int] = Field(description="The number of recipients by state.")


class CampaignFinding(BaseModel):
    """One kind of error in the messages of a campaign."""

    why: str
    recipients: int = Field(description="The number of recipients with this error.")
    first: str = Field(description="The chat of the first of them.")


class CampaignCheck(BaseModel):
    """The result of a check."""

    checked: int = Field(description="Messages that were rendered.")
    skipped: int = Field(description="Recipients who lack a field, and are to be skipped.")
    longest: int = Field(description="Characters of the longest text.")
    findings: list[CampaignFinding] = Field(description="The errors. A campaign with any does not start.")


class NewSample(BaseModel):
    """A recipient's message for another chat."""

    model_config = ConfigDict(extra="forbid")

    to: int | str = Field(description="The chat that gets the message: its id, or its @name.")
    recipient: int | str | None = Field(None, description="The chat whose message it is; by default, the first.")


class SampleJob(BaseModel):
    """A job that was enqueued."""

    job_id: str


class NewRetry(BaseModel):
    """The recipients to try again."""

    model_config = ConfigDict(extra="forbid")

    states: list[Literal["failed", "unreachable", "uncertain"]] = Field(
        default_factory=list, max_length=3, description="By default, `failed` and `unreachable`."
    )
    reason: str | None = Field(None, max_length=200, description="A text that their error contains.")


class RetryResult(BaseModel):
    """The result of a retry."""

    retried: int = Field(description="The number of recipients who wait again.")


class CampaignRefusal(BaseModel):
    """Rows of an audience that were not taken, for one reason."""

    why: str
    number: int = Field(description="The number of rows.")
    line: int = Field(description="The first of them.")
    sample: str = Field(description="The beginning of the first.")


@dataclass(frozen=True, slots=True)
class OpenCampaigns:
    """The campaigns that a caller may use: those of its bot."""

    campaigns: AsyncCampaigns
    bot: str


@dataclass(frozen=True, slots=True)
class OwnCampaign:
    """A campaign of the caller's bot, and its progress when the request arrived."""

    campaigns: AsyncCampaigns
    progress: CampaignProgress

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.progress.campaign.name

    async def status(self) -> CampaignStatus:
        """Read the progress again."""
        return _status(await self.campaigns.progress(self.name))


async def _open(request: Request, bot: Caller) -> OpenCampaigns:
    try:
        return OpenCampaigns(gateway_of(request).running.parts.client.campaigns, bot)
    except SettingsError as error:
        raise RefusalError(501, f"Not Implemented: {error}") from None


Open = Annotated[OpenCampaigns, Depends(_open)]


async def _own(
    opened: Open, name: Annotated[str, Path(max_length=40, description="The campaign's name.")]
) -> OwnCampaign:
    try:
        progress = await opened.campaigns.progress(name)
    except CampaignError:
        progress = None
    if progress is None or progress.campaign.bot != opened.bot:
        raise RefusalError(404, f"Not Found: the bot {opened.bot!r} has no campaign named {name!r}")
    return OwnCampaign(opened.campaigns, progress)


Own = Annotated[OwnCampaign, Depends(_own)]
router: Final = APIRouter(prefix="/floodgate/v1", tags=["campaigns"], route_class=BoundedRoute)
uploads: Final = APIRouter(prefix="/floodgate/v1", tags=["campaigns"])  # reads its body itself
_LOOK_UP: Final = (401, 403, 404, 408, 413, 422, 501, 503)


def _streamed(kind: str, text: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {}}, "description": text}}


@router.get("/campaigns", responses=_errors(401, 403, 408, 413, 422, 501, 503))
async def list_campaigns(opened: Open) -> list[CampaignStatus]:
    """List the campaigns of the bot, the latest first."""
    return [_status(each) for each in await opened.campaigns.list(opened.bot, most=MOST_LISTED)]


@router.post("/campaigns", status_code=201, responses=_errors(400, 401, 403, 408, 409, 413, 422, 501, 503))
async def create_campaign(opened: Open, new: NewCampaign) -> CampaignStatus:
    """Create a campaign and freeze its audience. Without an audience, create a draft. Sends nothing."""
    campaigns, bot, named = opened.campaigns, opened.bot, new.definition.bot
    if named not in (None, bot):
        raise RefusalError(403, f"Forbidden: the definition names the bot {named!r}, but you act as {bot!r}")
    try:
        await campaigns.create(
            new.definition, new.audience, exclude=new.exclude, exclude_campaigns=new.exclude_campaigns, bot=bot
        )
    except InvalidParamsError as error:
        raise RefusalError(400, f"Bad Request: exclude: {error}") from None
    return _status(await campaigns.progress(new.definition.name))


@uploads.put(
    "/campaigns/{name}/audience",
    responses=_errors(400, *_LOOK_UP, 409, 415, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _SUFFIXES},
        }
    },
)
async def upload_audience(request: Request, own: Own) -> CampaignStatus:
    """Import the audience of a draft, CSV with a header or JSON Lines, and freeze it. May be repeated if it fails."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _SUFFIXES:
        raise RefusalError(415, f"Unsupported Media Type: send the audience as {' or '.join(_SUFFIXES)}")
    if (state := own.progress.campaign.state) is not CampaignState.DRAFT:
        raise RefusalError(409, f"Conflict: {own.name} is {state}: its audience is frozen")
    try:
        with tempfile.NamedTemporaryFile(suffix=_SUFFIXES[kind]) as file:
            async for piece in _pieces(request):
                await asyncio.to_thread(file.write, piece)
            file.flush()
            await _import(own, FilePath(file.name))
    except OSError as error:
        raise RefusalError(507, f"Insufficient Storage: the audience cannot be stored ({error.strerror})") from error
    return await own.status()


@router.get("/campaigns/{name}", responses=_errors(*_LOOK_UP))
async def show_campaign(own: Own) -> CampaignStatus:
    """Get the state of a campaign and what became of its recipients."""
    return _status(own.progress)


@router.delete("/campaigns/{name}", responses=_errors(*_LOOK_UP, 409))
async def cancel_campaign(own: Own) -> CampaignStatus:
    """End a campaign for good. Recipients who have not got their message will not get it."""
    await own.campaigns.cancel(own.name)
    return await own.status()


@router.post("/campaigns/{name}/check", responses=_errors(*_LOOK_UP, 409))
async def check_campaign(own: Own) -> CampaignCheck:
    """Render the message of every recipient, and report what Telegram would refuse."""
    return CampaignCheck.model_validate((await own.campaigns.check(own.name)).as_json())


@router.post("/campaigns/{name}/start", responses=_errors(*_LOOK_UP, 409))
async def start_campaign(own: Own) -> CampaignStatus:
    """Check a campaign and start it. 409 names the most frequent error, if there is any."""
    await own.campaigns.start(own.name)
    return await own.status()


@router.post("/campaigns/{name}/pause", responses=_errors(*_LOOK_UP, 409))
async def pause_campaign(own: Own) -> CampaignStatus:
    """Pause a campaign. What waits in RabbitMQ is taken back within a second."""
    await own.campaigns.pause(own.name)
    return await own.status()


@router.post("/campaigns/{name}/resume", responses=_errors(*_LOOK_UP, 409))
async def resume_campaign(own: Own) -> CampaignStatus:
    """Resume a campaign that was paused, or that a rule stopped."""
    await own.campaigns.resume(own.name)
    return await own.status()


@router.post("/campaigns/{name}/test", status_code=202, responses=_errors(400, *_LOOK_UP, 409))
async def test_campaign(request: Request, own: Own, sample: NewSample) -> SampleJob:
    """Send what a recipient gets to another chat. `/floodgate/v1/jobs/{job_id}/result` is Telegram's answer."""
    try:
        job = await own.campaigns.sample(own.name, sample.to, recipient=sample.recipient)
    except JobError as error:
        raise RefusalError(400, f"Bad Request: {error}") from None
    return SampleJob(job_id=(await gateway_of(request).running.parts.client.enqueue(job)).id)


@router.put("/campaigns/{name}/definition", responses=_errors(400, *_LOOK_UP, 409))
async def edit_campaign(own: Own, definition: Definition) -> CampaignStatus:
    """Change the content, the rules, the schedule or the weight for the recipients who have not got their message."""
    await own.campaigns.edit(own.name, definition)
    return await own.status()


@router.post("/campaigns/{name}/retry", responses=_errors(400, *_LOOK_UP, 409))
async def retry_campaign(own: Own, retry: NewRetry) -> RetryResult:
    """Let recipients wait again who failed or were unreachable. A campaign that is done runs again."""
    reason = None if retry.reason is None else re.escape(retry.reason)  # no caller's pattern may take for ever
    return RetryResult(retried=await own.campaigns.retry(own.name, states=retry.states, reason=reason))


@router.post("/campaigns/{name}/edit-sent", status_code=201, responses=_errors(400, *_LOOK_UP, 409))
async def edit_sent(
    own: Own, content: Annotated[dict[str, Any], Body(description="The fields of the content that change.")]
) -> CampaignStatus:
    """Edit the messages that a campaign has sent. Returns the campaign that does it, which runs."""
    edits = await own.campaigns.edit_sent(own.name, content)
    return _status(await own.campaigns.progress(edits.name))


@router.post("/campaigns/{name}/delete-sent", status_code=201, responses=_errors(*_LOOK_UP, 409))
async def delete_sent(own: Own) -> CampaignStatus:
    """Delete the messages that a campaign has sent. Returns the campaign that does it, which runs."""
    deletion = await own.campaigns.delete_sent(own.name)
    return _status(await own.campaigns.progress(deletion.name))


@router.get("/campaigns/{name}/refused", responses=_errors(*_LOOK_UP))
async def refused_rows(own: Own) -> list[CampaignRefusal]:
    """List the rows of the audience that were not taken, by reason, the most frequent first."""
    found = await own.campaigns.refused(own.name)
    return [CampaignRefusal.model_validate(each, from_attributes=True) for each in found]


@router.get("/campaigns/{name}/results", responses=_errors(*_LOOK_UP))
async def campaign_results(own: Own) -> dict[str, Any]:
    """Get how the variants did, by the responses of their recipients, as `floodgate campaigns results --json` does."""
    return (await own.campaigns.results(own.name)).as_json()


@router.put("/unsubscribed/{chat}", status_code=204, responses=_errors(400, 401, 403, 408, 413, 422, 501, 503))
async def unsubscribe(
    opened: Open, chat: Annotated[str, Path(max_length=40, description="A chat's id, or its @name.")]
) -> None:
    """Leave a chat out of all campaigns of the bot."""
    try:
        await opened.campaigns.unsubscribe(chat, bot=opened.bot)
    except InvalidParamsError as error:
        raise RefusalError(400, f"Bad Request: {error}") from None


@router.get(
    "/campaigns/{name}/recipients",
    responses=_streamed(_JSON_LINES, "An object a line, as `export` prints it.") | _errors(*_LOOK_UP),
    response_class=StreamingResponse,
)
async def recipients(own: Own) -> StreamingResponse:
    """Stream what became of each recipient as JSON Lines, in the order of the audience."""

    async def lines() -> AsyncIterator[str]:
        async for recipient in own.campaigns.recipients(own.name):
            yield json.dumps(recipient.as_json()) + "\n"

    return StreamingResponse(lines(), media_type=_JSON_LINES)


@router.get(
    "/campaigns/{name}/events",
    responses=_streamed(_EVENTS, "Events `progress`, each a CampaignStatus, then `end`.") | _errors(*_LOOK_UP, 429),
    response_class=StreamingResponse,
)
async def events(request: Request, own: Own) -> StreamingResponse:
    """Follow a campaign as server-sent events until it has ended: its progress whenever it changes, at most once a
    second."""
    running = gateway_of(request).running
    if running.streams >= MOST_STREAMS:
        raise RefusalError(
            429, f"Too Many Requests: {MOST_STREAMS} streams are open", retry_after=_STREAM_RETRY_SECONDS
        )
    return EventStream(running, progress_events(running, own))


class EventStream(StreamingResponse):
    """A stream of events, counted while it is open. Ends when the client disconnects."""

    def __init__(self, running: Running, content: AsyncIterator[str]) -> None:
        super().__init__(content, media_type=_EVENTS, headers={"Cache-Control": "no-store"})
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        self._running.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._running.streams -= 1


async def progress_events(running: Running, own: OwnCampaign) -> AsyncIterator[str]:
    """Yield server-sent events until the campaign has ended or the gateway stops. A silent stream has heartbeats."""
    progress, said, said_at = own.progress, "", 0.0
    while not running.draining:
        text = _status(progress).model_dump_json()
        if text != said:
            said, said_at = text, time.monotonic()
            yield f"event: progress\ndata: {text}\n\n"
        elif time.monotonic() - said_at >= HEARTBEAT_SECONDS:
            said_at = time.monotonic()
            yield ": still here\n\n"
        if _has_ended(progress):
            yield "event: end\ndata: {}\n\n"
            return
        await asyncio.sleep(POLL_SECONDS)
        try:
            progress = await own.campaigns.progress(own.name)
        except StateError:
            continue  # the database is away: the next look may find it


def _has_ended(progress: CampaignProgress) -> bool:
    state = progress.campaign.state
    return state is CampaignState.DONE or (state is CampaignState.CANCELLED and progress.left == 0)


def _status(progress: CampaignProgress) -> CampaignStatus:
    return CampaignStatus.model_validate(progress.as_json())


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield an upload in pieces that are worth a thread's while."""
    settings = gateway_of(request).settings.gateway
    held = bytearray()
    async for piece in bounded(request, settings, settings.max_body_bytes):
        held += piece
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


async def _import(own: OwnCampaign, file: FilePath) -> None:
    try:
        await own.campaigns.import_audience(own.name, file)
    except CampaignError as error:
        raise RefusalError(400, f"Bad Request: {str(error).replace(str(file), 'the audience')}") from None
