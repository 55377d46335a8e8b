"""Methods that are newer than the table of methods: their verb, or the setting, says what they count towards."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from floodgate.broker.admission.policy import ask_for
from floodgate.broker.errors import SettingsError, UnknownMethodError
from floodgate.broker.messages import methods
from floodgate.broker.messages.job import decode_job, encode_job, new_job
from floodgate.broker.messages.method_table import METHODS, Charge
from floodgate.broker.messages.methods import find_method, repeatable
from floodgate.broker.messages.queue_names import home_of
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.producer.campaigns.definition import Content
from floodgate.producer.core import Composer
from floodgate.updates.stand_ins import stand_in


@pytest.fixture(autouse=True)
def _unwarned() -> Iterator[None]:
    methods._warn.cache_clear()
    yield
    methods._warn.cache_clear()


def settings(**given: object) -> Settings:
    return Settings(_env_file=None, **given)


@pytest.mark.parametrize(
    ("method", "charge"),
    [
        ("sendHologram", Charge.MESSAGE),
        ("SENDHOLOGRAM", Charge.MESSAGE),
        ("copyHologram", Charge.MESSAGE),
        ("forwardHologram", Charge.MESSAGE),
        ("editHologramText", Charge.EDIT),
        ("answerHologramQuery", Charge.ANSWER),
        ("getHologram", Charge.FREE),
        ("setHologram", Charge.FREE),
        ("deleteHologram", Charge.FREE),
        ("send", Charge.FREE),
    ],
)
def test_the_verb_of_an_unknown_method_tells_what_it_counts_towards(method: str, charge: Charge) -> None:
    found = find_method(method)
    assert (found.name, found.charge, found.known) == (method, charge, False)
    assert ask_for(new_job(method, {"chat_id": 1}), settings()).charge is charge


@pytest.mark.parametrize("name", ["", "x", "send message", "sender/../getMe", "sendMessage1", "a" * 65, "отправить"])
def test_what_cannot_be_the_name_of_a_method_is_refused(name: str) -> None:
    with pytest.raises(UnknownMethodError, match="no method"):
        find_method(name)


def test_known_methods_are_found_in_any_case_and_keep_their_spelling() -> None:
    assert {find_method(name.upper()).name for name in METHODS} == set(METHODS)
    assert new_job("sendmessage", {"chat_id": 42, "text": "hi"}).method == "sendMessage"


@pytest.mark.parametrize("name", ["getUpdates", "LOGOUT", "setWebhook"])
def test_receiving_and_logging_out_cannot_be_jobs(name: str) -> None:
    with pytest.raises(UnknownMethodError, match="cannot be queued"):
        new_job(name, {})


def test_a_newer_method_can_be_a_job_and_waits_for_telegrams_answer() -> None:
    job = Composer(settings()).job("sendHologram", {"chat_id": 42, "shape": {"x": 1}})
    assert decode_job(encode_job(job, "send.default.interactive.00")) == job
    assert stand_in(job.method, job.params) is None
    assert not repeatable(job.method)


def test_a_newer_answer_goes_to_the_queue_of_answers_and_expires() -> None:
    job = new_job("answerHologramQuery", {"hologram_query_id": "1"})
    assert home_of(job, 4) == "send.default.answers"
    assert job.expires_ms == job.created_ms + 15_000


def test_a_campaign_may_send_with_a_newer_method() -> None:
    assert Content(method="sendHologram", shape="cube").params == {"shape": "cube"}


def test_a_newer_method_is_warned_about_once_and_a_likely_misspelling_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("sendMesage", "sendMesage", "sendHologram"):
        Composer(settings()).job(name, {"chat_id": 42})
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "'sendMesage'" in warnings[0]
    assert "if you mean sendMessage" in warnings[0]
    assert "FLOODGATE_METHODS" in warnings[1]


def test_the_setting_adds_and_corrects_classes_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ours = settings(methods={"resolveHologram": "message", "SETCHATTITLE": "free"})
    assert ours.method("ResolveHologram").charge is Charge.MESSAGE
    assert ours.method("setChatTitle").charge is Charge.FREE
    assert ours.method("setChatPhoto").charge is Charge.ACTION
    assert caplog.records == []


def test_a_class_from_the_setting_travels_with_the_job_and_the_workers_own_setting_wins() -> None:
    job = Composer(settings(methods={"resolveQuery": "answer"})).job("resolveQuery", {})
    job = decode_job(encode_job(job, "send.default.answers"))
    assert home_of(job, 4) == "send.default.answers"
    assert job.expires_ms == job.created_ms + 15_000
    assert ask_for(job, settings()).charge is Charge.ANSWER
    assert ask_for(job, settings(methods={"resolvequery": "message"})).charge is Charge.MESSAGE


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"send Message": "message"}, "no method"),
        ({"getUpdates": "message"}, "cannot be queued"),
        ({"sendHologram": "unqueued"}, "cannot be given"),
        ({"sendHologram": "hologram"}, "SENDHOLOGRAM Input should be 'message', 'edit'"),
    ],
)
def test_a_wrong_class_is_refused_in_one_sentence(value: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load_settings(_env_file=None, methods=value)
