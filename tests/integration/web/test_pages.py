"""Each page shows what the stores and RabbitMQ hold, and escapes what others wrote."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from urllib.parse import quote

from floodgate.broker.admission.contract import CANCELLED, Dead, Go, Sent
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.update import publication, read_update
from floodgate.broker.state.activity import ProcessReport, Series
from floodgate.broker.state.stores import open_activity
from floodgate.web.viewer import Action
from tests.integration.web.conftest import BOT, Desk
from tests.waiting import until

SECRET = "what Ann wrote to Bob"
EVIL = '<script>alert("x")</script>'
ESCAPED = "&lt;script&gt;alert"
PAGES = ("/", "/bots", f"/bots/{BOT}", f"/chats/{BOT}/5", "/jobs", "/dead-letters", "/unreachable", "/campaigns")
ALL_PAGES = (*PAGES, "/updates", "/audit")


def sent(desk: Desk, job: Job, result: object) -> Job:
    """Records a job as sent, as a worker does."""
    ask = ask_for(job, desk.settings)
    decision = desk.store.admit(ask)
    assert isinstance(decision, Go)
    desk.store.settle(ask, Sent(result), decision.grant)
    return job


def test_every_page_has_landmarks_and_marks_its_place_in_the_navigation(desk: Desk) -> None:
    for path in ALL_PAGES:
        text = desk.get(path)
        assert all(part in text for part in ('<main id="main"', "<h1>", '<nav aria-label="Pages">', 'lang="en"')), path
        assert text.count('aria-current="page"') == (0 if path.startswith("/chats") else 1), path


def test_the_overview_shows_rates_queues_and_pauses_of_each_bot(desk: Desk) -> None:
    desk.store.pause(BOT, None, timedelta(minutes=5), "Telegram is <down>")
    desk.bury(desk.job("one"))
    until(lambda: "Telegram is &lt;down&gt;" in desk.get("/"))
    until(lambda: f'<a href="/dead-letters?bot={BOT}">1</a>' in desk.get("/"))
    text = desk.get("/")
    assert "0 in queues, 0 in lines" in text


def test_the_page_of_a_bot_shows_its_longest_lines_and_paused_chats(desk: Desk) -> None:
    for number in range(3):
        desk.store.admit(ask_for(desk.job(f"line-{number}", chat=77), desk.settings))
    desk.store.pause(BOT, "42", timedelta(minutes=5), "spam")
    until(lambda: f'<a href="/chats/{BOT}/77">77</a>: 2 jobs, interactive' in desk.get(f"/bots/{BOT}"))
    assert f'<a href="/chats/{BOT}/42">42</a>' in desk.get(f"/bots/{BOT}")


def test_a_bot_that_is_not_configured_is_named(desk: Desk) -> None:
    assert "No bot named &#39;old&#39; is configured" in desk.get("/bots/old", 404)
    assert "No bot named" in desk.get("/jobs", 404, bot="old")


def test_the_form_for_a_chat_leads_to_its_page(desk: Desk) -> None:
    assert "<h1>Chat @news_channel</h1>" in desk.get("/chats", bot=BOT, chat=" @News_Channel ")
    assert "neither a number" in desk.get("/chats", 400, bot=BOT, chat="no chat")


def test_a_job_is_found_by_its_id(desk: Desk) -> None:
    job = sent(desk, desk.job("hello"), {"message_id": 4711, "text": SECRET})
    text = desk.get("/jobs", id=job.id)
    assert all(word in text for word in ("<dd>sent</dd>", "4711", SECRET))
    assert "No worker has seen the job nobody yet" in desk.get("/jobs", id="nobody")


def test_jobs_that_ended_without_a_dead_letter_are_listed_a_page_at_a_time(desk: Desk) -> None:
    for number in range(60):
        ask = ask_for(desk.job(f"gone-{number}"), desk.settings)
        desk.store.settle(ask, Dead(CANCELLED, kept=False))
    first, second = desk.get("/jobs", bot=BOT), desk.get("/jobs", bot=BOT, page="2")
    assert (first.count(">job-gone-"), second.count(">job-gone-")) == (50, 10)
    assert "/jobs?bot=news&amp;page=2" in first
    assert "is not the number of a page" in desk.get("/jobs", 400, page="0")


def test_dead_letters_are_found_by_the_criteria_in_the_url(desk: Desk) -> None:
    desk.bury(desk.job("spring", chat=1, campaign="spring"), "rights")
    desk.bury(desk.job("summer", chat=2))
    desk.bury(desk.job("autumn", chat=1))
    assert "<strong>3 match.</strong>" in desk.get("/dead-letters")
    by_chat = desk.get("/dead-letters", chat="1")
    assert ("2 match" in by_chat, "job-summer" in by_chat) == (True, False)
    assert "1 match" in desk.get("/dead-letters", reason="rights")
    assert "1 match" in desk.get("/dead-letters", campaign="spring", since="1h")
    assert "0 match" in desk.get("/dead-letters", until="1h")
    assert "1 match" in desk.get("/dead-letters", text="SUMM")
    assert "is not a time" in desk.get("/dead-letters", 400, since="soon")


def test_a_dead_letter_shows_its_parameters(desk: Desk) -> None:
    job = desk.bury(desk.job(SECRET), "rights", "not enough rights")
    text = desk.get(f"/dead-letters/{job.id}")
    assert all(word in text for word in (SECRET, "not enough rights", "sendMessage", "rights"))
    assert "No dead letter has the id" in desk.get("/dead-letters/nobody", 404)


def test_unreachable_chats_are_listed_with_what_telegram_said(desk: Desk) -> None:
    desk.store.mark_unreachable(BOT, "666", f"Forbidden: {EVIL}")
    text = desk.get("/unreachable")
    assert (f'<a href="/chats/{BOT}/666">666</a>' in text, ESCAPED in text, "<script>alert" in text) == (
        True,
        True,
        False,
    )


def test_a_campaign_shows_its_progress_and_one_of_its_recipients(desk: Desk) -> None:
    audience = [{"chat_id": chat, "name": EVIL} for chat in (1, 2, 3)]
    desk.campaigns.create({"name": "spring", "content": {"text": SECRET + " {{ name }}"}}, audience)
    assert '<a href="/campaigns/spring">spring</a>' in desk.get("/campaigns")
    text = desk.get("/campaigns/spring", chat="2")
    assert "0 of 3 recipients have ended" in text
    assert all(word in text for word in (SECRET, "Place in the audience", "<dd>waiting</dd>", "Start …"))
    assert "<script>alert" not in text
    assert "has no recipient 4" in desk.get("/campaigns/spring", chat="4")
    assert "There is no campaign named" in desk.get("/campaigns/autumn", 404)


def test_failing_handlers_are_counted_by_error(desk: Desk) -> None:
    for number in range(3):
        update = read_update(BOT, {"update_id": number, "message": {"chat": {"id": 5}, "text": SECRET}})
        body = publication(update, 2).body
        desk.publish(
            dead_letters.dead_update(
                update,
                body,
                "updates.news.00",
                "handler-failed",
                f"ValueError: {EVIL} in {SECRET}",
                attempts=3,
                traceback="…",
            )
        )
    text = desk.get("/updates")
    assert (f"ValueError: {ESCAPED}" in text, ">3</td>" in text, "<script>alert" in text) == (True, True, False)
    desk.viewer.sees_texts = False
    for path in ("/updates", "/dead-letters"):
        assert ("ValueError" in desk.get(path), SECRET in desk.get(path)) == (True, False)


def test_a_viewer_without_the_right_sees_no_texts(desk: Desk) -> None:
    desk.viewer.sees_texts = False
    letter = desk.bury(desk.job(SECRET))
    job = sent(desk, desk.job("hello"), {"message_id": 4711, "text": SECRET})
    desk.campaigns.create({"name": "spring", "content": {"text": SECRET}}, [{"chat_id": 1, "name": SECRET}])
    shown = [
        desk.get(f"/dead-letters/{letter.id}"),
        desk.get("/jobs", id=job.id),
        desk.get("/campaigns/spring", chat="1"),
    ]
    assert not any(SECRET in page for page in shown)
    assert "message 4711" in shown[1]
    assert "cannot search" in desk.get("/dead-letters", 400, text="wrote")


def test_what_others_wrote_is_escaped_wherever_it_is_shown(desk: Desk) -> None:
    job = desk.bury(desk.job(EVIL), EVIL, EVIL)
    desk.publish(dead_letters.malformed(f"{EVIL}/../?#", EVIL.encode(), EVIL, EVIL))
    desk.do(Action.PAUSE, **{"bot": BOT, "for": "5m", "why": EVIL})
    named = f"/dead-letters/{quote(f'{EVIL}/../?#', safe='')}"
    for path in (*ALL_PAGES, named, f"/dead-letters/{job.id}", f"/jobs?id={EVIL}", f"/dead-letters?text={EVIL}"):
        assert "<script>alert" not in desk.get(path), path


def test_text_that_would_reorder_the_page_is_shown_as_its_code(desk: Desk) -> None:
    desk.bury(desk.job("plain"), "content", "abc\u202egnp.exe")
    assert "abc\\u202egnp.exe" in desk.get("/dead-letters")


def test_processes_and_the_history_of_a_bot_are_shown_and_plotted(desk: Desk) -> None:
    partitions = tuple(f"send.news.bulk.{number:02}" for number in (0, 1, 2, 4))
    process = ProcessReport("w1", "worker", "host-<1>", 4711, "0.2.0", timedelta(hours=2), partitions)
    with contextlib.closing(open_activity(desk.settings)) as activity:
        activity.report(process, {BOT: {Series.SENT: 12.0, Series.WAITS_PAUSE: 2.0}}, [BOT])
    until(lambda: "4711" in desk.get("/"))
    text = desk.get("/")
    assert "Waits in the last minute: pause 2." in text
    assert "<td>web</td>" in text, "the pages' own process"
    assert all(word in text for word in ("<td>host-&lt;1&gt;</td>", "<td>4711</td>", "2 h", "send.news.bulk.00–02+04"))
    assert f'data-plot="/data/bots/{BOT}/rate?span=10m"' in text
    drawn = desk.http.get(f"/data/bots/{BOT}/rate", params={"span": "10m"}).json()
    assert [each["label"] for each in drawn["series"]] == ["sent a second", "limit"]
    assert (sum(drawn["series"][0]["values"]), len(drawn["x"])) == (6.0, 1)
    assert 'data-plot="/data/bots/news/waits?span=7d"' in desk.get(f"/bots/{BOT}", span="7d")
    assert "is not a span" in desk.get("/", 400, span="1y")
    desk.get(f"/data/bots/{BOT}/nothing", 404)


def test_the_page_of_a_chat_says_why_it_waits_and_where_a_job_stands(desk: Desk) -> None:
    jobs = [desk.job(f"line-{number}", chat=77) for number in range(4)]
    for job in jobs:
        desk.store.admit(ask_for(job, desk.settings))
    text = desk.get(f"/chats/{BOT}/77", job=jobs[3].id)
    assert "A call to the chat is under way, and there is never more than one." in text
    assert f'id={jobs[0].id}">{jobs[0].id}</a>, for' in text, "the call under way"
    assert "<dt>Ahead of it in its line</dt><dd>2 messages</dd>" in text
    assert "<dt>Expected to be sent</dt><dd>in " in text
    assert f'id={jobs[1].id}">{jobs[1].id}</a>' in text, "the first of the line"
    desk.store.pause(BOT, "77", timedelta(hours=1), "<b>spam</b>")
    text = desk.get(f"/chats/{BOT}/77", job="nobody")
    assert ("&lt;b&gt;spam&lt;/b&gt;" in text, "The store does not know this job" in text) == (True, True)


def test_a_chat_for_which_nothing_waits_is_free(desk: Desk) -> None:
    text = desk.get(f"/chats/{BOT}/-1001234567890")
    assert "Nothing holds this chat up" in text
    assert "The store does not know this chat" in text
    assert "No job of this chat waits in a line" in text
