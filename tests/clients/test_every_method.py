"""All methods that aiogram has, through the gateway: answered, or refused in Telegram's words, never in a way that the
library cannot read."""

from __future__ import annotations

from typing import Final

from floodgate.fake_telegram.server import running_fake
from floodgate.producer.gateway.routes import TABLE, Route
from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.gateway.programs import run_client
from tests.acceptance.stage import TOKEN

CHAT: Final = "3000000"
REFUSALS: Final = {
    f"Forbidden: the gateway does not accept {row.method}: {row.why}"
    for row in TABLE.values()
    if row.route is Route.REFUSED
}
KINDS: Final = {"Message", "MessageId", "bool", "str", "list", "ChatInviteLink", "ForumTopic", "Poll", "Story"}


def test_every_method_has_the_outcome_that_it_has_at_telegram_or_can_be_read_without_waiting(gate: Gate) -> None:
    with running_fake() as telegram:
        telegram.control.limits(enabled=False)
        program = "every_method_of_aiogram.py"
        through, direct, at_once = run_client(program, gate.url, telegram.url, TOKEN, CHAT)
    assert len(through) > 180
    refused = {method for method in through if TABLE[method].route is Route.REFUSED}
    assert {through.pop(method) for method in refused} == REFUSALS
    assert through == {method: outcome for method, outcome in direct.items() if method not in refused}
    queued = {row.method for row in TABLE.values() if row.route is Route.QUEUED}
    assert {at_once[method] for method in queued} == KINDS
