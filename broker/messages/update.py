"""The update: what Telegram sends to a bot, as it travels through RabbitMQ.

As for a job, the body is a Dramatiq message, here for the actor ``handle_update``. Its one argument is the update
exactly as Telegram sent it, with the bot it is for:

    {"queue_name": "updates.default.07", "actor_name": "handle_update", "args": [],
     "kwargs": {"update": {"v": 1, "bot": "default", "body": {"update_id": 100000001, "message": {…}}}},
     "options": {}, "message_id": "update-default-100000001", "message_timestamp": <unix ms of its arrival>}

Only the ``update_id`` is validated on the way, so updates of future types pass as well. The message id is a function of
bot and update, so an update that Telegram sends twice has the same message id twice.

Order is kept within a partition. :func:`partition_key` groups updates by chat, whatever their type, or by user if they
have no chat. In a private chat both have the same id, so an inline query of a user and their message to the bot are in
order, too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from floodgate.broker.errors import MalformedUpdateError
from floodgate.broker.messages.job import unix_ms
from floodgate.broker.messages.partitions import partition_of
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.queue_names import updates_queue

UPDATE_ACTOR: Final = "handle_update"
VERSION: Final = 1
# Telegram's updates are a few kB. This is the largest update that is queued; RabbitMQ's own bound is 16 MiB.
MAX_UPDATE_BYTES: Final = 8 * 1024 * 1024
MAX_UPDATE_ID: Final = 2**63 - 1  # the ledger keeps it in 64 bits

# The types of updates, as of Bot API 10.0; a test compares them with python-telegram-bot.
UPDATE_TYPES: Final = (
    *("message", "edited_message", "channel_post", "edited_channel_post"),
    *("business_connection", "business_message", "edited_business_message", "deleted_business_messages"),
    *("guest_message", "message_reaction", "message_reaction_count", "inline_query", "chosen_inline_result"),
    *("callback_query", "shipping_query", "pre_checkout_query", "purchased_paid_media", "poll", "poll_answer"),
    *("my_chat_member", "chat_member", "chat_join_request", "chat_boost", "removed_chat_boost", "managed_bot"),
)
# Telegram leaves these out unless they are requested by name.
ON_REQUEST: Final = frozenset({"chat_member", "message_reaction", "message_reaction_count"})

# Where updates name their chat or user; the first that exists counts. `message` is that of a pressed button.
_CHATS: Final = (("chat",), ("message", "chat"), ("voter_chat",))
_USERS: Final = (("from",), ("user",))
# A bot's status in a chat to which it cannot write.
_OUT: Final = ("kicked", "left")


@dataclass(frozen=True, slots=True)
class Update:
    """One update. ``body`` is the object that Telegram sent, including ``update_id``."""

    bot: str
    update_id: int
    body: dict[str, Any]

    @property
    def message_id(self) -> str:
        """The id of the message that carries this update."""
        return message_id(self.bot, self.update_id)

    @property
    def chat(self) -> str | None:
        """The chat key of the chat it comes from, or of its user; None if it names neither."""
        found = _first_id(self.body, _CHATS) or _first_id(self.body, _USERS)
        return str(found) if found else None

    @property
    def chat_heard_from(self) -> str | None:
        """The chat that the bot can evidently reach; None also if the bot was blocked or removed."""
        change = self.body.get("my_chat_member")
        member = change.get("new_chat_member") if isinstance(change, dict) else None
        out = isinstance(member, dict) and member.get("status") in _OUT
        return None if out else self.chat


def types_left_out(allowed: Collection[str]) -> list[str]:
    """Return the types that Telegram does not send for this ``allowed_updates``."""
    return sorted(set(UPDATE_TYPES).difference(allowed) if allowed else ON_REQUEST)


def message_id(bot: str, update_id: int) -> str:
    """Return the id of the message that carries an update."""
    return f"update-{bot}-{update_id}"


def partition_key(body: dict[str, Any]) -> str:
    """Return the key by which updates stay in order: the chat, else the user, else the poll, else the update itself.

    Accepts any JSON object: misplaced fields are ignored.
    """
    if found := _first_id(body, _CHATS) or _first_id(body, _USERS):
        return str(found)
    poll = body.get("poll")
    if isinstance(poll, dict) and isinstance(poll.get("id"), str) and poll["id"].isascii():
        return f"poll:{poll['id']}"
    return f"update:{body.get('update_id')}"


def _first_id(body: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> int | None:
    for content in _contents(body):
        for path in paths:
            if found := _id_at(content, path):
                return found
    return None


def _contents(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the objects in an update: normally one, under the name of its type."""
    return (value for name, value in body.items() if name != "update_id" and isinstance(value, dict))


