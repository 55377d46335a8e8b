"""The one table of the Bot API's methods: what each is charged to and which parameters it requires.

Admission, checks, clients and the gateway's routes follow from it; tests compare it with python-telegram-bot.

Sources: the Bot API's reference (version 10.0, as in python-telegram-bot 22.8); for the charges, Telegram's FAQ and
the Bot API server's maintainer: sends, edits and forum-topic creation count towards a group's 20 a minute, chat
actions and answers do not, an album or a bulk copy of n counts as n. For how long a query can be answered: see
:data:`ANSWER_WITHIN`.

In the table ``@message`` stands for ``inline_message_id`` or ``chat_id`` with ``message_id``, and ``@recipient`` for
``chat_id`` or ``user_id``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from floodgate.broker.errors import UnknownMethodError


class Charge(StrEnum):
    """Which budgets a method draws on."""

    MESSAGE = "message"  # a new message: bot, chat and group budgets
    EDIT = "edit"  # changes what a chat sees: bot, chat and group budgets
    ACTION = "action"  # acts in a chat without a message: the bot's budget only
    ANSWER = "answer"  # answers a query that expires in seconds: no budget of ours, and it waits for nothing
    FREE = "free"  # reads and the bot's own settings: no budget of ours

    @property
    def metered(self) -> bool:
        """Whether a call draws on a budget at all."""
        return self not in (Charge.ANSWER, Charge.FREE)


# A row is the parameters that its methods require, and the methods.
_TABLE: Final = {
    Charge.MESSAGE: """
chat_id text: sendMessage
chat_id photo: sendPhoto
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
chat_id: sendDice
chat_id game_short_name: sendGame
chat_id title description payload currency prices: sendInvoice
chat_id sticker: sendSticker
@recipient gift_id: sendGift
chat_id live_photo photo: sendLivePhoto
chat_id from_chat_id message_id: forwardMessage copyMessage
chat_id from_chat_id message_ids: forwardMessages copyMessages
chat_id name: createForumTopic
""",
    Charge.EDIT: """
@message text: editMessageText
@message: editMessageCaption stopMessageLiveLocation editMessageReplyMarkup
@message media: editMessageMedia
@message latitude longitude: editMessageLiveLocation
business_connection_id chat_id message_id checklist: editMessageChecklist
chat_id message_id: stopPoll
@message user_id score: setGameScore
chat_id message_thread_id: editForumTopic
chat_id name: editGeneralForumTopic
""",
    Charge.ACTION: """
chat_id action: sendChatAction
chat_id draft_id: sendMessageDraft
chat_id message_id: deleteMessage pinChatMessage setMessageReaction deleteMessageReaction approveSuggestedPost
    declineSuggestedPost
chat_id message_ids: deleteMessages
chat_id: unpinChatMessage unpinAllChatMessages deleteAllMessageReactions exportChatInviteLink createChatInviteLink
    deleteChatPhoto setChatDescription deleteChatStickerSet leaveChat closeGeneralForumTopic reopenGeneralForumTopic
    hideGeneralForumTopic unhideGeneralForumTopic unpinAllGeneralForumTopicMessages verifyChat
    removeChatVerification
chat_id user_id: banChatMember unbanChatMember promoteChatMember approveChatJoinRequest declineChatJoinRequest
    setChatMemberTag
chat_id user_id permissions: restrictChatMember
chat_id user_id custom_title: setChatAdministratorCustomTitle
chat_id sender_chat_id: banChatSenderChat unbanChatSenderChat
chat_id permissions: setChatPermissions
chat_id invite_link: editChatInviteLink editChatSubscriptionInviteLink revokeChatInviteLink
chat_id subscription_period subscription_price: createChatSubscriptionInviteLink
chat_id photo: setChatPhoto
chat_id title: setChatTitle
chat_id sticker_set_name: setChatStickerSet
chat_id message_thread_id: closeForumTopic reopenForumTopic deleteForumTopic unpinAllForumTopicMessages
user_id: verifyUser removeUserVerification setUserEmojiStatus
business_connection_id content active_period: postStory
business_connection_id story_id content: editStory
business_connection_id story_id: deleteStory
business_connection_id from_chat_id from_story_id active_period: repostStory
user_id month_count star_count: giftPremiumSubscription
business_connection_id chat_id message_id: readBusinessMessage
business_connection_id message_ids: deleteBusinessMessages
: setChatMenuButton
user_id errors: setPassportDataErrors
business_connection_id owned_gift_id new_owner_chat_id: transferGift
business_connection_id owned_gift_id: upgradeGift convertGiftToStars
business_connection_id star_count: transferBusinessAccountStars
user_id telegram_payment_charge_id: refundStarPayment
user_id telegram_payment_charge_id is_canceled: editUserStarSubscription
business_connection_id first_name: setBusinessAccountName
business_connection_id: setBusinessAccountUsername setBusinessAccountBio removeBusinessAccountProfilePhoto
business_connection_id photo: setBusinessAccountProfilePhoto
business_connection_id show_gift_button accepted_gift_types: setBusinessAccountGiftSettings
""",
    Charge.ANSWER: """
