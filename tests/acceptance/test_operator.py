"""Operator commands: finding, showing, replaying and dropping dead letters; unreachable chats; pauses."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from floodgate.broker.admission.policy import PAUSE_POLL
from floodgate.broker.amqp import delay_ladder, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import DeadLetteredError
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.state.stores import open_store
from floodgate.cli import EXIT_NO, EXIT_USAGE
from tests.acceptance.stage import BOT, Stage
from tests.processes import FloodgateProcess, environment
from tests.waiting import until

EVIL = b"\x1b]0;owned\x07\xff\x00 {no job"
GONE = 666


def answer(stage: Stage, *arguments: str, code: int = 0) -> Any:
    """Parses the command's output as JSON."""
    ended = stage.floodgate(*arguments, "--json")
    assert ended.returncode == code, ended.stderr
    return json.loads(ended.stdout)


def ids(stage: Stage, *options: str) -> list[str]:
    return [letter["id"] for letter in answer(stage, "dead-letters", "list", *options)]


@pytest.fixture
def letters(stage: Stage) -> dict[str, Job]:
    """Four letters, then bytes that are not a job, in this order."""
    client = stage.client()
    made = {
        "news": client.job("sendMessage", chat_id=1, text="Spring news", campaign="spring", priority="bulk"),
        "hello": client.job("sendMessage", chat_id=2, text="Hello", priority="bulk"),
        "photo": client.job("sendPhoto", chat_id=1, photo="AgAC", caption="A spring photo"),
        "late": client.job("sendMessage", chat_id=-1001234567890, text="Too late"),
    }
    reasons = {"news": "rights", "hello": "content", "photo": "content", "late": "expired"}
    with Connections(stage.settings, "test") as connections:
        queue_admin.declare(connections, topology.pipeline([BOT], stage.partitions))
        for name, job in made.items():
            body = client._publication(job).body
            letter = dead_letters.dead_job(job, body, "send.default.bulk.00", reasons[name], f"about {name}")
            connections.publisher.publish(letter)
        connections.publisher.publish(dead_letters.malformed("bytes", EVIL, "send.default.bulk.00", "Not a job"))
        raw = Publication(queue_names.DEAD_EXCHANGE, queue_names.MALFORMED_QUEUE, EVIL, "raw")
        connections.publisher.publish(raw)
    return made


def test_dead_letters_are_found_by_their_properties(stage: Stage, letters: dict[str, Job]) -> None:
    job = {name: each.id for name, each in letters.items()}
    assert ids(stage) == ["raw", *job.values(), "bytes"], "by time of death; of one it is unknown"
    assert ids(stage, "--reason", "content") == [job["hello"], job["photo"]]
    assert ids(stage, "--chat", "1", "--text", "SPRING") == [job["news"], job["photo"]]
    assert ids(stage, "--campaign", "spring", "--since", "1h") == [job["news"]]
    assert ids(stage, "--until", "1h") == []
    assert ids(stage, "--bot", BOT, "--limit", "1") == [job["news"]]
    assert answer(stage, "dead-letters", "list", "--counts", "--bot", BOT) == {"content": 2, "rights": 1, "expired": 1}
    table = stage.floodgate("dead-letters", "list").stdout
    assert "content: 2" in table
    assert all(line.isprintable() for line in table.splitlines()), "bytes are shown safely"


def test_a_dead_letter_is_shown_with_all_details(stage: Stage, letters: dict[str, Job]) -> None:
    shown = stage.floodgate("dead-letters", "show", letters["photo"].id).stdout
    assert all(word in shown for word in ("about photo", "A spring photo", "sendPhoto", "content"))
    [data] = answer(stage, "dead-letters", "show", "bytes")
    assert (data["reason"], data["job"], "no job" in data["body"]) == ("malformed", None, True)
    assert all(line.isprintable() for line in stage.floodgate("dead-letters", "show", "raw").stdout.splitlines())
    missing = stage.floodgate("dead-letters", "show", "nobody")
    assert (missing.returncode, "No dead letter matches the id 'nobody'" in missing.stderr) == (EXIT_NO, True)


def test_replayed_letters_are_sent_in_their_order_and_others_are_kept(stage: Stage, letters: dict[str, Job]) -> None:
    fates = answer(stage, "dead-letters", "replay", "--reason", "rights", "--reason", "expired")
    assert fates == {"replayed": 2, "sent-before": 0, "duplicate": 0, "no-job": 0, "unknown-bot": 0}
    stage.worker()
    until(lambda: sorted(stage.sent()) == ["Spring news", "Too late"])
    assert ids(stage, "--bot", BOT) == [letters["hello"].id, letters["photo"].id]
    told = stage.floodgate("dead-letters", "replay", "--yes")
    assert told.returncode == EXIT_NO, "bytes that are no job were meant, too, and stay"
    assert "2 replayed" in told.stdout
    assert "2 kept: not a job, so it can only be dropped" in told.stdout
    assert stage.floodgate("dead-letters", "replay", "--reason", "nothing").returncode == 0


