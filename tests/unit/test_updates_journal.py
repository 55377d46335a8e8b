"""The account of the tests on updates finds faults."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.updates.journal import Handling, completed, disorder, overlaps, read_journal, repeated


def run(text: str, began: float, ended: float | None, pid: int = 1) -> Handling:
    return Handling(pid, abs(hash(text)), text, began, ended)


def test_runs_are_read_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("begin 7 100 5:1 1.0\nbegin 8 200 6:1 1.5\nend 7 100 5:1 2.0\nbegin 7 100 5:1 3.0\n")
    assert read_journal(journal) == [
        Handling(7, 100, "5:1", 1.0, 2.0),
        Handling(8, 200, "6:1", 1.5, None),
        Handling(7, 100, "5:1", 3.0, None),
    ]
    assert read_journal(tmp_path / "none") == []


def test_a_run_that_began_and_did_not_end_is_not_completed() -> None:
    assert completed([run("5:1", 1, 2), run("5:2", 3, None)]) == {"5:1"}


def test_an_update_that_began_twice_is_a_repetition() -> None:
    assert repeated([run("5:1", 1, None), run("5:2", 2, 3), run("5:1", 4, 5, pid=2)]) == {"5:1"}


def test_an_update_that_overtook_another_is_reported_and_a_repetition_is_not() -> None:
    assert disorder(["5:1", "6:1", "5:2", "5:1", "6:2"]) == []
    assert disorder(["5:2", "6:1", "5:1"]) == ["5:1"]


def test_only_simultaneous_runs_of_one_chat_overlap() -> None:
    first, second, other, unended = run("5:1", 1, 2), run("5:2", 1.9, 3), run("6:1", 1.5, 3), run("5:1", 1, None)
    assert overlaps([first, other, run("5:2", 2, 4)]) == []
    assert overlaps([first, second]) == [(first, second)]
    assert overlaps([unended, second]) == [(unended, second)]
