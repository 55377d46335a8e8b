"""Every method of the Bot API has a route at the gateway, and the page with the table agrees."""

from __future__ import annotations

import pytest

from floodgate.broker.messages.method_table import METHODS, Charge
from floodgate.broker.settings.model import Settings
from floodgate.producer.gateway.page import PAGE, page
from floodgate.producer.gateway.routes import TABLE, Route, route_of


def test_only_methods_that_count_toward_a_limit_are_queued() -> None:
    queued = {row.method for row in TABLE.values() if row.route is Route.QUEUED}
    assert queued == {
        name for name, method in METHODS.items() if method.charge.metered or method.charge is Charge.TYPING
    }


def test_receiving_passes_through_and_logging_out_is_refused() -> None:
    assert TABLE["getWebhookInfo"].route is Route.PASSED
    assert {name for name, row in TABLE.items() if row.route is Route.REFUSED} == {"logOut", "close"}


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("SENDMESSAGE", Route.QUEUED),
        ("sendHologram", Route.QUEUED),
        ("editHologram", Route.QUEUED),
        ("getHologram", Route.PASSED),
        ("answerHologram", Route.PASSED),
        ("setHologram", Route.PASSED),
        ("deleteHologram", Route.PASSED),
        ("deleteShadow", Route.QUEUED),
    ],
)
def test_a_method_is_routed_by_its_class(name: str, route: Route) -> None:
    settings = Settings(_env_file=None, methods={"deleteShadow": "action"})
    assert route_of(settings.method(name)).route is route


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text() == page(), "Renew it with: python -m floodgate.producer.gateway.page"
