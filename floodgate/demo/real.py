"""The demo on Telegram itself: ten messages to one chat, in order, within the limits, with a real token."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from floodgate.broker.admission.contract import Admission, Standing
from floodgate.broker.messages.job import Job
from floodgate.broker.settings.model import load_settings
from floodgate.broker.state.stores import open_store
from floodgate.demo.processes import child
from floodgate.producer.client import Client

MESSAGES: Final = 10
AT_MOST_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5


def run_real_demo(console: Console, chat: str) -> bool:
    """Send to ``chat``; return True if Telegram accepted every message.

    Raises:
        FloodgateError: No token is set, RabbitMQ or the store cannot be reached, or the worker did not start.
    """
    settings = load_settings()
    settings.require_bots()
    bot = settings.default_bot if settings.default_bot in settings.tokens else min(settings.tokens)
    with tempfile.TemporaryDirectory(prefix="floodgate-demo-") as folder, contextlib.ExitStack() as stack:
        stack.enter_context(child(["worker"], {}, Path(folder) / "worker.log", "worker ready"))
        client = stack.enter_context(Client(settings, bot=bot))
        store = stack.enter_context(contextlib.closing(open_store(settings)))
        texts = [f"Floodgate demo, message {n + 1} of {MESSAGES}" for n in range(MESSAGES)]
        jobs = [client.send_message(chat_id=chat, text=text) for text in texts]
        console.print(f"{len(jobs)} messages accepted; Telegram takes one a second for a chat …")
        return _follow(console, store, jobs)


def _follow(console: Console, store: Admission, jobs: list[Job]) -> bool:
    waiting = {job.id: job for job in jobs}
    sent = 0
    deadline = time.monotonic() + AT_MOST_SECONDS
    while waiting and time.monotonic() < deadline:
        for job in list(waiting.values()):
            record = store.lookup(job.bot, job.id)
            if record is None or record.standing in (Standing.WAITING, Standing.SENDING):
                continue
            del waiting[job.id]
            sent += record.standing is Standing.SENT
            console.print(f"{job.params['text']}: {record.reason or 'sent'}", markup=False)
        time.sleep(POLL_SECONDS)
    console.print(f"{sent} of {len(jobs)} sent, {len(waiting)} still waiting.")
    return sent == len(jobs)
