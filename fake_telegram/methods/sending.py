"""Methods that send messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.messages import Message
from floodgate.fake_telegram.methods import common, content, media
from floodgate.fake_telegram.methods.table import Effect, Method, MethodHandler
from floodgate.fake_telegram.world import World

ContentBuilder = Callable[[World, Call], dict[str, Any]]

_CHAT_ACTIONS: Final = frozenset(
    {
        "typing",
        "upload_photo",
        "record_video",
        "upload_video",
        "record_voice",
        "upload_voice",
        "record_audio",
        "upload_audio",
        "upload_document",
        "choose_sticker",
        "find_location",
        "pick_up_location",
        "record_video_note",
        "upload_video_note",
        "cancel",
    }
)


def _send(holds: ContentBuilder, world: World, call: Call) -> Message:
    chat_id = common.chat_of(world, call)
    fields = {
        **holds(world, call),
        **common.thread(world, call, chat_id),
        **common.reply(world, call, chat_id),
        **common.inline_keyboard(call),
    }
    if call.flag("protect_content"):
        fields["has_protected_content"] = True
    return world.new_message(call.bot_id, chat_id, fields)


def _send_album(world: World, call: Call) -> list[Message]:
    chat_id = common.chat_of(world, call)
    items = media.album(world, call)
    shared = {
        **common.thread(world, call, chat_id),
        **common.reply(world, call, chat_id),
        "media_group_id": world.next_media_group_id(),
    }
    return [world.new_message(call.bot_id, chat_id, {**item, **shared}) for item in items]


def break_album(world: World, call: Call) -> None:
    """Send only the first item of an album.

    Raises:
        ApiError: Always, although the album's first message was sent.
    """
    chat_id = common.chat_of(world, call)
    world.new_message(call.bot_id, chat_id, media.album(world, call)[0])
    raise bad_request('failed to send message #2 with the error message "WEBPAGE_MEDIA_EMPTY"')


def _send_chat_action(world: World, call: Call) -> bool:
    common.chat_of(world, call)
    if call.text("action").lower() not in _CHAT_ACTIONS:
        raise bad_request("wrong parameter action in request")
    return True


def _send_draft(holds: ContentBuilder, world: World, call: Call) -> bool:
    if common.chat_of(world, call) < 0:
        raise bad_request("the draft must be sent to a private chat")
    draft_id = call.integer("draft_id")
    if draft_id == 0:
        raise bad_request("draft identifier must be non-zero")
    draft = {"draft_id": draft_id, **holds(world, call)}
    world.drafts.show(call.bot_id, common.chat_of(world, call), draft, world.wall())
    return True


def _create_forum_topic(world: World, call: Call) -> dict[str, Any]:
    chat_id = common.chat_of(world, call)
    if chat_id > 0:
        raise bad_request("the chat is not a forum")
    name = call.required("name")
    color = call.integer("icon_color") or 7322096
    created = {"forum_topic_created": {"name": name, "icon_color": color}}
    thread_id: int = world.new_message(call.bot_id, chat_id, created)["message_id"]
    world.topics.add((chat_id, thread_id))
    return {"message_thread_id": thread_id, "name": name, "icon_color": color}


def _sender(name: str, holds: ContentBuilder) -> Method:
    handler: MethodHandler = partial(_send, holds)
    return Method(name, handler, Effect.MESSAGE, can_pay=True)


METHODS: Final = (
    _sender("sendMessage", content.text),
    _sender("sendRichMessage", content.rich),
    _sender("sendLocation", content.location),
    _sender("sendVenue", content.venue),
    _sender("sendContact", content.contact),
    _sender("sendPoll", content.poll),
    _sender("sendDice", content.dice),
    _sender("sendGame", content.game),
    _sender("sendInvoice", content.invoice),
    Method("sendChecklist", partial(_send, content.checklist), Effect.MESSAGE),
    _sender("sendPaidMedia", media.paid),
    *(
        _sender(f"send{kind.name}", partial(media.single, kind))
        for kind in (
            media.PHOTO,
            media.AUDIO,
            media.DOCUMENT,
            media.VIDEO,
            media.ANIMATION,
            media.VOICE,
            media.VIDEO_NOTE,
            media.STICKER,
            media.LIVE_PHOTO,
        )
    ),
    Method("sendMediaGroup", _send_album, Effect.MESSAGE, counted_by="media", can_pay=True),
    Method("sendChatAction", _send_chat_action, Effect.TYPING),
    Method("sendMessageDraft", partial(_send_draft, content.draft), Effect.TYPING),
    Method("sendRichMessageDraft", partial(_send_draft, content.rich), Effect.TYPING),
    Method("createForumTopic", _create_forum_topic, Effect.MESSAGE),
)
