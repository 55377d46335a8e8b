"""``.env.example`` and ``docs/settings.md`` match ``Settings``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.settings.reference import ENV_EXAMPLE, SETTINGS_PAGE, env_example, settings_page, variables

RENEW = "Renew it with: python -m floodgate.broker.settings.reference"


@pytest.mark.parametrize(("path", "text"), [(ENV_EXAMPLE, env_example()), (SETTINGS_PAGE, settings_page())])
def test_the_file_matches_the_settings(path: Path, text: str) -> None:
    assert path.read_text() == text, RENEW


def test_every_setting_has_a_description() -> None:
    assert [item.name for item in variables() if len(item.meaning) < 10] == []


def test_every_setting_of_every_level_is_documented() -> None:
    names = {item.name for item in variables()}
    assert {"FLOODGATE_RABBITMQ_URL", "FLOODGATE_LIMITS__CHAT_PER_SECOND", "FLOODGATE_LOG_FORMAT"} <= names
    assert len(names) >= len(Settings.model_fields)


def test_the_documented_defaults_are_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [item.name for item in variables()]:
        monkeypatch.delenv(name, raising=False)
    shown = tmp_path / ".env"
    shown.write_text(re.sub("(?m)^# (FLOODGATE_)", r"\1", ENV_EXAMPLE.read_text()))
    assert load_settings(_env_file=shown) == load_settings(_env_file=None)
