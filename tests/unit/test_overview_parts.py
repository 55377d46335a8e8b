"""A part of the live picture is read apart from the others, and not too often."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from floodgate.broker.errors import FloodgateError, RabbitMQUnreachableError
from floodgate.overview.part import LONGEST_REST, SHARE, PartReader, Reading


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def read(part: PartReader[int], *, fresh: bool = False) -> Reading[int]:
    part.begin(fresh=fresh)
    return part.end(None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def counting(clock: Clock, takes_seconds: float) -> Callable[[], int]:
    numbers = iter(range(1, 100))

    def count() -> int:
        clock.now += takes_seconds
        return next(numbers)

    return count


def test_a_part_that_takes_long_is_read_less_often(clock: Clock) -> None:
    part = PartReader("It", counting(clock, takes_seconds=0.06), clock)
    assert read(part).value == 1
    clock.now += 0.06 / SHARE - 0.01
    assert read(part).value == 1
    clock.now += 0.02
    assert read(part).value == 2


def test_a_part_is_read_again_soon_after_it_was_slow(clock: Clock) -> None:
    part = PartReader("It", counting(clock, takes_seconds=60), clock)
    read(part)
    clock.now += LONGEST_REST.total_seconds()
    assert read(part).value == 2


def test_a_fresh_part_is_read_at_once(clock: Clock) -> None:
    part = PartReader("It", counting(clock, takes_seconds=0.06), clock)
    read(part)
    assert read(part, fresh=True).value == 2


def test_a_part_that_does_not_answer_is_waited_for_no_longer_and_asked_no_second_time() -> None:
    answers, begun = threading.Event(), []

    def hang() -> int:
        begun.append(1)
        answers.wait(60)
        return 5

    part = PartReader("RabbitMQ", hang)
    part.begin()
    late = part.end(0)
    assert (late.value, str(late.fault)) == (
        None,
        "RabbitMQ does not answer. Check that it runs and is not overloaded.",
    )
    part.begin(fresh=True)
    answers.set()
    assert part.end(None).value == 5
    assert begun == [1]


def test_a_fault_is_told_and_told_again_while_the_next_read_hangs() -> None:
    answers = threading.Event()
    reads = iter([lambda: None, lambda: answers.wait(60)])

    def fail() -> int:
        next(reads)()
        raise RabbitMQUnreachableError("It is away.")

    part: PartReader[int] = PartReader("RabbitMQ", fail)
    assert str(read(part).fault) == "It is away."
    part.begin(fresh=True)
    assert str(part.end(0).fault) == "It is away."
    answers.set()
    assert isinstance(part.end(None).fault, FloodgateError)


def test_a_part_that_failed_is_not_waited_for_until_it_answers() -> None:
    answers, fails = threading.Event(), True

    def read_slowly() -> int:
        if fails:
            raise RabbitMQUnreachableError("It is away.")
        answers.wait(60)
        return 1

    part = PartReader("RabbitMQ", read_slowly)
    part.begin()
    part.end(60)
    fails = False
    part.begin(fresh=True)
    assert str(part.end(60).fault) == "It is away."
    answers.set()
    assert part.end(None).value == 1


def test_a_bug_is_raised_and_not_shown_as_an_outage() -> None:
    def bug() -> int:
        raise ZeroDivisionError

    part: PartReader[int] = PartReader("It", bug)
    with pytest.raises(ZeroDivisionError):
        read(part)
