"""The books of ``enqueue_many``."""

from __future__ import annotations

from concurrent.futures import Future

from broker.errors import RejectedError
from broker.job import Job, new_job
from broker.publication import Publication
from producer.flight import MAX_BATCH, MAX_FAILED_IDS, Flight, Outcomes

NO = RejectedError("RabbitMQ said no.")


def a_job() -> Job:
    return new_job("sendMessage", {"chat_id": 42, "text": "hi"})


def addressed(job: Job) -> Publication:
    return Publication("", "send.default.bulk.01", b"", job.id)


def board(flight: Flight, jobs: list[Job]) -> None:
    for each in jobs:
        flight.board(each, addressed(each))


def left(flight: Flight, jobs: list[Job]) -> Future[Outcomes]:
    future: Future[Outcomes] = Future()
    board(flight, jobs)
    flight.leave(future)
    return future


def test_batches_land_in_the_order_in_which_they_left() -> None:
    flight, jobs = Flight(1000), [a_job() for _ in range(3)]
    first, second = left(flight, jobs[:1]), left(flight, jobs[1:])
    second.set_result((None, None))
    assert list(flight.landed()) == []
    assert flight.awaited(all_of_them=True) is first
    first.set_result((None,))
    assert list(flight.landed()) == jobs
    assert (flight.accepted, flight.awaited(all_of_them=True)) == (3, None)


def test_a_batch_leaves_when_it_is_full_and_a_lone_job_at_once() -> None:
    flight, each = Flight(1000), a_job()
    publication = addressed(each)
    assert flight.board(each, publication)
    flight.leave(Future())
    assert [flight.board(each, publication) for _ in range(MAX_BATCH)].index(True) == MAX_BATCH - 1


def test_no_more_are_under_way_than_the_window_holds() -> None:
    flight = Flight(8)
    oldest = left(flight, [a_job(), a_job()])
    for _ in range(2):
        left(flight, [a_job(), a_job()])
    assert flight.awaited(all_of_them=False) is None
    left(flight, [a_job(), a_job()])
    assert flight.awaited(all_of_them=False) is oldest


def test_what_failed_is_counted_and_named_and_the_rest_is_accepted() -> None:
    flight, jobs = Flight(1000), [a_job() for _ in range(4)]
    left(flight, jobs[:3]).set_result((None, NO, None))
    assert list(flight.landed()) == [jobs[0], jobs[2]]
    assert flight.fault is NO
    board(flight, jobs[3:])
    flight.cancel(NO)
    error = flight.error(NO)
    assert (error.accepted, error.failed, error.job_ids) == (2, 2, (jobs[1].id, jobs[3].id))
    assert "2 jobs are safe, 2 are not known to be" in str(error)
    assert "RabbitMQ said no." in str(error)


def test_the_list_of_failed_ids_is_bounded_and_their_count_is_not() -> None:
    flight = Flight(1000)
    board(flight, [a_job()] * (MAX_FAILED_IDS + 5))
    flight.cancel(NO)
    assert (len(flight.failed_ids), flight.failed) == (MAX_FAILED_IDS, MAX_FAILED_IDS + 5)
