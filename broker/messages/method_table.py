"""The table of the Bot API: each method's parameters, what it acts on, which budgets it draws on, what it returns.

It is the only one: :mod:`floodgate.broker.messages.methods` answers questions from it, and tests compare it with the
newest aiogram and python-telegram-bot. A line of the table reads

    methods: what it acts on; other required parameters | optional parameters

``@message`` stands for ``inline_message_id`` or ``chat_id`` with ``message_id``, ``@recipient`` for ``chat_id`` or
``user_id``, ``@text`` for ``text`` or ``rich_message``; a word with a plus sign is a group of parameters.

Sources: the Bot API's reference, version 10.3, by aiogram 3.31; for the charges, Telegram's FAQ and the Bot API
server's maintainer: sends, edits and forum-topic creation count towards a group's 20 a minute, chat actions and answers
do not, an album or a bulk copy of n counts as n; Telegram's page on AI bots: typing and drafts have limits of their
own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Charge(StrEnum):
    """The class of a method: which budgets a call draws on, and so whether it is queued."""

    MESSAGE = "message"  # a new message: bot, chat and group budgets
    EDIT = "edit"  # changes what a chat sees: bot, chat and group budgets
    ACTION = "action"  # acts in a chat without a message: the bot's budget only
    TYPING = "typing"  # typing and drafts: a budget of their own in the chat; shed when late, never delays anything
    ANSWER = "answer"  # answers a query that expires in seconds: no budget of ours, and it waits for nothing
    FREE = "free"  # reads and the bot's own settings: no budget of ours
    UNQUEUED = "unqueued"  # receives updates or logs out: a queue would only delay or repeat it, so it is never a job

    @property
    def metered(self) -> bool:
        """Whether a call draws on the budgets of messages and actions, and waits for them in its chat's line."""
        return self in (Charge.MESSAGE, Charge.EDIT, Charge.ACTION)


@dataclass(frozen=True, slots=True)
class BotApiMethod:
    """A method of the Bot API."""

    name: str
    charge: Charge
    returns: str
    """The type of its result, as in the Bot API's reference; empty if it is not queued, or not known."""
    acts_on: tuple[str, ...] = ()
    """The parameters that identify what it changes: a chat, a message, a draft."""
    also_required: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    known: bool = True
    """Whether the table has it. If not, its verb or a setting says how it is charged."""

    @property
    def required(self) -> tuple[str, ...]:
        """The required parameters. One with an at sign stands for several: see :data:`STANDS_FOR`."""
        return self.acts_on + self.also_required

    @property
    def parameters(self) -> frozenset[str]:
        """All its parameters."""
        each = (STANDS_FOR.get(name, (frozenset({name}),)) for name in self.required)
        return self.optional.union(*(names for sets in each for names in sets))

    @property
    def counted_by(self) -> str:
        """The parameter with as many items as the call makes messages; empty if it makes one."""
        if self.charge is not Charge.MESSAGE or not self.returns.startswith("list"):
            return ""
        return next(name for name in ("media", "message_ids") if name in self.also_required)


# What stands for several parameters, and the sets of which a call needs one.
STANDS_FOR: Final[Mapping[str, tuple[frozenset[str], ...]]] = MappingProxyType(
    {
        "@message": (frozenset({"chat_id", "message_id"}), frozenset({"inline_message_id"})),
        "@recipient": (frozenset({"chat_id"}), frozenset({"user_id"})),
        "@text": (frozenset({"text"}), frozenset({"rich_message"})),
    }
)

_GROUPS: Final = {
    "+quiet": "disable_notification protect_content",
    "+place": "message_thread_id direct_messages_topic_id +quiet",
    "+sent": "business_connection_id message_thread_id +quiet allow_paid_broadcast message_effect_id reply_parameters "
    "reply_markup",
    "+post": "+sent direct_messages_topic_id suggested_post_parameters",
    "+ephemeral": "+post ephemeral_message_parameters",
    "+caption": "caption parse_mode caption_entities",
    "+captioned": "+caption show_caption_above_media",
    "+text": "parse_mode entities link_preview_options",
    "+link": "name expire_date member_limit creates_join_request",
    "+invoice": "provider_token max_tip_amount suggested_tip_amounts provider_data photo_url photo_size photo_width "
    "photo_height need_name need_phone_number need_email need_shipping_address send_phone_number_to_provider "
    "send_email_to_provider is_flexible",
    "+gifts": "exclude_unlimited exclude_limited_upgradable exclude_limited_non_upgradable exclude_from_blockchain "
    "exclude_unique sort_by_price offset limit",
}

