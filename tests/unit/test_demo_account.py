from __future__ import annotations

from floodgate.demo.account import DemoArrival, EnqueuedJob, account_for, count_order_violations


def job(n: int, *, chat: str = "1", priority: str = "bulk", expect_dead: bool = False) -> EnqueuedJob:
    return EnqueuedJob(f"id{n}", "users", chat, priority, f"text {n}", expect_dead)


def arrivals(*numbers: int) -> list[DemoArrival]:
    return [DemoArrival(f"text {n}") for n in numbers]


def test_jobs_sent_once_in_order_add_up() -> None:
    account = account_for([job(1), job(2)], arrivals(1, 2), {}, 0)
    assert account.adds_up
    assert (account.parts[0].accepted, account.parts[0].sent) == (2, 2)


def test_a_missing_job_does_not_add_up() -> None:
    account = account_for([job(1), job(2)], arrivals(1), {}, 0)
    assert not account.adds_up
    assert account.parts[0].missing == 1


def test_a_job_sent_twice_does_not_add_up() -> None:
    account = account_for([job(1)], arrivals(1, 1), {}, 0)
    assert not account.adds_up
    assert account.parts[0].doubled == 1


def test_an_expected_dead_letter_adds_up_and_an_unexpected_one_does_not() -> None:
    assert account_for([job(1, expect_dead=True)], [], {"id1": "blocked"}, 0).adds_up
    assert not account_for([job(1)], [], {"id1": "blocked"}, 0).adds_up


def test_a_429_does_not_add_up() -> None:
    assert not account_for([job(1)], arrivals(1), {}, 1).adds_up


def test_order_is_judged_per_chat_and_priority_only() -> None:
    same_line = [job(1), job(2), job(3)]
    assert count_order_violations(same_line, ["text 2", "text 1", "text 3"]) == 1
    other_chat = [job(1, chat="1"), job(2, chat="2")]
    assert count_order_violations(other_chat, ["text 2", "text 1"]) == 0
    other_priority = [job(1), job(2, priority="interactive")]
    assert count_order_violations(other_priority, ["text 2", "text 1"]) == 0