callback_query_id: answerCallbackQuery
inline_query_id results: answerInlineQuery
pre_checkout_query_id ok: answerPreCheckoutQuery
shipping_query_id ok: answerShippingQuery
web_app_query_id result: answerWebAppQuery
guest_query_id result: answerGuestQuery
""",
    Charge.FREE: """
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
: deleteMyCommands setMyDefaultAdministratorRights setMyDescription setMyName setMyShortDescription
    removeMyProfilePhoto getMe getChatMenuButton getForumTopicIconStickers getMyCommands
    getMyDefaultAdministratorRights getMyDescription getMyName getMyShortDescription getMyStarBalance
    getStarTransactions getAvailableGifts
photo: setMyProfilePhoto
user_id is_access_restricted: setManagedBotAccessSettings
user_id: replaceManagedBotToken getUserGifts getUserProfileAudios getUserProfilePhotos getManagedBotAccessSettings
    getManagedBotToken
chat_id: getChat getChatAdministrators getChatMemberCount getChatGifts
chat_id user_id: getChatMember getUserChatBoosts
custom_emoji_ids: getCustomEmojiStickers
file_id: getFile
@message user_id: getGameHighScores
user_id limit: getUserPersonalChatMessages
business_connection_id: getBusinessAccountGifts getBusinessAccountStarBalance getBusinessConnection
""",
}


def _methods() -> Iterator[tuple[str, Charge, tuple[str, ...]]]:
    for charge, table in _TABLE.items():
        for row in table.replace("\n    ", " ").strip().splitlines():
            required, _, names = row.partition(": ")
            for name in names.split():
                yield name, charge, tuple(required.split())


CHARGES: Final[Mapping[str, Charge]] = MappingProxyType({name: charge for name, charge, _ in _methods()})
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({name: required for name, _, required in _methods()})

# How long after its query an answer is worth sending. Telegram's documentation says 10 s of pre-checkout queries, whose
# payment is cancelled then; a shipping query is part of the same checkout, and an inline query shows its results while
# the user types. It gives no time for the others, for which 15 s is our choice.
ANSWER_WITHIN: Final[Mapping[str, timedelta]] = MappingProxyType(
    dict.fromkeys((name for name, charge in CHARGES.items() if charge is Charge.ANSWER), timedelta(seconds=15))
    | dict.fromkeys(
        ("answerInlineQuery", "answerPreCheckoutQuery", "answerShippingQuery"),
        timedelta(seconds=10),
    )
)

# Receiving updates and logging out cannot be jobs: a queue would only delay or repeat them.
NOT_JOBS: Final = frozenset({"getUpdates", "setWebhook", "deleteWebhook", "getWebhookInfo", "logOut", "close"})

_BY_LOWER: Final[Mapping[str, str]] = MappingProxyType({name.lower(): name for name in CHARGES})

# Methods newer than the table with these verbs count as messages or edits.
_COUNTED_VERB: Final = re.compile("(send|edit|copy|forward)[a-z]{1,60}", re.IGNORECASE | re.ASCII)

# `allow_paid_broadcast` is a parameter of copyMessage and of send*, except for chat actions, drafts and these two.
PAID_BROADCAST: Final = frozenset(
    name
    for name, charge in CHARGES.items()
    if charge is Charge.MESSAGE and name.startswith("send") and name not in ("sendGift", "sendChecklist")
) | {"copyMessage"}

# These make as many messages in one call as the named parameter has items.
_COUNTED_BY: Final[Mapping[str, str]] = MappingProxyType(
    {"sendMediaGroup": "media", "forwardMessages": "message_ids", "copyMessages": "message_ids"}
)

# Repeating these calls has no further effect. Each call of the others creates, moves or charges something anew.
_REPEATABLE_VERBS: Final = """answer approve ban close decline delete edit get hide leave pin promote read remove reopen
restrict revoke set stop unban unhide unpin verify"""
_REPEATABLE: Final = frozenset(
    name
    for name, charge in CHARGES.items()
    if charge is not Charge.MESSAGE and re.split("[A-Z]", name)[0] in _REPEATABLE_VERBS.split()
) | {"sendChatAction", "sendMessageDraft"}


def repeatable(method: str) -> bool:
    """Whether a call that may have acted can be repeated without a second effect."""
    return method in _REPEATABLE


def charge_of(method: str) -> Charge | None:
    """Return what a method draws on. If it is newer than the table, its verb decides.

    None if that does not count, and for another spelling of a method in the table.
    """
    if (charge := CHARGES.get(method)) is not None:
        return charge
    verb = None if method.lower() in _BY_LOWER else _COUNTED_VERB.fullmatch(method)
    return None if verb is None else Charge.EDIT if verb[1].lower() == "edit" else Charge.MESSAGE


def canonical_method(name: str, *, or_newer: bool = False) -> str:
    """The Bot API's spelling of a method's name, matched without regard to case, as Telegram does.

    Args:
        or_newer: also accept a method that is not in the table if its verb says what it draws on.

    Raises:
        UnknownMethodError: there is no such method, or it cannot be a job.
    """
    found = _BY_LOWER.get(name.lower())
    if found is not None:
        return found
    if or_newer and charge_of(name) is not None:
        return name
    for method in NOT_JOBS:
        if name.lower() == method.lower():
            raise UnknownMethodError(f"{method} cannot be queued: call the Bot API directly for it.")
    raise UnknownMethodError(f"The Bot API has no method {name[:60]!r}. Methods are named as in sendMessage.")


def cost(method: str, params: Mapping[str, object]) -> int:
    """How many messages a call counts as: n for an album or a bulk copy or forward of n, else 1."""
    counted = params.get(_COUNTED_BY.get(method, ""))
    return max(1, len(counted)) if isinstance(counted, list | tuple) else 1
