"""The benchmark of streaming, small: real processes stream, and the judge finds every answer complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.stage.programs import ROOT
from tests.services import Vhost

AT_MOST_SECONDS = 100.0
CONTENDERS = ("floodgate", "ptb, an edit a second")
SMALL = ("--chats", "4", "--groups", "1", "--tokens", "60", "--cut-off", "30")


def test_the_benchmark_of_streaming_finds_every_answer_complete(vhost: Vhost) -> None:
    command = [sys.executable, "-m", "benchmarks", "streaming", *SMALL, "--contenders", *CONTENDERS]
    env = {**os.environ, "FLOODGATE_RABBITMQ_URL": vhost.url}
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=AT_MOST_SECONDS)
    assert "written to " in run.stderr, run.stderr
    written = Path(run.stderr.rpartition("written to ")[2].strip())
    rounds = json.loads(written.read_text())["results"]
    written.unlink()
    assert [each["contender"] for each in rounds] == [*CONTENDERS]
    assert {each["missing"] for each in rounds} == {0}, run.stdout
    assert rounds[0]["streamed"]["by_drafts"] == 3
    assert all(each["streamed"]["last_seconds"] > 1.9 for each in rounds)
    assert "What is asked of Floodgate" in run.stdout
