"""`floodgate up`: all parts of one machine as a user starts, loses and stops them."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from floodgate.broker.process.forced_exit import EXIT_FORCED
from floodgate.cli import EXIT_USAGE
from rabbitmq_node.process import ProcessId
from tests.acceptance.stage import TOKEN, Stage
from tests.processes import FloodgateProcess
from tests.waiting import until

PARTS_READY_SECONDS = 60.0  # seven interpreters start at once
BOT_MODULE = """
from floodgate import on_update

@on_update
async def handle(update, client):
    pass
"""


def up(stage: Stage, *arguments: str, ready: str = "The gateway is ready at") -> FloodgateProcess:
    stage.extra |= {"FLOODGATE_GATEWAY__PORT": "0", "FLOODGATE_WEB__ADDRESS": "127.0.0.1:0"}
    (stage.home / "mybot.py").write_text(BOT_MODULE)
    process = FloodgateProcess("up", *arguments, env=stage.env, home=stage.home, name="up")
    return stage.keep(process).start(ready, PARTS_READY_SECONDS)


def started(process: FloodgateProcess, part: str, times: int = 1) -> int:
    """Waits for the process of a part, the first or a later one, and returns its id."""
    pattern = re.compile(rf"{part} started: process (\d+)")
    return int(until(lambda: pattern.findall(process.log)[times - 1 : times])[0])


def said(process: FloodgateProcess, words: str) -> list[str]:
    """The parts that have said this, in order."""
    return re.findall(rf"^(\S+) +\| .*\b{words}\b", process.log, re.MULTILINE)


@pytest.mark.timeout(300)
def test_everything_runs_comes_back_after_a_crash_and_stops_in_order(stage: Stage) -> None:
    process = up(stage, "--workers", "2", "--updates", "mybot:handle", "--with", "campaigns")
    names = ["worker-1", "worker-2", "handlers", "updates", "campaigns", "gateway", "web"]
    parts = [ProcessId.of(started(process, name)) for name in names]
    ready = {"worker-1", "worker-2", "handlers"}
    until(lambda: set(said(process, "worker ready")) == ready, PARTS_READY_SECONDS)
    for words in ("campaigns ready", "receiver ready: polling", "The pages are ready at"):
        until(lambda words=words: words in process.log, PARTS_READY_SECONDS)

    os.kill(parts[0].pid, signal.SIGKILL)
    parts.append(ProcessId.of(started(process, "worker-1", 2)))
    process.said("worker-1 was ended by SIGKILL")
    until(lambda: said(process, "worker ready").count("worker-1") == 2, PARTS_READY_SECONDS)

    gateway = process.said("The gateway is ready at").rpartition(" ")[2]
    body = json.dumps({"chat_id": 42, "text": "through everything"}).encode()
    request = urllib.request.Request(f"{gateway}/bot{TOKEN}/sendMessage", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["result"]["text"] == "through everything"
    assert stage.sent().count("through everything") == 1

    process.signal(signal.SIGINT)
    assert process.wait() == 0, process.log
    assert not any(part.alive() for part in parts)
    assert TOKEN.partition(":")[2] not in process.log
    stopped = said(process, "stopped")
    assert set(stopped[:2]) == {"updates", "campaigns"}
    assert (stopped[2], set(stopped[3:])) == ("handlers", {"worker-1", "worker-2"})
    assert "Traceback" not in process.log


def test_a_part_with_a_wrong_setting_ends_up_with_its_sentence_and_exit_code(stage: Stage) -> None:
    process = up(
        stage, "--workers", "0", "--without", "gateway", "--without", "web", "--updates", "mybot:nothing", ready="up "
    )
    assert process.wait() == EXIT_USAGE, process.log
    assert not Path(f"/proc/{started(process, 'updates')}").exists()
    last = process.log.splitlines()[-1]
    assert last == "handlers cannot start. The module 'mybot' has no 'nothing' (from mybot:nothing). It has handle."
    assert process.log.count("handlers started") == 1


def test_a_second_ctrl_c_kills_the_calls_under_way(stage: Stage) -> None:
    stage.control.set_server(latency_ms=(20_000, 20_000))
    process = up(stage, "--without", "gateway", "--without", "web", ready="worker ready")
    stage.client().send_message(chat_id=42, text="under way")
    until(lambda: stage.control.stats().unanswered == 1)
    worker = ProcessId.of(started(process, "worker"))
    process.signal(signal.SIGINT)
    process.said("finishing the calls")
    process.signal(signal.SIGINT)
    assert process.wait(10) == EXIT_FORCED
    assert not worker.alive()
