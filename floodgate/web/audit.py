"""The audit log: who did what through the pages, when, and to how many.

Each action is logged twice to ``floodgate.audit``, when it begins and when it ends. These lines are the record: once
they have left the process, neither the pages nor the accounts of the stores can change them. The latest
:data:`MOST_KEPT` entries are also kept in the state store, for the page; if it is away, the page shows those of this
process, and actions go on. An entry without an end belongs to an action under way, or to a process that was killed.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final

from floodgate.broker.errors import StateError
from floodgate.broker.messages.job import unix_ms
from floodgate.broker.state.sessions import Sessions
from floodgate.web.service_threads import ServiceThreads
from floodgate.web.viewer import Action

logger = logging.getLogger("floodgate.audit")

MOST_KEPT: Final = 500
MOST_TEXT: Final = 500
_KIND: Final = "web-audit"
_NO_BOT: Final = ""


class AuditState(StrEnum):
    """How far an action is."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An action that somebody took."""

    id: str
    at_ms: int
    who: str
    action: Action
    what: str
    planned: int
    """How many things the confirmation said that it touches."""
    state: AuditState = AuditState.BEGUN
    touched: int | None = None
    outcome: str = ""


class AuditLog:
    """Writes and reads the audit log. Belongs to the event loop."""

    def __init__(self, store: Sessions, calls: ServiceThreads) -> None:
        self._store = store
        self._calls = calls
        self._own: dict[str, AuditEntry] = {}  # of this process, the oldest first; at most MOST_KEPT

    async def begin(self, who: str, action: Action, what: str, planned: int) -> AuditEntry:
        """Record that an action begins."""
        now = unix_ms()
        entry = AuditEntry(f"{now:013}-{secrets.token_hex(4)}", now, who, action, what[:MOST_TEXT], planned)
        await self._record(entry)
        return entry

    async def end(self, entry: AuditEntry, state: AuditState, touched: int | None, outcome: str) -> AuditEntry:
        """Record how an action ended."""
        ended = replace(entry, state=state, touched=touched, outcome=outcome[:MOST_TEXT])
        await self._record(ended)
        return ended

    async def latest(self) -> Sequence[AuditEntry]:
        """Return the entries that are kept, the latest first.

        Raises:
            StateUnavailableError: the store does not answer; :attr:`own` has those of this process.
        """
        kept = await self._calls.call(self._store.read_all, _NO_BOT, _KIND)
        found = {key: _read(text) for key, text in kept.items()} | self._own
        return sorted(found.values(), key=lambda entry: entry.id, reverse=True)[:MOST_KEPT]

    @property
    def own(self) -> Sequence[AuditEntry]:
        """The entries of this process, the latest first."""
        return list(reversed(self._own.values()))

    async def find(self, entry_id: str) -> AuditEntry | None:
        """Return an entry; None if it is not kept any more.

        Raises:
            StateUnavailableError: the store does not answer.
        """
        if (own := self._own.get(entry_id)) is not None:
            return own
        text = await self._calls.call(self._store.read, _NO_BOT, _KIND, entry_id)
        return None if text is None else _read(text)

    async def _record(self, entry: AuditEntry) -> None:
        facts = asdict(entry)
        logger.info("action %s: %s", entry.state, entry.action, extra={"audit_" + name: facts[name] for name in facts})
        self._own[entry.id] = entry
        while len(self._own) > MOST_KEPT:
            del self._own[next(iter(self._own))]
        try:
            await self._calls.call(self._keep, entry.id, json.dumps(facts))
        except StateError as error:
            logger.warning("the page will not show the action %s after a restart: %s", entry.id, error)

    def _keep(self, entry_id: str, text: str) -> None:
        self._store.write(_NO_BOT, _KIND, entry_id, text)
        for old in sorted(self._store.read_all(_NO_BOT, _KIND))[:-MOST_KEPT]:
            self._store.write(_NO_BOT, _KIND, old, None)


def _read(text: str) -> AuditEntry:
    facts = json.loads(text)
    return AuditEntry(**facts | {"action": Action(facts["action"]), "state": AuditState(facts["state"])})
