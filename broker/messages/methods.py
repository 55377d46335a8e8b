"""The Bot API's methods and what each is charged to. The one table; admission, producers and gateway read it.

Sources: the Bot API's method list (version 10.0, as in python-telegram-bot 22.8); for the charges, Telegram's FAQ and
the Bot API server's maintainer: sends, edits and forum-topic creation count towards a group's 20 a minute, chat
actions and answers do not, an album or a bulk copy of n counts as n. For how long a query can be answered: see
:data:`ANSWER_WITHIN`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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


_MESSAGES: Final = """sendMessage sendPhoto sendAudio sendDocument sendVideo sendAnimation sendVoice sendVideoNote
sendPaidMedia sendMediaGroup sendLocation sendVenue sendContact sendPoll sendChecklist sendDice sendGame sendInvoice
sendSticker sendGift sendLivePhoto forwardMessage forwardMessages copyMessage copyMessages createForumTopic"""

_EDITS: Final = """editMessageText editMessageCaption editMessageMedia editMessageLiveLocation stopMessageLiveLocation
editMessageReplyMarkup editMessageChecklist stopPoll setGameScore editForumTopic editGeneralForumTopic"""

_ACTIONS: Final = """sendChatAction sendMessageDraft deleteMessage deleteMessages pinChatMessage unpinChatMessage
unpinAllChatMessages setMessageReaction deleteMessageReaction deleteAllMessageReactions banChatMember unbanChatMember
restrictChatMember promoteChatMember setChatAdministratorCustomTitle banChatSenderChat unbanChatSenderChat
setChatPermissions exportChatInviteLink createChatInviteLink editChatInviteLink createChatSubscriptionInviteLink
editChatSubscriptionInviteLink revokeChatInviteLink approveChatJoinRequest declineChatJoinRequest setChatPhoto
deleteChatPhoto setChatTitle setChatDescription setChatMemberTag setChatStickerSet deleteChatStickerSet leaveChat
closeForumTopic reopenForumTopic deleteForumTopic unpinAllForumTopicMessages closeGeneralForumTopic
reopenGeneralForumTopic hideGeneralForumTopic unhideGeneralForumTopic unpinAllGeneralForumTopicMessages
approveSuggestedPost declineSuggestedPost verifyChat removeChatVerification verifyUser removeUserVerification
postStory editStory deleteStory repostStory giftPremiumSubscription readBusinessMessage deleteBusinessMessages
setChatMenuButton setPassportDataErrors setUserEmojiStatus transferGift upgradeGift convertGiftToStars
transferBusinessAccountStars refundStarPayment editUserStarSubscription setBusinessAccountName
setBusinessAccountUsername setBusinessAccountBio setBusinessAccountProfilePhoto removeBusinessAccountProfilePhoto
setBusinessAccountGiftSettings"""

_ANSWERS: Final = """answerCallbackQuery answerInlineQuery answerPreCheckoutQuery answerShippingQuery answerWebAppQuery
answerGuestQuery"""

_FREE: Final = """savePreparedInlineMessage savePreparedKeyboardButton createInvoiceLink addStickerToSet
createNewStickerSet deleteStickerFromSet deleteStickerSet replaceStickerInSet setStickerEmojiList setStickerKeywords
setStickerMaskPosition setStickerPositionInSet setStickerSetThumbnail setStickerSetTitle
setCustomEmojiStickerSetThumbnail uploadStickerFile setMyCommands deleteMyCommands setMyDefaultAdministratorRights
setMyDescription setMyName setMyShortDescription setMyProfilePhoto removeMyProfilePhoto
setManagedBotAccessSettings replaceManagedBotToken getMe getChat getChatAdministrators getChatMember
getChatMemberCount getChatMenuButton getChatGifts getCustomEmojiStickers getFile getForumTopicIconStickers
getGameHighScores getMyCommands getMyDefaultAdministratorRights getMyDescription getMyName getMyShortDescription
getMyStarBalance getStarTransactions getStickerSet getUserChatBoosts getUserGifts getUserPersonalChatMessages
getUserProfileAudios getUserProfilePhotos getAvailableGifts getBusinessAccountGifts getBusinessAccountStarBalance
getBusinessConnection getManagedBotAccessSettings getManagedBotToken"""

_NOT_JOBS: Final = "getUpdates setWebhook deleteWebhook getWebhookInfo logOut close"

CHARGES: Final[Mapping[str, Charge]] = MappingProxyType(
    {
        name: charge
        for names, charge in (
            (_MESSAGES, Charge.MESSAGE),
            (_EDITS, Charge.EDIT),
            (_ACTIONS, Charge.ACTION),
            (_ANSWERS, Charge.ANSWER),
            (_FREE, Charge.FREE),
        )
        for name in names.split()
    }
)

# How long after its query an answer is worth sending. Telegram's documentation says 10 s of pre-checkout queries, whose
# payment is cancelled then; a shipping query is part of the same checkout, and an inline query shows its results while
# the user types. It gives no time for the others, for which 15 s is our choice.
ANSWER_WITHIN: Final[Mapping[str, timedelta]] = MappingProxyType(
    dict.fromkeys(_ANSWERS.split(), timedelta(seconds=15))
    | dict.fromkeys(
        ("answerInlineQuery", "answerPreCheckoutQuery", "answerShippingQuery"),
        timedelta(seconds=10),
    )
)

# Receiving and the bot's own life are no jobs: a queue would only delay or repeat them.
NOT_JOBS: Final = frozenset(_NOT_JOBS.split())

_BY_LOWER: Final[Mapping[str, str]] = MappingProxyType({name.lower(): name for name in CHARGES})

# `allow_paid_broadcast` is a parameter of copyMessage and of send*, but for chat actions, drafts and these.
PAID_BROADCAST: Final = frozenset(
    name for name in _MESSAGES.split() if name.startswith("send") and name not in ("sendGift", "sendChecklist")
) | {"copyMessage"}

# These make n messages in one call, n being the length of the named parameter.
_COUNTED_BY: Final[Mapping[str, str]] = MappingProxyType(
    {"sendMediaGroup": "media", "forwardMessages": "message_ids", "copyMessages": "message_ids"}
)

# Doing these twice leaves what doing them once does. The rest make, move or charge for something, each time anew.
_REPEATABLE_VERBS: Final = """answer approve ban close decline delete edit get hide leave pin promote read remove reopen
restrict revoke set stop unban unhide unpin verify"""
_REPEATABLE: Final = frozenset(
    name
    for name, charge in CHARGES.items()
    if charge is not Charge.MESSAGE and re.split("[A-Z]", name)[0] in _REPEATABLE_VERBS.split()
) | {"sendChatAction", "sendMessageDraft"}


def repeatable(method: str) -> bool:
    """Whether making the call again, after it may have acted, leaves the chat as one call would have."""
    return method in _REPEATABLE


def canonical_method(name: str) -> str:
    """The Bot API's spelling of a method's name, as Telegram matches it: without regard to case.

    Raises:
        UnknownMethodError: there is no such method, or it is one that cannot be a job.
    """
    found = _BY_LOWER.get(name.lower())
    if found is not None:
        return found
    for method in NOT_JOBS:
        if name.lower() == method.lower():
            raise UnknownMethodError(f"{method} cannot be queued: call the Bot API directly for it.")
    raise UnknownMethodError(f"The Bot API has no method {name[:60]!r}. Methods are named as in sendMessage.")


def cost(method: str, params: Mapping[str, object]) -> int:
    """How many messages a call counts as: n for an album or a bulk copy or forward of n, else 1."""
    counted = params.get(_COUNTED_BY.get(method, ""))
    return max(1, len(counted)) if isinstance(counted, list | tuple) else 1
