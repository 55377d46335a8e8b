"""By which call a message that was sent is corrected, and what the answer means."""

from __future__ import annotations

from typing import Any

import pytest

from floodgate.broker.admission.contract import Record, Standing
from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.definition import Content, parse_definition
from floodgate.producer.campaigns.operations.corrections import edited_content
from floodgate.producer.campaigns.sending.outcomes import job_id, outcome_of
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.records import Campaign

BUTTONS = {"inline_keyboard": [[{"text": "Go", "url": "https://example.org"}]]}
TEXT = {"text": "Hi {{ name }}", "parse_mode": "HTML", "fallbacks": {"name": "you"}, "disable_notification": True}
PHOTO = {"method": "sendPhoto", "photo": "file", "caption": "Hi", "reply_markup": BUTTONS}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            TEXT,
            {"text": "Bye {{ name }}"},
            {"method": "editMessageText", "text": "Bye {{ name }}", "parse_mode": "HTML", "fallbacks": {"name": "you"}},
        ),
        (TEXT, {**TEXT, "text": "Bye", "parse_mode": "none", "fallbacks": {}}, {"text": "Bye", "parse_mode": "none"}),
        (PHOTO, {"caption": "Bye"}, {"method": "editMessageCaption", "caption": "Bye", "reply_markup": BUTTONS}),
        (PHOTO, {**PHOTO, "caption": "Bye"}, {"method": "editMessageCaption", "caption": "Bye"}),
        (PHOTO, {"reply_markup": {"inline_keyboard": []}}, {"reply_markup": {"inline_keyboard": []}}),
        (TEXT | {"reply_markup": {"keyboard": []}}, {"text": "x"}, {"text": "x"}),
        (
            PHOTO,
            {"media": {"type": "photo", "media": "other"}},
            {"method": "editMessageMedia", "reply_markup": BUTTONS},
        ),
    ],
)
def test_the_method_follows_from_the_content_and_what_is_left_out_stays(
    before: dict[str, Any], after: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = edited_content(Content.model_validate(before), Content.model_validate(after))
    assert found | expected == found
    sent_only = {"disable_notification", "photo"}
    assert not found.keys() & sent_only
    assert found["method"].startswith("editMessage")


def test_an_edit_of_buttons_alone_leaves_the_text_and_has_no_parse_mode() -> None:
    found = edited_content(Content.model_validate(TEXT), Content.model_validate({"reply_markup": BUTTONS}))
    assert found == {"method": "editMessageReplyMarkup", "reply_markup": BUTTONS, "fallbacks": {"name": "you"}}


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ({"caption": "x", "photo": "other"}, "photo cannot be changed in a message that was sent with sendPhoto"),
        ({"parse_mode": "HTML"}, "neither media, text, caption nor reply_markup"),
    ],
)
def test_what_cannot_be_edited_is_refused(after: dict[str, Any], why: str) -> None:
    with pytest.raises(CampaignError, match=why):
        edited_content(Content.model_validate(PHOTO), Content.model_validate(after))


@pytest.mark.parametrize(
    ("method", "expected"), [("deleteMessage", RecipientState.SENT), ("editMessageText", RecipientState.FAILED)]
)
def test_a_message_that_is_gone_already_counts_as_deleted(method: str, expected: RecipientState) -> None:
    definition = parse_definition({"name": "a", "content": {"method": method}}, "the test")
    campaign = Campaign(
        *(2, "a", "default", CampaignState.RUNNING, None, definition, 1, None, 0, None, None), corrects=1
    )
    error = {"error_code": 400, "description": "Bad Request: message to delete not found"}
    outcome = outcome_of(campaign, job_id(campaign, 7, 0), Record(Standing.DEAD, reason="content", error=error))
    assert outcome is not None
    assert (outcome.state, outcome.error) == (expected, "content: Bad Request: message to delete not found")
