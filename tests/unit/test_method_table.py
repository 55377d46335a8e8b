"""The table of methods agrees with python-telegram-bot; tests/clients compares it with aiogram, which is newer."""

from __future__ import annotations

import inspect
import re

import pytest
import telegram

from floodgate.broker.messages.job import new_job
from floodgate.broker.messages.method_table import METHODS, STANDS_FOR, Charge
from floodgate.broker.messages.methods import can_pay, cost, repeatable
from floodgate.fake_telegram.methods import METHODS as JUDGED

# Conveniences of the library that are not methods of the Bot API.
NOT_METHODS = {"toDict", "toJson", "doApiRequest", "initialize", "shutdown", "getBot", "setBot", "deJson", "deList"}
# Required by the library's signatures, but not by the Bot API's reference.
RELAXED = {"editMessageText": {"text"}}


def library_methods() -> set[str]:
    names = {
        name
        for name in dir(telegram.Bot)
        if callable(getattr(telegram.Bot, name)) and re.fullmatch(r"[a-z]+([A-Z][a-z]*)+", name)
    }
    return (names | {"close"}) - NOT_METHODS


def signature(method: str) -> dict[str, inspect.Parameter]:
    snake = re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), method)
    found = inspect.signature(getattr(telegram.Bot, snake)).parameters
    return {name: each for name, each in found.items() if name != "self" and each.kind is not each.VAR_KEYWORD}


# The fake does not limit these at all. Telegram does not say whether it does.
LENIENT = dict.fromkeys(
    ("refundStarPayment", "setChatMenuButton", "setPassportDataErrors", "setUserEmojiStatus"), "none"
)
IN_LIBRARY = sorted(library_methods() & METHODS.keys())


def test_the_table_has_every_method_of_the_library() -> None:
    assert len(IN_LIBRARY) > 150
    assert library_methods() - METHODS.keys() == set()


@pytest.mark.parametrize("method", IN_LIBRARY)
def test_the_table_requires_what_the_library_requires(method: str) -> None:
    required = {name for name, each in signature(method).items() if each.default is each.empty}
    ours = {name for name in METHODS[method].required if name not in STANDS_FOR}
    missing = required - RELAXED.get(method, set()) - ours
    assert missing == set()


def test_every_class_of_methods_is_in_the_table() -> None:
    assert {method.charge for method in METHODS.values()} == set(Charge)


def test_a_method_acts_on_what_its_parameters_name() -> None:
    acts_on = {name: method.acts_on for name, method in METHODS.items()}
    assert acts_on["sendMessage"] == acts_on["forwardMessage"] == ("chat_id",)
    assert acts_on["editMessageText"] == ("@message",)
    assert acts_on["editEphemeralMessageText"] == ("chat_id", "receiver_user_id", "ephemeral_message_id")
    assert acts_on["sendMessageDraft"] == ("chat_id", "draft_id")
    assert acts_on["getMe"] == ()


def test_the_parameters_include_those_that_one_stands_for() -> None:
    parameters = METHODS["editMessageText"].parameters
    assert {"chat_id", "message_id", "inline_message_id", "text", "rich_message", "entities"} <= parameters
    assert not any(name.startswith(("@", "+")) for method in METHODS.values() for name in method.parameters)


@pytest.mark.parametrize(("method", "paid"), [("sendMessage", True), ("sendChatAction", False), ("sendGift", False)])
def test_a_method_without_paid_broadcasts_is_charged_as_usual(method: str, paid: bool) -> None:
    assert new_job(method, {"chat_id": 1, "allow_paid_broadcast": True}).paid is paid


def test_paid_broadcasts_are_those_of_the_library_and_of_rich_messages() -> None:
    known = {name for name in IN_LIBRARY if "allow_paid_broadcast" in signature(name)}
    assert {name for name in METHODS if can_pay(name)} == known | {"sendRichMessage"}


def test_albums_and_bulk_copies_count_as_many_messages() -> None:
    assert cost("sendMediaGroup", {"media": [1, 2, 3]}) == 3
    assert cost("forwardMessages", {"message_ids": [1, 2]}) == cost("copyMessages", {"message_ids": (1, 2)}) == 2
    assert cost("deleteMessages", {"message_ids": [1, 2]}) == cost("sendPaidMedia", {"media": [1, 2]}) == 1


def test_only_calls_whose_repetition_has_no_effect_are_repeatable() -> None:
    repeated = {name for name in METHODS if repeatable(name)}
    assert {"editMessageText", "deleteMessage", "sendChatAction", "sendRichMessageDraft", "getChat"} <= repeated
    assert not any(repeatable(name) for name, method in METHODS.items() if method.charge is Charge.MESSAGE)
    assert not repeated & {"transferGift", "createChatInviteLink", "refundStarPayment"}


def test_the_fake_charges_each_of_its_methods_to_the_same_budgets() -> None:
    """It may import nothing of ours, so that it judges on its own: this keeps its table and ours together."""
    none = (Charge.ANSWER, Charge.FREE, Charge.UNQUEUED)
    ours = {name: "none" if method.charge in none else str(method.charge) for name, method in METHODS.items()}
    theirs = {method.name: method.effect.value for method in JUDGED.values()}
    assert {name: effect for name, effect in theirs.items() if effect != ours[name]} == LENIENT
    for method in JUDGED.values():
        assert method.can_pay == can_pay(method.name)
        assert method.counted_by == METHODS[method.name].counted_by
