"""What stops a campaign: the rules of its definition, applied to its latest outcomes and to answers 429."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Set
from typing import Final

from floodgate.broker.admission.contract import FLOOD_WAIT, Pause
from floodgate.producer.campaigns.definition import Rules
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.records import RecipientOutcome

# A pause that ends this much later than one before is another one.
SAME_SECONDS: Final = 0.5


class Watch:
    """Watches the outcomes of one campaign. Holds the latest ``rules.window`` of them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._latest: deque[RecipientState] = deque(maxlen=rules.window)
        self._equal = 0
        self._refusal: str | None = None
        self._seen = 0  # outcomes
        self._flood_waits: deque[int] = deque(maxlen=rules.too_many_requests + 1)  # outcomes seen before each 429

    def see(self, outcomes: Iterable[RecipientOutcome]) -> str | None:
        """Take outcomes into account. Return why the campaign must stop, or None."""
        for outcome in outcomes:
            if outcome.state not in (RecipientState.SENT, RecipientState.FAILED, RecipientState.UNREACHABLE):
                continue
            self._latest.append(outcome.state)
            self._seen += 1
            self._count_equal(outcome)
            if self._equal >= self._rules.equal_refusals_in_a_row:
                return f"{self._equal} recipients in a row were refused for the same reason: {self._refusal}"
        return self._too_many()

    def see_flood_waits(self, number: int) -> str | None:
        """Take so many answers 429 into account. Return why the campaign must stop, or None."""
        self._flood_waits.extend([self._seen] * number)
        most = self._rules.too_many_requests
        if len(self._flood_waits) <= most or self._flood_waits[0] < self._seen - self._rules.window:
            return None
        return f"Telegram answered more than {most} of its calls with 429 (Too Many Requests)"

    def _count_equal(self, outcome: RecipientOutcome) -> None:
        if outcome.state is not RecipientState.FAILED:
            self._equal, self._refusal = 0, None
        elif outcome.error == self._refusal:
            self._equal += 1
        else:
            self._equal, self._refusal = 1, outcome.error

    def _too_many(self) -> str | None:
        if len(self._latest) < self._rules.window:
            return None
        counts = Counter(self._latest)
        for state, share, what in (
            (RecipientState.FAILED, self._rules.refused_share, "were refused"),
            (RecipientState.UNREACHABLE, self._rules.unreachable_share, "were unreachable"),
        ):
            if counts[state] > share * len(self._latest):
                return f"{counts[state]} of the latest {len(self._latest)} recipients {what}"
        return None


class FloodWaits:
    """Notices answers 429 by the pauses that they cause, which the state store shows.

    A pause of the whole bot counts, and one of a chat with a job of the campaign. The store shows the ten longest
    pauses, so more than ten answers 429 at once count as ten.
    """

    def __init__(self) -> None:
        self._known: dict[str | None, float] = {}  # the ends of pauses that were counted, by chat

    def new(self, pauses: Iterable[Pause], chats: Set[str], now: float) -> int:
        """Return how many answers 429 the pauses show that were not there before. ``now`` is a monotonic time."""
        number = 0
        self._known = {chat: end for chat, end in self._known.items() if end > now}
        for pause in pauses:
            end = now + pause.remaining.total_seconds()
            if pause.why != FLOOD_WAIT or (pause.chat is not None and pause.chat not in chats):
                continue
            number += end > self._known.get(pause.chat, 0.0) + SAME_SECONDS
            self._known[pause.chat] = end
        return number
