"""From a caller's arguments to a job, from a job to a publication; and both clients agree."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import telegram

from floodgate.broker.amqp import delay_ladder
from floodgate.broker.errors import (
    InvalidParamsError,
    UnknownBotError,
    UnknownMethodError,
)
from floodgate.broker.messages.job import Job, Priority, decode_job, unix_ms
from floodgate.broker.messages.method_table import METHODS
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import OPTIONS, Composer, as_job, option_meant

TOKEN = "123456789:" + "A" * 35
NOW_MS = 1_700_000_000_000
HI = {"chat_id": 42, "text": "hi"}


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def composer(**given: Any) -> Composer:
    return Composer(settings(**given))


def job(**given: Any) -> Job:
    return composer().job("sendMessage", {**HI, **given})


def test_options_and_parameters_are_distinguished() -> None:
    made = job(priority="bulk", campaign="spring", on_uncertain="dead-letter", protect_content=True)
    assert made.params == {**HI, "protect_content": True}
    assert (made.priority, made.campaign, made.on_uncertain) == (Priority.BULK, "spring", "dead-letter")


def test_no_bot_api_parameter_has_the_name_of_an_option() -> None:
    parameters = {
        name
        for method in vars(telegram.Bot).values()
        if inspect.isfunction(method)
        for name in inspect.signature(method).parameters
    }
    assert OPTIONS & parameters == set()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("prioritty", "priority"),
        ("Priority", "priority"),
        ("dedup_key", "dedupe_key"),
        ("dedupeKey", "dedupe_key"),
        ("expire_at", "expires"),
        ("delays", "delay"),
        ("campain", "campaign"),
        ("on_uncertian", "on_uncertain"),
        ("bots", "bot"),
    ],
)
def test_a_misspelt_option_is_an_error_that_names_the_right_one(given: str, meant: str) -> None:
    for made in (composer().job, composer().call):
        with pytest.raises(InvalidParamsError, match=f"{given!r} is neither .* did you mean {meant!r}"):
            made("sendMessage", {**HI, given: "x"})


def test_no_bot_api_parameter_is_taken_for_a_misspelt_option() -> None:
    parameters = {name for method in METHODS.values() for name in method.parameters}
    assert len(parameters) > 200
    assert {name: meant for name in parameters if (meant := option_meant(name))} == {}


def test_a_new_parameter_of_the_bot_api_passes() -> None:
    assert job(rich_text={"a": 1}).params == {**HI, "rich_text": {"a": 1}}


def test_a_method_name_is_recognized_in_any_case() -> None:
    assert composer().job("SENDMESSAGE", HI).method == "sendMessage"
    with pytest.raises(UnknownMethodError, match="no method 'send/Message'"):
        composer().job("send/Message", HI)


def test_a_producer_without_tokens_may_use_any_well_formed_bot_name() -> None:
    assert job(bot="news").bot == "news"
    with pytest.raises(InvalidParamsError, match="bot"):
        job(bot="News!")


def test_a_producer_with_tokens_can_use_only_their_bots() -> None:
    with pytest.raises(UnknownBotError, match="configured: default"):
        composer(bot_token=TOKEN).job("sendMessage", {**HI, "bot": "news"})


@pytest.mark.parametrize(("names", "sends"), [(["news"], "news"), (["news", "default"], "default"), ([], "default")])
def test_the_only_configured_bot_is_the_default(names: list[str], sends: str) -> None:
    tokens = {name: f"{number}:{'A' * 35}" for number, name in enumerate(names, 100200300)}
    assert composer(bots=tokens).job("sendMessage", HI).bot == sends


def test_a_job_made_elsewhere_must_also_be_for_a_configured_bot() -> None:
    with pytest.raises(UnknownBotError):
        composer(bot_token=TOKEN).publication(job(bot="news"))


def test_a_client_has_its_own_default_bot() -> None:
    assert Composer(settings(), "news").job("sendMessage", HI).bot == "news"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"at": datetime(2030, 1, 1)}, "no time zone"),  # noqa: DTZ001 - the fault under test
        ({"at": 5}, "must be a datetime"),
        ({"at": datetime.now(UTC), "delay": 5}, "use one of them"),
        ({"at": datetime.now(UTC) + timedelta(days=500)}, "388 days"),
        ({"delay": -1}, "negative"),
        ({"delay": float("nan")}, "negative"),
        ({"delay": float("inf")}, "negative"),
        ({"delay": "5"}, "timedelta or a number of seconds"),
        ({"delay": timedelta(days=400)}, "388 days"),
        ({"expires": -1}, "negative"),
        ({"expires": 0}, "not in the future"),
        ({"expires": datetime(2001, 1, 1, tzinfo=UTC)}, "not in the future"),
        ({"expires": 5, "delay": 10}, "never be"),
        ({"priority": "urgent"}, "urgent"),
        ({"on_uncertain": "panic"}, "on_uncertain"),
        ({"dedupe_key": ""}, "dedupe_key"),
        ({"dedupe_key": 7}, "dedupe_key"),
        ({"campaign": "x" * 101}, "campaign"),
        ({"chat_id": "nobody"}, "neither a number nor '@name'"),
    ],
)
def test_an_invalid_option_is_refused_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidParamsError, match=sentence):
        job(**given)


def test_times_become_unix_milliseconds() -> None:
    noon = datetime(2030, 6, 1, 12, tzinfo=UTC)
    before = unix_ms()
    made = job(delay=1.5, expires=timedelta(seconds=10))
    assert made.not_before_ms is not None and made.expires_ms is not None
    assert before + 1500 <= made.not_before_ms <= unix_ms() + 1500
    assert made.expires_ms - made.created_ms == 10_000
    assert job(expires=noon).expires_ms == noon.timestamp() * 1000


def test_a_time_in_the_past_means_now() -> None:
    assert job(at=datetime(2001, 1, 1, tzinfo=UTC)).not_before_ms is None
    assert job(delay=0).not_before_ms is None


def test_jobs_with_one_dedupe_key_are_one_job_in_the_ledger() -> None:
    first, second = job(dedupe_key="invoice-7"), job(dedupe_key="invoice-7")
    assert first.id == second.id
    assert len({first.id, job(dedupe_key="invoice-8").id, job(dedupe_key="invoice-7", bot="news").id, job().id}) == 4


def test_a_job_goes_to_its_chats_partition_with_its_own_id() -> None:
    made = job(priority="bulk")
    publication = composer(partitions=16).publication(made)
    assert (publication.exchange, publication.message_id, publication.priority) == ("", made.id, 4)
    assert publication.routing_key == f"send.default.bulk.{made.partition(16):02}"
    assert json.loads(publication.body)["queue_name"] == publication.routing_key
    assert decode_job(publication.body) == made


def test_a_scheduled_job_goes_to_the_ladder_and_names_its_queue() -> None:
    made = job(delay=60)
    publication = composer(partitions=16).publication(made)
    home = f"send.default.interactive.{made.partition(16):02}"
    assert publication.exchange == delay_ladder.entry_exchange(480)
    assert publication.routing_key == delay_ladder.routing_key(home, 480)
    assert publication.priority == delay_ladder.RETURN_PRIORITY
    assert json.loads(publication.body)["queue_name"] == home


def test_a_job_too_large_for_a_queue_is_refused() -> None:
    large = composer().job("sendMessage", {**HI, "note": "x" * 600_000})
    with pytest.raises(InvalidParamsError, match="the limit is"):
        composer().publication(large)


@pytest.mark.parametrize("thing", [None, {"method": "sendMessage"}, ("sendMessage", HI)])
def test_a_value_that_is_not_a_job_is_refused_with_instructions(thing: object) -> None:
    with pytest.raises(InvalidParamsError, match=r"make one with client\.job"):
        as_job(thing)
