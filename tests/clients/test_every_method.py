"""All methods that aiogram has, through the gateway: answered, or refused in Telegram's words, never in a way that the
library cannot read."""

from __future__ import annotations

import itertools
from typing import Any, Final

from floodgate.producer.gateway.routes import TABLE, Route, route_of
from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.gateway.programs import run_client
from tests.acceptance.stage import TOKEN

_chats = itertools.count(3_000_000, 10_000)
REFUSALS: Final = {f"Forbidden: the gateway does not accept {row.method}: {row.why}" for row in TABLE.values()}


def outcomes(url: str, wait: str = "-") -> dict[str, Any]:
    """Call every method and return the type of its result, or the sentence of its refusal."""
    found: dict[str, Any] = run_client("every_method_of_aiogram.py", url, TOKEN, str(next(_chats)), wait)
    return found


def test_every_method_has_the_outcome_that_it_has_at_telegram(gate: Gate) -> None:
    through = outcomes(gate.url)
    gate.stage.control.reset()
    gate.stage.control.limits(enabled=False)
    direct = outcomes(gate.stage.telegram_url)
    assert len(through) > 180
    refused = {method for method in through if (row := route_of(method)) is None or row.route is Route.REFUSED}
    assert {through.pop(method) for method in refused} <= {"Not Found", *REFUSALS}
    assert through == {method: outcome for method, outcome in direct.items() if method not in refused}


def test_a_library_reads_the_result_of_every_queued_method_without_waiting(gate: Gate) -> None:
    queued = {row.method for row in TABLE.values() if row.route is Route.QUEUED}
    kinds = {method: outcome for method, outcome in outcomes(gate.url, "0").items() if method in queued}
    assert kinds.keys() == queued
    assert set(kinds.values()) == {
        "Message",
        "MessageId",
        "bool",
        "str",
        "list",
        "ChatInviteLink",
        "ForumTopic",
        "Poll",
        "Story",
    }
