"""Processes started by tests do not outlive them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rabbitmq_node.process import ProcessId
from tests.processes import ROOT, FloodgateProcess
from tests.waiting import until

OWNER = """
import sys
from pathlib import Path
from tests.processes import FloodgateProcess
command = FloodgateProcess("fake-telegram", "--port", "0", env={}, home=Path(sys.argv[1]))
print(command.start("http://").pid, flush=True)
input()
"""


def test_a_process_ends_with_the_program_that_started_it_even_after_sigkill(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    started = ProcessId.of(int(owner.stdout.readline()))
    assert started.alive()
    owner.kill()
    owner.communicate()
    until(lambda: not started.alive())


def test_an_ended_process_is_released(tmp_path: Path) -> None:
    """Its id may soon be reused."""
    with FloodgateProcess("fake-telegram", "--port", "0", env={}, home=tmp_path).start("http://") as process:
        assert process.stop() == 0
        process.kill()
        assert process._guard is not None
        assert process._guard._shell.poll() == 0
