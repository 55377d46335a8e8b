"""The batches of ``enqueue_many``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest

from floodgate.broker.errors import RejectedError
from floodgate.broker.messages.job import Job, new_job
from floodgate.broker.messages.publication import Publication
from floodgate.producer.enqueue_batch import MAX_BATCH, MAX_FAILED_IDS, SUBMIT_SECONDS, EnqueueBatch, PublishOutcomes

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

    def submit_at_once(self, publications: Sequence[Publication]) -> Future[PublishOutcomes] | None:
        if not self.room:
            return None
        self.handed_over.append([each.message_id for each in publications])
        return Future()

    def fire(self) -> None:
        """Fires the pending timer at its time."""
        ((seconds, call),) = self.timers
        assert 0 < seconds <= SUBMIT_SECONDS
        self.timers.clear()
        call()


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("floodgate.producer.enqueue_batch.time.monotonic", made)
    return made


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_batch(window: int = 1000) -> EnqueueBatch:
    return EnqueueBatch(window, Hand())


def add(batch: EnqueueBatch, jobs: list[Job]) -> None:
    for each in jobs:
        batch.add(each, addressed(each))


def left(batch: EnqueueBatch, jobs: list[Job]) -> Future[PublishOutcomes]:
    future: Future[PublishOutcomes] = Future()
    add(batch, jobs)
    batch.submitted(batch.close()[0], future)
    return future


def test_batches_arrive_in_the_order_in_which_they_were_published() -> None:
    batch, jobs = a_batch(), [a_job() for _ in range(3)]
    first, second = left(batch, jobs[:1]), left(batch, jobs[1:])
    second.set_result((None, None))
    assert not any(batch.confirmed())
    assert batch.awaited(all_of_them=True) is first
    first.set_result((None,))
    assert [job for each in batch.confirmed() for job in each] == jobs
    assert (batch.accepted, batch.awaited(all_of_them=True)) == (3, None)


def test_a_full_batch_and_a_single_job_are_published_at_once() -> None:
    batch, each = a_batch(), a_job()
    publication = addressed(each)
    assert batch.add(each, publication)
    batch.submitted(batch.close()[0], Future())
    assert [batch.add(each, publication) for _ in range(MAX_BATCH)].index(True) == MAX_BATCH - 1


def test_the_jobs_in_flight_never_exceed_the_window() -> None:
    batch = a_batch(8)
    oldest = left(batch, [a_job(), a_job()])
    for _ in range(2):
        left(batch, [a_job(), a_job()])
    assert batch.awaited(all_of_them=False) is None
    left(batch, [a_job(), a_job()])
    assert batch.awaited(all_of_them=False) is oldest


def test_failed_jobs_are_counted_and_named_and_the_rest_are_accepted() -> None:
    batch, jobs = a_batch(), [a_job() for _ in range(4)]
    left(batch, jobs[:3]).set_result((None, NO, None))
    assert [job for each in batch.confirmed() for job in each] == [jobs[0], jobs[2]]
    assert batch.fault is NO
    add(batch, jobs[3:])
    batch.refused(batch.close()[0], NO)
    error = batch.error(NO)
    assert (error.accepted, error.failed, error.job_ids) == (2, 2, (jobs[1].id, jobs[3].id))
    assert "2 jobs are safe, 2 are not known to be" in str(error)
    assert "RabbitMQ said no." in str(error)


def test_the_list_of_failed_ids_is_bounded_but_their_count_is_not() -> None:
    batch = a_batch()
    add(batch, [a_job()] * (MAX_FAILED_IDS + 5))
    batch.refused(batch.close()[0], NO)
    assert (len(batch.failed_ids), batch.failed) == (MAX_FAILED_IDS, MAX_FAILED_IDS + 5)


def test_a_job_added_right_after_a_batch_is_published_by_the_timer(hand: Hand, clock: Clock) -> None:
    batch, jobs = EnqueueBatch(1000, hand), [a_job() for _ in range(3)]
    left(batch, jobs[:1]).set_result((None,))
    add(batch, jobs[1:])
    hand.fire()  # too early: it checks again later
    clock.now += 1.01 * SUBMIT_SECONDS
    hand.fire()
    assert hand.handed_over == [[job.id for job in jobs[1:]]]
    assert (hand.timers, batch.close()) == ([], ([], []))


def test_the_timer_keeps_batches_in_order_and_publishes_none_after_an_error(hand: Hand, clock: Clock) -> None:
    batch, jobs = EnqueueBatch(1000, hand), [a_job() for _ in range(2)]
    first = left(batch, jobs[:1])
    add(batch, jobs[1:])
    for outcome in (None, (NO,)):
        if outcome is not None:
            first.set_result(outcome)
        clock.now += 1.01 * SUBMIT_SECONDS
        hand.fire()
        assert (hand.handed_over, len(hand.timers)) == ([], 1)
    assert not any(batch.confirmed())
    hand.fire()
    assert (hand.handed_over, hand.timers) == ([], [])
    assert batch.close() == ([], [])
    assert batch.failed == 2, "the one that was refused, and the one that was added before it was"


def test_the_timer_waits_for_room_and_stops_when_nothing_was_added(hand: Hand, clock: Clock) -> None:
    batch, jobs = EnqueueBatch(1000, hand), [a_job() for _ in range(2)]
    left(batch, jobs[:1]).set_result((None,))
    add(batch, jobs[1:])
    clock.now += 1.01 * SUBMIT_SECONDS
    hand.room = False
    hand.fire()
    batch.close()
    hand.fire()
    assert (hand.handed_over, hand.timers) == ([], [])
