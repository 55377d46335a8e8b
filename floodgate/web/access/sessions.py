"""Who is logged in. In the memory of the process: see the reasons in :mod:`floodgate.web.access`."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from floodgate.web.access.viewers import Person

LIFE: Final = timedelta(hours=12)
MOST_SESSIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class WebSession:
    """One login."""

    person: Person
    ends: float  # on the monotonic clock


class WebSessions:
    """The sessions by id, oldest first. Belongs to the event loop.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._sessions: dict[str, WebSession] = {}

    def begin(self, person: Person) -> str:
        """Log a person in; return the id of the new session. The oldest session ends if there are too many."""
        self._drop_ended()
        if len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        name = new_id()
        self._sessions[name] = WebSession(person, self._clock() + LIFE.total_seconds())
        return name

    def end(self, name: str) -> None:
        """Log out."""
        self._sessions.pop(name, None)

    def person(self, name: str) -> Person | None:
        """Return who is logged in by a session; None if it has ended or never was."""
        session = self._sessions.get(name)
        return session.person if session and session.ends > self._clock() else None

    def csrf_token(self, who: str) -> str:
        """Return the CSRF token of a session id, or of a viewer without a session. It does not reveal the id."""
        return hmac.new(self._key, who.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()

    def is_csrf_token(self, who: str, given: str) -> bool:
        """Whether a form holds the right CSRF token."""
        return hmac.compare_digest(self.csrf_token(who).encode(), given.encode(errors="surrogatepass"))

    def _drop_ended(self) -> None:
        while self._sessions:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest].ends > self._clock():
                return
            del self._sessions[oldest]


def new_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_urlsafe(32)
