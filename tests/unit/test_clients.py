"""The interface of the two clients: the same methods, a cheap import, every error importable."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import telegram

import floodgate
import floodgate.broker.errors
from floodgate.broker.errors import FloodgateError
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.bot_api import BotApi
from floodgate.producer.client import Client


def public(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method).replace(return_annotation=inspect.Signature.empty)
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    sync, asynchronous = public(Client), public(AsyncClient)
    many = {"enqueue_many", "enqueue_each"}  # the async ones also accept async iterables
    assert sync.keys() == asynchronous.keys()
    assert {name: sync[name] for name in sync.keys() - many} == {
        name: asynchronous[name] for name in asynchronous.keys() - many
    }
    assert all(list(sync[name].parameters) == list(asynchronous[name].parameters) for name in many)
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


TYPED = [name for name in vars(BotApi) if not name.startswith("_") and name != "call"]


class Echo(BotApi[tuple[str, dict[str, Any]]]):
    """Returns the call that a typed method makes."""

    def call(self, method: str, /, **given: Any) -> tuple[str, dict[str, Any]]:
        return method, given


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_method_calls_the_bot_api_method_of_its_name_with_existing_parameters(name: str) -> None:
    typed = inspect.signature(getattr(Echo, name)).parameters
    own = [p.name for p in typed.values() if p.name != "self" and p.kind != p.VAR_KEYWORD]
    method, given = getattr(Echo(), name)(**dict.fromkeys(own, "x"), priority="bulk")
    assert method.lower() == name.replace("_", "")
    assert given == dict.fromkeys(own, "x") | {"priority": "bulk"}
    assert set(own) <= inspect.signature(getattr(telegram.Bot, name)).parameters.keys()


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_method_has_type_hints_that_resolve(name: str) -> None:
    assert "return" in get_type_hints(getattr(BotApi, name))


FORBIDDEN = ("telegram", "dramatiq", "floodgate.actors", "aiohttp", "typer", "rich", "structlog", "redis")


@pytest.mark.parametrize(
    "statement",
    ["import floodgate.producer", "from floodgate import Client, AsyncClient", "import floodgate.producer.client"],
)
def test_importing_a_client_imports_no_telegram_library_and_starts_no_thread(statement: str, tmp_path: Path) -> None:
    program = f"""
import sys, threading
{statement}
print([name for name in {FORBIDDEN!r} if name in sys.modules], threading.active_count())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("[] 1\n", "")


def test_every_error_can_be_imported_from_the_public_package() -> None:
    errors = {
        name
        for name, thing in vars(floodgate.broker.errors).items()
        if isinstance(thing, type) and issubclass(thing, FloodgateError)
    }
    assert errors <= set(floodgate.__all__)
    assert all(callable(getattr(floodgate, name)) for name in floodgate.__all__)
