"""Edits, stops and deletes existing messages.

An inline message belongs to no chat of the bot's: an edit of one returns ``true`` and is not stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.messages import Message
from floodgate.fake_telegram.methods import common, content, media
from floodgate.fake_telegram.methods.table import Effect, Method
from floodgate.fake_telegram.world import World

Change = Callable[[World, Call, Message], dict[str, Any]]
"""Fields that an edit changes; None removes a field."""

NOT_MODIFIED: Final = (
    "message is not modified: specified new message content and reply markup are exactly the same"
    " as a current content and reply markup of the message"
)
_FILES: Final = ("photo", "video", "animation", "audio", "document", "voice")
_LONGEST_DELETABLE_SECONDS: Final = 48 * 3600


def _edit(change: Change, world: World, call: Call) -> Message | bool:
    if call.text("inline_message_id"):
        change(world, call, {})
        return True
    chat_id, message = common.existing(world, call, "message to edit")
    if message.get("from", {}).get("id", call.bot_id) != call.bot_id:
        raise bad_request("message can't be edited")
    fields = {"reply_markup": None, **change(world, call, message), **common.inline_keyboard(call)}
    edited = {**message, **fields}
    edited = {name: value for name, value in edited.items() if value is not None}
    if edited == message:
        raise bad_request(NOT_MODIFIED)
    edited["edit_date"] = int(world.wall())
    world.messages.replace(call.bot_id, chat_id, edited)
    return edited


def _text(world: World, call: Call, message: Message) -> dict[str, Any]:
    fields = content.rich(world, call) if call.has("rich_message") else common.message_text(call)
    if message and not message.keys() & {"text", "rich_message"}:
        raise bad_request("there is no text in the message to edit")
    return {**dict.fromkeys(("text", "entities", "rich_message")), **fields}


def _caption(world: World, call: Call, message: Message) -> dict[str, Any]:
    fields = common.caption(call)
    if message and not message.keys() & set(_FILES):
        raise bad_request("there is no caption in the message to edit")
    return {"caption": None, "caption_entities": None, **fields}


def _media(world: World, call: Call, message: Message) -> dict[str, Any]:
    fields = media.edited(world, call)
    if message and not message.keys() & {*_FILES, "text"}:
        raise bad_request("message can't be edited")
    gone = dict.fromkeys((*_FILES, "text", "entities", "caption", "caption_entities"))
    return {**gone, **fields}


def _markup(world: World, call: Call, message: Message) -> dict[str, Any]:
    return {}


def _live_location(world: World, call: Call, message: Message) -> dict[str, Any]:
    point = content.location_fields(call)
    _check_live(message)
    kept = {name: message["location"][name] for name in ("live_period",) if message}
    return {"location": {**point, **kept}}


def _stopped_location(world: World, call: Call, message: Message) -> dict[str, Any]:
    _check_live(message)
    point = message.get("location", {})
    return {"location": {name: value for name, value in point.items() if name != "live_period"}}


def _check_live(message: Message) -> None:
    if message and "live_period" not in message.get("location", {}):
        raise bad_request("message can't be edited")


def _checklist(world: World, call: Call, message: Message) -> dict[str, Any]:
    if message and "checklist" not in message:
        raise bad_request("message can't be edited")
    return content.checklist(world, call)


def _stop_poll(world: World, call: Call) -> dict[str, Any]:
    chat_id, message = common.existing(world, call, "message with poll to stop")
    poll = message.get("poll")
    if poll is None:
        raise bad_request("message with poll to stop not found")
    if poll["is_closed"]:
        raise bad_request("poll has already been closed")
    closed = {**poll, "is_closed": True}
    markup = common.inline_keyboard(call)
    without = {name: value for name, value in message.items() if name != "reply_markup"}
    world.messages.replace(call.bot_id, chat_id, {**without, "poll": closed, **markup})
    return closed


def _delete_message(world: World, call: Call) -> bool:
    chat_id, message = common.existing(world, call, "message to delete")
    if world.wall() - message["date"] > _LONGEST_DELETABLE_SECONDS:
        raise bad_request("message can't be deleted for everyone")
    return world.messages.delete(call.bot_id, chat_id, message["message_id"])


def _delete_messages(world: World, call: Call) -> bool:
    chat_id = common.chat_of(world, call)
    for message_id in common.message_ids(call):
        world.messages.delete(call.bot_id, chat_id, message_id)
    return True


def _pin(world: World, call: Call) -> bool:
    common.existing(world, call, "message to pin")
    return True


def _react(world: World, call: Call) -> bool:
    common.existing(world, call, "message to react")
    call.array("reaction", "ReactionType")
    return True


def _editor(name: str, change: Change) -> Method:
    return Method(name, partial(_edit, change), Effect.EDIT)


METHODS: Final = (
    _editor("editMessageText", _text),
    _editor("editMessageCaption", _caption),
    _editor("editMessageMedia", _media),
    _editor("editMessageReplyMarkup", _markup),
    _editor("editMessageLiveLocation", _live_location),
    _editor("stopMessageLiveLocation", _stopped_location),
    _editor("editMessageChecklist", _checklist),
    Method("stopPoll", _stop_poll, Effect.EDIT),
    Method("deleteMessage", _delete_message, Effect.ACTION),
    Method("deleteMessages", _delete_messages, Effect.ACTION),
    Method("pinChatMessage", _pin, Effect.ACTION),
    Method("setMessageReaction", _react, Effect.ACTION),
)
