"""Reads of the bot, chats, members, files, and the bot's own settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.chats import user_as_json, user_id_of
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.files import DOWNLOAD_BYTES
from floodgate.fake_telegram.methods import common
from floodgate.fake_telegram.methods.table import Method
from floodgate.fake_telegram.world import World

_GIFTS: Final = dict.fromkeys(
    ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels"), True
)


def _get_me(world: World, call: Call) -> dict[str, Any]:
    return {
        **world.bots.get(call.bot_id).user,
        "can_join_groups": True,
        "can_read_all_group_messages": False,
        "supports_inline_queries": True,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }


def _get_chat(world: World, call: Call) -> dict[str, Any]:
    chat = world.chats.as_json(common.chat_of(world, call))
    return {**chat, "accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": _GIFTS}


def _get_chat_member(world: World, call: Call) -> dict[str, Any]:
    common.chat_of(world, call)
    return _member(world, call, user_id_of(call.params.get("user_id")))


def _member(world: World, call: Call, user_id: int) -> dict[str, Any]:
    user = world.bots.get(user_id).user if user_id == call.bot_id else user_as_json(user_id)
    return {"user": user, "status": "member"}


def _get_chat_administrators(world: World, call: Call) -> list[dict[str, Any]]:
    if common.chat_of(world, call) > 0:
        raise bad_request("there are no administrators in the private chat")
    return [{"user": user_as_json(1), "status": "creator", "is_anonymous": False}]


def _get_chat_member_count(world: World, call: Call) -> int:
    return 2 if common.chat_of(world, call) > 0 else 100


def _get_file(world: World, call: Call) -> dict[str, Any]:
    stored = world.files.find(call.bot_id, call.text("file_id"))
    if stored is None:
        raise bad_request("invalid file_id")
    if stored.size > DOWNLOAD_BYTES:
        raise bad_request("file is too big")
    return {**stored.as_json(), "file_path": stored.path}


def _get_user_profile_photos(world: World, call: Call) -> dict[str, Any]:
    user_id_of(call.params.get("user_id"))
    return {"total_count": 0, "photos": []}


def _nothing(result: Any) -> Callable[[World, Call], Any]:
    return lambda world, call: result


def _key(call: Call, what: str) -> str:
    return f"{what}:{call.text('scope')}:{call.text('chat_id')}:{call.text('language_code')}"


def _setting(what: str, default: Any, *params: str) -> tuple[Method, Method]:
    """Return the ``get…`` and ``set…`` methods of a bot's own setting: a get returns the value last set."""

    def get(world: World, call: Call) -> Any:
        return world.bots.get(call.bot_id).settings.get(_key(call, what), default)

    def put(world: World, call: Call) -> bool:
        world.bots.get(call.bot_id).settings[_key(call, what)] = _given(call, default, params)
        return True

    return Method(f"get{what}", get), Method(f"set{what}", put)


def _given(call: Call, default: Any, params: tuple[str, ...]) -> Any:
    if isinstance(default, list):
        return call.array(params[0], params[0])
    if params[0] in default:
        return {params[0]: call.text(params[0])}
    return call.structure(params[0], params[0]) or default


def _delete_my_commands(world: World, call: Call) -> bool:
    world.bots.get(call.bot_id).settings.pop(_key(call, "MyCommands"), None)
    return True


METHODS: Final = (
    Method("getMe", _get_me),
    Method("getChat", _get_chat),
    Method("getChatMember", _get_chat_member),
    Method("getChatAdministrators", _get_chat_administrators),
    Method("getChatMemberCount", _get_chat_member_count),
    Method("getFile", _get_file),
    Method("getUserProfilePhotos", _get_user_profile_photos),
    Method("getForumTopicIconStickers", _nothing([])),
    Method("getUserChatBoosts", _nothing({"boosts": []})),
    Method("getCustomEmojiStickers", _nothing([])),
    Method("getGameHighScores", _nothing([])),
    Method("getMyStarBalance", _nothing({"amount": 0})),
    Method("getStarTransactions", _nothing({"transactions": []})),
    Method("getAvailableGifts", _nothing({"gifts": []})),
    *_setting("MyCommands", [], "commands"),
    *_setting("MyName", {"name": ""}, "name"),
    *_setting("MyDescription", {"description": ""}, "description"),
    *_setting("MyShortDescription", {"short_description": ""}, "short_description"),
    *_setting("ChatMenuButton", {"type": "default"}, "menu_button"),
    Method("deleteMyCommands", _delete_my_commands),
)
