"""Forwarding and copying messages from chat to chat."""

from __future__ import annotations

from typing import Any, Final

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.messages import Message
from floodgate.fake_telegram.methods import common
from floodgate.fake_telegram.methods.table import Effect, Method
from floodgate.fake_telegram.world import World

# Fields that identify a message rather than describe its content.
_ENVELOPE: Final = frozenset(
    {
        "message_id",
        "from",
        "sender_chat",
        "chat",
        "date",
        "edit_date",
        "reply_to_message",
        "reply_markup",
        "message_thread_id",
        "is_topic_message",
        "media_group_id",
        "forward_origin",
        "has_protected_content",
    }
)
_SERVICE: Final = frozenset({"forum_topic_created", "pinned_message", "new_chat_members", "left_chat_member"})


def _forward_message(world: World, call: Call) -> Message:
    return _forwarded(world, call, common.chat_of(world, call), _source(world, call, "message to forward"))


def _copy_message(world: World, call: Call) -> dict[str, int]:
    chat_id = common.chat_of(world, call)
    fields = _held(_source(world, call, "message to copy"))
    if call.has("caption") and "text" not in fields:
        fields = {**_without_caption(fields), **common.caption(call)}
    fields |= common.thread(world, call, chat_id) | common.reply(world, call, chat_id) | common.inline_keyboard(call)
    return {"message_id": world.new_message(call.bot_id, chat_id, fields)["message_id"]}


def _forward_messages(world: World, call: Call) -> list[dict[str, int]]:
    chat_id = common.chat_of(world, call)
    sources = _sources(world, call, "forward")
    return [{"message_id": _forwarded(world, call, chat_id, source)["message_id"]} for source in sources]


def _copy_messages(world: World, call: Call) -> list[dict[str, int]]:
    chat_id = common.chat_of(world, call)
    held = [_held(source) for source in _sources(world, call, "copy")]
    if call.flag("remove_caption"):
        held = [_without_caption(fields) for fields in held]
    return [{"message_id": world.new_message(call.bot_id, chat_id, fields)["message_id"]} for fields in held]


def _source(world: World, call: Call, called: str) -> Message:
    call.required("from_chat_id")
    return _copyable(common.existing(world, call, called, "from_chat_id")[1], called.split()[-1])


def _sources(world: World, call: Call, verb: str) -> list[Message]:
    """Return those of the messages that exist; Telegram skips the others."""
    call.required("from_chat_id")
    from_chat_id = common.chat_of(world, call, "from_chat_id")
    ids = common.message_ids(call)
    if ids != sorted(set(ids)):
        raise bad_request("message identifiers must be in a strictly increasing order")
    found = [world.messages.find(call.bot_id, from_chat_id, message_id) for message_id in ids]
    there = [message for message in found if message is not None and not _SERVICE & message.keys()]
    if not there:
        raise bad_request(f"there are no messages to {verb}")
    return there


def _copyable(message: Message, verb: str) -> Message:
    if _SERVICE & message.keys() or message.get("has_protected_content"):
        raise bad_request(f"the message can't be {'copied' if verb == 'copy' else 'forwarded'}")
    return message


def _forwarded(world: World, call: Call, chat_id: int, source: Message) -> Message:
    fields = {"forward_origin": source.get("forward_origin") or _origin(source), **_held(source)}
    return world.new_message(call.bot_id, chat_id, {**fields, **common.thread(world, call, chat_id)})


def _origin(source: Message) -> dict[str, Any]:
    if "from" in source:
        return {"type": "user", "sender_user": source["from"], "date": source["date"]}
    return {
        "type": "channel",
        "chat": source["sender_chat"],
        "message_id": source["message_id"],
        "date": source["date"],
    }


def _held(source: Message) -> dict[str, Any]:
    return {name: value for name, value in source.items() if name not in _ENVELOPE}


def _without_caption(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("caption", "caption_entities")}


METHODS: Final = (
    Method("forwardMessage", _forward_message, Effect.MESSAGE),
    Method("forwardMessages", _forward_messages, Effect.MESSAGE, counted_by="message_ids"),
    Method("copyMessage", _copy_message, Effect.MESSAGE, can_pay=True),
    Method("copyMessages", _copy_messages, Effect.MESSAGE, counted_by="message_ids"),
)
