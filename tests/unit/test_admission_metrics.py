"""What is counted of admission's decisions."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import AlreadyDead, Decision, Go, Scope, Wait
from floodgate.broker.process.metrics import ADMISSION, CAUSES, PERMITS, WAIT, Metrics
from floodgate.broker.worker.middleware.rate_limit import _measure

DECISIONS = Path(__file__).parents[2] / "broker/admission/decisions.py"


def counted(*decisions: Decision) -> Metrics:
    metrics = Metrics()
    for decision in decisions:
        _measure(metrics, "news", decision, 0.01)
    return metrics


def test_permits_and_waits_are_counted_apart() -> None:
    found = counted(
        Go("1"),
        Wait(timedelta(seconds=2), Scope.CHAT, "line"),
        Wait(timedelta(seconds=4), Scope.CHAT, "line"),
        AlreadyDead("content"),
    )
    assert found.values(PERMITS) == {("news",): 1.0}
    [(labels, waits)] = found.distributions(WAIT).items()
    assert (labels, waits.count, waits.sum) == (("news", "line"), 2, 6.0)
    assert found.distributions(ADMISSION)[()].count == 4


@pytest.mark.checkout
def test_the_table_names_every_cause_of_a_wait() -> None:
    """Those are the words that admission passes to ``_wait`` or returns as a hindrance."""
    tree = ast.parse(DECISIONS.read_text())
    given = {call.args[2] for call in ast.walk(tree) if isinstance(call, ast.Call) and _is_wait(call)}
    [hindrance] = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name == "_hindrance"]
    given |= {each.value for each in ast.walk(hindrance) if isinstance(each, ast.Return) and each.value is not None}
    words = {each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    assert words == {*CAUSES} - {"store"}


def _is_wait(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "_wait" and len(call.args) == 3
