"""Parameters that many methods share: formatted text, keyboards, replies, threads, message ids."""

from __future__ import annotations

from typing import Any, Final

from floodgate.fake_telegram import entities
from floodgate.fake_telegram.calls import Call, as_integer
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.messages import Message
from floodgate.fake_telegram.world import World

LONGEST_TEXT: Final = 4096
LONGEST_CAPTION: Final = 1024
MOST_IDS: Final = 100
_LONGEST_CALLBACK_DATA_BYTES: Final = 64
_BUTTON_ACTIONS: Final = frozenset(
    {
        "url",
        "callback_data",
        "web_app",
        "login_url",
        "switch_inline_query",
        "switch_inline_query_current_chat",
        "switch_inline_query_chosen_chat",
        "copy_text",
        "callback_game",
        "pay",
    }
)


def message_text(call: Call) -> dict[str, Any]:
    """Return `text` and its entities as fields of a message."""
    text, found = _formatted(call.text("text"), call.text("parse_mode"), call, "entities")
    if not text.strip():
        raise bad_request("message text is empty")
    if entities.units(text) > LONGEST_TEXT:
        raise bad_request("message is too long")
    return {"text": text, **({"entities": found} if found else {})}


def caption(params: Call) -> dict[str, Any]:
    """Return `caption` and its entities as fields of a message; no fields if it is empty."""
    text, found = _formatted(params.text("caption"), params.text("parse_mode"), params, "caption_entities")
    return _caption_fields(text, found)


def media_caption(media: dict[str, Any]) -> dict[str, Any]:
    """Return the caption of an InputMedia object as fields of a message."""
    text, found = entities.parse(str(media.get("caption") or ""), str(media.get("parse_mode") or ""))
    return _caption_fields(text, found or entities.checked(text, media.get("caption_entities") or []))


def _caption_fields(text: str, found: list[entities.Entity]) -> dict[str, Any]:
    if entities.units(text) > LONGEST_CAPTION:
        raise bad_request("message caption is too long")
    if not text:
        return {}
    return {"caption": text, **({"caption_entities": found} if found else {})}


def _formatted(text: str, parse_mode: str, call: Call, field: str) -> tuple[str, list[entities.Entity]]:
    if not call.has(field):
        return entities.parse(text, parse_mode)
    return text, entities.checked(text, call.array(field, "MessageEntity"))


def reply_markup(call: Call) -> dict[str, Any] | None:
    """Return the call's keyboard, validated as Telegram does."""
    markup = call.structure("reply_markup", "reply keyboard markup")
    if markup is None:
        return None
    if not isinstance(markup, dict):
        raise bad_request("object expected as reply markup")
    _check_rows(markup.get("keyboard"), 'field "keyboard" must be an Array of Arrays')
    rows = markup.get("inline_keyboard")
    _check_rows(rows, 'field "inline_keyboard" of the InlineKeyboardMarkup must be an Array of Arrays')
    for row in rows or []:
        for button in row:
            _check_inline_button(button)
    return markup


def inline_keyboard(call: Call) -> dict[str, Any]:
    """Return the inline keyboard as a field of a message; other keyboards do not appear in it."""
    markup = reply_markup(call)
    if not markup or not markup.get("inline_keyboard"):
        return {}
    return {"reply_markup": {"inline_keyboard": markup["inline_keyboard"]}}


def _check_rows(rows: Any, reason: str) -> None:
    if rows is not None and not (isinstance(rows, list) and all(isinstance(row, list) for row in rows)):
        raise bad_request(reason)


def _check_inline_button(button: Any) -> None:
    prefix = "can't parse inline keyboard button:"
    if not isinstance(button, dict):
        raise bad_request(f"{prefix} InlineKeyboardButton must be an Object")
    if not isinstance(button.get("text"), str):
        raise bad_request(f'{prefix} Can\'t find field "text"')
    if not _BUTTON_ACTIONS & button.keys():
        raise bad_request(f"{prefix} Text buttons are unallowed in the inline keyboard")
    if len(str(button.get("callback_data", "")).encode()) > _LONGEST_CALLBACK_DATA_BYTES:
        raise bad_request("BUTTON_DATA_INVALID")


def thread(world: World, call: Call, chat_id: int) -> dict[str, Any]:
    """Return the message's forum topic as fields of a message."""
    thread_id = call.integer("message_thread_id")
    if thread_id == 0:
        return {}
    if (chat_id, thread_id) not in world.topics:
        raise bad_request("message thread not found")
    return {"message_thread_id": thread_id, "is_topic_message": True}


def reply(world: World, call: Call, chat_id: int) -> dict[str, Any]:
    """Return the message replied to as a field of a message."""
    parameters = call.structure("reply_parameters", "reply parameters") or {}
    if not isinstance(parameters, dict):
        raise bad_request("object expected as reply parameters")
    message_id = as_integer(parameters.get("message_id")) or call.integer("reply_to_message_id")
    if message_id == 0:
        return {}
    elsewhere = parameters.get("chat_id")
    where = chat_id if elsewhere is None else world.chats.resolve(elsewhere)
    found = world.messages.find(call.bot_id, where, message_id)
    if found is None:
        if parameters.get("allow_sending_without_reply") or call.flag("allow_sending_without_reply"):
            return {}
        raise bad_request("message to be replied not found")
    if where != chat_id:
        return {}
    return {"reply_to_message": {k: v for k, v in found.items() if k != "reply_to_message"}}


def chat_of(world: World, call: Call, name: str = "chat_id") -> int:
    """Return the id of a call's chat."""
    return world.chats.resolve(call.params.get(name))


def existing(world: World, call: Call, called: str, chat_param: str = "chat_id") -> tuple[int, Message]:
    """Return the chat and the message that a call names. ``called`` is the message's name in Telegram's error."""
    chat_id = chat_of(world, call, chat_param)
    message_id = call.integer("message_id")
    found = world.messages.find(call.bot_id, chat_id, message_id) if message_id > 0 else None
    if found is None:
        raise bad_request("message identifier is not specified" if message_id <= 0 else f"{called} not found")
    return chat_id, found


def message_ids(call: Call) -> list[int]:
    """Return `message_ids`, of which there must be 1 to 100."""
    given = call.structure("message_ids", "message_ids")
    if not given:
        raise bad_request("message identifiers are not specified")
    if not isinstance(given, list):
        raise bad_request("expected an Array of message identifiers")
    if len(given) > MOST_IDS:
        raise bad_request("too many message identifiers specified")
    ids = [as_integer(value) for value in given]
    if min(ids) <= 0:
        raise bad_request("invalid message identifier specified")
    return ids
