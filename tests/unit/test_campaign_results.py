"""What a campaign's results say, and with what certainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.responses.responses import ResponseKind
from floodgate.producer.campaigns.responses.results import CampaignResults, ResponseShare, VariantResults, p_value
from floodgate.producer.campaigns.states import CampaignState
from floodgate.producer.campaigns.storage.records import Campaign

PRESS, BLOCK = ResponseKind.PRESS, ResponseKind.BLOCK
DEFINITION = parse_definition({"name": "spring", "content": {"text": "Hello"}}, "the test")
CAMPAIGN = Campaign(1, "spring", "news", CampaignState.DONE, None, DEFINITION, 1, None, 0, None, None)


@pytest.mark.parametrize(
    ("number", "of", "low", "high"),
    [(1, 10, 0.0179, 0.4042), (0, 10, 0.0, 0.2775), (50, 100, 0.4038, 0.5962), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_an_interval_is_wilsons(number: int, of: int, low: float, high: float) -> None:
    assert ResponseShare(number, of).interval == pytest.approx((low, high), abs=1e-4)


def test_a_difference_is_tested_as_textbooks_do() -> None:
    assert p_value(ResponseShare(120, 1000), ResponseShare(80, 1000)) == pytest.approx(0.00287, abs=1e-5)
    assert p_value(ResponseShare(80, 1000), ResponseShare(80, 1000)) == pytest.approx(1.0)


@pytest.mark.parametrize("shares", [((0, 0), (5, 9)), ((0, 1000), (9, 1000)), ((9, 9), (100, 100)), ((4, 8), (0, 8))])
def test_too_few_recipients_prove_nothing(shares: tuple[tuple[int, int], tuple[int, int]]) -> None:
    assert p_value(*(ResponseShare(*share) for share in shares)) is None


def results(**variants: Mapping[ResponseKind, int]) -> CampaignResults:
    """The results of variants of 1000 recipients each."""
    return CampaignResults(
        CAMPAIGN,
        [
            VariantResults(name, False, 1000, 1000, {kind: ResponseShare(number, 1000) for kind, number in its.items()})
            for name, its in variants.items()
        ],
    )


@pytest.mark.parametrize(
    ("found", "sentences"),
    [
        (
            results(a={PRESS: 80}, b={PRESS: 120}),
            ["Presses: b is better than a, with 12.0% against 8.0% (p = 0.0029)."],
        ),
        (
            results(a={BLOCK: 80}, b={BLOCK: 200}),
            ["Blocks: a is better than b, with 8.0% against 20.0% (p < 0.0001)."],
        ),
        (results(a={PRESS: 100}, b={PRESS: 110}), ["Presses: the difference is not significant."]),
        (results(a={PRESS: 0}, b={PRESS: 0}), []),
        (results(a={PRESS: 80}), []),
        (results(a={PRESS: 80}, b={PRESS: 120, BLOCK: 9}), results(a={PRESS: 80}, b={PRESS: 120}).sentences()),
    ],
)
def test_a_sentence_says_which_variant_is_better(found: CampaignResults, sentences: Any) -> None:
    assert list(found.sentences()) == list(sentences)


def test_more_comparisons_need_more_certainty() -> None:
    assert len(results(a={PRESS: 80}, b={PRESS: 106}).comparisons) == 1
    assert len(results(a={PRESS: 80}, b={PRESS: 106}, c={PRESS: 93}).comparisons) == 0


def test_the_json_has_shares_intervals_and_comparisons() -> None:
    found: Any = results(a={PRESS: 80}, b={PRESS: 120}).as_json()
    assert found["name"] == "spring"
    assert found["variants"][0]["responses"]["press"] == {
        "recipients": 80,
        "share": 0.08,
        "interval": pytest.approx([0.0647, 0.0985], abs=1e-4),
    }
    [comparison] = found["comparisons"]
    assert (comparison["response"], comparison["better"], comparison["worse"]) == ("press", "b", "a")
