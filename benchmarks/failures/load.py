"""A client that enqueues so many jobs a second, one after the other, and tries again what is refused."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from floodgate.broker.errors import FloodgateError
from floodgate.producer.client import Client

PER_SECOND: Final = 20.0
CHATS: Final = 60  # each gets a message every three seconds, which Telegram's second per chat allows
FIRST_CHAT: Final = 10_000
RETRY_SECONDS: Final = 0.1
STOP_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A job that was accepted. Times are Unix times: when it was first handed over, and when it was accepted."""

    chat: int
    text: str
    tried: float
    accepted: float


class Load:
    """Enqueues on a thread of its own from ``start`` to ``stop``.

    A refused job is tried again under the same key until it is accepted, as a careful program does it, and the next one
    waits: so the jobs of a chat are accepted in the order of their numbers. What falls behind is made up for.
    """

    def __init__(self, client: Client, per_second: float = PER_SECOND) -> None:
        self._client = client
        self._per_second = per_second
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="benchmark-load", daemon=True)
        self._enqueued: list[Enqueued] = []
        self._trying: float | None = None
        self.refusals: dict[str, int] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Enqueue no more. Returns when the job under way is accepted, or after two minutes."""
        self._stopped.set()
        self._thread.join(STOP_SECONDS)

    @property
    def enqueued(self) -> list[Enqueued]:
        """All jobs accepted so far, in order."""
        return list(self._enqueued)

    @property
    def longest_seconds(self) -> float:
        """How long the slowest job took to be accepted; one that still waits counts."""
        longest = max((job.accepted - job.tried for job in self.enqueued), default=0.0)
        return longest if self._trying is None else max(longest, time.time() - self._trying)

    def _run(self) -> None:
        started = time.monotonic()
        number = 0
        while not self._stopped.wait(max(0.0, started + number / self._per_second - time.monotonic())):
            self._enqueue(number)
            number += 1

    def _enqueue(self, number: int) -> None:
        chat, text = FIRST_CHAT + number % CHATS, str(number)
        self._trying = tried = time.time()
        while not self._accepted(chat, text):
            if self._stopped.wait(RETRY_SECONDS) and time.time() - tried > STOP_SECONDS:
                return
        self._enqueued.append(Enqueued(chat, text, tried, time.time()))
        self._trying = None

    def _accepted(self, chat: int, text: str) -> bool:
        try:
            self._client.send_message(chat_id=chat, text=text, dedupe_key=text)
        except FloodgateError as error:
            self.refusals[type(error).__name__] = self.refusals.get(type(error).__name__, 0) + 1
            return False
        return True
