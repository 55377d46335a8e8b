"""What stops a campaign: the rules of its definition, applied to its latest outcomes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from floodgate.producer.campaigns.definition import Rules
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.store import RecipientOutcome


class Watch:
    """Watches the outcomes of one campaign. Holds the latest ``rules.window`` of them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._latest: deque[RecipientState] = deque(maxlen=rules.window)
        self._equal = 0
        self._refusal: str | None = None

    def see(self, outcomes: Iterable[RecipientOutcome]) -> str | None:
        """Take outcomes into account. Return why the campaign must stop, or None."""
        for outcome in outcomes:
            if outcome.state not in (RecipientState.SENT, RecipientState.FAILED, RecipientState.UNREACHABLE):
                continue
            self._latest.append(outcome.state)
            self._count_equal(outcome)
            if self._equal >= self._rules.equal_refusals_in_a_row:
                return f"{self._equal} recipients in a row were refused for the same reason: {self._refusal}"
        return self._too_many()

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
