"""The account of the campaign demo, without processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from floodgate.demo.campaign import CampaignDemoOutcome, CampaignDemoSize, outcome_of
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.records import Recipient

SIZE = CampaignDemoSize(4)
ROWS = [
    Recipient(number, str(number), {}, 0, state, 0, None, None, None, None)
    for number, state in enumerate([RecipientState.SENT] * 3 + [RecipientState.UNREACHABLE], 1)
]
RECEIVED = ["1", "2", "3"]


def outcome(rows: list[Recipient] = ROWS, received: list[str] = RECEIVED, **faults: int) -> CampaignDemoOutcome:
    given = {"sent_while_paused": 0, "reports": 1, "too_many_requests": 0} | faults
    return outcome_of(rows, received, SIZE, **given)


def test_it_adds_up_if_each_recipient_has_one_outcome_and_got_the_message_once() -> None:
    assert outcome().adds_up


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (outcome(received=["1", "2"]), "one did not get it"),
        (outcome(received=[*RECEIVED, "3"]), "one got it twice"),
        (outcome(received=[*RECEIVED, "4"]), "one got it whom the record does not name"),
        (outcome(ROWS[:3]), "one has no row"),
        (outcome([*ROWS[:2], replace(ROWS[2], state=RecipientState.RELEASED), ROWS[3]]), "one has not ended"),
        (outcome(sent_while_paused=1), "the pause was not silent"),
        (outcome(reports=2), "there are two reports"),
        (outcome(too_many_requests=1), "Telegram answered 429"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_does_not_add_up_if(found: CampaignDemoOutcome, why: str) -> None:
    assert not found.adds_up, why
