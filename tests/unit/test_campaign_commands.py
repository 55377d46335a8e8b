"""How `floodgate campaigns create` takes its audience."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from floodgate.broker.errors import CampaignError, InvalidParamsError
from floodgate.commands.campaigns import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a definition and a database of users."""
    for name in ("state", "campaigns"):
        monkeypatch.setenv(f"FLOODGATE_{name.upper()}_URL", f"sqlite:///{tmp_path}/{name}.db")
    monkeypatch.chdir(tmp_path)
    for name in ("spring", "summer"):
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\n[content]\ntext = "Hello"\n')
    file = sqlite3.connect(tmp_path / "users.db")
    file.executescript("CREATE TABLE users (chat_id); INSERT INTO users VALUES (1), ('x'), (2)")
    file.close()
    return tmp_path


def create(*arguments: str) -> str:
    """Return what the command prints. Raises what it raises."""
    ended = CliRunner().invoke(app, ["create", *arguments], catch_exceptions=False, standalone_mode=False)
    return ended.output


def test_the_audience_is_a_query_of_the_command_line_or_of_a_file(folder: Path) -> None:
    database = ("--database", f"sqlite:///{folder}/users.db")
    printed = create("spring.toml", "--query", "SELECT * FROM users", *database)
    assert "Rows left out: 1 (the first in line 2)" in printed
    assert "spring is ready. Recipients: 2" in printed
    (folder / "users.sql").write_text("SELECT * FROM users LIMIT 1")
    printed = create("summer.toml", "--query-file", "users.sql", "--exclude-campaign", "spring", *database)
    assert "summer is ready. Recipients: 1" in printed, "nobody has got the first one yet"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "Give the audience"),
        (["--query", "SELECT 1"], "--database is missing"),
        (["--query", "SELECT 1", "--query-file", "x.sql", "--database", "sqlite:///x.db"], "Give the audience"),
        (["--audience", "x.csv", "--query", "SELECT 1"], "both given"),
    ],
)
def test_an_audience_is_given_in_one_way(folder: Path, options: list[str], why: str) -> None:
    with pytest.raises(InvalidParamsError, match=why):
        create("spring.toml", *options)
    assert not (folder / "campaigns.db").exists()


def test_an_audience_without_recipients_is_an_error_and_can_be_created_again(folder: Path) -> None:
    (folder / "audience.csv").write_text("chat_id\n")
    with pytest.raises(CampaignError, match="spring has no recipients"):
        create("spring.toml", "--audience", "audience.csv")
    (folder / "audience.csv").write_text("chat_id\n1\n")
    assert "spring is ready. Recipients: 1" in create("spring.toml", "--audience", "audience.csv")
