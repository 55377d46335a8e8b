"""The supervisor of `floodgate up`, with shell scripts as its parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from floodgate.broker.errors import FloodgateError, RabbitMQError, SettingsError, StateError
from floodgate.cli import exit_code
from floodgate.supervision.supervisor import (
    ERRORS,
    FIRST_PAUSE_SECONDS,
    LONGEST_LINE_BYTES,
    LONGEST_PAUSE_SECONDS,
    STEADY_SECONDS,
    PartProcess,
    RestartPolicy,
    StopStage,
    Supervisor,
    describe_end,
)
from rabbitmq_node.process import ProcessId
from tests.processes import ROOT
from tests.waiting import until

RUNS = "echo $$; while :; do sleep 0.02; done"
NEVER_STOPS = "trap '' TERM; " + RUNS
PAUSE_SECONDS = 0.01


class Stage:
    """A supervisor in a thread of its own, and what its parts print."""

    def __init__(self, *parts: PartProcess) -> None:
        self.lines: defaultdict[str, list[str]] = defaultdict(list)
        self.order: list[str] = []
        self.supervisor = Supervisor(parts, self._on_line, PAUSE_SECONDS)
        self.error: FloodgateError | None = None
        self.in_time: bool | None = None
        self._thread = threading.Thread(target=self._run)

    def _on_line(self, part: str, line: str) -> None:
        self.lines[part].append(line)
        self.order.append(f"{part}: {line}")

    def _run(self) -> None:
        try:
            self.in_time = self.supervisor.run()
        except FloodgateError as error:
            self.error = error

    def started(self, part: str, times: int = 1) -> ProcessId:
        """Waits for the process of a part, the first or a later one, by the id that its script prints first."""
        return ProcessId.of(int(until(lambda: self.lines[part][times - 1 : times])[0]))

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextmanager
def running(*parts: PartProcess) -> Iterator[Stage]:
    stage = Stage(*parts)
    stage._thread.start()
    try:
        yield stage
    finally:
        for _ in range(2):
            stage.supervisor.stop()
        stage.join()


def part(name: str, script: str, stage: StopStage = StopStage.WORKERS, stop_seconds: float = 10) -> PartProcess:
    return PartProcess(name, ["sh", "-c", script], stage, stop_seconds, {})


def test_pauses_double_up_to_a_bound_and_start_anew_after_a_steady_run() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_seconds(-9, 0.1) for _ in range(7)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert (FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS) == (1, 30)
    assert policy.pause_seconds(-9, STEADY_SECONDS) == FIRST_PAUSE_SECONDS


@pytest.mark.parametrize("code", [0, 5, 70, -9, -15])
def test_a_part_that_ends_without_an_error_is_started_again(code: int) -> None:
    assert RestartPolicy().pause_seconds(code, 0.1) == FIRST_PAUSE_SECONDS


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_a_part_that_reports_an_error_at_its_start_is_not_started_again(code: int) -> None:
    assert RestartPolicy().pause_seconds(code, 1) is None


def test_after_a_steady_run_only_wrong_settings_end_a_part_for_good() -> None:
    policy = RestartPolicy()
    assert policy.pause_seconds(-9, STEADY_SECONDS)
    assert all(policy.pause_seconds(code, 1) for code in (1, 3, 4))
    assert policy.pause_seconds(2, 1) is None


def test_a_parts_error_keeps_its_exit_code() -> None:
    assert {code: exit_code(error("")) for code, error in ERRORS.items()} == {code: code for code in ERRORS}


@pytest.mark.parametrize(
    ("code", "text"), [(3, "ended with exit code 3"), (-9, "was ended by SIGKILL"), (-200, "was ended by signal 200")]
)
def test_an_end_is_described_by_its_code_or_signal(code: int, text: str) -> None:
    assert describe_end(code) == text


def test_a_killed_part_comes_back_and_a_stop_ends_all() -> None:
    with running(part("one", RUNS), part("two", RUNS)) as stage:
        first, other = stage.started("one"), stage.started("two")
        os.kill(first.pid, signal.SIGKILL)
        second = stage.started("one", 2)
        assert other.alive()
        stage.supervisor.stop()
        stage.join()
        assert not any(each.alive() for each in (first, second, other))
        assert stage.in_time is True


@pytest.mark.parametrize(("code", "error"), [(2, SettingsError), (3, RabbitMQError), (4, StateError)])
def test_a_part_that_cannot_start_ends_all_with_its_last_line(code: int, error: type[FloodgateError]) -> None:
    fails = f"echo starting; echo 'FLOODGATE_X is wrong.' >&2; exit {code}"
    with running(part("good", RUNS), part("bad", fails)) as stage:
        stage.join()
        assert type(stage.error) is error
        assert str(stage.error) == "bad cannot start. FLOODGATE_X is wrong."
        assert stage.lines["bad"] == ["starting", "FLOODGATE_X is wrong."], "it was started once"


def test_a_program_that_does_not_exist_is_tried_again() -> None:
    missing = PartProcess("missing", ["/nowhere/program"], StopStage.WORKERS, 1, {})
    with running(missing, part("other", RUNS)) as stage:
        stage.started("other")
        stage.supervisor.stop()
        stage.join()
        assert stage.in_time is True


def test_each_stage_stops_when_the_one_before_has_ended() -> None:
    ends = "trap 'sleep 0.2; echo ended; exit' TERM; " + RUNS
    parts = [part(stage.name, ends, stage) for stage in reversed(StopStage)]
    with running(*parts) as stage:
        for each in StopStage:
            stage.started(each.name)
        stage.supervisor.stop()
        stage.join()
        assert [line for line in stage.order if line.endswith("ended")] == [f"{each.name}: ended" for each in StopStage]


def test_a_part_that_does_not_stop_within_its_bound_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodgate.supervision.supervisor.MARGIN_SECONDS", 0.0)
    with running(part("stuck", NEVER_STOPS, stop_seconds=0.2)) as stage:
        process = stage.started("stuck")
        stage.supervisor.stop()
        stage.join()
        assert stage.in_time is False
        assert not process.alive()


def test_a_second_request_kills_the_parts_of_all_stages() -> None:
    with running(part("slow", NEVER_STOPS, StopStage.PRODUCERS), part("worker", NEVER_STOPS)) as stage:
        processes = [stage.started(name) for name in ("slow", "worker")]
        stage.supervisor.stop()
        stage.supervisor.stop()
        stage.join()
        assert stage.in_time is False
        assert not any(process.alive() for process in processes)


def test_lines_stay_whole_up_to_a_bound() -> None:
    long = LONGEST_LINE_BYTES - 1
    script = f"printf 'a\\nb'; sleep 0.05; echo c; head -c {long} /dev/zero | tr '\\0' x; echo; " + RUNS
    with running(part("one", script)) as stage:
        lines = until(lambda: stage.lines["one"][2:] and stage.lines["one"])
        assert lines[:3] == ["a", "bc", "x" * long]


def test_a_process_that_holds_the_output_of_an_ended_part_does_not_delay_its_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("floodgate.supervision.supervisor.OUTPUT_SECONDS", 0.1)
    with running(part("one", "setsid sleep 20 & echo $!; exit 0")) as stage:
        holders = until(lambda: stage.lines["one"][1:] and stage.lines["one"])
        for holder in holders:
            os.kill(int(holder), signal.SIGKILL)


SUPERVISOR = """
import os
from tests.unit.test_supervisor import NEVER_STOPS, RUNS, part
from floodgate.supervision.supervisor import Supervisor
parts = [part("one", RUNS), part("stuck", NEVER_STOPS, stop_seconds=1)]
Supervisor(parts, lambda part, line: os.write(1, f"{line}\\n".encode())).run()  # one write a line, from two threads
"""


def test_parts_end_with_their_supervisor_even_if_it_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", SUPERVISOR], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    parts = [ProcessId.of(int(owner.stdout.readline())) for _ in range(2)]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until(lambda: not any(each.alive() for each in parts))