def test_replaying_every_letter_asks_first(stage: Stage, letters: dict[str, Job]) -> None:
    unasked = stage.floodgate("dead-letters", "replay")
    assert unasked.returncode == EXIT_USAGE
    counts = "content: 2, rights: 1, expired: 1, malformed: 1, unknown: 1"
    assert f"Replay all dead letters of all bots ({counts})?" in unasked.stderr
    assert "not a terminal: add --yes" in unasked.stderr
    refused = at_a_terminal(stage, "n", "dead-letters", "replay")
    assert (refused.returncode, len(ids(stage))) == (EXIT_NO, 6)
    agreed = at_a_terminal(stage, "y", "dead-letters", "replay")
    assert "4 replayed." in agreed.stdout
    assert ids(stage) == ["raw", "bytes"], "not jobs"


@pytest.mark.parametrize("act", [("replay",), ("drop", "--yes")], ids=lambda act: act[0])
def test_an_unknown_id_beside_a_known_one_is_named_and_the_known_one_acted_on(
    stage: Stage, letters: dict[str, Job], act: tuple[str, ...]
) -> None:
    ended = stage.floodgate("dead-letters", *act, "nobody", letters["hello"].id, "--bot", BOT)
    assert ended.returncode == EXIT_NO
    assert "No dead letter matches the id 'nobody'" in ended.stderr
    assert ids(stage, "--bot", BOT) == [letters[name].id for name in ("news", "photo", "late")]
    assert stage.floodgate("dead-letters", *act, "nobody").returncode == EXIT_NO


def test_the_beginning_of_an_id_names_a_letter_if_no_other_begins_so(stage: Stage, letters: dict[str, Job]) -> None:
    hello = letters["hello"].id
    others = [*(job.id for job in letters.values() if job.id != hello), "bytes", "raw", "evil"]
    unique = next(hello[:n] for n in range(1, 33) if not any(each.startswith(hello[:n]) for each in others))
    assert answer(stage, "dead-letters", "show", unique)[0]["id"] == hello
    with Connections(stage.settings, "test") as connections:
        for name in ("evil", "evil-1", "evil-2"):
            connections.publisher.publish(dead_letters.malformed(name, EVIL, "send.default.bulk.00", "Not a job"))
    ambiguous = stage.floodgate("dead-letters", "drop", "evil-", unique, "--yes")
    assert (ambiguous.returncode, ambiguous.stdout) == (EXIT_USAGE, "")
    assert "Several ids begin with 'evil-'" in ambiguous.stderr
    assert answer(stage, "dead-letters", "drop", "evil", unique, "--yes") == {"malformed": 1, "content": 1}
    assert hello not in ids(stage)
    assert "evil-1" in ids(stage), "an id itself is not the beginning of others"


def test_dropping_asks_for_confirmation_and_drops_only_matching_letters(stage: Stage, letters: dict[str, Job]) -> None:
    unasked = stage.floodgate("dead-letters", "drop", "--reason", "malformed")
    assert unasked.returncode == EXIT_USAGE
    assert "Delete permanently: malformed: 1?" in unasked.stderr
    assert "not a terminal: add --yes" in unasked.stderr
    assert len(ids(stage)) == 6
    refused = at_a_terminal(stage, "n", "dead-letters", "drop", "--reason", "malformed")
    assert (refused.returncode, len(ids(stage))) == (EXIT_NO, 6)
    agreed = at_a_terminal(stage, "y", "dead-letters", "drop", "--reason", "malformed")
    assert (agreed.returncode, agreed.stdout.strip()) == (0, "Deleted: malformed: 1.")
    counts = answer(stage, "dead-letters", "list", "--counts", "--chat", "2")
    assert answer(stage, "dead-letters", "drop", "--yes", "--chat", "2") == counts == {"content": 1}
    left = ids(stage, "--bot", BOT)
    assert left == [letters[name].id for name in ("news", "photo", "late")]


