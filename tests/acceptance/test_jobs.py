"""`floodgate jobs`: a wrong broadcast is stopped, a job is looked up, jobs are followed as they end."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from floodgate.broker.errors import DeadLetteredError
from floodgate.cli import EXIT_NO, EXIT_USAGE
from tests.acceptance.stage import BOT, Stage
from tests.processes import FloodgateProcess
from tests.waiting import until


def answer(stage: Stage, *arguments: str, code: int = 0) -> Any:
    """What the command prints, read as JSON."""
    ended = stage.floodgate(*arguments, "--json")
    assert ended.returncode == code, ended.stderr
    return json.loads(ended.stdout)


def test_a_wrong_broadcast_is_stopped_and_the_corrected_one_is_sent(stage: Stage) -> None:
    client = stage.client()
    wrong = [client.job("sendMessage", chat_id=n, text="wrong", priority="bulk", campaign="news") for n in range(1, 5)]
    client.enqueue_many(wrong)
    client.send_message(8, "other", priority="bulk", campaign="other")
    unasked = stage.floodgate("jobs", "cancel", "--campaign", "news")
    assert unasked.returncode == EXIT_USAGE
    assert "Cancel all jobs of the campaign 'news' of default, where 5 jobs wait" in unasked.stderr
    later = client.send_message(9, "wrong", campaign="news", delay=1)
    cancelled = answer(stage, "jobs", "cancel", "--campaign", "news", "--yes")
    assert (cancelled["bots"], cancelled["campaign"]) == ([BOT], "news")
    client.send_message(7, "right", campaign="news")
    stage.worker()
    until(lambda: answer(stage, "status")[0]["not_kept"] == {"cancelled": 5})
    until(lambda: sorted(stage.sent()) == ["other", "right"])
    with pytest.raises(DeadLetteredError, match="cancelled"):
        client.result(later)
    [shown] = answer(stage, "jobs", "show", wrong[0].id)
    assert (shown["standing"], shown["reason"], shown["bot"]) == ("dead", "cancelled", BOT)
    assert len(answer(stage, "dead-letters", "not-kept")) == 5


def test_jobs_are_cancelled_by_their_ids_and_those_that_were_sent_are_named(stage: Stage) -> None:
    client = stage.client()
    stage.worker()
    sent, scheduled = client.send_message(1, "sent"), client.send_message(2, "scheduled", delay=3600)
    client.result(sent)
    ended = stage.floodgate("jobs", "cancel", sent.id, scheduled.id, "--yes")
    assert ended.returncode == EXIT_NO
    assert f"Job {sent.id} cannot be cancelled: it is sent." in ended.stdout
    assert f"Job {scheduled.id} is cancelled: if it is still queued, it will be dropped." in ended.stdout
    assert answer(stage, "jobs", "show", scheduled.id)[0]["reason"] == "cancelled"
    table = stage.floodgate("jobs", "show", sent.id).stdout
    assert "sent" in table and "message_id" in table
    missing = stage.floodgate("jobs", "show", "nobody")
    assert (missing.returncode, "No worker has seen the job 'nobody'" in missing.stderr) == (EXIT_NO, True)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((), "ids, --campaign or --bot"), (("one", "--campaign", "news"), "both given"), (("a b", "--yes"), "id:")],
    ids=["nothing", "both", "no id"],
)
def test_what_cannot_be_cancelled_is_one_sentence(stage: Stage, arguments: tuple[str, ...], word: str) -> None:
    ended = stage.floodgate("jobs", "cancel", *arguments)
    assert (ended.returncode, word in ended.stderr, "Traceback" in ended.stderr) == (EXIT_USAGE, True, False)


def test_jobs_are_followed_as_they_end(stage: Stage) -> None:
    stage.control.set_chat(2, trouble="blocked")
    stage.worker()
    tail = stage.keep(FloodgateProcess("jobs", "tail", env=stage.env, home=stage.home, name="tail"))
    tail.start("Following the jobs of default")
    client = stage.client()
    good, bad = client.send_message(1, "hi"), client.send_message(2, "hi")
    assert f"{BOT} {good.id} sent message" in tail.said(good.id)
    assert f"{BOT} {bad.id} dead chat-unreachable Forbidden: bot was blocked" in tail.said(bad.id)
    tail.signal(signal.SIGINT)
    assert tail.wait() == 130
