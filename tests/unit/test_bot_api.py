"""The clients' typed methods agree with the table of the Bot API's methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from floodgate.broker.messages.method_table import METHODS, STANDS_FOR
from floodgate.broker.messages.methods import canonical_method
from floodgate.producer.bot_api import BotApi

TYPED = {
    name: function
    for name, function in vars(BotApi).items()
    if inspect.isfunction(function) and name != "call" and not name.startswith("_")
}


class Recorder(BotApi[tuple[str, dict[str, Any]]]):
    def call(self, method: str, /, **given: Any) -> tuple[str, dict[str, Any]]:
        return method, given


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    return {name: one for name, one in found.items() if name != "self" and one.kind is not one.VAR_KEYWORD}


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_method_calls_the_method_of_its_name_with_all_its_arguments(name: str) -> None:
    given: dict[str, Any] = dict.fromkeys(parameters(TYPED[name])) | {"campaign": "spring"}
    given = {each: object() for each in given}
    assert getattr(Recorder(), name)(**given) == (canonical_method(name.replace("_", "")), given)


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_method_requires_the_parameters_the_table_requires(name: str) -> None:
    required = set(METHODS[canonical_method(name.replace("_", ""))].required)
    if name == "edit_message_text":
        required = required - {"@text"} | {"text"}  # there is no type yet for a rich message
    # A signature cannot say "one of these".
    optional = set().union(*(names for each in required & STANDS_FOR.keys() for names in STANDS_FOR[each]))
    found = parameters(TYPED[name])
    assert {each for each, one in found.items() if one.default is one.empty} == required - STANDS_FOR.keys()
    assert optional <= found.keys()


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_method_has_only_parameters_of_the_bot_api(name: str) -> None:
    assert parameters(TYPED[name]).keys() <= METHODS[canonical_method(name.replace("_", ""))].parameters
