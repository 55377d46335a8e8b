"""How the variants of a campaign did: which responses they got, how certain that is, and which did better.

A share is that of the recipients who got the message; of those held out, it is that of all. Its interval is Wilson's at
95 %. Two variants are compared by a two-proportion test at 5 %, divided by the number of comparisons of a response
(Bonferroni), and only if each variant would have at least :data:`LEAST_EXPECTED` of both outcomes if they were equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from floodgate.producer.campaigns.responses.responses import ResponseKind
from floodgate.producer.campaigns.responses.store import ResponseStore
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.recipient_rows import HELD_OUT_VARIANT
from floodgate.producer.campaigns.storage.records import Campaign

SIGNIFICANCE: Final = 0.05
LEAST_EXPECTED: Final = 5
_Z: Final = 1.959964  # 95 % of a normal distribution are within so many standard deviations
_FEWER_IS_BETTER: Final = (ResponseKind.BLOCK, ResponseKind.UNSUBSCRIBE)
# Those of recipients who were held out, too: they got no message that they could answer.
_BY_CHAT: Final = (ResponseKind.START, ResponseKind.BLOCK)
_PLURALS: Final[Mapping[ResponseKind, str]] = {
    ResponseKind.PRESS: "Presses",
    ResponseKind.START: "Starts",
    ResponseKind.REPLY: "Replies",
    ResponseKind.BLOCK: "Blocks",
    ResponseKind.UNSUBSCRIBE: "Unsubscribes",
}


@dataclass(frozen=True, slots=True)
class ResponseShare:
    """The share of recipients who responded in one way."""

    number: int
    of: int

    @property
    def share(self) -> float:
        return self.number / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval at 95 %."""
        if not self.of:
            return 0.0, 1.0
        weight = _Z**2 / self.of
        middle = self.share + weight / 2
        margin = _Z * math.sqrt(self.share * (1 - self.share) / self.of + weight / (4 * self.of))
        return max(0.0, (middle - margin) / (1 + weight)), min(1.0, (middle + margin) / (1 + weight))


@dataclass(frozen=True, slots=True)
class VariantResults:
    """The results of a variant, or of the recipients who were held out."""

    name: str
    held_out: bool
    recipients: int
    sent: int
    responses: Mapping[ResponseKind, ResponseShare]

    def as_json(self) -> dict[str, object]:
        """Return the results as JSON values."""
        return {
            "name": self.name,
            "held_out": self.held_out,
            "recipients": self.recipients,
            "sent": self.sent,
            "responses": {
                kind.name.lower(): {"recipients": found.number, "share": found.share, "interval": list(found.interval)}
                for kind, found in self.responses.items()
            },
        }


@dataclass(frozen=True, slots=True)
class VariantComparison:
    """Two variants of which one did significantly better in one kind of response."""

    kind: ResponseKind
    better: VariantResults
    worse: VariantResults
    p: float

    def __str__(self) -> str:
        shares = [f"{each.responses[self.kind].share:.1%}" for each in (self.better, self.worse)]
        p = "< 0.0001" if self.p < 0.0001 else f"= {self.p:.4f}"
        names = f"{self.better.name} is better than {self.worse.name}"
        return f"{_PLURALS[self.kind]}: {names}, with {shares[0]} against {shares[1]} (p {p})."

    def as_json(self) -> dict[str, object]:
        """Return the comparison as JSON values."""
        return {
            "response": self.kind.name.lower(),
            "better": self.better.name,
            "worse": self.worse.name,
            "p": self.p,
        }


@dataclass(frozen=True, slots=True)
class CampaignResults:
    """The results of a campaign."""

    campaign: Campaign
    variants: Sequence[VariantResults]

    @property
    def has_responses(self) -> bool:
        """Whether any response has been recorded."""
        return any(found.number for each in self.variants for found in each.responses.values())

    @property
    def comparisons(self) -> Sequence[VariantComparison]:
        """The significant differences."""
        return [found for kind in ResponseKind for found in self._compared(kind)]

    def sentences(self) -> Iterator[str]:
        """Say for each kind of response which variant is better, or that the difference is not significant."""
        for kind in ResponseKind:
            compared = [each for each in self.variants if kind in each.responses]
            found = list(self._compared(kind))
            yield from map(str, found)
            if not found and len(compared) > 1 and any(each.responses[kind].number for each in compared):
                yield f"{_PLURALS[kind]}: the difference is not significant."

    def as_json(self) -> dict[str, object]:
        """Return the results as JSON values."""
        return {
            "name": self.campaign.name,
            "variants": [each.as_json() for each in self.variants],
            "comparisons": [each.as_json() for each in self.comparisons],
        }

    def _compared(self, kind: ResponseKind) -> Iterator[VariantComparison]:
        pairs = list(combinations([each for each in self.variants if kind in each.responses], 2))
        for one, other in pairs:
            p = p_value(one.responses[kind], other.responses[kind])
            if p is not None and p < SIGNIFICANCE / len(pairs):
                more, less = sorted((one, other), key=lambda each: -each.responses[kind].share)
                better, worse = (less, more) if kind in _FEWER_IS_BETTER else (more, less)
                yield VariantComparison(kind, better, worse, p)


def p_value(one: ResponseShare, other: ResponseShare) -> float | None:
    """Return how probable so large a difference is if the shares are equal; None if there are too few recipients."""
    together = one.of + other.of
    pooled = (one.number + other.number) / together if together else 0.0
    if min(one.of, other.of) * min(pooled, 1 - pooled) < LEAST_EXPECTED:
        return None
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / one.of + 1 / other.of))
    return math.erfc(abs(one.share - other.share) / deviation / math.sqrt(2))


def results_of(responses: ResponseStore, campaign: Campaign) -> CampaignResults:
    """Read a campaign's results.

    Raises:
        StateUnavailableError: the database is unavailable.
    """
    recipients, found = responses.tally(campaign.id)
    names = dict(enumerate(each.name for each in campaign.definition.variants)) or {0: campaign.name}
    if any(variant == HELD_OUT_VARIANT for variant, _ in recipients):
        names[HELD_OUT_VARIANT] = "hold-out"
    return CampaignResults(campaign, [_of_variant(each, name, recipients, found) for each, name in names.items()])


def _of_variant(
    variant: int,
    name: str,
    recipients: Mapping[tuple[int, RecipientState], int],
    found: Mapping[tuple[int, ResponseKind], int],
) -> VariantResults:
    held_out = variant == HELD_OUT_VARIANT
    total = sum(number for (its, _), number in recipients.items() if its == variant)
    sent = recipients.get((variant, RecipientState.SENT), 0)
    of = total if held_out else sent
    kinds = _BY_CHAT if held_out else tuple(ResponseKind)
    shares = {kind: ResponseShare(found.get((variant, kind), 0), of) for kind in kinds}
    return VariantResults(name, held_out, total, sent, shares)
