"""The result of a send that does not wait: the library must be able to make an object of it, or there is none."""

from __future__ import annotations

from typing import Any

import pytest
from telegram import Message, MessageId

from floodgate.broker.messages.method_table import METHODS, Charge
from floodgate.updates.stand_ins import stand_in

SENDS = [name for name, method in METHODS.items() if method.charge is Charge.MESSAGE]
OTHERS = {"copyMessage", "copyMessages", "forwardMessages", "sendMediaGroup", "sendGift"}
WAITED_FOR = {"createForumTopic", "sendPoll", "sendChecklist"}


@pytest.mark.parametrize("method", [name for name in SENDS if name not in OTHERS | WAITED_FOR])
@pytest.mark.parametrize("chat_id", [42, "42", -1001234567890, "@news"])
def test_a_send_returns_a_message_with_id_0(method: str, chat_id: Any) -> None:
    message = Message.de_json(stand_in(method, {"chat_id": chat_id, "text": "hi"}), None)
    assert (message.message_id, message.text) == (0, "hi")
    assert message.chat.username == "news" if chat_id == "@news" else message.chat.id == int(chat_id)


def test_albums_and_copies_return_as_many_messages_as_they_send() -> None:
    assert len(Message.de_list(stand_in("sendMediaGroup", {"chat_id": 1, "media": [{}, {}, {}]}), None)) == 3
    assert len(MessageId.de_list(stand_in("copyMessages", {"message_ids": [1, 2]}), None)) == 2
    assert MessageId.de_json(stand_in("copyMessage", {"message_id": 5}), None).message_id == 0


def test_an_edit_returns_the_edited_message() -> None:
    edited = Message.de_json(stand_in("editMessageText", {"chat_id": 1, "message_id": 7, "text": "new"}), None)
    assert (edited.message_id, edited.text) == (7, "new")
    assert stand_in("editMessageText", {"inline_message_id": "x", "text": "new"}) is True


@pytest.mark.parametrize("method", ["sendChatAction", "deleteMessage", "pinChatMessage", "setMessageReaction"])
def test_methods_that_answer_true_return_true(method: str) -> None:
    assert stand_in(method, {"chat_id": 1}) is True


@pytest.mark.parametrize("method", [*WAITED_FOR, "createChatInviteLink", "exportChatInviteLink", "stopPoll"])
def test_results_only_telegram_knows_have_no_stand_in(method: str) -> None:
    assert stand_in(method, {"chat_id": 1}) is None
