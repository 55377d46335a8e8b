"""The Bot API's common methods, typed, under their own names and with their own parameters; defined once.

``Client`` returns the accepted :class:`~floodgate.broker.messages.job.Job`, ``AsyncClient`` a coroutine of it: they
only differ in this type, ``R``. ``call`` calls any other method. A file is a ``file_id``, a URL, or the file itself,
which is uploaded through the spool; in ``media`` it stands where a ``file_id`` would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar, Unpack

from floodgate.producer.core import JobOptions
from floodgate.producer.uploads import FileContent

R = TypeVar("R")

ChatId = int | str
SendableFile = str | FileContent
"""A ``file_id`` or URL, or the file itself: a path (not as text), bytes, or a file opened for reading bytes."""
ParseMode = Literal["HTML", "MarkdownV2", "Markdown"]
Object = dict[str, Any]
"""A Bot API object, as its reference describes it."""
ChatAction = Literal[
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
]


class PlaceOptions(JobOptions, total=False):
    """Job options, and where and how quietly the message appears."""

    message_thread_id: int
    direct_messages_topic_id: int
    disable_notification: bool
    protect_content: bool


class MessageOptions(PlaceOptions, total=False):
    """Job options, and the parameters of most new messages."""

    business_connection_id: str
    allow_paid_broadcast: bool
    """Up to 1000 messages a second, for Stars."""
    message_effect_id: str
    suggested_post_parameters: Object
    reply_parameters: Object
    reply_markup: Object


class CaptionOptions(MessageOptions, total=False):
    """The same for a message with a caption."""

    caption: str
    parse_mode: ParseMode
    caption_entities: Sequence[Object]
    show_caption_above_media: bool


class BotApi(Generic[R]):
    """Each method enqueues one call. It is safe in RabbitMQ when the method returns.

    Raises (each of them):
        JobError: the call is wrong, as can be told without asking Telegram; nothing was queued.
        SpoolError: a file cannot be stored; nothing was queued.
        RabbitMQError: RabbitMQ did not accept the job.
    """

    def call(self, method: str, /, **given: Any) -> R:
        raise NotImplementedError

    def send_message(
        self,
        chat_id: ChatId,
        text: str,
        *,
        parse_mode: ParseMode | None = None,
        entities: Sequence[Object] | None = None,
        link_preview_options: Object | None = None,
        **more: Unpack[MessageOptions],
    ) -> R:
        """Send text of 1 to 4096 characters, counted after parsing."""
        return self.call("sendMessage", **_arguments(locals()))

    def send_photo(
        self,
        chat_id: ChatId,
        photo: SendableFile,
        *,
        has_spoiler: bool | None = None,
        **more: Unpack[CaptionOptions],
    ) -> R:
        """Send a photo: a file, a URL, or the file_id of one that Telegram has."""
        return self.call("sendPhoto", **_arguments(locals()))

    def send_audio(
        self,
        chat_id: ChatId,
        audio: SendableFile,
        *,
        duration: int | None = None,
        performer: str | None = None,
        title: str | None = None,
        **more: Unpack[CaptionOptions],
    ) -> R:
        """Send a file as music, with the player's controls."""
        return self.call("sendAudio", **_arguments(locals()))

    def send_document(
        self,
        chat_id: ChatId,
        document: SendableFile,
        *,
        disable_content_type_detection: bool | None = None,
        **more: Unpack[CaptionOptions],
    ) -> R:
        """Send a file of any kind."""
        return self.call("sendDocument", **_arguments(locals()))

    def send_video(
        self,
        chat_id: ChatId,
        video: SendableFile,
        *,
        duration: int | None = None,
        width: int | None = None,
        height: int | None = None,
        cover: SendableFile | None = None,
        start_timestamp: int | None = None,
        has_spoiler: bool | None = None,
        supports_streaming: bool | None = None,
        **more: Unpack[CaptionOptions],
    ) -> R:
        """Send a video."""
        return self.call("sendVideo", **_arguments(locals()))

    def send_animation(
        self,
        chat_id: ChatId,
        animation: SendableFile,
        *,
        has_spoiler: bool | None = None,
        **more: Unpack[CaptionOptions],
    ) -> R:
        """Send a GIF, or a video without sound."""
        return self.call("sendAnimation", **_arguments(locals()))

    def send_voice(
        self, chat_id: ChatId, voice: SendableFile, *, duration: int | None = None, **more: Unpack[CaptionOptions]
    ) -> R:
        """Send a voice message."""
        return self.call("sendVoice", **_arguments(locals()))

    def send_sticker(
        self, chat_id: ChatId, sticker: SendableFile, *, emoji: str | None = None, **more: Unpack[MessageOptions]
    ) -> R:
        """Send a sticker."""
        return self.call("sendSticker", **_arguments(locals()))

    def send_media_group(self, chat_id: ChatId, media: Sequence[Object], **more: Unpack[MessageOptions]) -> R:
        """An album of 2 to 10 items; it counts as that many messages."""
        return self.call("sendMediaGroup", **_arguments(locals()))

    def send_location(self, chat_id: ChatId, latitude: float, longitude: float, **more: Unpack[MessageOptions]) -> R:
        """Send a point on the map, in degrees."""
        return self.call("sendLocation", **_arguments(locals()))

    def send_contact(
        self,
        chat_id: ChatId,
        phone_number: str,
        first_name: str,
        *,
        last_name: str | None = None,
        vcard: str | None = None,
        **more: Unpack[MessageOptions],
    ) -> R:
        """Send a contact."""
        return self.call("sendContact", **_arguments(locals()))

    def send_poll(
        self,
        chat_id: ChatId,
        question: str,
        options: Sequence[Object],
        *,
        is_anonymous: bool | None = None,
        type: Literal["regular", "quiz"] | None = None,
        allows_multiple_answers: bool | None = None,
        **more: Unpack[MessageOptions],
    ) -> R:
        """Send a poll with 2 to 12 options."""
        return self.call("sendPoll", **_arguments(locals()))

    def send_dice(self, chat_id: ChatId, *, emoji: str | None = None, **more: Unpack[MessageOptions]) -> R:
        """Send a dice, or another emoji with a random value."""
        return self.call("sendDice", **_arguments(locals()))

    def send_chat_action(
        self,
        chat_id: ChatId,
        action: ChatAction,
        *,
        message_thread_id: int | None = None,
        business_connection_id: str | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Show an action for at most 5 seconds. One that would be late is shed: see `worth_until`."""
        return self.call("sendChatAction", **_arguments(locals()))

    def forward_message(
        self, chat_id: ChatId, from_chat_id: ChatId, message_id: int, **more: Unpack[PlaceOptions]
    ) -> R:
        """Forward a message."""
        return self.call("forwardMessage", **_arguments(locals()))

    def forward_messages(
        self, chat_id: ChatId, from_chat_id: ChatId, message_ids: Sequence[int], **more: Unpack[PlaceOptions]
    ) -> R:
        """1 to 100 messages in one call; they count as that many."""
        return self.call("forwardMessages", **_arguments(locals()))

    def copy_message(self, chat_id: ChatId, from_chat_id: ChatId, message_id: int, **more: Unpack[CaptionOptions]) -> R:
        """Send a copy of a message, without a link to it."""
        return self.call("copyMessage", **_arguments(locals()))

    def copy_messages(
        self,
        chat_id: ChatId,
        from_chat_id: ChatId,
        message_ids: Sequence[int],
        *,
        remove_caption: bool | None = None,
        **more: Unpack[PlaceOptions],
    ) -> R:
        """1 to 100 messages in one call; they count as that many."""
        return self.call("copyMessages", **_arguments(locals()))

    def edit_message_text(
        self,
        text: str,
        *,
        chat_id: ChatId | None = None,
        message_id: int | None = None,
        inline_message_id: str | None = None,
        parse_mode: ParseMode | None = None,
        entities: Sequence[Object] | None = None,
        link_preview_options: Object | None = None,
        reply_markup: Object | None = None,
        business_connection_id: str | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Edit the message `message_id` in `chat_id`, or the message `inline_message_id`."""
        return self.call("editMessageText", **_arguments(locals()))

    def edit_message_caption(
        self,
        *,
        caption: str | None = None,
        chat_id: ChatId | None = None,
        message_id: int | None = None,
        inline_message_id: str | None = None,
        parse_mode: ParseMode | None = None,
        caption_entities: Sequence[Object] | None = None,
        show_caption_above_media: bool | None = None,
        reply_markup: Object | None = None,
        business_connection_id: str | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Change a caption."""
        return self.call("editMessageCaption", **_arguments(locals()))

    def edit_message_media(
        self,
        media: Object,
        *,
        chat_id: ChatId | None = None,
        message_id: int | None = None,
        inline_message_id: str | None = None,
        reply_markup: Object | None = None,
        business_connection_id: str | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Replace a message's photo, video or file."""
        return self.call("editMessageMedia", **_arguments(locals()))

    def edit_message_reply_markup(
        self,
        *,
        reply_markup: Object | None = None,
        chat_id: ChatId | None = None,
        message_id: int | None = None,
        inline_message_id: str | None = None,
        business_connection_id: str | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Replace the keyboard, or remove it if `reply_markup` is not given."""
        return self.call("editMessageReplyMarkup", **_arguments(locals()))

    def delete_message(self, chat_id: ChatId, message_id: int, **more: Unpack[JobOptions]) -> R:
        """Delete a message. A bot can delete messages of the last 48 hours."""
        return self.call("deleteMessage", **_arguments(locals()))

    def delete_messages(self, chat_id: ChatId, message_ids: Sequence[int], **more: Unpack[JobOptions]) -> R:
        """1 to 100 messages in one call."""
        return self.call("deleteMessages", **_arguments(locals()))

    def pin_chat_message(
        self,
        chat_id: ChatId,
        message_id: int,
        *,
        disable_notification: bool | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Pin a message to the top of the chat."""
        return self.call("pinChatMessage", **_arguments(locals()))

    def set_message_reaction(
        self,
        chat_id: ChatId,
        message_id: int,
        reaction: Sequence[Object] | None = None,
        *,
        is_big: bool | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Set the bot's reaction to a message."""
        return self.call("setMessageReaction", **_arguments(locals()))

    def answer_callback_query(
        self,
        callback_query_id: str,
        text: str | None = None,
        *,
        show_alert: bool | None = None,
        url: str | None = None,
        cache_time: int | None = None,
        **more: Unpack[JobOptions],
    ) -> R:
        """Answer a button press; no limit applies. `text` has up to 200 characters."""
        return self.call("answerCallbackQuery", **_arguments(locals()))


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, from the ``locals()`` of its method."""
    named = {name: value for name, value in given.items() if name not in ("self", "more")}
    return {**named, **given["more"]}
