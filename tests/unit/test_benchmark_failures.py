"""What a failure cost, from what was accepted and what arrived."""

from __future__ import annotations

from benchmarks.failures.load import Enqueued
from benchmarks.failures.play import figures_of
from benchmarks.failures.row import NOTHING, within
from floodgate.fake_telegram.control import Arrived


def job(number: int, at: float, chat: int = 1) -> Enqueued:
    return Enqueued(chat, str(number), at, at)


def call(number: int, at: float, chat: int = 1) -> Arrived:
    return Arrived(
        seq=number,
        bot_id=1,
        method="sendMessage",
        chat_id=chat,
        params={"text": str(number)},
        at=at,
        wall=at,
        cost=1,
        in_flight=1,
        verdict="ok",
        acted=True,
        message_id=number,
        code=200,
    )


def missed(figures: dict[str, float]) -> list[str]:
    return [target.figure for target in NOTHING if not target.met(figures)]


def test_the_longest_pause_is_measured_with_its_part_after_the_repair() -> None:
    jobs = [job(number, float(number)) for number in range(4)]
    calls = [call(0, 0.0), call(1, 1.0), call(2, 9.0), call(3, 9.5)]
    figures = figures_of(jobs, calls, struck=2.0, repaired=6.0)
    assert (figures["pause s"], figures["after s"], figures["wait s"]) == (8.0, 3.0, 7.0)
    assert missed(figures) == []
    assert within(8.0)[0].met(figures)
    assert not within(7.9)[0].met(figures)


def test_what_never_arrives_is_lost() -> None:
    figures = figures_of([job(0, 0.0), job(1, 0.0)], [call(1, 1.0)], struck=0.0, repaired=0.0)
    assert missed(figures) == ["lost"]
    assert figures["unsent 10 s"] == 0.0, "nothing was accepted before the repair"


def test_what_arrives_twice_is_doubled() -> None:
    assert missed(figures_of([job(0, 0.0)], [call(0, 1.0), call(0, 2.0)], 0.0, 0.0)) == ["doubled"]


def test_only_jobs_of_one_chat_have_an_order() -> None:
    jobs = [job(0, 0.0), job(1, 0.0), job(2, 0.0, chat=2)]
    assert missed(figures_of(jobs, [call(2, 1.0, chat=2), call(0, 2.0), call(1, 3.0)], 0.0, 0.0)) == []
    assert missed(figures_of(jobs, [call(1, 1.0), call(0, 2.0), call(2, 3.0, chat=2)], 0.0, 0.0)) == ["disordered"]


def test_jobs_that_are_late_after_the_repair_are_counted() -> None:
    jobs = [job(0, 0.0), job(1, 0.0), job(2, 0.0)]
    figures = figures_of(jobs, [call(0, 1.0), call(1, 14.0), call(2, 16.0)], struck=0.0, repaired=5.0)
    assert figures["unsent 10 s"] == 1.0
