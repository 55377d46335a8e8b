"""A mistake in the environment or in ``.env`` is reported in one sentence; no misspelt name is ignored in silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin

import pytest
from pydantic import BaseModel

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings import environment
from floodgate.broker.settings.model import Settings, load_settings

SECRET = "100200300:" + "S" * 35


def json_variables(model: type[BaseModel] = Settings, prefix: str = "FLOODGATE_") -> Iterator[str]:
    """Every variable whose value is JSON: a part of the settings as a whole, a dict or a list."""
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield variable
            yield from json_variables(field.annotation, variable + "__")
        elif get_origin(field.annotation) in (dict, list):
            yield variable


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    environment.warn.cache_clear()
    for name in environment.given(Settings, None):
        monkeypatch.delenv(name, raising=False)


def test_the_settings_that_were_seen_to_fail_are_among_those_tested() -> None:
    seen = {f"FLOODGATE_{name}" for name in ("GATEWAY__KEYS", "LIMITS__BOTS", "LIMITS__CHATS", "UPDATES__ALLOWED")}
    assert seen | {"FLOODGATE_BOTS", "FLOODGATE_LIMITS"} <= set(json_variables())


@pytest.mark.parametrize("variable", list(json_variables()))
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_bad_json_is_one_sentence_that_names_the_variable(
    variable: str, where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = f'{{"news": {SECRET}}}'
    if where == "environment":
        monkeypatch.setenv(variable, bad)
    else:
        (tmp_path / ".env").write_text(f"{variable}='{bad}'\n")
    with pytest.raises(SettingsError) as error:
        load_settings(_env_file=tmp_path / ".env")
    said = str(error.value)
    assert said.startswith(f"Settings: {variable} is not JSON (") and said.endswith(".")
    assert "\n" not in said and "SSSS" not in said


def test_bad_json_is_answered_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_UPDATES__ALLOWED", "message, chat_member")
    with pytest.raises(SettingsError, match=r'write it as in \["message", "chat_member"\]\.$'):
        load_settings(_env_file=None)


def test_json_of_a_wrong_form_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_UPDATES__ALLOWED", '"message"')
    with pytest.raises(SettingsError, match=r"^Settings: FLOODGATE_UPDATES__ALLOWED .*valid list\.$"):
        load_settings(_env_file=None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("FLOODGATE_PARTITONS", "FLOODGATE_PARTITIONS"),
        ("FLOODGATE_BOTS_TOKEN", "FLOODGATE_BOT_TOKEN"),
        ("floodgate_bot_tokn", "FLOODGATE_BOT_TOKEN"),
        ("FLOODGATE_LIMIT__BOT_PER_SECOND", "FLOODGATE_LIMITS__BOT_PER_SECOND"),
        ("FLOODGATE_GATEWAY_PORT", "FLOODGATE_GATEWAY__PORT"),
    ],
)
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_misspelt_variable_is_warned_about_once_with_the_nearest_name(
    given: str,
    meant: str,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if where == "environment":
        monkeypatch.setenv(given, SECRET)
    else:
        (tmp_path / ".env").write_text(f"{given}={SECRET}\n")
    for _ in range(2):
        load_settings(_env_file=tmp_path / ".env")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"{given.upper()} is not a setting and is ignored (did you mean {meant}?)."


def test_a_variable_that_resembles_none_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLOODGATE_XYZ", "1")
    load_settings(_env_file=None)
    assert caplog.messages == ["FLOODGATE_XYZ is not a setting and is ignored (docs/settings.md lists them all)."]


def test_a_misspelt_nested_name_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_LIMITS__BOT_PER_SECONDS", "30")
    monkeypatch.setenv("FLOODGATE_GATEWAY", '{"prot": 1}')
    with pytest.raises(SettingsError) as error:
        load_settings(_env_file=None)
    assert str(error.value) == (
        "Settings: FLOODGATE_LIMITS__BOT_PER_SECONDS is not a setting "
        "(did you mean FLOODGATE_LIMITS__BOT_PER_SECOND?); "
        "FLOODGATE_GATEWAY__PROT is not a setting (did you mean FLOODGATE_GATEWAY__PORT?)."
    )


def test_valid_names_of_every_level_are_not_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLOODGATE_BOTS__NEWS", SECRET)
    monkeypatch.setenv("FLOODGATE_LIMITS", '{"chat_per_second": 2}')
    monkeypatch.setenv("FLOODGATE_LIMITS__BOTS__NEWS__BOT_PER_SECOND", "50")
    monkeypatch.setenv("FLOODGATE_GATEWAY__KEYS__NEWS", '["100200300:some-long-random-text"]')
    monkeypatch.setenv("FLOODGATE_PARTITIONS", "4")
    monkeypatch.setenv("FLOODGATE_PARTITONS", "")  # empty counts as not set
    monkeypatch.setenv("FLOODGATE_NODE_PORT", "5673")  # scripts/rabbitmq has its own
    settings = load_settings(_env_file=None)
    assert settings.limits.for_bot("news").bot_per_second == 50
    assert caplog.messages == []
