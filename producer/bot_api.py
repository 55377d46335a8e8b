"""The Bot API's common methods, typed, under their own names and with their own parameters; defined once.

``Client`` returns the accepted :class:`~floodgate.broker.messages.job.Job`, ``AsyncClient`` a coroutine of it: that one
type, ``R``, is all that the two differ in here. ``call`` makes any other method. Files are a ``file_id``, a URL, or the
file itself, which is uploaded by way of the spool; in ``media`` each stands where a ``file_id`` would.
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
    """How a job is sent, and where and how quietly its message appears."""

    message_thread_id: int
    direct_messages_topic_id: int
    disable_notification: bool
    protect_content: bool


class MessageOptions(PlaceOptions, total=False):
    """How a job is sent, and what the Bot API lets one say of most new messages."""

    business_connection_id: str
    allow_paid_broadcast: bool
    """Up to 1000 messages a second, for Stars."""
    message_effect_id: str
    suggested_post_parameters: Object
    reply_parameters: Object
    reply_markup: Object


class CaptionOptions(MessageOptions, total=False):
    """The same, of a message with a caption."""

    caption: str
    parse_mode: ParseMode
    caption_entities: Sequence[Object]
    show_caption_above_media: bool


class BotApi(Generic[R]):
    """Each method enqueues one call. It is safe in RabbitMQ when the method returns.

    Raises (each of them):
        JobError: what was given can be known wrong without asking Telegram; nothing was queued.
        SpoolError: a file cannot be kept; nothing was queued.
        RabbitMQError: RabbitMQ did not take the job.
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
        **options: Unpack[MessageOptions],
    ) -> R:
        """Text of 1 to 4096 characters, counted after parsing."""
        return self.call(
            "sendMessage",
            chat_id=chat_id,
            text=text,
            parse_mode=parse_mode,
            entities=entities,
            link_preview_options=link_preview_options,
            **options,
        )

    def send_photo(
        self,
        chat_id: ChatId,
        photo: SendableFile,
        *,
        has_spoiler: bool | None = None,
        **options: Unpack[CaptionOptions],
    ) -> R:
        return self.call("sendPhoto", chat_id=chat_id, photo=photo, has_spoiler=has_spoiler, **options)

    def send_audio(
        self,
        chat_id: ChatId,
        audio: SendableFile,
        *,
        duration: int | None = None,
        performer: str | None = None,
        title: str | None = None,
        **options: Unpack[CaptionOptions],
    ) -> R:
        return self.call(
            "sendAudio",
            chat_id=chat_id,
            audio=audio,
            duration=duration,
            performer=performer,
            title=title,
            **options,
        )

    def send_document(
        self,
        chat_id: ChatId,
        document: SendableFile,
        *,
        disable_content_type_detection: bool | None = None,
        **options: Unpack[CaptionOptions],
    ) -> R:
        return self.call(
            "sendDocument",
            chat_id=chat_id,
            document=document,
            disable_content_type_detection=disable_content_type_detection,
            **options,
        )

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
        **options: Unpack[CaptionOptions],
    ) -> R:
        return self.call(
            "sendVideo",
            chat_id=chat_id,
            video=video,
            duration=duration,
            width=width,
            height=height,
            cover=cover,
            start_timestamp=start_timestamp,
            has_spoiler=has_spoiler,
            supports_streaming=supports_streaming,
            **options,
        )

    def send_animation(
        self,
        chat_id: ChatId,
        animation: SendableFile,
        *,
        has_spoiler: bool | None = None,
        **options: Unpack[CaptionOptions],
    ) -> R:
        return self.call("sendAnimation", chat_id=chat_id, animation=animation, has_spoiler=has_spoiler, **options)

    def send_voice(
        self, chat_id: ChatId, voice: SendableFile, *, duration: int | None = None, **options: Unpack[CaptionOptions]
    ) -> R:
        return self.call("sendVoice", chat_id=chat_id, voice=voice, duration=duration, **options)

    def send_sticker(
        self, chat_id: ChatId, sticker: SendableFile, *, emoji: str | None = None, **options: Unpack[MessageOptions]
    ) -> R:
        return self.call("sendSticker", chat_id=chat_id, sticker=sticker, emoji=emoji, **options)

    def send_media_group(self, chat_id: ChatId, media: Sequence[Object], **options: Unpack[MessageOptions]) -> R:
        """An album of 2 to 10 items; it counts as that many messages."""
        return self.call("sendMediaGroup", chat_id=chat_id, media=media, **options)

    def send_location(self, chat_id: ChatId, latitude: float, longitude: float, **options: Unpack[MessageOptions]) -> R:
        return self.call("sendLocation", chat_id=chat_id, latitude=latitude, longitude=longitude, **options)

    def send_contact(
        self,
        chat_id: ChatId,
        phone_number: str,
        first_name: str,
        *,
        last_name: str | None = None,
        vcard: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> R:
        return self.call(
            "sendContact",
            chat_id=chat_id,
            phone_number=phone_number,
            first_name=first_name,
            last_name=last_name,
            vcard=vcard,
            **options,
        )

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
        return self.call(
            "sendPoll",
            chat_id=chat_id,
            question=question,
            options=options,
            is_anonymous=is_anonymous,
            type=type,
            allows_multiple_answers=allows_multiple_answers,
            **more,
        )

    def send_dice(self, chat_id: ChatId, *, emoji: str | None = None, **options: Unpack[MessageOptions]) -> R:
        return self.call("sendDice", chat_id=chat_id, emoji=emoji, **options)

    def send_chat_action(
        self,
        chat_id: ChatId,
        action: ChatAction,
        *,
        message_thread_id: int | None = None,
        business_connection_id: str | None = None,
        **options: Unpack[JobOptions],
    ) -> R:
        """Shown for 5 seconds at most, so an `expires` becomes it."""
        return self.call(
            "sendChatAction",
            chat_id=chat_id,
            action=action,
            message_thread_id=message_thread_id,
            business_connection_id=business_connection_id,
            **options,
        )

    def forward_message(
        self, chat_id: ChatId, from_chat_id: ChatId, message_id: int, **options: Unpack[PlaceOptions]
    ) -> R:
        return self.call("forwardMessage", chat_id=chat_id, from_chat_id=from_chat_id, message_id=message_id, **options)

    def forward_messages(
        self, chat_id: ChatId, from_chat_id: ChatId, message_ids: Sequence[int], **options: Unpack[PlaceOptions]
    ) -> R:
        """1 to 100 messages in one call; they count as that many."""
        return self.call(
            "forwardMessages", chat_id=chat_id, from_chat_id=from_chat_id, message_ids=message_ids, **options
        )

    def copy_message(
        self, chat_id: ChatId, from_chat_id: ChatId, message_id: int, **options: Unpack[CaptionOptions]
    ) -> R:
        return self.call("copyMessage", chat_id=chat_id, from_chat_id=from_chat_id, message_id=message_id, **options)

    def copy_messages(
        self,
        chat_id: ChatId,
        from_chat_id: ChatId,
        message_ids: Sequence[int],
        *,
        remove_caption: bool | None = None,
        **options: Unpack[PlaceOptions],
    ) -> R:
        """1 to 100 messages in one call; they count as that many."""
        return self.call(
            "copyMessages",
            chat_id=chat_id,
            from_chat_id=from_chat_id,
            message_ids=message_ids,
            remove_caption=remove_caption,
            **options,
        )

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
        **options: Unpack[JobOptions],
    ) -> R:
        """Of the message `message_id` in `chat_id`, or of `inline_message_id`."""
        return self.call(
            "editMessageText",
            text=text,
            chat_id=chat_id,
            message_id=message_id,
            inline_message_id=inline_message_id,
            parse_mode=parse_mode,
            entities=entities,
            link_preview_options=link_preview_options,
            reply_markup=reply_markup,
            business_connection_id=business_connection_id,
            **options,
        )

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
        **options: Unpack[JobOptions],
    ) -> R:
        return self.call(
            "editMessageCaption",
            caption=caption,
            chat_id=chat_id,
            message_id=message_id,
            inline_message_id=inline_message_id,
            parse_mode=parse_mode,
            caption_entities=caption_entities,
            show_caption_above_media=show_caption_above_media,
            reply_markup=reply_markup,
            business_connection_id=business_connection_id,
            **options,
        )

    def edit_message_media(
        self,
        media: Object,
        *,
        chat_id: ChatId | None = None,
        message_id: int | None = None,
        inline_message_id: str | None = None,
        reply_markup: Object | None = None,
        business_connection_id: str | None = None,
        **options: Unpack[JobOptions],
    ) -> R:
        return self.call(
            "editMessageMedia",
            media=media,
            chat_id=chat_id,
            message_id=message_id,
            inline_message_id=inline_message_id,
            reply_markup=reply_markup,
            business_connection_id=business_connection_id,
            **options,
        )

    def edit_message_reply_markup(
        self,
        *,
        reply_markup: Object | None = None,
        chat_id: ChatId | None = None,
        message_id: int | None = None,
        inline_message_id: str | None = None,
        business_connection_id: str | None = None,
        **options: Unpack[JobOptions],
    ) -> R:
        """Without `reply_markup` the keyboard is taken away."""
        return self.call(
            "editMessageReplyMarkup",
            reply_markup=reply_markup,
            chat_id=chat_id,
            message_id=message_id,
            inline_message_id=inline_message_id,
            business_connection_id=business_connection_id,
            **options,
        )

    def delete_message(self, chat_id: ChatId, message_id: int, **options: Unpack[JobOptions]) -> R:
        return self.call("deleteMessage", chat_id=chat_id, message_id=message_id, **options)

    def delete_messages(self, chat_id: ChatId, message_ids: Sequence[int], **options: Unpack[JobOptions]) -> R:
        """1 to 100 messages in one call."""
        return self.call("deleteMessages", chat_id=chat_id, message_ids=message_ids, **options)

    def pin_chat_message(
        self,
        chat_id: ChatId,
        message_id: int,
        *,
        disable_notification: bool | None = None,
        **options: Unpack[JobOptions],
    ) -> R:
        return self.call(
            "pinChatMessage",
            chat_id=chat_id,
            message_id=message_id,
            disable_notification=disable_notification,
            **options,
        )

    def set_message_reaction(
        self,
        chat_id: ChatId,
        message_id: int,
        reaction: Sequence[Object] | None = None,
        *,
        is_big: bool | None = None,
        **options: Unpack[JobOptions],
    ) -> R:
        return self.call(
            "setMessageReaction",
            chat_id=chat_id,
            message_id=message_id,
            reaction=reaction,
            is_big=is_big,
            **options,
        )

    def answer_callback_query(
        self,
        callback_query_id: str,
        text: str | None = None,
        *,
        show_alert: bool | None = None,
        url: str | None = None,
        cache_time: int | None = None,
        **options: Unpack[JobOptions],
    ) -> R:
        """Free of every limit. `text` has up to 200 characters."""
        return self.call(
            "answerCallbackQuery",
            callback_query_id=callback_query_id,
            text=text,
            show_alert=show_alert,
            url=url,
            cache_time=cache_time,
            **options,
        )