def _id_at(content: dict[str, Any], path: tuple[str, ...]) -> int | None:
    holder: Any = content
    for name in path:
        holder = holder.get(name) if isinstance(holder, dict) else None
    found = holder.get("id") if isinstance(holder, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def read_update(bot: str, body: object) -> Update:
    """Read an update that Telegram sent, already decoded from JSON.

    Raises:
        MalformedUpdateError: it is not an object with an ``update_id``.
    """
    if not isinstance(body, dict):
        raise MalformedUpdateError("Not an update: the body is not a JSON object.")
    update_id = body.get("update_id")
    if isinstance(update_id, bool) or not isinstance(update_id, int) or not 0 <= update_id <= MAX_UPDATE_ID:
        raise MalformedUpdateError("Not an update: update_id is missing or invalid.")
    return Update(bot, update_id, body)


def publication(update: Update, partitions: int) -> Publication:
    """Return the message that carries an update to its partition.

    Raises:
        MalformedUpdateError: it is larger than :data:`MAX_UPDATE_BYTES`, or nested too deeply.
    """
    queue = updates_queue(update.bot, partition_of(partition_key(update.body), partitions))
    return Publication("", queue, encode_update(update, queue), update.message_id)


def encode_update(update: Update, queue_name: str, arrived_ms: int | None = None) -> bytes:
    """Return the message body of an update on ``queue_name``. ``arrived_ms`` is Unix time; None is now.

    Raises:
        MalformedUpdateError: it is larger than :data:`MAX_UPDATE_BYTES`, or nested too deeply.
    """
    message = {
        "queue_name": queue_name,
        "actor_name": UPDATE_ACTOR,
        "args": [],
        "kwargs": {"update": {"v": VERSION, "bot": update.bot, "body": update.body}},
        "options": {},
        "message_id": update.message_id,
        "message_timestamp": unix_ms() if arrived_ms is None else arrived_ms,
    }
    try:
        body = json.dumps(message, separators=(",", ":")).encode()
    except RecursionError:
        raise MalformedUpdateError("Not an update: it is nested too deeply.") from None
    if len(body) > MAX_UPDATE_BYTES:
        raise MalformedUpdateError(f"Not an update: it has {len(body)} bytes, and a queue accepts {MAX_UPDATE_BYTES}.")
    return body


def decode_update(body: bytes) -> Update:
    """Decode the update in a message body.

    Raises:
        MalformedUpdateError: the bytes are not a Dramatiq message with an update of a known version.
    """
    try:
        return parse_update(json.loads(body)["kwargs"]["update"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedUpdateError(f"Not an update: {type(error).__name__}.") from None


def parse_update(fields: object) -> Update:
    """Parse the update in a decoded message's ``update`` argument.

    Raises:
        MalformedUpdateError: the fields are not an update of a known version.
    """
    if not isinstance(fields, dict) or fields.get("v") != VERSION:
        raise MalformedUpdateError("Not an update: its version is unknown; another release of Floodgate queued it.")
    bot = fields.get("bot")
    if not isinstance(bot, str) or not bot:
        raise MalformedUpdateError("Not an update: it does not name its bot.")
    return read_update(bot, fields.get("body"))
