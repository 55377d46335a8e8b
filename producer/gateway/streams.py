"""The stream API: a caller posts a text while it grows, and the chat shows it as it arrives. OpenAPI describes it at
``/docs``.

One request is one stream. Its body is the text, in UTF-8, in chunks (``Transfer-Encoding: chunked``); each piece is
shown as soon as the limits allow. If the caller disconnects, or is silent for too long, the text ends as after an
error.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, Json
from starlette.requests import ClientDisconnect

from floodgate.broker.errors import DeadLetteredError, InvalidParamsError, JobError, NotSettledError, StateError
from floodgate.broker.messages.job import Priority
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.api import Caller, error_responses, gateway_of
from floodgate.producer.gateway.state import Running
from floodgate.producer.streaming.message import AsyncMessageStream
from floodgate.producer.streaming.text import Formatting

# Open at once; each costs about as much memory as its text.
MOST_STREAMS: Final = 1000
RETRY_SECONDS: Final = 10
# A language model that thinks is silent for a while.
SILENCE_SECONDS: Final = 120.0
LONGEST_SECONDS: Final = 3600.0
# How often a silent stream looks whether the gateway stops.
_POLL_SECONDS: Final = 1.0

JsonObject = Json[dict[str, Any]]


class NewStream(BaseModel):
    """Where and how a text is shown. Objects of the Bot API are JSON."""

    model_config = ConfigDict(extra="forbid")

    chat_id: int | str = Field(description="The chat.", examples=[42])
    formatting: Formatting = Field("plain", description="How the text is written.")
    priority: Priority = Field(Priority.INTERACTIVE, description="Of the first words and of the final text.")
    drafts: bool = Field(True, description="Show drafts in private chats until the text is final.")
    on_error: str | None = Field(
        None, max_length=200, description="Added to the text if the request ends before its body does."
    )
    interrupted: str | None = Field(
        None, max_length=200, description="Added to the text if the gateway dies before the text ends."
    )
    dedupe_key: str | None = Field(
        None, min_length=1, max_length=200, description="Streams of one bot and chat with one key write one text."
    )
    campaign: str | None = Field(None, min_length=1, max_length=100, description="A label by which to find its jobs.")
    message_thread_id: int | None = None
    direct_messages_topic_id: int | None = None
    business_connection_id: str | None = None
    disable_notification: bool | None = None
    protect_content: bool | None = None
    message_effect_id: str | None = None
    reply_parameters: JsonObject | None = Field(None, examples=['{"message_id": 7}'])
    link_preview_options: JsonObject | None = None
    reply_markup: JsonObject | None = Field(None, description="Below the final text.")
    wait_seconds: float = Field(30, ge=0, le=3600, description="How long to wait, at the end, for Telegram's answer.")


class StreamEnd(BaseModel):
    """The end of a stream."""

    status: Literal["sent", "accepted"] = Field(description="`accepted`: the final text is safe, and will be sent.")
    job_ids: list[str] = Field(description="The jobs that complete the text.")
    messages: list[dict[str, Any]] = Field(description="Telegram's messages; empty while they are not sent.")


_errors: Final = partial(
    error_responses,
    {
        400: "The request is wrong.",
        401: "Unknown token or key.",
        403: "The key does not belong to this bot.",
        408: "Nothing of the text arrived for two minutes, or it took over an hour. The chat shows what arrived.",
        409: "The final text will not be sent; the description says why.",
        413: "The text is too long. The chat shows its beginning.",
        422: "The request does not have this form.",
        429: "Too many streams are open; `parameters.retry_after` is the number of seconds to wait.",
        503: "RabbitMQ is unavailable, or the gateway is shutting down.",
    },
)
_TEXT: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The text, in UTF-8 and in chunks.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}
router: Final = APIRouter(prefix="/floodgate/v1", tags=["streams"])


@router.post("/streams", responses=_errors(400, 401, 403, 408, 409, 413, 422, 429, 503), openapi_extra=_TEXT)
async def stream(request: Request, response: Response, asked: Annotated[NewStream, Query()], bot: Caller) -> StreamEnd:
    """Show a text while it arrives. Returns once the final text is sent, or with 202 if it is not in time."""
    running = gateway_of(request).running
    if running.texts >= MOST_STREAMS:
        raise RefusalError(429, f"Too Many Requests: {MOST_STREAMS} streams are open", retry_after=RETRY_SECONDS)
    running.texts += 1
    try:
        message = await _written(request, running, asked, bot)
    finally:
        running.texts -= 1
    end = await _end(message, asked.wait_seconds)
    response.status_code = 200 if end.status == "sent" else 202
    return end


async def _written(request: Request, running: Running, asked: NewStream, bot: str) -> AsyncMessageStream:
    """Write the body into the chat, and complete the text."""
    options = asked.model_dump(exclude_none=True, exclude={"chat_id", "wait_seconds"})
    try:
        message = running.parts.client.stream(asked.chat_id, bot=bot, **options)
    except JobError as error:
        raise RefusalError(400, f"Bad Request: {error}") from None
    async with message:
        async for piece in _text(request, running):
            try:
                await message.append(piece)
            except InvalidParamsError as error:
                raise RefusalError(413, f"Request Entity Too Large: {error}") from None
    return message


async def _end(message: AsyncMessageStream, wait_seconds: float) -> StreamEnd:
    job_ids = [job.id for job in await message.finish()]
    try:
        messages = await message.result(timeout=wait_seconds) if wait_seconds else []
    except (NotSettledError, StateError):
        messages = []
    except DeadLetteredError as error:
        said = f" Telegram said: {error.error['description']}" if error.error else ""
        raise RefusalError(409, f"Conflict: {error}{said}", floodgate_job_ids=job_ids) from None
    return StreamEnd(status="sent" if messages or not job_ids else "accepted", job_ids=job_ids, messages=messages)


async def _text(request: Request, running: Running) -> AsyncIterator[str]:
    """Yield the body as it arrives.

    Raises:
        RefusalError: it is not UTF-8, arrives too slowly, or the gateway shuts down.
        ClientDisconnect: the caller disconnected before the body was complete.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    deadline = time.monotonic() + LONGEST_SECONDS
    more = True
    while more:
        message = await _received(request, running, deadline)
        more = message.get("more_body", False)
        try:
            piece = decoder.decode(message.get("body", b""), final=not more)
        except UnicodeDecodeError:
            raise RefusalError(400, "Bad Request: the text is not UTF-8") from None
        if piece:
            yield piece


async def _received(request: Request, running: Running, deadline: float) -> Any:
    until = min(deadline, time.monotonic() + SILENCE_SECONDS)
    while (left := until - time.monotonic()) > 0:
        if running.sending.is_draining:
            raise RefusalError(503, "Service Unavailable: the gateway is shutting down")
        try:
            async with asyncio.timeout(min(left, _POLL_SECONDS)):
                message = await request.receive()
        except TimeoutError:
            continue
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message
    raise RefusalError(408, "Request Timeout: the text stopped, or took longer than an hour")
