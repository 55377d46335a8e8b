"""Which types of updates a receiver asks for, and which of them an Application's handlers need."""

from __future__ import annotations

from typing import Any

import pytest
import telegram.ext
from telegram import Update
from telegram.constants import UpdateType
from telegram.ext import (
    Application,
    BaseHandler,
    CallbackQueryHandler,
    ChatBoostHandler,
    ChatMemberHandler,
    CommandHandler,
    ConversationHandler,
    MessageHandler,
    MessageReactionHandler,
    PollAnswerHandler,
    PreCheckoutQueryHandler,
    StringCommandHandler,
    StringRegexHandler,
    TypeHandler,
    filters,
)

from floodgate.actors.updates.handled_types import PAIRS, TYPES, handled_types, missing_types
from floodgate.broker.errors import SettingsError
from floodgate.broker.messages.update import ON_REQUEST, UPDATE_TYPES
from floodgate.broker.settings.model import Settings, load_settings

TOKEN = "100200300:" + "A" * 35


async def do_nothing(_update: Any, _context: Any) -> None: ...


def application_with(*handlers: BaseHandler[Any, Any, Any]) -> Application[Any, Any, Any, Any, Any, Any]:
    application = Application.builder().token(TOKEN).build()
    for group, handler in enumerate(handlers):
        application.add_handler(handler, group)
    return application


def allowed(*types: str) -> list[str]:
    return Settings(_env_file=None, updates={"allowed": list(types)}).updates.allowed_updates


def test_the_types_are_those_of_the_newest_library() -> None:
    assert sorted(UPDATE_TYPES) == sorted(UpdateType)
    assert set(UPDATE_TYPES) > ON_REQUEST


def test_all_asks_for_every_type_and_an_empty_list_leaves_the_choice_to_telegram() -> None:
    assert allowed("all") == allowed("message", "all") == list(UPDATE_TYPES)
    assert allowed() == []
    assert allowed("message", "chat_member") == ["message", "chat_member"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            '["message", "chat_members"]',
            'item 2 is not an update type: did you mean "chat_member"? Use "all", or',
        ),
        ('["Message"]', 'item 1 is not an update type: did you mean "message"? Use "all", or some of "message", "edit'),
        ('["telepathy"]', 'item 1 is not an update type. Use "all", or some of "message", "edited_message"'),
    ],
)
def test_an_unknown_type_is_refused_with_the_nearest_and_with_all_of_them(
    monkeypatch: pytest.MonkeyPatch, given: str, words: str
) -> None:
    monkeypatch.setenv("FLOODGATE_UPDATES__ALLOWED", given)
    with pytest.raises(SettingsError, match="FLOODGATE_UPDATES__ALLOWED item") as caught:
        load_settings(_env_file=None)
    assert words in str(caught.value)
    assert all(f'"{each}"' in str(caught.value) for each in UPDATE_TYPES)


@pytest.mark.parametrize(
    ("handler", "types"),
    [
        (ChatMemberHandler(do_nothing), {"my_chat_member"}),
        (ChatMemberHandler(do_nothing, ChatMemberHandler.CHAT_MEMBER), {"chat_member"}),
        (ChatMemberHandler(do_nothing, ChatMemberHandler.ANY_CHAT_MEMBER), {"my_chat_member", "chat_member"}),
        (MessageReactionHandler(do_nothing), {"message_reaction", "message_reaction_count"}),
        (
            MessageReactionHandler(
                do_nothing, message_reaction_types=MessageReactionHandler.MESSAGE_REACTION_COUNT_UPDATED
            ),
            {"message_reaction_count"},
        ),
        (ChatBoostHandler(do_nothing, ChatBoostHandler.REMOVED_CHAT_BOOST), {"removed_chat_boost"}),
        (CallbackQueryHandler(do_nothing), {"callback_query"}),
        (
            ConversationHandler(
                [PollAnswerHandler(do_nothing)],
                {1: [ChatMemberHandler(do_nothing, ChatMemberHandler.CHAT_MEMBER)]},
                [PreCheckoutQueryHandler(do_nothing)],
                per_chat=False,
            ),
            {"poll_answer", "chat_member", "pre_checkout_query"},
        ),
        (TypeHandler(Update, do_nothing), set()),
    ],
)
def test_a_handler_tells_which_types_it_needs(handler: BaseHandler[Any, Any, Any], types: set[str]) -> None:
    assert handled_types(application_with(handler)) == types


def test_every_handler_of_the_library_is_known() -> None:
    every = {each for name, each in vars(telegram.ext).items() if name.endswith("Handler")}
    assert every - {BaseHandler, ConversationHandler} - TYPES.keys() - PAIRS.keys() == {
        TypeHandler,
        StringCommandHandler,
        StringRegexHandler,
    }


def test_what_is_missing_is_what_the_handlers_need_and_telegram_is_not_asked_for() -> None:
    theirs = application_with(
        ChatMemberHandler(do_nothing, ChatMemberHandler.ANY_CHAT_MEMBER),
        MessageReactionHandler(do_nothing),
        CommandHandler("start", do_nothing),
        MessageHandler(filters.TEXT, do_nothing),
    )
    assert set(missing_types(theirs, [])) == ON_REQUEST
    assert missing_types(theirs, ["message", "chat_member"]) == [
        "message_reaction",
        "message_reaction_count",
        "my_chat_member",
    ]
    assert missing_types(theirs, UPDATE_TYPES) == []


def test_of_the_types_with_messages_one_is_enough() -> None:
    """A text handler takes edited messages and channel posts, too: a bot that asks for neither does so on purpose."""
    theirs = application_with(MessageHandler(filters.TEXT, do_nothing))
    assert missing_types(theirs, ["channel_post"]) == []
    assert "message" in missing_types(theirs, ["callback_query"])
