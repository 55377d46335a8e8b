"""The clients' typed methods agree with the table of the Bot API's methods and with python-telegram-bot's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import telegram

from floodgate.broker.messages.methods import REQUIRED, canonical_method
from floodgate.producer.bot_api import BotApi

METHODS = {
    name: function
    for name, function in vars(BotApi).items()
    if inspect.isfunction(function) and name != "call" and not name.startswith("_")
}
# A parameter required through a stand-in in the table is optional in the signature, which cannot say "one of these".
STAND_INS = {"@message": {"chat_id", "message_id", "inline_message_id"}}


class Recorder(BotApi[tuple[str, dict[str, Any]]]):
    def call(self, method: str, /, **given: Any) -> tuple[str, dict[str, Any]]:
        return method, given


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    return {name: one for name, one in found.items() if name != "self" and one.kind is not one.VAR_KEYWORD}


@pytest.mark.parametrize("name", METHODS)
def test_a_typed_method_calls_the_method_of_its_name_with_all_its_arguments(name: str) -> None:
    given: dict[str, Any] = dict.fromkeys(parameters(METHODS[name])) | {"campaign": "spring"}
    given = {each: object() for each in given}
    assert getattr(Recorder(), name)(**given) == (canonical_method(name.replace("_", "")), given)


@pytest.mark.parametrize("name", METHODS)
def test_a_typed_method_requires_the_parameters_the_table_requires(name: str) -> None:
    required = set(REQUIRED[canonical_method(name.replace("_", ""))])
    optional = set().union(*(STAND_INS[each] for each in required & STAND_INS.keys()))
    found = parameters(METHODS[name])
    assert {each for each, one in found.items() if one.default is one.empty} == required - STAND_INS.keys()
    assert optional <= found.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_typed_method_has_only_parameters_of_the_bot_api(name: str) -> None:
    known = inspect.signature(getattr(telegram.Bot, name)).parameters.keys()
    assert parameters(METHODS[name]).keys() <= known
