"""Which recipients of a campaign are tried again."""

from __future__ import annotations

import pytest

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.operations.retries import retry_choice
from floodgate.producer.campaigns.states import RecipientState


@pytest.mark.parametrize(
    ("reason", "error", "expected"),
    [
        (None, "", True),
        ("not enough RIGHTS", "rights: Bad Request: not enough rights", True),
        ("^(rights|content):", "content: Bad Request", True),
        ("^Bad", "content: Bad Request", False),
        ("entities (here", "can't parse entities (here", True),  # not a regular expression
        ("a.b (", "axb (", False),
        ("[1-3]", "byte [1-3]", True),  # contains the text
        (".", "", False),
    ],
)
def test_a_reason_is_a_text_or_a_regular_expression(reason: str | None, error: str, expected: bool) -> None:
    assert retry_choice(["failed"], reason).matches(error) is expected


def test_those_who_are_uncertain_are_tried_again_only_if_that_state_is_named() -> None:
    assert retry_choice(reason=".").states == (RecipientState.FAILED, RecipientState.UNREACHABLE)
    assert retry_choice(["uncertain"], ".").states == (RecipientState.UNCERTAIN,)


def test_a_retry_needs_a_state_or_a_reason_and_never_takes_those_who_were_sent() -> None:
    with pytest.raises(CampaignError, match="give a state or a reason"):
        retry_choice()
    with pytest.raises(CampaignError, match="'sent' cannot be tried again: the states are failed, unreachable, uncer"):
        retry_choice(["sent"])
