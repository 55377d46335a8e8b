"""How a handler worker runs an unmodified Application: handlers in order and once, with their results."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator

import pytest

from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.queue_names import updates_queue
from floodgate.broker.process.metrics import ProcessRole
from floodgate.fake_telegram.server import running_fake
from tests.acceptance.scraping import ANYWHERE, Series, check_names, scraped, value
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.acceptance.updates.post import Post, message
from tests.processes import FloodgateProcess
from tests.services import Vhosts
from tests.waiting import until

MODULE = "tests.acceptance.updates.behaviour:application"
SETTINGS = {
    "FLOODGATE_UPDATE_PARTITIONS": "4",
    "FLOODGATE_UPDATES__HANDLER_SECONDS": "4",
    "FLOODGATE_SHUTDOWN_SECONDS": "31",
}
_users = itertools.count(5001)


class Office:
    """One send worker and one handler worker for all tests here; each test has its own users."""

    def __init__(self, stage: Stage, post: Post, handler: FloodgateProcess) -> None:
        self.stage = stage
        self.post = post
        self.handler = handler

    def answers(self, chat: int, count: int, seconds: float = 20) -> list[str]:
        """Waits for this many texts to reach a chat and returns them."""
        return until(lambda: found if len(found := self.texts(chat)) >= count else None, seconds)

    def texts(self, chat: int) -> list[str]:
        calls = [call for call in self.stage.control.arrivals() if call.acted and call.method == "sendMessage"]
        return [str(call.params["text"]) for call in calls if str(call.params["chat_id"]) == str(chat)]

    def letters(self, *arguments: str) -> list[dict[str, object]]:
        found = self.stage.floodgate("dead-letters", "list", "--json", *arguments)
        letters: list[dict[str, object]] = json.loads(found.stdout)
        return letters


@pytest.fixture(scope="module")
def office(vhosts: Vhosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    home, vhost = tmp_path_factory.mktemp("office"), vhosts.take()
    with contextlib.ExitStack() as stack:
        stage = Stage(vhost.url, stack.enter_context(running_fake()).url, home, extra=dict(SETTINGS))
        stack.callback(stage.close)
        stage.vouch_idle()
        stage.worker()
        handler = FloodgateProcess("worker", "--updates", MODULE, env=stage.env | ANYWHERE, home=home, name="handler")
        stack.enter_context(handler).start("worker ready")
        post = Post(stage.settings.model_copy(update={"update_partitions": 4}))
        stack.callback(post.close)
        yield Office(stage, post, handler)
    vhosts.give_back(vhost)


@pytest.fixture
def user() -> int:
    return next(_users)


def test_a_reply_returns_the_real_message(office: Office, user: int) -> None:
    office.post.says(user, "echo hello")
    said, told = office.answers(user, 2)
    (sent,) = [call for call in office.stage.control.arrivals() if call.params.get("text") == said == "hello"]
    assert told == f"that was message {sent.message_id} in {user}"


def test_two_updates_of_one_chat_never_run_concurrently(office: Office, user: int) -> None:
    """Concurrently, both would read the same number and lose one increment."""
    for _ in range(20):
        office.post.says(user, "count")
    office.post.says(user, "count aloud")
    assert office.answers(user, 1) == ["counted 21"]


def test_a_failed_handler_is_retried_in_order_and_sends_nothing_twice(office: Office, user: int) -> None:
    office.post.says(user, "flaky")
    office.post.says(user, "echo behind")
    assert office.answers(user, 3)[:3] == ["working on it", "done at last", "behind"]


def test_a_handler_that_runs_again_streams_into_the_same_message(office: Office, user: int) -> None:
    office.post.says(user, "stream one two three")
    assert office.answers(user, 2)[-1] == "streamed"
    messages = office.stage.control.shown(int(TOKEN.partition(":")[0]), user).messages
    assert [message["text"] for message in messages] == ["one two three", "streamed"]


def test_a_handler_that_keeps_failing_leaves_a_dead_letter_with_its_traceback_and_the_chat_continues(
    office: Office, user: int
) -> None:
    update_id = office.post.says(user, "broken")
    office.post.says(user, "echo next")
    assert office.answers(user, 2)[:2] == ["sorry: BrokenError", "next"]
    (letter,) = office.letters("--chat", str(user))
    assert (letter["reason"], letter["attempts"]) == ("handler-failed", 3)
    assert f"update {update_id} of bot default: the handler raised BrokenError: never" in str(letter["description"])
    assert "behaviour.py" in str(letter["traceback"]) and "in broken" in str(letter["traceback"])
    assert TOKEN not in json.dumps(letter)
    shown = office.stage.floodgate("dead-letters", "show", f"update-default-{update_id}").stdout
    assert "BrokenError" in shown and '"text": "broken"' in shown


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
def test_a_handler_that_exits_has_failed_and_the_chat_goes_on(office: Office, user: int, name: str) -> None:
    office.post.says(user, f"leave {name}")
    office.post.says(user, "echo next")
    assert office.answers(user, 1)[0] == "next"
    (letter,) = office.letters("--chat", str(user))
    assert (letter["reason"], letter["attempts"]) == ("handler-failed", 3)
    assert f"the handler raised {name}: 7" in str(letter["description"])
    assert "in leave" in str(letter["traceback"])
    assert office.handler.running


def test_a_replayed_update_is_handled_again(office: Office, user: int) -> None:
    update_id = office.post.says(user, "broken")
    office.answers(user, 1)
    until(lambda: office.letters("--chat", str(user)))
    replayed = office.stage.floodgate("dead-letters", "replay", f"update-default-{update_id}")
    assert replayed.returncode == 0, replayed.stderr
    assert office.answers(user, 2) == ["sorry: BrokenError"] * 2
    assert len(until(lambda: office.letters("--chat", str(user)))) == 1


def test_an_update_received_twice_is_handled_once(office: Office, user: int) -> None:
    body = {"update_id": 1_000_000 + user, "message": message(user, "count aloud")}
    office.post.publish(body)
    office.post.publish(body)
    office.post.says(user, "echo next")
    assert office.answers(user, 2)[:2] == ["counted 1", "next"]


def test_a_handler_that_blocks_the_event_loop_is_reported_by_name(office: Office, user: int) -> None:
    office.post.says(user, "block")
    office.post.says(user, "echo afterwards")
    office.answers(user, 1)
    line = office.handler.said("The event loop is blocked by")
    assert "tests.acceptance.updates.behaviour.obey, at" in line
    assert "in block" in line and "asyncio.to_thread" in line
    assert "blocked by tests.acceptance.updates.behaviour.obey" in office.handler.said("runs again after 1.")


def test_a_handler_that_takes_too_long_is_cancelled_and_the_dead_letter_explains_the_limit(
    office: Office, user: int
) -> None:
    office.post.says(user, "slow")
    office.post.says(user, "echo next")
    assert office.answers(user, 2)[:2] == ["begun", "next"]
    (letter,) = office.letters("--chat", str(user))
    assert (letter["reason"], letter["attempts"]) == ("time-limit", 1)
    for said in ("FLOODGATE_UPDATES__HANDLER_SECONDS (4 s)", "after 30 minutes RabbitMQ", "consumer timeout"):
        assert said in str(letter["description"])
    assert "in slow" in str(letter["traceback"])


def test_a_slow_handler_does_not_delay_chats_of_other_partitions(office: Office, user: int) -> None:
    started = time.monotonic()
    office.post.says(user, "slow")
    others = [next(_users) for _ in range(12)]
    for other in others:
        office.post.says(other, "count aloud")
    prompt = [other for other in others if _in_time(office, other, started + 3)]
    assert prompt, "none of twelve chats was answered while one handler of four was busy"
    for other in others:  # those of the same partition wait for the time limit
        assert office.answers(other, 1) == ["counted 1"]


def test_a_method_newer_than_this_version_is_queued_if_its_verb_sends_and_goes_directly_otherwise(
    office: Office, user: int
) -> None:
    office.post.says(user, "newer send_rich_letter get_rich_letters")
    assert office.answers(user, 1) == ["EndPointNotFound EndPointNotFound"]
    (letter,) = office.letters("--chat", str(user))
    job = letter["job"]
    assert isinstance(job, dict)
    assert (job["method"], letter["reason"]) == ("sendRichLetter", "method")


def test_an_upload_passes_through_the_spool_and_its_message_is_returned(office: Office, user: int) -> None:
    office.post.says(user, "upload")
    assert office.answers(user, 1) == ["sent report.csv, 9 bytes"]


def test_telegrams_errors_are_raised_as_the_librarys_errors(office: Office, user: int) -> None:
    gone = next(_users)
    office.stage.control.set_chat(gone, trouble="blocked")
    office.post.says(user, f"refused {gone}")
    assert office.answers(user, 1) == ["Forbidden: Forbidden: bot was blocked by the user"]


def test_an_edit_that_changes_nothing_raises_as_with_telegram(office: Office, user: int) -> None:
    office.post.says(user, "edit")
    assert "message is not modified" in office.answers(user, 2)[1].lower()


def test_a_pressed_button_is_answered_while_the_bots_messages_wait(office: Office, user: int) -> None:
    assert office.stage.floodgate("pause", "--for", "30s").returncode == 0
    try:
        office.post.presses(user, 4711)
        calls = until(lambda: [c for c in office.stage.control.arrivals() if c.method == "answerCallbackQuery"], 10)
        assert calls[-1].params["callback_query_id"] == "4711"
    finally:
        assert office.stage.floodgate("resume").returncode == 0


def test_an_update_the_library_cannot_parse_becomes_a_dead_letter_and_the_chat_continues(
    office: Office, user: int
) -> None:
    office.post.arrives(message={"message_id": "x", "date": "yesterday", "chat": {"id": user}})
    office.post.says(user, "echo next")
    assert office.answers(user, 1)[0] == "next"
    (letter,) = office.letters("--chat", str(user))
    assert (letter["reason"], letter["attempts"]) == ("unreadable-update", 1)
    assert "cannot be parsed: " in str(letter["description"])


def test_an_unknown_type_of_update_is_logged_and_skipped(office: Office, user: int) -> None:
    office.post.arrives(telepathy={"chat": {"id": user}, "thought": "?"})
    office.post.says(user, "echo next")
    office.answers(user, 1)
    assert "does not know updates of type telepathy" in office.handler.log


def test_bytes_that_are_not_an_update_are_kept_unchanged(office: Office, user: int) -> None:
    queue = updates_queue(BOT, 0)
    office.post.put(Publication("", queue, b"nonsense", "bad-1"))
    frame = {"queue_name": queue, "actor_name": "handle_update", "args": [], "options": {}, "message_timestamp": 1}
    for number, update in enumerate(({"v": 1, "bot": "other", "body": {"update_id": 1}}, {"v": 2}, None), 2):
        body = json.dumps({**frame, "kwargs": {"update": update}, "message_id": f"bad-{number}"}).encode()
        office.post.put(Publication("", queue, body, f"bad-{number}"))
    found = until(lambda: kept if len(kept := office.letters("--reason", "malformed")) == 4 else None)
    assert {letter["id"] for letter in found} == {"bad-1", "bad-2", "bad-3", "bad-4"}


def _in_time(office: Office, chat: int, deadline: float) -> bool:
    while time.monotonic() < deadline:
        if office.texts(chat):
            return True
        time.sleep(0.05)
    return bool(office.texts(chat))


def test_the_log_contains_no_token(office: Office) -> None:
    """Last on purpose: after all the failures above."""
    assert "BrokenError: never, not with 100200300:[redacted]" in office.handler.log
    assert TOKEN not in office.handler.log


def test_what_it_handled_is_counted(office: Office, user: int) -> None:
    def handled(series: Series) -> float:
        return value(series, "floodgate_updates_handled_total", bot=BOT, outcome="handled")

    before = scraped(office.handler)
    office.post.says(user, "echo hello")
    until(lambda: handled(scraped(office.handler)) > handled(before))
    after = scraped(office.handler)
    check_names(after, ProcessRole.HANDLERS)
    for name in ("floodgate_update_lag_seconds_count", "floodgate_handler_seconds_count"):
        assert value(after, name, bot=BOT) > max(0.0, value(before, name, bot=BOT))
