"""The table of methods is that of the newest aiogram: names, parameters and results.

If this fails after `scripts/lock --upgrade`, Telegram has changed something: edit broker/messages/method_table.py.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from floodgate.broker.messages.method_table import METHODS, STANDS_FOR
from tests.acceptance.gateway.programs import run_client

# aiogram requires them; the reference says that one of several parameters is enough.
ONE_OF = {name for names in STANDS_FOR.values() for each in names for name in each}


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    found: dict[str, Any] = run_client("methods_of_aiogram.py")
    return found


def test_the_table_has_the_methods_of_aiogram(theirs: dict[str, Any]) -> None:
    assert len(theirs) >= 185
    assert METHODS.keys() ^ theirs.keys() == set()


def test_the_table_has_the_parameters_of_aiogram(theirs: dict[str, Any]) -> None:
    assert {name: sorted(METHODS[name].parameters ^ set(its["parameters"])) for name, its in theirs.items()} == {
        name: [] for name in theirs
    }


def test_the_table_requires_what_aiogram_requires(theirs: dict[str, Any]) -> None:
    required = {name: {each for each, needed in its["parameters"].items() if needed} for name, its in theirs.items()}
    ours = {name: {each for each in METHODS[name].required if each not in STANDS_FOR} for name in theirs}
    assert {name: its - ours[name] for name, its in required.items() if its - ours[name]} == {}
    assert {name: its - required[name] - ONE_OF for name, its in ours.items() if its - required[name] - ONE_OF} == {}


def test_queued_methods_return_what_they_return_in_aiogram(theirs: dict[str, Any]) -> None:
    ours = {name: method.returns for name, method in METHODS.items() if method.returns}
    assert ours == {name: result(theirs[name]["returns"]) for name in ours}


def result(annotation: str) -> str:
    """Return a type's name in the Bot API's reference."""
    plain = re.sub(r"<class '(.*)'>", r"\1", annotation)
    return re.sub(r"aiogram\.types\.\w+\.", "", plain).replace("bool", "True")
