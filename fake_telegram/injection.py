"""Simulates users: makes full updates from short descriptions of what users do.

A short description is ``{"user": 42, "text": "hi"}`` (a private message), with ``"chat": -100…`` a message in a group,
``{"user": 42, "callback": "data", "message_id": 7}`` a pressed button. ``{"raw": …}`` is delivered unchanged in place
of an update, even if it is malformed. Anything else is an update without its id, ``{"message": {…}}``, whose missing
fields (id, date, chat and sender) are filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from floodgate.fake_telegram.calls import as_integer
from floodgate.fake_telegram.chats import user_as_json
from floodgate.fake_telegram.entities import units
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.world import World

MOST_AT_ONCE: Final = 200_000
_COMMAND: Final = re.compile(r"/[A-Za-z0-9_]{1,32}(@\w+)?")
_MESSAGES: Final = frozenset({"message", "edited_message", "channel_post", "edited_channel_post", "business_message"})
_SHORT: Final = frozenset({"user", "chat", "text", "callback", "message_id"})


@dataclass(frozen=True, slots=True)
class Crowd:
    """Messages from many users: each of ``users`` (ids from ``first_user`` on) sends ``per_user`` messages in turn.

    ``text`` may contain ``{user}`` and ``{n}``, the ordinal of the message among the user's, from 1.
    """

    users: int
    per_user: int = 1
    text: str = "{n}"
    first_user: int = 1_000

    def descriptions(self) -> Iterator[dict[str, Any]]:
        """Yield the descriptions, all first messages before all second ones."""
        if not 0 <= self.users * self.per_user <= MOST_AT_ONCE:
            raise bad_request(f"at most {MOST_AT_ONCE} updates at once")
        for n in range(1, self.per_user + 1):
            for user in range(self.first_user, self.first_user + self.users):
                yield {"user": user, "text": self.text.replace("{user}", str(user)).replace("{n}", str(n))}


def inject(world: World, bot_id: int, descriptions: Sequence[dict[str, Any]]) -> list[int]:
    """Add updates to a bot's inbox.

    Returns:
        The ids of the updates, without those of types that the bot has not asked for.

    Raises:
        ApiError: A description is invalid.
    """
    inbox = world.receiving.inbox(bot_id)
    ids = [inbox.add(*_update_of(world, bot_id, description)) for description in descriptions]
    return [update_id for update_id in ids if update_id is not None]


def _update_of(world: World, bot_id: int, description: dict[str, Any]) -> tuple[str, dict[str, Any], int, Any]:
    if description.keys() == {"raw"}:
        return "raw", {}, 0, description["raw"]
    return *_described(world, bot_id, description), None


def _described(world: World, bot_id: int, description: dict[str, Any]) -> tuple[str, dict[str, Any], int]:
    if description.keys() <= _SHORT and description.keys() & {"text", "callback"}:
        return _from_short(world, bot_id, description)
    raw = {kind: content for kind, content in description.items() if kind != "update_id"}
    if len(raw) != 1 or not isinstance(next(iter(raw.values())), dict):
        raise bad_request('an update is {"user": …, "text": …}, {"user": …, "callback": …} or {"<type>": {…}}')
    kind, content = next(iter(raw.items()))
    if kind in _MESSAGES:
        content = _completed(world, bot_id, content)
    _open_query(world, bot_id, kind, content)
    return kind, content, _lane(content)


def _from_short(world: World, bot_id: int, description: dict[str, Any]) -> tuple[str, dict[str, Any], int]:
    user_id = as_integer(description.get("user")) or as_integer(description.get("chat"))
    chat_id = as_integer(description.get("chat")) or user_id
    if user_id <= 0:
        raise bad_request("an update from a short description needs the user's id")
    if "callback" in description:
        return "callback_query", _pressed(world, bot_id, user_id, chat_id, description), chat_id
    said = {"chat": world.chats.as_json(chat_id), "from": user_as_json(user_id), "text": str(description["text"])}
    return "message", _completed(world, bot_id, said), chat_id


def _completed(world: World, bot_id: int, message: dict[str, Any]) -> dict[str, Any]:
    chat_id = as_integer(message.get("chat", {}).get("id")) or as_integer(message.get("from", {}).get("id")) or 1
    full = {
        "message_id": message.get("message_id") or world.messages.next_id(bot_id, chat_id),
        "date": int(world.wall()),
        "chat": world.chats.as_json(chat_id),
        **message,
    }
    command = _COMMAND.match(str(full.get("text") or ""))
    if command and "entities" not in full:
        full["entities"] = [{"type": "bot_command", "offset": 0, "length": units(command[0])}]
    world.messages.keep(bot_id, chat_id, full)
    return full


def _pressed(world: World, bot_id: int, user_id: int, chat_id: int, description: dict[str, Any]) -> dict[str, Any]:
    query: dict[str, Any] = {
        "id": str(4_000_000_000_000_000 + world.messages.next_id(bot_id, 0)),
        "from": user_as_json(user_id),
        "chat_instance": str(chat_id),
        "data": str(description["callback"]),
    }
    message = world.messages.find(bot_id, chat_id, as_integer(description.get("message_id")))
    if message is not None:
        query["message"] = message
    _open_query(world, bot_id, "callback_query", query)
    return query


def _open_query(world: World, bot_id: int, kind: str, content: dict[str, Any]) -> None:
    if kind in ("callback_query", "inline_query"):
        world.bots.get(bot_id).open_query(str(content.get("id")))


def _lane(content: dict[str, Any]) -> int:
    """Return the key within which a webhook keeps order: the chat, or else the user, or else 0."""
    message = content.get("message")
    inside = message if isinstance(message, dict) else content
    for holder in (inside.get("chat"), content.get("from"), content.get("user")):
        if isinstance(holder, dict) and as_integer(holder.get("id")):
            return as_integer(holder["id"])
    return 0
