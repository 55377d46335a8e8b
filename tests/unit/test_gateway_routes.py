"""Every method of the Bot API has a route at the gateway, and the page with the table agrees."""

from __future__ import annotations

import re

from telegram import Bot

from floodgate.broker.messages.methods import CHARGES
from floodgate.producer.gateway.page import PAGE, page
from floodgate.producer.gateway.routes import TABLE, Route, route_of

# Conveniences of the library that are not methods of the Bot API.
_NOT_METHODS = {"toDict", "toJson", "doApiRequest", "initialize", "shutdown", "getBot", "setBot", "deJson", "deList"}


def library_methods() -> set[str]:
    names = {name for name in dir(Bot) if callable(getattr(Bot, name)) and re.fullmatch(r"[a-z]+([A-Z][a-z]*)+", name)}
    return (names | {"close"}) - _NOT_METHODS


def test_every_method_of_the_newest_library_has_a_route() -> None:
    methods = library_methods()
    assert len(methods) > 150
    assert sorted(method for method in methods if route_of(method) is None) == []


def test_only_methods_that_count_toward_a_limit_are_queued() -> None:
    queued = {row.method for row in TABLE.values() if row.route is Route.QUEUED}
    assert queued == {method for method, charge in CHARGES.items() if charge.metered}


def test_names_are_matched_case_insensitively() -> None:
    row = route_of("SENDMESSAGE")
    assert row is not None
    assert row.method == "sendMessage"
    assert route_of("sendNonsense") is None


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text() == page(), "Renew it with: python -m floodgate.producer.gateway.page"
