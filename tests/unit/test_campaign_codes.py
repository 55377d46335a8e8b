"""The codes that name a recipient in what comes back from Telegram."""

from __future__ import annotations

import pytest

from floodgate.producer.campaigns.content.recipient_codes import (
    RecipientCode,
    read_start_payload,
    read_unsubscribe_data,
)

LARGEST = 2**31 - 1  # of the database's integers


@pytest.mark.parametrize("code", [RecipientCode(1, 1), RecipientCode(36, 1_000_000), RecipientCode(LARGEST, LARGEST)])
def test_a_code_is_read_as_it_was_written(code: RecipientCode) -> None:
    assert read_unsubscribe_data(code.unsubscribe_data) == code
    assert read_start_payload(code.start_payload) == code
    assert len(code.unsubscribe_data) <= 18


@pytest.mark.parametrize("data", [None, 7, "", "x", "fg:u:", "fg:u:1", "fg:u:1:", "fg:u:A:1", "fg:u:1:2:3", "fg:u:1:٣"])
def test_other_data_is_left_to_the_bot(data: object) -> None:
    assert read_unsubscribe_data(data) is None
