"""Shared by tests of admission: a clock moved by hand, and jobs as admission sees them."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import timedelta
from typing import Any

from floodgate.broker.admission.clock import ClockReading
from floodgate.broker.admission.contract import Ask
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.job import Job, Priority, job_chat
from floodgate.broker.messages.methods import cost
from floodgate.broker.settings.model import Settings

_numbers = itertools.count(1)


class HandClock:
    """A clock that only the test moves."""

    def __init__(self, start_us: int = 1_800_000_000_000_000) -> None:
        self.now_us = start_us
        self.boot = "boot"

    def read(self) -> ClockReading:
        return ClockReading(self.boot, self.now_us, self.now_us)

    def advance(self, by: timedelta | float) -> None:
        """Moves the clock by a timedelta or by seconds."""
        duration = by if isinstance(by, timedelta) else timedelta(seconds=by)
        self.now_us += duration // timedelta(microseconds=1)


def settings_of(**limits: Any) -> Settings:
    return Settings(_env_file=None, limits=limits)  # type: ignore[call-arg]


def ask_of(
    chat: int | str | None,
    priority: str = "bulk",
    *,
    method: str = "sendMessage",
    job_id: str | None = None,
    bot: str = "default",
    lease_seconds: float = 35,
    max_attempts: int = 8,
    attempts: int = 0,
    unsent: int = 0,
    **params: Any,
) -> Ask:
    """An ask for a new job, or with the id of an earlier one."""
    if chat is not None:
        params["chat_id"] = chat if isinstance(chat, str) and chat.startswith("inline:") else chat_key(chat)
    inline = isinstance(chat, str) and chat.startswith("inline:")
    job = Job(
        id=job_id or f"job-{next(_numbers):07d}",
        bot=bot,
        method=method,
        params=params,
        priority=Priority(priority),
        chat=chat if inline else job_chat(params),  # type: ignore[arg-type]
        cost=cost(method, params),
        created_ms=0,
        attempts=attempts,
        unsent=unsent,
    )
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        call_timeout_seconds=lease_seconds - 5,
        lease_margin_seconds=5,
        max_attempts=max_attempts,
    )
    return ask_for(job, settings)


def upload(chat: int, priority: str = "bulk") -> Ask:
    return dataclasses.replace(ask_of(chat, priority, method="sendDocument"), upload=True)


def album(chat: int | str, size: int, priority: str = "bulk") -> Ask:
    return ask_of(chat, priority, method="sendMediaGroup", media=[{"type": "photo"}] * size)
