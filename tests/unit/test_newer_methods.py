"""Methods that are newer than the table of methods: their verb says what they count towards."""

from __future__ import annotations

import pytest

from floodgate.broker.errors import UnknownMethodError
from floodgate.broker.messages.job import decode_job, encode_job, new_job
from floodgate.broker.messages.methods import CHARGES, Charge, charge_of
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import Composer
from floodgate.updates.stand_ins import stand_in


@pytest.mark.parametrize(
    ("method", "charge"),
    [
        ("sendRichMessage", Charge.MESSAGE),
        ("SENDRICHMESSAGE", Charge.MESSAGE),
        ("copyRichMessage", Charge.MESSAGE),
        ("forwardRichMessage", Charge.MESSAGE),
        ("editEphemeralMessageText", Charge.EDIT),
        ("getRichMessage", None),
        ("deleteEphemeralMessage", None),
        ("sendmessage", None),
        ("send", None),
        ("sender/../getMe", None),
        ("", None),
    ],
)
def test_the_verb_of_an_unknown_method_tells_what_it_counts_towards(method: str, charge: Charge | None) -> None:
    assert charge_of(method) is charge


def test_the_table_goes_before_the_verb() -> None:
    assert {method: charge_of(method) for method in CHARGES} == CHARGES


def test_a_newer_method_can_be_a_job_and_waits_for_telegrams_answer() -> None:
    job = new_job("sendRichMessage", {"chat_id": 42, "text": "hi"})
    assert decode_job(encode_job(job, "send.default.interactive.00")) == job
    assert stand_in(job.method, job.params) is None


def test_known_methods_keep_their_spelling_and_clients_still_refuse_unknown_ones() -> None:
    assert new_job("sendmessage", {"chat_id": 42, "text": "hi"}).method == "sendMessage"
    with pytest.raises(UnknownMethodError, match="no method 'sendMesage'"):
        Composer(Settings(_env_file=None)).job("sendMesage", {"chat_id": 42, "text": "hi"})
    with pytest.raises(UnknownMethodError, match="no method 'getRichMessage'"):
        new_job("getRichMessage", {})
