"""Dead jobs that become dead letters, and those that the state store counts and lists instead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dramatiq
import pytest

from floodgate.actors import settle
from floodgate.actors.outcomes import FailureReason, dead
from floodgate.actors.settle import Settler
from floodgate.broker.admission.contract import Dead, Go, Record, Standing
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.dead_letters import REASONS
from floodgate.broker.messages.job import Job, Priority, encode_job, new_job
from floodgate.broker.settings.dead_letters import DeadLetterSettings
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.broker.worker.middleware.rate_limit import Deferral, RateLimit
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from tests.wire import Wire

TOKEN = "100200300:" + "A" * 35
BLOCKED = "Forbidden: bot was blocked by the user"
REFUSED = dead(FailureReason.CHAT_UNREACHABLE, BLOCKED, 403)
ERROR = {"error_code": 403, "description": BLOCKED}


class Desk:
    """A worker's broker without RabbitMQ, and the reasons of the dead letters it wrote."""

    def __init__(self, state: Path, **options: Any) -> None:
        settings = Settings(_env_file=None, bot_token=TOKEN, state_url=f"sqlite:///{state}", dead_letters=options)
        self.broker, self.wire = FloodgateBroker(settings), Wire()
        self.broker._connections = cast(Any, self.wire)

    def message(self, job: Job) -> DeliveredMessage:
        queue = f"send.default.{job.priority}.00"
        delivery = cast(Any, Delivered(encode_job(job, queue)))
        return DeliveredMessage(dramatiq.Message[Any].decode(encode_job(job, queue)), delivery, job)

    async def call(self, job: Job, outcome: Dead = REFUSED) -> DeliveredMessage:
        """A call that Telegram refuses."""
        message = self.message(job)
        message.ask = ask_for(job, self.broker.settings)
        await self.broker.admission.vouch_idle(job.bot)
        permit = await self.broker.admission.admit(message.ask)
        assert isinstance(permit, Go)
        message.permit = permit
        await Settler(self.broker).settle(message, job, outcome)
        return message

    @property
    def letters(self) -> list[tuple[str, str]]:
        return [(str(each.message_id), str((each.headers or {})[dead_letters.REASON])) for each in self.wire.published]

    async def not_kept(self) -> list[str]:
        return [job.job_id for job in await self.broker.admission.not_kept("default")]


@dataclass
class Delivered:
    body: bytes
    delivery_count: int = 0
    trace: None = None


def job_of(priority: str = "bulk", chat: int = 5) -> Job:
    return new_job("sendMessage", {"chat_id": chat, "text": "hi"}, priority=priority)


def at_desk(desk: Desk, act: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await act()
        finally:
            await desk.broker.aclose()

    asyncio.run(whole())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_a_bulk_job_for_an_unreachable_chat_is_listed_without_a_dead_letter(state: Path) -> None:
    desk, job = Desk(state), job_of()

    async def act() -> None:
        message = await desk.call(job)
        assert message.settled
        assert desk.letters == []
        assert await desk.not_kept() == [job.id]
        record = await desk.broker.admission.lookup("default", job.id)
        assert record == Record(Standing.DEAD, reason="chat-unreachable", error=ERROR)
        assert [chat.chat for chat in await desk.broker.admission.unreachable("default")] == ["5"]

    at_desk(desk, act)


@pytest.mark.parametrize(
    ("priority", "reason", "options"),
    [
        ("interactive", FailureReason.CHAT_UNREACHABLE, {}),
        ("bulk", FailureReason.CONTENT, {}),
        ("bulk", FailureReason.CHAT_UNREACHABLE, {"keep_unreachable_bulk": True}),
    ],
)
def test_other_dead_jobs_become_dead_letters(
    priority: str, reason: FailureReason, options: dict[str, Any], state: Path
) -> None:
    desk, job = Desk(state, **options), job_of(priority)

    async def act() -> None:
        await desk.call(job, dead(reason, BLOCKED, 403))
        assert desk.letters == [(job.id, str(reason))]
        assert await desk.not_kept() == []

    at_desk(desk, act)


@pytest.mark.parametrize(("priority", "letters"), [("bulk", 0), ("interactive", 1)])
def test_a_job_refused_without_a_call_ends_the_same_way(priority: str, letters: int, state: Path) -> None:
    desk, job = Desk(state), job_of(priority)

    async def act() -> None:
        await desk.broker.admission.mark_unreachable("default", "5", BLOCKED)
        message = desk.message(job)
        with pytest.raises(Deferral):
            await RateLimit().abefore_process_message(desk.broker, message)
        assert message.settled
        assert desk.letters == [(job.id, "chat-unreachable")] * letters
        assert await desk.not_kept() == [job.id] * (1 - letters)

    at_desk(desk, act)


def test_a_job_that_the_store_cannot_list_becomes_a_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged without either, it would be lost."""
    (tmp_path / "no-folder").touch()
    monkeypatch.setattr(settle, "RECORD_AT_MOST_SECONDS", 0.0)
    monkeypatch.setattr(settle, "RECORD_RETRY_SECONDS", 0.01)
    desk, job = Desk(tmp_path / "no-folder" / "state.db"), job_of()

    async def act() -> None:
        message = desk.message(job)
        message.ask = ask_for(job, desk.broker.settings)
        await Settler(desk.broker).settle(message, job, REFUSED)
        assert message.settled
        assert desk.letters == [(job.id, "chat-unreachable")]

    at_desk(desk, act)


def test_the_settings_know_each_reason() -> None:
    ours = {value for name, value in vars(dead_letters).items() if name.startswith("REASON_")}
    of_plain_actors = {dead_letters.REASON_NO_ACTOR}
    assert (ours | set(FailureReason)) - of_plain_actors == REASONS


def test_a_reason_may_have_its_own_retention() -> None:
    given = DeadLetterSettings(seconds=100, seconds_by_reason={"content": 10, "uncertain": 0})
    kept = [given.kept_for(reason) for reason in ("content", "rights", "uncertain")]
    assert [one and one.total_seconds() for one in kept] == [10, 100, None]
    assert given.shortest is not None and given.shortest.total_seconds() == 10
    assert DeadLetterSettings(seconds=0).shortest is None
    assert given.keeps("chat-unreachable", Priority.INTERACTIVE)


def test_an_unknown_reason_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"names an unknown reason 'contents': the reasons are chat-not-found, .*content"
    ):
        DeadLetterSettings(seconds_by_reason={"contents": 10})
