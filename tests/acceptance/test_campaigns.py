"""Campaigns as an operator runs them: by the command, with real processes, through crashes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from floodgate.fake_telegram.control import Arrived
from tests.acceptance.conftest import MakeStage
from tests.acceptance.stage import Stage
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

DEFINITION = """
name = "spring"

[content]
text = "Hello <b>{{ first_name }}</b>!"
parse_mode = "HTML"

[content.fallbacks]
first_name = "there"
"""
RECIPIENTS = 150
FEW = 5
MANY = 2000  # more than are sent while the commands of a test start
FIRST = 1000


@pytest.fixture
def operated(new_stage: MakeStage, vhost: Vhost, tmp_path: Path) -> Stage:
    """A stage with a worker, and a definition and an audience beside it."""
    stage = new_stage(vhost.url)
    (tmp_path / "spring.toml").write_text(DEFINITION)
    write_audience(tmp_path, RECIPIENTS)
    stage.worker()
    return stage


def write_audience(folder: Path, recipients: int) -> None:
    rows = "".join(f"{FIRST + n},Name {n}\n" for n in range(recipients))
    (folder / "audience.csv").write_text(f"chat_id,first_name\n{rows}nobody,x\n{FIRST},again\n")


def leader(stage: Stage, name: str = "campaigns") -> FloodgateProcess:
    process = FloodgateProcess("campaigns", "run", env=stage.env, home=stage.home, name=name)
    return stage.keep(process).start("campaigns ready")


def campaigns(stage: Stage, *arguments: str, code: int = 0) -> str:
    ended = stage.floodgate("campaigns", *arguments)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout


def shown(stage: Stage, name: str = "spring") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(campaigns(stage, "show", name, "--json"))
    return found


def exported(stage: Stage) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(campaigns(stage, "export", "spring"))))


def create(stage: Stage) -> str:
    return campaigns(stage, "create", "spring.toml", "--audience", "audience.csv")


def sent_per_chat(stage: Stage) -> dict[int, int]:
    chats = [call.chat_id for call in stage.control.arrivals() if call.acted]
    return {chat: chats.count(chat) for chat in set(chats) if chat is not None}


def test_each_recipient_gets_the_message_once_and_has_an_ending(operated: Stage) -> None:
    operated.control.set_chat(FIRST + 3, trouble="blocked")
    campaigns(operated, "unsubscribe", str(FIRST + 7))
    told = create(operated)
    assert "the chat has unsubscribed" in told
    assert "spring is ready. Recipients: 149" in told
    assert "chat_id is neither a chat's id nor an @name" in told
    assert "the chat is in the audience already" in told
    assert "Messages rendered: 149" in campaigns(operated, "check", "spring")
    leader(operated)
    campaigns(operated, "start", "spring", "--yes")
    until(lambda: shown(operated)["state"] == "done", 60)
    rows = exported(operated)
    assert len(rows) == RECIPIENTS - 1
    assert [row["chat"] for row in rows if row["state"] == "unreachable"] == [str(FIRST + 3)]
    assert all(row["message_id"] for row in rows if row["state"] == "sent")
    assert sum(row["state"] == "sent" for row in rows) == RECIPIENTS - 2
    assert sent_per_chat(operated) == {FIRST + n: 1 for n in range(RECIPIENTS) if n not in (3, 7)}
    assert "Hello <b>Name 5</b>!" in operated.sent()


def test_a_campaign_with_a_message_that_telegram_would_refuse_does_not_start(operated: Stage) -> None:
    (operated.home / "spring.toml").write_text(DEFINITION.replace("</b>", ""))
    create(operated)
    assert "<b> is not closed" in campaigns(operated, "check", "spring", code=1)
    ended = operated.floodgate("campaigns", "start", "spring", "--yes")
    assert (ended.returncode, shown(operated)["state"]) == (1, "ready")
    assert "spring does not start: The markup of text is wrong" in ended.stderr


def test_a_killed_leader_is_replaced_and_nobody_gets_the_message_twice(operated: Stage) -> None:
    create(operated)
    first = leader(operated, "first")
    leader(operated, "second")
    campaigns(operated, "start", "spring", "--yes")
    until(lambda: len(operated.sent()) > 20)
    first.kill()
    until(lambda: shown(operated)["state"] == "done", 60)
    assert shown(operated)["counts"]["sent"] == RECIPIENTS
    assert sent_per_chat(operated) == {FIRST + n: 1 for n in range(RECIPIENTS)}


def test_a_pause_takes_back_what_waits_a_resume_goes_on_and_a_cancel_ends_it(operated: Stage) -> None:
    write_audience(operated.home, MANY)
    create(operated)
    leader(operated)
    campaigns(operated, "start", "spring", "--yes")
    until(lambda: len(operated.sent()) > 20)
    campaigns(operated, "pause", "spring")
    counts = until(lambda: (found := shown(operated)["counts"])["released"] == 0 and found)
    paused_at = len(operated.sent())
    assert counts["sent"] == paused_at
    assert counts["waiting"] == MANY - paused_at > 0

    campaigns(operated, "resume", "spring")
    until(lambda: len(operated.sent()) > paused_at + 20)
    campaigns(operated, "cancel", "spring", "--yes")
    counts = until(lambda: (found := shown(operated)["counts"])["waiting"] == found["released"] == 0 and found)
    assert counts["cancelled"] > 0
    assert counts["sent"] == len(operated.sent()) == MANY - counts["cancelled"]
    assert set(sent_per_chat(operated).values()) == {1}
    assert "cannot become running" in operated.floodgate("campaigns", "resume", "spring").stderr


def test_a_recipients_message_is_sent_to_another_chat_and_counts_for_nobody(operated: Stage) -> None:
    create(operated)
    assert "Sent: message" in campaigns(operated, "test", "spring", "--to", "7", "--as", str(FIRST + 5))
    assert operated.sent() == ["Hello <b>Name 5</b>!"]
    operated.control.set_chat(8, trouble="blocked")
    refused = campaigns(operated, "test", "spring", "--to", "8", code=1)
    assert "Not sent: chat-unreachable: Forbidden: bot was blocked by the user" in refused
    assert shown(operated)["counts"]["waiting"] == RECIPIENTS


def test_what_was_sent_is_edited_and_deleted_by_campaigns_of_their_own(operated: Stage) -> None:
    write_audience(operated.home, FEW)
    (operated.home / "changed.toml").write_text('text = "Sorry, {{ first_name }}"')
    create(operated)
    leader(operated)
    campaigns(operated, "start", "spring", "--yes")
    until(lambda: len(operated.sent()) == FEW and shown(operated)["state"] == "done", 60)
    lines = [json.loads(line) for line in campaigns(operated, "export", "spring", "--jsonl").splitlines()]
    assert [(line["state"], line["variant"], line["version"], line["error"]) for line in lines] == [
        ("sent", 0, 1, None)
    ] * FEW
    assert all(line["released_ms"] <= line["ended_ms"] for line in lines)
    message = {int(line["chat"]): line["message_id"] for line in lines}

    assert "spring.edit-1 is running. Messages: 5" in campaigns(
        operated, "edit-sent", "spring", "changed.toml", "--yes"
    )
    edits = until(lambda: len(found := acted(operated, "editMessageText")) == FEW and found, 60)
    assert {call.chat_id: call.params["text"] for call in edits} == {FIRST + n: f"Sorry, Name {n}" for n in range(FEW)}
    assert {call.chat_id: int(call.params["message_id"]) for call in edits} == message

    assert "spring.delete-1 is running. Messages: 5" in campaigns(operated, "delete-sent", "spring", "--yes")
    until(lambda: shown(operated, "spring.delete-1")["counts"]["sent"] == FEW, 60)
    assert len(acted(operated, "deleteMessage")) == FEW


def acted(stage: Stage, method: str) -> list[Arrived]:
    return [call for call in stage.control.arrivals() if call.acted and call.method == method]