def at_a_terminal(stage: Stage, answered: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person who answers its question."""
    person, terminal = os.openpty()
    try:
        os.write(person, f"{answered}\n".encode())  # the terminal keeps it until it is read
        return subprocess.run(
            [sys.executable, "-m", "floodgate", *arguments],
            env=environment(stage.env),
            cwd=stage.home,
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(person)
        os.close(terminal)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["dead-letters", "list", "--since", "soon"], "not a time"),
        (["dead-letters", "replay", "--bot", "nobody"], "configured: default"),
        (["dead-letters", "drop", "--chat", "a b"], "neither a number"),
        (["chats", "clear", "a b"], "neither a number"),
        (["chats", "unreachable", "--bot", "nobody"], "configured: default"),
        (["pause", "--for", "ever"], "not a duration"),
        (["pause", "--for", "0s"], "between 1s and 4w"),
        (["resume", "--bot", "nobody"], "configured: default"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_usage_error_is_one_sentence(stage: Stage, arguments: list[str], word: str) -> None:
    ended = stage.floodgate(*arguments)
    assert (ended.returncode, ended.stdout) == (EXIT_USAGE, "")
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_chat_that_blocked_the_bot_is_tried_once_and_its_other_jobs_fail_fast_until_it_is_cleared(
    stage: Stage,
) -> None:
    stage.control.set_chat(GONE, trouble="blocked")
    stage.extra["FLOODGATE_DEAD_LETTERS__KEEP_UNREACHABLE_BULK"] = "true"
    worker = stage.worker()
    client = stage.client()
    client.enqueue_many(client.job("sendMessage", chat_id=GONE, text=f"{n}", priority="bulk") for n in range(5))
    client.enqueue_many(client.job("sendMessage", chat_id=n, text="hi", priority="bulk") for n in range(1, 6))
    queued = {"interactive": 0, "bulk": 0, "answers": 0, "updates": 0, "dead": 5}
    until(lambda: answer(stage, "status")[0]["queued"] == queued)
    until(lambda: len(stage.sent()) == 5)
    assert [call.code for call in stage.control.arrivals() if str(call.params["chat_id"]) == str(GONE)] == [403]
    died = answer(stage, "dead-letters", "list")
    assert {(letter["reason"], "blocked by the user" in letter["description"]) for letter in died} == {
        ("chat-unreachable", True)
    }
    [listed] = answer(stage, "chats", "unreachable")
    assert (listed["bot"], listed["chat"], "blocked by the user" in listed["why"]) == (BOT, str(GONE), True)
    assert answer(stage, "status")[0]["unreachable"] == 1
    assert str(GONE) in stage.floodgate("chats", "unreachable").stdout

    stage.control.clear_chats(GONE)
    assert stage.floodgate("chats", "clear", str(GONE)).returncode == 0
    assert stage.floodgate("chats", "clear", str(GONE)).returncode == EXIT_NO
    assert answer(stage, "dead-letters", "replay", "--chat", str(GONE))["replayed"] == 5
    until(lambda: [text for text in stage.sent() if text != "hi"] == ["0", "1", "2", "3", "4"], 30)
    assert worker.stop() == 0


def test_broadcast_jobs_for_a_chat_that_blocked_the_bot_are_counted_and_listed(stage: Stage) -> None:
    stage.control.set_chat(GONE, trouble="blocked")
    worker = stage.worker()
    client = stage.client()
    jobs = [client.job("sendMessage", chat_id=GONE, text=f"{n}", priority="bulk") for n in range(5)]
    client.enqueue_many(jobs)
    until(lambda: answer(stage, "status")[0]["not_kept"] == {"chat-unreachable": 5})
    assert worker.stop() == 0
    assert ids(stage) == []
    assert [call.code for call in stage.control.arrivals()] == [403]
    listed = answer(stage, "dead-letters", "not-kept")
    assert {job["job"] for job in listed} == {job.id for job in jobs}
    assert {(job["bot"], job["chat"], job["reason"]) for job in listed} == {(BOT, str(GONE), "chat-unreachable")}
    assert answer(stage, "dead-letters", "not-kept", "--limit", "2") == listed[:2]
    exported = csv.DictReader(stage.floodgate("dead-letters", "not-kept", "--csv").stdout.splitlines())
    assert list(exported) == listed
    table = stage.floodgate("dead-letters", "not-kept").stdout
    assert f"{BOT}, since the state store was created: chat-unreachable: 5" in table
    with pytest.raises(DeadLetteredError, match="chat-unreachable"):
        client.result(jobs[0])


def test_expired_letters_are_dropped_and_counted(stage: Stage, letters: dict[str, Job]) -> None:
    assert stage.floodgate("dead-letters", "sweep").stdout == "No dead letters have expired or exceed the limit.\n"
    stage.extra["FLOODGATE_DEAD_LETTERS__SECONDS_BY_REASON"] = '{"content": 0.001, "malformed": 0.001}'
    assert answer(stage, "dead-letters", "sweep") == {"content": 2, "malformed": 1}
    assert ids(stage) == ["raw", letters["news"].id, letters["late"].id]
    assert answer(stage, "status")[0]["dropped"] == {"content": 2}
    stage.extra["FLOODGATE_DEAD_LETTERS__MOST"] = "1"
    assert stage.floodgate("dead-letters", "sweep").stdout == "Dropped: rights: 1.\n"
    shown = stage.floodgate("status").stdout
    assert "content: 2, rights: 1" in shown
    assert "dead letters without a bot, dropped: malformed: 1" in shown


# A worker whose rounds take a tenth of a second instead of a minute.
QUICK_WORKER = """
from floodgate.broker.worker import retention
from floodgate.cli import main

retention.ROUND_SECONDS, retention.LOOK_EVERY = 0.1, 2
main()
"""


def test_a_worker_drops_expired_letters_and_the_oldest_beyond_the_limit(stage: Stage, letters: dict[str, Job]) -> None:
    (stage.home / "quick.py").write_text(QUICK_WORKER)
    stage.extra |= {
        "FLOODGATE_DEAD_LETTERS__SECONDS_BY_REASON": '{"content": 0.001}',
        "FLOODGATE_DEAD_LETTERS__MOST": "1",
    }
    worker = FloodgateProcess("worker", env=stage.env, home=stage.home, name="worker", module="quick")
    with worker.start("worker ready"):
        until(lambda: answer(stage, "dead-letters", "list", "--bot", BOT, "--counts") == {"expired": 1})
        until(lambda: answer(stage, "dead-letters", "list", "--counts") == {"expired": 1, "unknown": 1})
        assert "dead letters dropped from dead.malformed, more than 1 in the queue" in worker.log
        assert worker.stop() == 0
    dropped = answer(stage, "status")[0]["dropped"]
    assert (sum(dropped.values()), dropped["rights"]) == (3, 1)


def test_after_an_update_from_a_chat_its_jobs_are_sent_at_once(stage: Stage) -> None:
    stage.control.set_chat(GONE, trouble="blocked")
    stage.worker()
    client = stage.client()
    client.send_message(GONE, "one")
    until(lambda: answer(stage, "chats", "unreachable"))
    stage.control.clear_chats(GONE)
    with contextlib.closing(open_store(stage.settings)) as store:
        assert store.heard_from(BOT, str(GONE))
    assert client.result(client.send_message(GONE, "welcome back"), timeout=20)["text"] == "welcome back"


def test_a_pause_lasts_until_it_is_ended_and_status_shows_its_reason(stage: Stage) -> None:
    assert stage.floodgate("pause", "--for", "15m", "--chat", "42", "--why", "complaint").returncode == 0
    with contextlib.closing(open_store(stage.settings)) as store:
        for chat in ("7", "8", "9"):
            store.too_many_requests(BOT, chat, timedelta(minutes=10))
    assert stage.floodgate("pause", "--for", "2h").returncode == 0
    [bot] = answer(stage, "status")
    pauses = {pause["chat"]: pause for pause in bot["pauses"]}
    assert 14 * 60 < pauses["42"]["remaining_seconds"] <= 15 * 60
    assert (pauses["42"]["why"], pauses[None]["why"]) == ("complaint", "operator")
    assert bot["per_second_limit"] < bot["per_second_full"] <= 30
    table = stage.floodgate("status").stdout
    assert all(words in table for words in ("complaint", "floodgate pause", "Telegram answered 429", "for a while"))
    for whom in ([], ["--chat", "42"]):
        assert stage.floodgate("resume", *whom).returncode == 0
        again = stage.floodgate("resume", *whom)
        assert (again.returncode, "is not paused" in again.stdout) == (EXIT_NO, True)
    assert {pause["chat"] for pause in answer(stage, "status")[0]["pauses"]} == {"7", "8", "9"}


@pytest.mark.parametrize("whom", [[], ["--chat", "42"]], ids=["bot", "chat"])
def test_a_job_for_a_long_paused_chat_is_parked_for_less_than_a_minute(stage: Stage, whom: list[str]) -> None:
    """So that a resume reaches it."""
    assert stage.floodgate("pause", "--for", "4w", *whom).returncode == 0
    stage.client().send_message(42, "after the pause")
    stage.worker()
    level = delay_ladder.entry_exchange(delay_ladder.steps(PAUSE_POLL))
    with Connections(stage.settings, "test") as connections:
        until(lambda: queue_admin.depth(connections, [level])[level])


def test_a_bot_without_limits_has_a_null_rate_in_json(stage: Stage) -> None:
    stage.extra["FLOODGATE_LIMITS__ENABLED"] = "false"
    [bot] = answer(stage, "status")
    assert (bot["per_second_limit"], bot["per_second_full"]) == (None, None)
    assert "no limit" in stage.floodgate("status").stdout
