"""Which jobs supersede which, and what a worker does with a superseded one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.admission.contract import SUPERSEDED, Record, Standing
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.job import Job, decode_job, encode_job, new_job, unix_ms
from floodgate.broker.process.metrics import DEAD
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.middleware.rate_limit import Deferral, RateLimit
from floodgate.letters.replay import renewed
from floodgate.producer.core import Composer
from floodgate.producer.telegram_answer import answer_to
from tests.unit.test_jobs_not_kept import Desk

TEXT = {"chat_id": 5, "message_id": 7, "text": "new"}
BUTTONS = {"chat_id": 5, "message_id": 7, "reply_markup": {}}


def group_of(method: str, params: dict[str, Any], *, edits: bool = True, **options: Any) -> tuple[str | None, str]:
    ask = ask_for(new_job(method, params, **options), Settings(_env_file=None, coalesce_edits=edits))
    return ask.coalesce, ask.variant


def test_edits_of_one_message_share_a_key_and_each_method_is_a_variant() -> None:
    text, buttons = group_of("editMessageText", TEXT), group_of("editMessageReplyMarkup", BUTTONS)
    assert text[0] == buttons[0] is not None
    assert text[1] != buttons[1]
    assert group_of("editMessageText", {**TEXT, "text": "newer", "message_id": "7"}) == text


@pytest.mark.parametrize(
    "other", [{"message_id": 8}, {"business_connection_id": "b"}], ids=["of another message", "of a business chat"]
)
def test_edits_of_other_messages_have_other_keys(other: dict[str, Any]) -> None:
    assert group_of("editMessageText", TEXT)[0] != group_of("editMessageText", {**TEXT, **other})[0]


def test_edits_of_ephemeral_and_inline_messages_have_keys() -> None:
    ephemeral = {"chat_id": -5, "receiver_user_id": 6, "ephemeral_message_id": 7, "text": "new"}
    assert group_of("editEphemeralMessageText", ephemeral)[0] is not None
    other = {**ephemeral, "receiver_user_id": 8}
    assert group_of("editEphemeralMessageText", ephemeral) != group_of("editEphemeralMessageText", other)
    assert group_of("editMessageText", {"inline_message_id": "abc", "text": "new"})[0] is not None


def test_what_does_more_than_edit_supersedes_nothing() -> None:
    stop = {"chat_id": 5, "message_id": 7}
    first, second = group_of("stopPoll", stop), group_of("stopPoll", stop)
    assert first[0] == second[0] is not None
    assert first[1] != second[1]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sendMessage", {"chat_id": 5, "text": "hi"}),
        ("deleteMessage", {"chat_id": 5, "message_id": 7}),
        ("editForumTopic", {"chat_id": -5, "message_thread_id": 7}),
    ],
)
def test_only_edits_of_messages_have_keys_of_their_own(method: str, params: dict[str, Any]) -> None:
    assert group_of(method, params) == (None, "")


def test_edits_have_no_key_unless_the_setting_says_so() -> None:
    assert group_of("editMessageText", TEXT, edits=False) == (None, "")


def test_a_callers_key_comes_before_that_of_the_message_and_is_never_equal_to_one() -> None:
    own = group_of("editMessageText", TEXT, coalesce="message message_id=7")
    assert own != group_of("editMessageText", TEXT)
    assert own == group_of("sendMessage", {"chat_id": 5, "text": "hi"}, coalesce="message message_id=7")


def test_key_and_final_travel_with_the_job() -> None:
    job = Composer(Settings(_env_file=None)).job(
        "sendMessage", {"chat_id": 5, "text": "hi", "coalesce": "a", "final": True}
    )
    assert (job.coalesce, job.final) == ("a", True)
    assert decode_job(encode_job(job, "send.default.bulk.00")) == job


@pytest.mark.parametrize("key", ["", "a" * 101])
def test_a_key_has_from_1_to_100_characters(key: str) -> None:
    with pytest.raises(InvalidParamsError, match="coalesce"):
        new_job("sendMessage", {"chat_id": 5, "text": "hi"}, coalesce=key)


def test_a_replayed_job_supersedes_none_that_may_be_newer() -> None:
    job = new_job("sendMessage", {"chat_id": 5, "text": "hi"}, coalesce="a")
    assert renewed(job, "content", unix_ms()).coalesce is None


def test_a_caller_of_a_superseded_job_whose_successor_is_forgotten_gets_409() -> None:
    code, body = answer_to("j", Record(Standing.DEAD, reason=SUPERSEDED))
    assert (code, body["description"]) == (409, "Not sent: superseded (job j).")


def at(desk: Desk, act: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await desk.broker.admission.pause("default", "5", timedelta(hours=1), "test")
        try:
            await act()
        finally:
            await desk.broker.aclose()

    asyncio.run(whole())


async def deferred(desk: Desk, job: Job) -> Any:
    message = desk.message(job)
    with pytest.raises(Deferral):
        await RateLimit().abefore_process_message(desk.broker, message)
    return message


@pytest.mark.parametrize("expires_ms", [None, 1], ids=["", "that has expired"])
def test_a_superseded_job_is_acknowledged_and_counted_without_a_dead_letter(
    tmp_path: Path, expires_ms: int | None
) -> None:
    desk = Desk(tmp_path / "state.db")
    old, new = (new_job("sendMessage", {"chat_id": 5, "text": "hi"}, coalesce="a") for _ in range(2))

    async def act() -> None:
        await deferred(desk, old)
        await deferred(desk, new)
        parked = len(desk.wire.published)
        message = await deferred(desk, old.model_copy(update={"expires_ms": expires_ms}))
        assert message.settled
        assert len(desk.wire.published) == parked
        assert desk.broker.metrics.values(DEAD) == {("default", SUPERSEDED): 1}

    at(desk, act)
