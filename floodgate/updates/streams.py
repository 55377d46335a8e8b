"""``stream_reply``: a growing reply to a message, in a handler of ``floodgate worker --updates``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Unpack, cast

from telegram import Message

from floodgate.actors.updates.run import current_run
from floodgate.broker.errors import InvalidParamsError
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.streaming.message import AsyncMessageStream
from floodgate.producer.streaming.options import StreamOptions
from floodgate.updates.replies import PipelineRequest


def stream_reply(
    message: Message | Mapping[str, Any], client: AsyncClient | None = None, **options: Unpack[StreamOptions]
) -> AsyncMessageStream:
    """Begin a reply that grows, for ``async with``. It goes where the message came from: to its chat, its topic and its
    business connection, and in groups as a reply to it. If the handler is called again for its update, the second
    stream continues the message of the first.

    Args:
        message: python-telegram-bot's message, or Telegram's own JSON.
        client: the client of an ``@on_update`` function. A python-telegram-bot message brings its own.

    Raises:
        JobError: an option is wrong, or there is no client.
    """
    body = message.to_dict() if isinstance(message, Message) else message
    client = client or _client_of(message)
    merged = cast("StreamOptions", {**_place_of(body), **options})
    if "dedupe_key" not in merged and (key := _key()) is not None:
        merged["dedupe_key"] = key
    return client.stream(body["chat"]["id"], **merged)


def _client_of(message: Message | Mapping[str, Any]) -> AsyncClient:
    if isinstance(message, Message):
        request = message.get_bot().request
        if isinstance(request, PipelineRequest):
            return request.client
    raise InvalidParamsError(
        "stream_reply has no client: call it in a handler of `floodgate worker --updates`, or give it one."
    )


def _place_of(body: Mapping[str, Any]) -> dict[str, Any]:
    place: dict[str, Any] = {}
    if body.get("is_topic_message"):
        place["message_thread_id"] = body.get("message_thread_id")
    if (connection := body.get("business_connection_id")) is not None:
        place["business_connection_id"] = connection
    if (topic := body.get("direct_messages_topic")) is not None:
        place["direct_messages_topic_id"] = topic.get("topic_id")
    if body["chat"].get("type") in ("group", "supergroup"):
        place["reply_parameters"] = {"message_id": body["message_id"], "allow_sending_without_reply": True}
    return place


def _key() -> str | None:
    """Identifies the stream among those of its update: by its ordinal. None outside of handlers."""
    run = current_run()
    if run is None:
        return None
    run.calls["stream"] += 1
    whole = f"{run.update.bot}\x00{run.update.update_id}\x00{run.arrived_ms}\x00{run.calls['stream']}"
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()
