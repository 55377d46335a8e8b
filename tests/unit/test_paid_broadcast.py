"""The methods that may be charged as paid broadcasts."""

from __future__ import annotations

import inspect

import pytest
import telegram

from floodgate.broker.messages.job import new_job
from floodgate.broker.messages.methods import PAID_BROADCAST, canonical_method


def test_paid_broadcasts_are_those_of_python_telegram_bot() -> None:
    known = {
        canonical_method(name.replace("_", ""))
        for name, function in inspect.getmembers(telegram.Bot, inspect.isfunction)
        if not name.startswith("_") and "allow_paid_broadcast" in inspect.signature(function).parameters
    }
    assert known == PAID_BROADCAST


@pytest.mark.parametrize(("method", "paid"), [("sendMessage", True), ("sendChatAction", False), ("sendGift", False)])
def test_a_method_without_paid_broadcasts_is_charged_as_usual(method: str, paid: bool) -> None:
    assert new_job(method, {"chat_id": 1, "allow_paid_broadcast": True}).paid is paid
