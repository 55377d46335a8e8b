"""How jobs ended, told as it happens: what a gateway with thousands of waiting callers listens to.

One listener a process hears of every ended job of its bots and picks out those that somebody waits for. It costs the
stores next to nothing where nobody listens: SQLite keeps one index more, Redis publishes to no subscriber.

A listener hears only what ends after ``skip``. So whoever begins to listen, or begins again after a fault, calls
``skip`` and then looks each awaited job up once: between the two nothing is lost.

An ended job's ``outcome`` is one text in every store. Of a sent job it is Telegram's result as JSON; of a dead one the
reason. On a second line follows, if Telegram had said no, its error as JSON: to a sent job it may have said that there
was nothing to do. Stores keep it for ``FLOODGATE_RESULT_SECONDS``, and that the job ended, and the reason, for longer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from floodgate.broker.admission.contract import Dead, Record, Sent, Standing


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended, and the ledger's record of it."""

    bot: str
    job_id: str
    record: Record


class ResultFeed(Protocol):
    """A listener. Belongs to one thread, but for ``close``."""

    def skip(self) -> None:
        """Listen from now on.

        Raises:
            StateUnavailableError: the store cannot answer.
        """
        ...

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        """What has ended since the last call or ``skip``; waits up to so long for the first.

        Raises:
            StateUnavailableError: the store cannot answer, or what it told may have been missed: ``skip`` again.
        """
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice."""
        ...


def sent_text(sent: Sent) -> str:
    """The outcome of a sent job as stores keep it."""
    return _text(json_text(sent.result), sent.error)


def dead_text(dead: Dead) -> str:
    """The outcome of a dead job as stores keep it."""
    return _text(dead.reason, dead.error)


def dead_record(outcome: str) -> Record:
    """The record of a dead job. Its reason alone is an outcome, too."""
    reason, _, error = outcome.partition("\n")
    return Record(Standing.DEAD, reason=reason, error=json.loads(error or "null"))


def sent_record(outcome: str | None) -> Record:
    """The record of a sent job, whose outcome may be no longer kept."""
    result, _, error = (outcome or "").partition("\n")
    return Record(Standing.SENT, result=json.loads(result or "null"), error=json.loads(error or "null"))


def _text(outcome: str, error: dict[str, Any] | None) -> str:
    return outcome if error is None else f"{outcome}\n{json_text(error)}"


def json_text(value: Any) -> str:
    """On one line, whatever the texts in it, and as it is in UTF-8: escaped, most scripts take two or three times the
    room. Halves of surrogate pairs, which UTF-8 does not have, are escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
