"""The books of ``enqueue_many``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest

from floodgate.broker.errors import RejectedError
from floodgate.broker.messages.job import Job, new_job
from floodgate.broker.messages.publication import Publication
from floodgate.producer.flight import LEAVE_SECONDS, MAX_BATCH, MAX_FAILED_IDS, Flight, Outcomes

NO = RejectedError("RabbitMQ said no.")


def a_job() -> Job:
    return new_job("sendMessage", {"chat_id": 42, "text": "hi"})


def addressed(job: Job) -> Publication:
    return Publication("", "send.default.bulk.01", b"", job.id)


class Hand:
    """The event loop, whose timers are moved by hand, and the publisher behind it."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.handed_over: list[list[str]] = []  # ids
        self.room = True

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.timers.append((seconds, call))

    def submit_at_once(self, publications: Sequence[Publication]) -> Future[Outcomes] | None:
        if not self.room:
            return None
        self.handed_over.append([each.message_id for each in publications])
        return Future()

    def fire(self) -> None:
        """The timer that is on, once its time has come."""
        ((seconds, call),) = self.timers
        assert 0 < seconds <= LEAVE_SECONDS
        self.timers.clear()
        call()


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("floodgate.producer.flight.time.monotonic", made)
    return made


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_flight(window: int = 1000) -> Flight:
    return Flight(window, Hand())


def board(flight: Flight, jobs: list[Job]) -> None:
    for each in jobs:
        flight.board(each, addressed(each))


def left(flight: Flight, jobs: list[Job]) -> Future[Outcomes]:
    future: Future[Outcomes] = Future()
    board(flight, jobs)
    flight.leave(flight.depart()[0], future)
    return future


def test_batches_land_in_the_order_in_which_they_left() -> None:
    flight, jobs = a_flight(), [a_job() for _ in range(3)]
    first, second = left(flight, jobs[:1]), left(flight, jobs[1:])
    second.set_result((None, None))
    assert list(flight.landed()) == []
    assert flight.awaited(all_of_them=True) is first
    first.set_result((None,))
    assert list(flight.landed()) == jobs
    assert (flight.accepted, flight.awaited(all_of_them=True)) == (3, None)


def test_a_batch_leaves_when_it_is_full_and_a_lone_job_at_once() -> None:
    flight, each = a_flight(), a_job()
    publication = addressed(each)
    assert flight.board(each, publication)
    flight.leave(flight.depart()[0], Future())
    assert [flight.board(each, publication) for _ in range(MAX_BATCH)].index(True) == MAX_BATCH - 1


def test_no_more_are_under_way_than_the_window_holds() -> None:
    flight = a_flight(8)
    oldest = left(flight, [a_job(), a_job()])
    for _ in range(2):
        left(flight, [a_job(), a_job()])
    assert flight.awaited(all_of_them=False) is None
    left(flight, [a_job(), a_job()])
    assert flight.awaited(all_of_them=False) is oldest


def test_what_failed_is_counted_and_named_and_the_rest_is_accepted() -> None:
    flight, jobs = a_flight(), [a_job() for _ in range(4)]
    left(flight, jobs[:3]).set_result((None, NO, None))
    assert list(flight.landed()) == [jobs[0], jobs[2]]
    assert flight.fault is NO
    board(flight, jobs[3:])
    flight.cancel(flight.depart()[0], NO)
    error = flight.error(NO)
    assert (error.accepted, error.failed, error.job_ids) == (2, 2, (jobs[1].id, jobs[3].id))
    assert "2 jobs are safe, 2 are not known to be" in str(error)
    assert "RabbitMQ said no." in str(error)


def test_the_list_of_failed_ids_is_bounded_and_their_count_is_not() -> None:
    flight = a_flight()
    board(flight, [a_job()] * (MAX_FAILED_IDS + 5))
    flight.cancel(flight.depart()[0], NO)
    assert (len(flight.failed_ids), flight.failed) == (MAX_FAILED_IDS, MAX_FAILED_IDS + 5)


def test_a_job_that_boards_right_after_a_batch_leaves_by_the_timer(hand: Hand, clock: Clock) -> None:
    flight, jobs = Flight(1000, hand), [a_job() for _ in range(3)]
    left(flight, jobs[:1]).set_result((None,))
    board(flight, jobs[1:])
    hand.fire()  # too early: looks again
    clock.now += 1.01 * LEAVE_SECONDS
    hand.fire()
    assert hand.handed_over == [[job.id for job in jobs[1:]]]
    assert (hand.timers, flight.depart()) == ([], ([], []))


def test_the_timer_lets_no_batch_overtake_another_and_none_leave_after_a_fault(hand: Hand, clock: Clock) -> None:
    flight, jobs = Flight(1000, hand), [a_job() for _ in range(2)]
    first = left(flight, jobs[:1])
    board(flight, jobs[1:])
    for outcome in (None, (NO,)):
        if outcome is not None:
            first.set_result(outcome)
        clock.now += 1.01 * LEAVE_SECONDS
        hand.fire()
        assert (hand.handed_over, len(hand.timers)) == ([], 1)
    assert list(flight.landed()) == []
    hand.fire()
    assert (hand.handed_over, hand.timers) == ([], [])  # what has boarded is for the caller to cancel
    assert flight.depart()[0] == jobs[1:]


def test_the_timer_waits_for_room_and_ends_when_nothing_has_boarded(hand: Hand, clock: Clock) -> None:
    flight, jobs = Flight(1000, hand), [a_job() for _ in range(2)]
    left(flight, jobs[:1]).set_result((None,))
    board(flight, jobs[1:])
    clock.now += 1.01 * LEAVE_SECONDS
    hand.room = False
    hand.fire()
    flight.depart()
    hand.fire()
    assert (hand.handed_over, hand.timers) == ([], [])
