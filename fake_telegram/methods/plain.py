"""Methods that the fake only accepts, records and charges; they return ``true``."""

from __future__ import annotations

from typing import Final

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.methods import common
from floodgate.fake_telegram.methods.table import Effect, Method
from floodgate.fake_telegram.world import World

_IN_A_CHAT: Final = """unpinChatMessage unpinAllChatMessages banChatMember unbanChatMember restrictChatMember
promoteChatMember setChatAdministratorCustomTitle banChatSenderChat unbanChatSenderChat setChatPermissions
approveChatJoinRequest declineChatJoinRequest setChatPhoto deleteChatPhoto setChatTitle setChatDescription
setChatStickerSet deleteChatStickerSet leaveChat closeForumTopic reopenForumTopic deleteForumTopic
unpinAllForumTopicMessages closeGeneralForumTopic reopenGeneralForumTopic hideGeneralForumTopic
unhideGeneralForumTopic unpinAllGeneralForumTopicMessages verifyChat
removeChatVerification setChatMemberTag deleteMessageReaction deleteAllMessageReactions approveSuggestedPost
declineSuggestedPost readBusinessMessage deleteEphemeralMessage"""

_EDITS: Final = """editForumTopic editGeneralForumTopic editEphemeralMessageText editEphemeralMessageCaption
editEphemeralMessageMedia editEphemeralMessageReplyMarkup"""

_OF_THE_BOT: Final = """logOut close setMyDefaultAdministratorRights setMyProfilePhoto removeMyProfilePhoto
setUserEmojiStatus refundStarPayment setPassportDataErrors answerChatJoinRequestQuery sendChatJoinRequestWebApp"""


def _in_a_chat(world: World, call: Call) -> bool:
    common.chat_of(world, call)
    return True


def _of_the_bot(world: World, call: Call) -> bool:
    return True


METHODS: Final = (
    *(Method(name, _in_a_chat, Effect.ACTION) for name in _IN_A_CHAT.split()),
    *(Method(name, _in_a_chat, Effect.EDIT) for name in _EDITS.split()),
    Method("sendGift", _of_the_bot, Effect.MESSAGE),
    *(Method(name, _of_the_bot) for name in _OF_THE_BOT.split()),
)
