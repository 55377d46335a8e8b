"""The account of a chaos run finds faults: each is inserted into evidence that was in order."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.chaos.account import HELD_UP, OVER_THE_LIMIT, Evidence, Note, account_for
from tests.chaos.faults import Cast, Kind, schedule
from tests.chaos.producing import Accepted
from tests.chaos.telegram import Arrived

LIMITS = {"bot": (30, 1.0), "chat": (1, 1.0), "group": (20, 60.0)}


def accepted(text: str, position: int, **changes: Any) -> Accepted:
    return Accepted(0, text, "5", "bulk", "-", (position, 0), **{"safe_at": (position, 0), **changes})


def acted(text: str, at: float, **changes: Any) -> Arrived:
    seq = int(at * 1000)
    return Arrived(1, seq, at, 5, text, 1, True, **{"acted": True, "verdict": "ok", "code": 200, **changes})


def call(at: float, *outcomes: str) -> list[Note]:
    return [
        Note("call", at, ""),
        *(Note(*outcome.split(":")[:1], at + 0.01, outcome.partition(":")[2]) for outcome in outcomes),
    ]


SENT = ("answer:Sent", "settled:Sent")
IN_ORDER = Evidence(
    expected=2,
    accepted={"a": accepted("a", 1), "b": accepted("b", 2)},
    arrivals=[acted("a", 10.0), acted("b", 12.0)],
    notes={"a": call(9.99, *SENT), "b": call(11.99, *SENT)},
    dead={},
    waiting=frozenset(),
    limits=LIMITS,
)


def faults(**changes: Any) -> list[str]:
    return account_for(dataclasses.replace(IN_ORDER, **changes)).faults


def test_consistent_evidence_has_no_faults() -> None:
    report = account_for(IN_ORDER)
    assert not report.faults
    assert (report.accepted, report.sent, report.resolved) == (2, 2, 2)


def test_an_unaccounted_job_is_lost() -> None:
    assert faults(arrivals=[acted("a", 10.0)]) == ["lost: b"]


def test_a_dead_or_waiting_job_is_not_lost() -> None:
    assert not faults(arrivals=[acted("a", 10.0)], dead={"b": "content"})
    assert not faults(arrivals=[acted("a", 10.0)], waiting=frozenset({"b"}))


def test_a_producer_that_never_finished_is_a_fault() -> None:
    assert faults(expected=3) == ["1 jobs were never accepted"]


def test_a_second_call_after_the_store_recorded_the_first_is_a_fault() -> None:
    again = [*IN_ORDER.arrivals, acted("b", 14.0)]
    assert faults(arrivals=again) == ["b acted 2 times: UNEXPLAINED"]


def test_an_unrecorded_second_call_is_a_fault() -> None:
    assert faults(arrivals=[*IN_ORDER.arrivals, acted("b", 14.0)], notes={}) == ["b acted 2 times: UNEXPLAINED"]


def test_a_second_call_is_explained_if_the_first_could_not_be_known_to_have_acted() -> None:
    def why(first: list[Note], code: int | None) -> str:
        arrivals = [acted("a", 10.0), acted("b", 12.0, code=code), acted("b", 14.0)]
        notes = {**IN_ORDER.notes, "b": [*first, *call(13.99, *SENT)]}
        report = account_for(dataclasses.replace(IN_ORDER, arrivals=arrivals, notes=notes))
        assert not report.faults
        return report.duplicates[0].why

    assert why(call(11.99), 200) == "the worker was killed in mid-call"
    assert why(call(11.99, "answer:Unknown", "settled:Retrying"), None) == "its answer never came"
    assert why(call(11.99, "answer:Unknown", "settled:Retrying"), 502) == "it was answered 502 after it acted"
    assert why(call(11.99, "answer:Sent"), 200) == "the worker was killed before it could record Sent"


def test_a_dead_job_that_acted_must_have_a_call_with_an_unknown_outcome() -> None:
    assert faults(dead={"b": "expired"}) == ["b acted and is dead: UNEXPLAINED"]
    unknown = {**IN_ORDER.notes, "b": call(11.99, "answer:Unknown", "settled:Dead")}
    assert not faults(dead={"b": "uncertain"}, notes=unknown)


def test_a_job_that_overtakes_an_earlier_one_is_a_fault() -> None:
    assert faults(arrivals=[acted("b", 10.0), acted("a", 12.0)]) == ["b overtook a"]


def test_a_job_whose_first_attempt_may_have_arrived_has_no_fixed_position() -> None:
    late = {"a": accepted("a", 1, safe_at=(3, 0)), "b": accepted("b", 2)}
    assert not faults(accepted=late, arrivals=[acted("b", 10.0), acted("a", 12.0)])
    assert not faults(accepted=late)


def test_two_calls_too_close_together_are_a_fault_unless_the_network_caused_it() -> None:
    together = [acted("a", 10.0), acted("b", 10.5)]
    assert faults(arrivals=together, notes={"a": call(9.99, *SENT), "b": call(10.49, *SENT)}) == [
        "chat: 2 where 1 is the limit"
    ]
    assert not faults(arrivals=together, notes={"a": call(9.0, *SENT), "b": call(10.49, *SENT)})


def test_a_429_is_a_fault_unless_the_call_was_made_in_time() -> None:
    refused = acted("b", 10.5, acted=False, verdict="chat", code=429)
    arrivals = [acted("a", 10.0), refused, acted("b", 12.0)]

    def report(first_call: float) -> Any:
        notes = {"a": call(first_call, *SENT), "b": [*call(10.49, "answer:Paused"), *call(11.99, *SENT)]}
        return account_for(dataclasses.replace(IN_ORDER, arrivals=arrivals, notes=notes))

    assert report(9.99).refused == {OVER_THE_LIMIT: 1}
    assert report(9.99).faults
    assert report(9.2).refused == {HELD_UP: 1}
    assert not report(9.2).faults


def test_a_schedule_follows_from_its_seed_and_uses_every_kind_before_repeating_one() -> None:
    cast = Cast(workers=3, producers=2, redis=False, disk=True)
    faults = schedule(7, 120, 2.0, cast)
    assert faults == schedule(7, 120, 2.0, cast)
    assert faults != schedule(8, 120, 2.0, cast)
    allowed = set(Kind) - {Kind.REDIS_KILLED}
    assert {fault.kind for fault in faults[: len(allowed)]} == allowed
