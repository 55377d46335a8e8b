"""Callers' options in headers and parameters, and authorization: as values."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.gateway import GatewaySettings
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.callers import Callers, public_path
from floodgate.producer.gateway.request_options import request_options

TOKENS = {name: f"{number}:" + "A" * 35 for number, name in enumerate(("one", "two"), start=100)}
GATEWAY = GatewaySettings(wait_seconds=60, longest_wait_seconds=100)


def test_without_options_the_settings_apply() -> None:
    options, params = request_options({"content-type": "x"}, {"chat_id": 1}, GATEWAY)
    assert (options.wait_seconds, options.bot, dict(options.options), params) == (60, None, {}, {"chat_id": 1})
    assert not options.keyed


def test_options_can_be_headers_or_parameters_and_a_header_wins() -> None:
    headers = {"X-Floodgate-Wait-Seconds": "5", "x-floodgate-on-uncertain": "dead-letter"}
    given = {"floodgate_wait_seconds": 7, "floodgate_priority": "bulk", "floodgate_delay_seconds": "2", "text": "x"}
    options, params = request_options(headers, given, GATEWAY)
    assert options.wait_seconds == 5
    assert options.options == {"priority": "bulk", "delay": 2.0, "on_uncertain": "dead-letter"}
    assert params == {"text": "x"}


def test_a_wait_is_capped_at_the_longest_wait() -> None:
    assert request_options({"x-floodgate-wait-seconds": "9999"}, {}, GATEWAY)[0].wait_seconds == 100


def test_idempotency_keys_are_separate_from_dedupe_keys_which_take_precedence() -> None:
    assert request_options({"idempotency-key": "a"}, {}, GATEWAY)[0].options == {"dedupe_key": "idempotency:a"}
    both = {"idempotency-key": "a", "x-floodgate-dedupe-key": "b"}
    assert request_options(both, {}, GATEWAY)[0].options == {"dedupe_key": "b"}


@pytest.mark.parametrize("at", ["1767225600", 1767225600, "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00Z"])
def test_times_are_unix_seconds_or_iso_8601(at: object) -> None:
    assert request_options({}, {"floodgate_at": at}, GATEWAY)[0].options == {"at": datetime(2026, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon", [1], {}, "1e999"])
def test_an_invalid_time_is_refused(wait: object) -> None:
    with pytest.raises(RefusalError, match="invalid value for floodgate_wait_seconds"):
        request_options({}, {"floodgate_wait_seconds": wait}, GATEWAY)


@pytest.mark.parametrize("given", [{"floodgate_": "x"}, {"floodgate_colour": ""}, {"Floodgate": "x"}])
def test_an_option_that_does_not_exist_is_refused_with_those_that_do(given: dict[str, object]) -> None:
    with pytest.raises(RefusalError, match=r"unknown option .* (the options are wait_seconds|did you mean)"):
        request_options({}, given, GATEWAY)


def settings(**gateway: object) -> Settings:
    return Settings(_env_file=None, bots=TOKENS, gateway=gateway)


def test_a_key_of_two_bots_selects_one_and_a_token_is_only_for_its_own_bot() -> None:
    callers = Callers(settings(keys={"one": ["k" * 20], "two": ["k" * 20, "l" * 20]}))
    assert [callers.bot("k" * 20, wanted) for wanted in (None, "one", "two")] == ["one", "one", "two"]
    assert callers.bot(TOKENS["two"], None) == "two"
    for secret, wanted, code in (("l" * 20, "one", 403), (TOKENS["one"], "two", 403), ("m" * 20, None, 401)):
        with pytest.raises(RefusalError) as refusal:
            callers.bot(secret, wanted)
        assert refusal.value.code == code


def test_tokens_can_be_disallowed() -> None:
    callers = Callers(settings(keys={"one": ["k" * 20]}, accept_tokens=False))
    assert callers.bot("k" * 20, None) == "one"
    with pytest.raises(RefusalError):
        callers.bot(TOKENS["one"], None)


@pytest.mark.parametrize("keys", [{"one": ["short"]}, {"one": ["k" * 20 + "/x"]}, {"three": ["k" * 20]}])
def test_invalid_keys_are_refused_at_start_without_being_shown(keys: dict[str, list[str]]) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(
            _env_file=None, bots=TOKENS, gateway={"keys": {n: [SecretStr(k) for k in v] for n, v in keys.items()}}
        )
    assert "k" * 20 not in str(error.value)


KEY = "100200300:a-gateway-key-for-tests"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/bot{KEY}/sendMessage", "/bot***/sendMessage"),
        (f"/bot{KEY}/SENDmessage", "/bot***/sendMessage"),
        (f"/file/bot{KEY}/photos/b.png", "/file/bot***/…"),
        (f"/bot{KEY}", "/…"),
        (f"/bot{KEY}/noSuchMethod", "/bot***/…"),
        (f"//bot{KEY}/sendMessage", "/…"),
        (f"/prefix/bot{KEY}/sendMessage", "/…"),
        (f"/bot/{KEY}/sendMessage", "/…"),
        (f"/botsendMessage/{KEY}", "/bot***/…"),
        (f"/BOT{KEY}/sendMessage", "/…"),
        (f"/%62ot{KEY}/sendMessage", "/…"),
        (f"/file/bot/{KEY}/photos/b.png", "/…"),
        (f"/floodgate/v1/jobs/{KEY}/result", "/floodgate/v1/jobs/…"),
        ("/floodgate/v1/jobs", "/floodgate/v1/jobs"),
        (f"/floodgate/v1/campaigns/{KEY}/events", "/floodgate/v1/campaigns/…"),
        (f"/floodgate/v1/unsubscribed/{KEY}", "/floodgate/v1/unsubscribed/…"),
        ("/health", "/health"),
        ("/bot1:secret/sendMessage\nforged line", "/bot***/…"),
    ],
)
def test_paths_are_logged_without_the_secret(path: str, shown: str) -> None:
    assert public_path(path) == shown
