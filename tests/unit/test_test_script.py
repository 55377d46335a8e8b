"""`./scripts/test` on stand-ins for its programs: it runs every folder of tests, and a failure anywhere is its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = 'cd "$(dirname "${BASH_SOURCE[0]}")/.."; say() { :; }; PATH="$PWD/bin:$PATH"'
# The one that is to fail ends at once, and all others later: a lane that has ended long ago must not be forgotten.
PROGRAM = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in *"$FAILS"*) exit 1 ;; esac
sleep 0.05
"""


def run(tmp_path: Path, *arguments: str, fails: str = "nothing") -> tuple[int, list[str]]:
    """Runs the script; returns its exit code and the command lines of the programs."""
    for folder in ("scripts", "bin", "broker"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts" / "test", tmp_path / "scripts")
    (tmp_path / "scripts" / "setup").write_text(SETUP)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        (tmp_path / "bin" / name).write_text(PROGRAM)
        (tmp_path / "bin" / name).chmod(0o755)
    calls = tmp_path / "calls"
    env = {**os.environ, "CALLS": str(calls), "FAILS": fails}
    ended = subprocess.run([tmp_path / "scripts" / "test", *arguments], env=env, capture_output=True, timeout=60)
    return ended.returncode, calls.read_text().splitlines()


def test_every_folder_of_tests_runs_and_so_do_the_checks(tmp_path: Path) -> None:
    code, calls = run(tmp_path)
    assert code == 0
    words = {word for call in calls for word in call.split()}
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders - words == set()
    assert {"ruff", "mypy", "lint-imports"} <= words
    assert "coverage" not in words


def test_coverage_is_measured_if_asked_for(tmp_path: Path) -> None:
    code, calls = run(tmp_path, "--coverage")
    assert code == 0
    assert [call for call in calls if "coverage run -m pytest tests/integration" in call]
    assert calls[-1].endswith("coverage report --format=total")


def test_each_file_that_a_lane_leaves_out_runs_elsewhere(tmp_path: Path) -> None:
    words = [word for call in run(tmp_path)[1] for word in call.split()]
    left_out = {word.removeprefix("--ignore=") for word in words if word.startswith("--ignore=")}
    assert left_out and left_out <= set(words)
    assert [path for path in left_out if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    "failing",
    ["mypy", "tests/unit", "tests/contract", "tests/integration", "tests/dramatiq_suite", "--ignore", "demo.py"],
)
def test_a_failure_in_any_lane_fails_the_run(tmp_path: Path, failing: str) -> None:
    assert run(tmp_path, fails=failing)[0] == 1


def test_a_failed_check_ends_a_run_of_some_tests_before_they_begin(tmp_path: Path) -> None:
    code, calls = run(tmp_path, "tests/unit", fails="mypy")
    assert code != 0
    assert not any("pytest" in call for call in calls)