# By charge, and by what a queued method returns.
_TABLE: Final = {
    (Charge.MESSAGE, "MessageId"): """
copyMessage: chat_id; from_chat_id message_id | video_start_timestamp allow_paid_broadcast message_effect_id
    suggested_post_parameters reply_parameters reply_markup +place +captioned
""",
    (Charge.MESSAGE, "list[MessageId]"): """
copyMessages: chat_id; from_chat_id message_ids | remove_caption +place
forwardMessages: chat_id; from_chat_id message_ids | +place
""",
    (Charge.MESSAGE, "ForumTopic"): """
createForumTopic: chat_id; name | icon_color icon_custom_emoji_id
""",
    (Charge.MESSAGE, "Message"): """
forwardMessage: chat_id; from_chat_id message_id | video_start_timestamp message_effect_id suggested_post_parameters
    +place
sendAnimation: chat_id; animation | duration width height thumbnail has_spoiler +ephemeral +captioned
sendAudio: chat_id; audio | duration performer title thumbnail +ephemeral +caption
sendChecklist: business_connection_id chat_id; checklist | message_effect_id reply_parameters reply_markup +quiet
sendContact: chat_id; phone_number first_name | last_name vcard +ephemeral
sendDice: chat_id | emoji +post
sendDocument: chat_id; document | thumbnail disable_content_type_detection +ephemeral +caption
sendGame: chat_id; game_short_name | +sent
sendInvoice: chat_id; title description payload currency prices | start_parameter allow_paid_broadcast
    message_effect_id suggested_post_parameters reply_parameters reply_markup +place +invoice
sendLivePhoto: chat_id; live_photo photo | has_spoiler +ephemeral +captioned
sendLocation: chat_id; latitude longitude | horizontal_accuracy live_period heading proximity_alert_radius +ephemeral
sendMessage: chat_id; text | +ephemeral +text
sendPaidMedia: chat_id; star_count media | business_connection_id payload allow_paid_broadcast
    suggested_post_parameters reply_parameters reply_markup +place +captioned
sendPhoto: chat_id; photo | has_spoiler +ephemeral +captioned
sendPoll: chat_id; question options | question_parse_mode question_entities is_anonymous type allows_multiple_answers
    allows_revoting shuffle_options allow_adding_options hide_results_until_closes members_only country_codes
    correct_option_ids explanation explanation_parse_mode explanation_entities explanation_media open_period
    close_date is_closed description description_parse_mode description_entities media +sent
sendRichMessage: chat_id; rich_message | +ephemeral
sendSticker: chat_id; sticker | emoji +ephemeral
sendVenue: chat_id; latitude longitude title address | foursquare_id foursquare_type google_place_id google_place_type
    +ephemeral
sendVideo: chat_id; video | duration width height thumbnail cover start_timestamp has_spoiler supports_streaming
    +ephemeral +captioned
sendVideoNote: chat_id; video_note | duration length thumbnail +ephemeral
sendVoice: chat_id; voice | duration +ephemeral +caption
""",
    (Charge.MESSAGE, "True"): """
sendGift: @recipient; gift_id | pay_for_upgrade text text_parse_mode text_entities
""",
    (Charge.MESSAGE, "list[Message]"): """
sendMediaGroup: chat_id; media | business_connection_id allow_paid_broadcast message_effect_id reply_parameters +place
""",
    (Charge.EDIT, "True"): """
editEphemeralMessageCaption: chat_id receiver_user_id ephemeral_message_id | reply_markup +captioned
editEphemeralMessageMedia: chat_id receiver_user_id ephemeral_message_id; media | reply_markup
editEphemeralMessageReplyMarkup: chat_id receiver_user_id ephemeral_message_id | reply_markup
editEphemeralMessageText: chat_id receiver_user_id ephemeral_message_id; @text | reply_markup +text
editForumTopic: chat_id message_thread_id | name icon_custom_emoji_id
editGeneralForumTopic: chat_id; name
""",
    (Charge.EDIT, "Message | True"): """
editMessageCaption: @message | business_connection_id reply_markup +captioned
editMessageLiveLocation: @message; latitude longitude | business_connection_id live_period horizontal_accuracy heading
    proximity_alert_radius reply_markup
editMessageMedia: @message; media | business_connection_id reply_markup
editMessageReplyMarkup stopMessageLiveLocation: @message | business_connection_id reply_markup
editMessageText: @message; @text | business_connection_id reply_markup +text
setGameScore: @message user_id; score | force disable_edit_message
""",
    (Charge.EDIT, "Message"): """
editMessageChecklist: business_connection_id chat_id message_id; checklist | reply_markup
""",
    (Charge.EDIT, "Poll"): """
stopPoll: chat_id message_id | business_connection_id reply_markup
""",
    (Charge.ACTION, "True"): """
approveChatJoinRequest declineChatJoinRequest: chat_id user_id
approveSuggestedPost: chat_id message_id | send_date
banChatMember: chat_id user_id | until_date revoke_messages
banChatSenderChat unbanChatSenderChat: chat_id sender_chat_id
closeForumTopic deleteForumTopic reopenForumTopic unpinAllForumTopicMessages: chat_id message_thread_id
closeGeneralForumTopic deleteChatPhoto deleteChatStickerSet hideGeneralForumTopic leaveChat removeChatVerification
    reopenGeneralForumTopic unhideGeneralForumTopic unpinAllChatMessages unpinAllGeneralForumTopicMessages: chat_id
convertGiftToStars: business_connection_id owned_gift_id
declineSuggestedPost: chat_id message_id | comment
deleteAllMessageReactions: chat_id | user_id actor_chat_id
deleteBusinessMessages: business_connection_id message_ids
deleteEphemeralMessage: chat_id receiver_user_id ephemeral_message_id
deleteMessage: chat_id message_id
deleteMessageReaction: chat_id message_id | user_id actor_chat_id
deleteMessages: chat_id message_ids
deleteStory: business_connection_id story_id
editUserStarSubscription: user_id telegram_payment_charge_id; is_canceled
giftPremiumSubscription: user_id; month_count star_count | text text_parse_mode text_entities
pinChatMessage: chat_id message_id | business_connection_id disable_notification
promoteChatMember: chat_id user_id | is_anonymous can_manage_chat can_delete_messages can_manage_video_chats
    can_restrict_members can_promote_members can_change_info can_invite_users can_post_stories can_edit_stories
    can_delete_stories can_post_messages can_edit_messages can_pin_messages can_manage_topics
    can_manage_direct_messages can_manage_tags can_send_welcome_messages
readBusinessMessage: business_connection_id chat_id message_id
refundStarPayment: user_id telegram_payment_charge_id
removeBusinessAccountProfilePhoto: business_connection_id | is_public
removeUserVerification: user_id
restrictChatMember: chat_id user_id; permissions | use_independent_chat_permissions until_date
setBusinessAccountBio: business_connection_id | bio
setBusinessAccountGiftSettings: business_connection_id; show_gift_button accepted_gift_types
setBusinessAccountName: business_connection_id; first_name | last_name
setBusinessAccountProfilePhoto: business_connection_id; photo | is_public
setBusinessAccountUsername: business_connection_id | username
setChatAdministratorCustomTitle: chat_id user_id; custom_title
setChatDescription: chat_id | description
setChatMemberTag: chat_id user_id | tag
setChatMenuButton: | chat_id menu_button
setChatPermissions: chat_id; permissions | use_independent_chat_permissions
setChatPhoto: chat_id; photo
setChatStickerSet: chat_id; sticker_set_name
setChatTitle: chat_id; title
setMessageReaction: chat_id message_id | reaction is_big
setPassportDataErrors: user_id; errors
setUserEmojiStatus: user_id | emoji_status_custom_emoji_id emoji_status_expiration_date
transferBusinessAccountStars: business_connection_id; star_count
transferGift: business_connection_id owned_gift_id; new_owner_chat_id | star_count
unbanChatMember: chat_id user_id | only_if_banned
unpinChatMessage: chat_id | business_connection_id message_id
upgradeGift: business_connection_id owned_gift_id | keep_original_details star_count
verifyChat: chat_id | custom_description
verifyUser: user_id | custom_description
""",
    (Charge.TYPING, "True"): """
sendChatAction: chat_id; action | business_connection_id message_thread_id
sendMessageDraft: chat_id draft_id | message_thread_id text parse_mode entities can_stop keep_on_stop
sendRichMessageDraft: chat_id draft_id; rich_message | message_thread_id can_stop keep_on_stop
""",
    (Charge.ACTION, "ChatInviteLink"): """
createChatInviteLink: chat_id | +link
createChatSubscriptionInviteLink: chat_id; subscription_period subscription_price | name
editChatInviteLink: chat_id invite_link | +link
editChatSubscriptionInviteLink: chat_id invite_link | name
revokeChatInviteLink: chat_id invite_link
""",
    (Charge.ACTION, "Story"): """
editStory: business_connection_id story_id; content | areas +caption
postStory: business_connection_id; content active_period | areas post_to_chat_page protect_content +caption
repostStory: business_connection_id; from_chat_id from_story_id active_period | post_to_chat_page protect_content
""",
    (Charge.ACTION, "str"): """
exportChatInviteLink: chat_id
""",
    (Charge.ANSWER, "True"): """
answerCallbackQuery: callback_query_id | text show_alert url cache_time
answerChatJoinRequestQuery: chat_join_request_query_id; result
answerInlineQuery: inline_query_id; results | cache_time is_personal next_offset button
answerPreCheckoutQuery: pre_checkout_query_id; ok | error_message
answerShippingQuery: shipping_query_id; ok | shipping_options error_message
sendChatJoinRequestWebApp: chat_join_request_query_id; web_app_url
""",
    (Charge.ANSWER, "SentGuestMessage"): """
answerGuestQuery: guest_query_id; result
""",
    (Charge.ANSWER, "SentWebAppMessage"): """
answerWebAppQuery: web_app_query_id; result
""",
    (Charge.FREE, ""): """
addStickerToSet: user_id name; sticker
createInvoiceLink: ; title description payload currency prices | business_connection_id subscription_period +invoice
createNewStickerSet: user_id name; title stickers | sticker_type needs_repainting
deleteMyCommands getMyCommands: | scope language_code
deleteStickerFromSet: sticker
deleteStickerSet getStickerSet: name
getAvailableGifts getForumTopicIconStickers getMe getMyStarBalance removeMyProfilePhoto:
getBusinessAccountGifts: business_connection_id | exclude_unsaved exclude_saved +gifts
getBusinessAccountStarBalance getBusinessConnection: business_connection_id
getChat getChatMemberCount: chat_id
getChatAdministrators: chat_id | return_bots
getChatGifts: chat_id | exclude_unsaved exclude_saved +gifts
getChatMember getUserChatBoosts: chat_id user_id
getChatMenuButton: | chat_id
getCustomEmojiStickers: custom_emoji_ids
getFile: file_id
getGameHighScores: @message user_id
getManagedBotAccessSettings getManagedBotToken replaceManagedBotToken: user_id
getMyDefaultAdministratorRights: | for_channels
getMyDescription getMyName getMyShortDescription: | language_code
getStarTransactions: | offset limit
getUserGifts: user_id | +gifts
getUserPersonalChatMessages: user_id; limit
getUserProfileAudios getUserProfilePhotos: user_id | offset limit
replaceStickerInSet: user_id name old_sticker; sticker
savePreparedInlineMessage: user_id; result | allow_user_chats allow_bot_chats allow_group_chats allow_channel_chats
savePreparedKeyboardButton: user_id; button
setCustomEmojiStickerSetThumbnail: name | custom_emoji_id
setManagedBotAccessSettings: user_id; is_access_restricted | added_user_ids
setMyCommands: ; commands | scope language_code
setMyDefaultAdministratorRights: | rights for_channels
setMyDescription: | description language_code
setMyName: | name language_code
setMyProfilePhoto: ; photo
setMyShortDescription: | short_description language_code
setStickerEmojiList: sticker; emoji_list
setStickerKeywords: sticker | keywords
setStickerMaskPosition: sticker | mask_position
setStickerPositionInSet: sticker; position
setStickerSetThumbnail: user_id name; format | thumbnail
setStickerSetTitle: name; title
uploadStickerFile: user_id; sticker sticker_format
""",
    (Charge.UNQUEUED, ""): """
close getWebhookInfo logOut:
deleteWebhook: | drop_pending_updates
getUpdates: | offset limit timeout allowed_updates
setWebhook: ; url | certificate ip_address max_connections allowed_updates drop_pending_updates secret_token
""",
}


def _read() -> Iterator[BotApiMethod]:
    for (charge, returns), rows in _TABLE.items():
        for row in rows.replace("\n    ", " ").strip().splitlines():
            names, _, parameters = row.partition(":")
            required, _, optional = parameters.partition("|")
            acts_on, _, other = required.partition(";")
            for name in names.split():
                columns = tuple(acts_on.split()), tuple(other.split()), frozenset(_expanded(optional))
                yield BotApiMethod(name, charge, returns, *columns)


def _expanded(parameters: str) -> Iterator[str]:
    for name in parameters.split():
        if name in _GROUPS:
            yield from _expanded(_GROUPS[name])
        else:
            yield name


METHODS: Final[Mapping[str, BotApiMethod]] = MappingProxyType({method.name: method for method in _read()})
