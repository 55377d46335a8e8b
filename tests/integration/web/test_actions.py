"""Each action says what it will touch, does that and no more at RabbitMQ and the stores, and is in the audit log."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

import pytest

from floodgate.broker.admission.contract import CANCELLED, Standing
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages import queue_names
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.campaigns.states import CampaignState
from floodgate.producer.campaigns.storage.records import Campaign
from floodgate.web import letter_index
from floodgate.web.actions import confirm
from floodgate.web.viewer import Action
from tests.integration.web.conftest import BOT, PARTITIONS, Desk
from tests.waiting import until

DEAD = queue_names.dead_queue(BOT)


def touches(confirmation: str) -> str:
    """What the confirmation says that the action touches."""
    [found] = re.findall(r"<strong>This touches (.*?)\.</strong>", confirmation)
    return str(found)


def pauses(desk: Desk) -> dict[str | None, str]:
    return {pause.chat: pause.why for pause in desk.store.snapshot(BOT).pauses}


def test_a_confirmation_changes_nothing(desk: Desk) -> None:
    confirmation = desk.confirmation(Action.PAUSE, **{"bot": BOT, "chat": "42", "for": "15m", "why": "spam"})
    assert touches(confirmation) == "1 chat"
    assert "One action pauses or resumes one bot or one chat." in confirmation
    assert pauses(desk) == {}


def test_a_chat_is_paused_and_resumed(desk: Desk) -> None:
    assert "Paused: chat 42" in desk.do(Action.PAUSE, **{"bot": BOT, "chat": "42", "for": "15m", "why": "spam"})
    assert pauses(desk) == {"42": "spam"}
    assert "Resumed: chat 42" in desk.do(Action.RESUME, bot=BOT, chat="42")
    assert pauses(desk) == {}


def test_a_bot_is_paused_and_resumed(desk: Desk) -> None:
    desk.get("/")
    desk.do(Action.PAUSE, **{"bot": BOT, "for": "15m"})
    assert pauses(desk) == {None: "operator"}
    assert re.search("Paused for 1[45] min", desk.get(f"/bots/{BOT}")), "what is shown is read again after an action"
    desk.do(Action.RESUME, bot=BOT)
    assert pauses(desk) == {}
    assert "There was no pause" in desk.do(Action.RESUME, bot=BOT)


def test_a_pause_has_a_bound(desk: Desk) -> None:
    assert "write between 1s and 4w" in desk.get("/actions/pause", 400, **{"bot": BOT, "for": "5w"})


def test_a_waiting_job_is_cancelled(desk: Desk) -> None:
    job = desk.job("waits")
    ask = ask_for(desk.job("before"), desk.settings)
    desk.store.admit(ask)
    desk.store.admit(ask_for(job, desk.settings))
    assert "Cancel this job …" in desk.get("/jobs", id=job.id)
    assert f"Job {job.id} is cancelled" in desk.do(Action.CANCEL_JOB, bot=BOT, job=job.id)
    record = desk.store.lookup(BOT, job.id)
    assert record is not None
    assert (record.standing, record.reason) == (Standing.DEAD, CANCELLED)
    assert "cannot be cancelled: it is sending" in desk.do(Action.CANCEL_JOB, bot=BOT, job=ask.job_id)


def test_matching_letters_are_replayed_and_others_stay(desk: Desk) -> None:
    desk.bury(desk.job("one"), "rights")
    desk.bury(desk.job("two"), "rights")
    desk.bury(desk.job("three"))
    confirmation = desk.confirmation(Action.REPLAY_LETTERS, reason="rights")
    assert touches(confirmation) == "2 dead letters"
    assert "One action touches at most 10000 dead letters." in confirmation
    assert "2 replayed." in desk.agree(Action.REPLAY_LETTERS, confirmation)
    home = queue_names.home_of(desk.job("one"), PARTITIONS)
    assert (desk.depth(home), desk.depth(DEAD)) == (2, 1)
    assert "1 match" in desk.get("/dead-letters")


def test_letters_that_die_after_the_confirmation_are_not_touched(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_index, "FRESH", letter_index.FRESH * 0)  # the form is answered with both letters known
    desk.bury(desk.job("early"))
    confirmation = desk.confirmation(Action.DROP_LETTERS)
    assert touches(confirmation) == "1 dead letter"
    desk.bury(desk.job("late"))
    assert "1 deleted." in desk.agree(Action.DROP_LETTERS, confirmation)
    assert desk.depth(DEAD) == 1
    assert "job-late" in desk.get("/dead-letters")


def test_one_letter_is_dropped_by_its_id(desk: Desk) -> None:
    job = desk.bury(desk.job("one"))
    desk.bury(desk.job("two"))
    desk.do(Action.DROP_LETTERS, id=job.id)
    assert desk.depth(DEAD) == 1
    assert "No dead letter has the id" in desk.get(f"/dead-letters/{job.id}", 404)


def test_an_unreachable_chat_is_marked_reachable(desk: Desk) -> None:
    desk.store.mark_unreachable(BOT, "666", "Forbidden")
    assert "Telegram has refused the chat" in desk.get(f"/chats/{BOT}/666")
    assert "is reachable again" in desk.do(Action.CLEAR_CHAT, bot=BOT, chat="666")
    assert not desk.store.unreachable(BOT)


def test_a_campaign_is_started_paused_resumed_and_cancelled(desk: Desk) -> None:
    audience = [{"chat_id": chat} for chat in (1, 2, 3)]
    desk.campaigns.create({"name": "spring", "content": {"text": "Hello"}}, audience)
    states = []
    for action in (Action.START_CAMPAIGN, Action.PAUSE_CAMPAIGN, Action.RESUME_CAMPAIGN, Action.CANCEL_CAMPAIGN):
        confirmation = desk.confirmation(action, name="spring")
        assert touches(confirmation) == "3 recipients who have not got their message"
        desk.agree(action, confirmation)
        states.append(desk.campaigns.progress("spring").campaign.state)
    assert states == [CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.RUNNING, CampaignState.CANCELLED]


def test_a_campaign_with_a_wrong_message_does_not_start_and_the_page_says_why(desk: Desk) -> None:
    desk.campaigns.create({"name": "spring", "content": {"text": "Hello {{ name }}"}}, [{"chat_id": 1}])
    ended = desk.do(Action.START_CAMPAIGN, name="spring")
    assert ("<h1>Failed</h1>" in ended, "spring does not start" in ended) == (True, True)
    assert desk.campaigns.progress("spring").campaign.state is CampaignState.READY


def test_what_touches_more_than_was_confirmed_asks_again(desk: Desk) -> None:
    job = desk.bury(desk.job("one"))
    fields = {"id": job.id, "touches": "0", "back": "/"}
    answer = desk.http.post(f"/actions/{Action.DROP_LETTERS}", data=fields)
    assert (answer.status_code, touches(answer.text)) == (409, "1 dead letter")
    assert desk.depth(DEAD) == 1


def test_an_action_that_the_role_does_not_allow_is_neither_offered_nor_taken(desk: Desk) -> None:
    desk.viewer.allowed = {Action.REPLAY_LETTERS}
    job = desk.bury(desk.job("one"))
    page = desk.get(f"/dead-letters/{job.id}")
    assert ("Replay …" in page, "Drop …" in page) == (True, False)
    desk.get(f"/actions/{Action.DROP_LETTERS}", 403, id=job.id)
    answer = desk.http.post(f"/actions/{Action.DROP_LETTERS}", data={"id": job.id, "touches": "9"})
    assert (answer.status_code, desk.depth(DEAD)) == (403, 1)


def test_an_action_leads_back_to_the_page_it_came_from_and_to_no_other_site(desk: Desk) -> None:
    done = desk.do(Action.PAUSE, **{"bot": BOT, "for": "5m", "back": "/bots/news?x=1"})
    assert '<a href="/bots/news?x=1">Back</a>' in done
    for other in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert "evil" not in desk.confirmation(Action.RESUME, bot=BOT, back=other)
        assert "alert(1)" not in desk.do(Action.RESUME, bot=BOT, back=other)


def test_actions_are_in_the_audit_log_of_the_page_and_of_the_process(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "floodgate.audit")
    desk.bury(desk.job("one"), "rights")
    desk.do(Action.DROP_LETTERS, reason="rights", text="one")
    page = desk.get("/audit")
    assert all(word in page for word in ("ann", "drop-letters", "reason rights, with a text", "1 deleted."))
    lines: list[Any] = [record for record in caplog.records if record.name == "floodgate.audit"]
    assert [line.audit_state for line in lines] == ["begun", "done"]
    assert {(line.audit_who, line.audit_action, line.audit_planned) for line in lines} == {("ann", "drop-letters", 1)}
    assert lines[-1].audit_touched == 1


def test_the_audit_log_outlives_its_process(desk: Desk, again: Any) -> None:
    desk.do(Action.PAUSE, **{"bot": BOT, "for": "5m", "why": "spam"})
    assert "bot news, for 5m, reason: spam" in again(desk).get("/audit")


def test_a_long_action_goes_on_and_its_entry_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.campaigns.create({"name": "spring", "content": {"text": "Hello"}}, [{"chat_id": 1}])
    may_end, start = threading.Event(), Campaigns.start

    def slow_start(self: Campaigns, name: str) -> Campaign:
        may_end.wait(20)
        return start(self, name)

    monkeypatch.setattr(confirm, "PAGE_SECONDS", 0.0)
    monkeypatch.setattr(Campaigns, "start", slow_start)
    assert "<h1>Under way</h1>" in desk.do(Action.START_CAMPAIGN, name="spring")
    may_end.set()
    until(lambda: "spring is running" in desk.get("/audit"))
