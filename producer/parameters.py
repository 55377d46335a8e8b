"""The parameters that a Bot API method cannot do without. The one table; a test compares it with python-telegram-bot's.

Source: the Bot API's reference (version 10.0). ``@message`` stands for "a message's place": ``inline_message_id``, or
``chat_id`` with ``message_id``. ``@recipient`` stands for ``chat_id`` or ``user_id``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

_REQUIRED: Final = """
chat_id text: sendMessage
chat_id photo: sendPhoto setChatPhoto
chat_id audio: sendAudio
chat_id document: sendDocument
chat_id video: sendVideo
chat_id animation: sendAnimation
chat_id voice: sendVoice
chat_id video_note: sendVideoNote
chat_id star_count media: sendPaidMedia
chat_id media: sendMediaGroup
chat_id latitude longitude: sendLocation
chat_id latitude longitude title address: sendVenue
chat_id phone_number first_name: sendContact
chat_id question options: sendPoll
business_connection_id chat_id checklist: sendChecklist
chat_id: sendDice unpinChatMessage unpinAllChatMessages deleteAllMessageReactions
    exportChatInviteLink createChatInviteLink deleteChatPhoto setChatDescription
    deleteChatStickerSet leaveChat closeGeneralForumTopic reopenGeneralForumTopic
    hideGeneralForumTopic unhideGeneralForumTopic unpinAllGeneralForumTopicMessages verifyChat
    removeChatVerification getChat getChatAdministrators getChatMemberCount getChatGifts
chat_id game_short_name: sendGame
chat_id title description payload currency prices: sendInvoice
chat_id sticker: sendSticker
@recipient gift_id: sendGift
chat_id live_photo photo: sendLivePhoto
chat_id from_chat_id message_id: forwardMessage copyMessage
chat_id from_chat_id message_ids: forwardMessages copyMessages
chat_id name: createForumTopic editGeneralForumTopic
@message text: editMessageText
@message: editMessageCaption stopMessageLiveLocation editMessageReplyMarkup
@message media: editMessageMedia
@message latitude longitude: editMessageLiveLocation
business_connection_id chat_id message_id checklist: editMessageChecklist
chat_id message_id: stopPoll deleteMessage pinChatMessage setMessageReaction deleteMessageReaction
    approveSuggestedPost declineSuggestedPost
@message user_id score: setGameScore
chat_id message_thread_id: editForumTopic closeForumTopic reopenForumTopic deleteForumTopic
    unpinAllForumTopicMessages
chat_id action: sendChatAction
chat_id draft_id: sendMessageDraft
chat_id message_ids: deleteMessages
chat_id user_id: banChatMember unbanChatMember promoteChatMember approveChatJoinRequest
    declineChatJoinRequest setChatMemberTag getChatMember getUserChatBoosts
chat_id user_id permissions: restrictChatMember
chat_id user_id custom_title: setChatAdministratorCustomTitle
chat_id sender_chat_id: banChatSenderChat unbanChatSenderChat
chat_id permissions: setChatPermissions
chat_id invite_link: editChatInviteLink editChatSubscriptionInviteLink revokeChatInviteLink
chat_id subscription_period subscription_price: createChatSubscriptionInviteLink
chat_id title: setChatTitle
chat_id sticker_set_name: setChatStickerSet
user_id: verifyUser removeUserVerification setUserEmojiStatus replaceManagedBotToken getUserGifts
    getUserProfileAudios getUserProfilePhotos getManagedBotAccessSettings getManagedBotToken
business_connection_id content active_period: postStory
business_connection_id story_id content: editStory
business_connection_id story_id: deleteStory
business_connection_id from_chat_id from_story_id active_period: repostStory
user_id month_count star_count: giftPremiumSubscription
business_connection_id chat_id message_id: readBusinessMessage
business_connection_id message_ids: deleteBusinessMessages
user_id errors: setPassportDataErrors
business_connection_id owned_gift_id new_owner_chat_id: transferGift
business_connection_id owned_gift_id: upgradeGift convertGiftToStars
business_connection_id star_count: transferBusinessAccountStars
user_id telegram_payment_charge_id: refundStarPayment
user_id telegram_payment_charge_id is_canceled: editUserStarSubscription
business_connection_id first_name: setBusinessAccountName
business_connection_id: setBusinessAccountUsername setBusinessAccountBio
    removeBusinessAccountProfilePhoto getBusinessAccountGifts getBusinessAccountStarBalance
    getBusinessConnection
business_connection_id photo: setBusinessAccountProfilePhoto
business_connection_id show_gift_button accepted_gift_types: setBusinessAccountGiftSettings
callback_query_id: answerCallbackQuery
inline_query_id results: answerInlineQuery
pre_checkout_query_id ok: answerPreCheckoutQuery
shipping_query_id ok: answerShippingQuery
web_app_query_id result: answerWebAppQuery
guest_query_id result: answerGuestQuery
user_id result: savePreparedInlineMessage
user_id button: savePreparedKeyboardButton
title description payload currency prices: createInvoiceLink
user_id name sticker: addStickerToSet
user_id name title stickers: createNewStickerSet
sticker: deleteStickerFromSet setStickerKeywords setStickerMaskPosition
name: deleteStickerSet setCustomEmojiStickerSetThumbnail getStickerSet
user_id name old_sticker sticker: replaceStickerInSet
sticker emoji_list: setStickerEmojiList
sticker position: setStickerPositionInSet
name user_id format: setStickerSetThumbnail
name title: setStickerSetTitle
user_id sticker sticker_format: uploadStickerFile
commands: setMyCommands
photo: setMyProfilePhoto
user_id is_access_restricted: setManagedBotAccessSettings
custom_emoji_ids: getCustomEmojiStickers
file_id: getFile
@message user_id: getGameHighScores
user_id limit: getUserPersonalChatMessages
"""


def _rows(table: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for row in table.replace("\n    ", " ").strip().splitlines():
        names, _, methods = row.partition(": ")
        for method in methods.split():
            yield method, tuple(names.split())


REQUIRED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(dict(_rows(_REQUIRED)))


# What a stand-in accepts: any one of these sets of parameters.
_STANDS_FOR: Final[Mapping[str, tuple[frozenset[str], ...]]] = MappingProxyType(
    {
        "@message": (frozenset({"chat_id", "message_id"}), frozenset({"inline_message_id"})),
        "@recipient": (frozenset({"chat_id"}), frozenset({"user_id"})),
    }
)


def missing(method: str, params: Mapping[str, Any]) -> str | None:
    """What the call lacks, in words for its caller; None when nothing required is missing."""
    for name in REQUIRED.get(method, ()):
        if name not in params and not _stood_for(name, params):
            return " or ".join(" and ".join(sorted(names)) for names in _STANDS_FOR.get(name, ({name},)))
    return None


def _stood_for(name: str, params: Mapping[str, Any]) -> bool:
    return any(names <= params.keys() for names in _STANDS_FOR.get(name, ()))
