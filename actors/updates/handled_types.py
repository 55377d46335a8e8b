"""The types of updates that an Application's handlers need, to find those that the receiver does not ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from telegram.ext import (
    Application,
    BaseHandler,
    BusinessConnectionHandler,
    BusinessMessagesDeletedHandler,
    CallbackQueryHandler,
    ChatBoostHandler,
    ChatJoinRequestHandler,
    ChatMemberHandler,
    ChosenInlineResultHandler,
    CommandHandler,
    ConversationHandler,
    InlineQueryHandler,
    ManagedBotUpdatedHandler,
    MessageHandler,
    MessageReactionHandler,
    PaidMediaPurchasedHandler,
    PollAnswerHandler,
    PollHandler,
    PreCheckoutQueryHandler,
    PrefixHandler,
    ShippingQueryHandler,
)

from floodgate.broker.messages.update import types_left_out

AnyHandler = BaseHandler[Any, Any, Any]

# A handler of messages takes some of these, which depends on its filters.
_MESSAGES: Final = (
    *("message", "edited_message", "channel_post", "edited_channel_post"),
    *("business_message", "edited_business_message", "guest_message"),
)
TYPES: Final[Mapping[type[AnyHandler], tuple[str, ...]]] = MappingProxyType(
    {
        BusinessConnectionHandler: ("business_connection",),
        BusinessMessagesDeletedHandler: ("deleted_business_messages",),
        CallbackQueryHandler: ("callback_query",),
        ChatJoinRequestHandler: ("chat_join_request",),
        ChosenInlineResultHandler: ("chosen_inline_result",),
        CommandHandler: _MESSAGES,
        InlineQueryHandler: ("inline_query",),
        ManagedBotUpdatedHandler: ("managed_bot",),
        MessageHandler: _MESSAGES,
        PaidMediaPurchasedHandler: ("purchased_paid_media",),
        PollAnswerHandler: ("poll_answer",),
        PollHandler: ("poll",),
        PreCheckoutQueryHandler: ("pre_checkout_query",),
        PrefixHandler: _MESSAGES,
        ShippingQueryHandler: ("shipping_query",),
    }
)
# These take one of two types, or both. The library's constants are -1 for the first, 0 for the second, 1 for both.
PAIRS: Final[Mapping[type[AnyHandler], tuple[str, str, str]]] = MappingProxyType(
    {
        ChatBoostHandler: ("chat_boost_types", "chat_boost", "removed_chat_boost"),
        ChatMemberHandler: ("chat_member_types", "my_chat_member", "chat_member"),
        MessageReactionHandler: ("message_reaction_types", "message_reaction", "message_reaction_count"),
    }
)


def missing_types(application: Application[Any, Any, Any, Any, Any, Any], allowed: Collection[str]) -> list[str]:
    """Return the types that an Application's handlers need and that Telegram does not send for ``allowed_updates``.

    One type with messages is enough for the handlers of messages.
    """
    left_out = types_left_out(allowed)
    needed = handled_types(application)
    if not set(_MESSAGES) <= set(left_out):
        needed -= set(_MESSAGES)
    return [each for each in left_out if each in needed]


def handled_types(application: Application[Any, Any, Any, Any, Any, Any]) -> set[str]:
    """Return the types that an Application's handlers take, except those of handlers that take any type."""
    return set(_types_of(chain.from_iterable(application.handlers.values())))


def _types_of(handlers: Iterable[AnyHandler]) -> Iterator[str]:
    for handler in handlers:
        if isinstance(handler, ConversationHandler):
            yield from _types_of(chain(handler.entry_points, *handler.states.values(), handler.fallbacks))
        for kind, types in TYPES.items():
            if isinstance(handler, kind):
                yield from types
        for kind, (attribute, first, second) in PAIRS.items():
            if isinstance(handler, kind):
                chosen = getattr(handler, attribute)
                yield from {-1: (first,), 0: (second,)}.get(chosen, (first, second))
