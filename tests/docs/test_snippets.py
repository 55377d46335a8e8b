"""All examples in README.md and docs/ run: authors of pages need do nothing for it.

A page is read from top to bottom, in its own folder, with a private RabbitMQ, fake Telegram, state file and token
in the environment.

```python            runs; the blocks of a page share one interpreter
```python file=a.py   is written to that file, for later blocks; so is any other language
```python fragment    is not a complete program: it must compile
```python clients     is a program for another library: it runs in the clients' environment and must end with 0
```javascript         the same, as a module for Node; without Node it is not read
```console            each `$ command` runs and must exit with 0; lines below it are its output, `...` for anything
```json               must parse

`export NAME=value` applies to the rest of the page; with a `…` in it, the value is the reader's own and ours is kept.
A command that serves (``SERVICES``) runs in the background until the page ends, must be up before the next line, and
must exit with 0. ``<!-- snippets: worker -->`` in a page starts a worker first.
"""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from floodgate.fake_telegram.server import running_fake
from rabbitmq_node.engine import free_ports
from tests.acceptance.gateway.programs import clients_python, node_modules
from tests.acceptance.stage import TOKEN, Stage
from tests.docs.pages import ROOT, Block, Command, blocks, commands, pages
from tests.processes import environment
from tests.services import Vhost
from tests.waiting import until

SERVICES = (
    "floodgate worker",
    "floodgate gateway",
    "floodgate updates",
    "floodgate campaigns run",
    "floodgate metrics",
    "floodgate fake-telegram",
    "floodgate web",
    "dramatiq ",
    "python -m floodgate.fake_telegram",
)
# Commands run by a test of their own or only by a reader. The file must at least exist.
ELSEWHERE = {
    "./scripts/demo": "sets the machine up; its own test runs the demo",
    "./scripts/test": "is what runs this",
    "scripts/rabbitmq": "starts a server that outlives the test; tests/integration/test_rabbitmq_node.py runs it",
    "scripts/cluster": "runs until it is stopped; tests/integration/test_cluster.py runs it",
    "docker": "needs Docker",
    "rabbitmqctl": "is for a server of the reader's; tests/integration/test_accounts.py runs it",
    "rabbitmq-queues": "is for a cluster of the reader's; tests/integration/test_cluster.py runs it",
    "redis-cli": "is for servers of the reader's",
    "pip install": "changes the environment that runs this",
    "python -m benchmarks": "takes minutes",
}
COMMAND_SECONDS = 90.0
BLOCK_SECONDS = 60.0
READY_SECONDS = 30.0
PAGE_PORTS = ("8080", "8081", "9464", "9465")  # as pages show them; each run puts free ones in their place

# Reads blocks as JSON lines and answers each with a line. The output of the blocks goes to its standard error.
INTERPRETER = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
namespace = {"__name__": "__main__"}
for line in sys.stdin:
    page, number, text = json.loads(line)
    exec(compile("\\n" * (number - 1) + text, page, "exec"), namespace)
    print("done", file=answers)
"""


class Reader:
    """Reads one page as its reader would. Leaving the `with` ends everything it started."""

    def __init__(self, env: dict[str, str], home: Path) -> None:
        self.env = environment({**env, "PATH": f"{home}/bin:{os.environ['PATH']}"})
        self.home = home
        self.ports = {shown: str(free_ports().amqp) for shown in PAGE_PORTS}
        self.env["FLOODGATE_GATEWAY__PORT"] = self.ports["8080"]
        self.env["FLOODGATE_WEB__ADDRESS"] = "127.0.0.1:0"
        self.services: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.interpreter: subprocess.Popen[str] | None = None
        write_commands(home / "bin")

    def read(self, block: Block) -> None:
        text = block.text
        for shown, port in self.ports.items():
            text = text.replace(shown, port)
        match block.language, block.words:
            case "python", ():
                self.interpret(block, text)
            case "python", ("fragment",):
                compile(text, str(block), "exec")
            case "python", ("clients",):
                self.run_client(block, f"client-{block.line}.py", text)
            case "javascript", ():
                self.run_client(block, f"client-{block.line}.mjs", text)
            case _, (word,) if word.startswith("file="):
                (self.home / word.removeprefix("file=")).write_text(text)
            case "console", ():
                for command in commands(text):
                    self.run(command)
            case "json", ():
                json.loads(text)
            case "python" | "javascript" | "console" | "json", words:
                pytest.fail(f"{block}: what does {words} mean?")

    def interpret(self, block: Block, text: str) -> None:
        if self.interpreter is None:
            self.interpreter = subprocess.Popen(
                [sys.executable, "-c", INTERPRETER],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self.home / "python.log").open("wb"),
                text=True,
            )
        assert self.interpreter.stdin and self.interpreter.stdout
        print(json.dumps([block.page, block.line, text]), file=self.interpreter.stdin, flush=True)
        with killed_after(self.interpreter, BLOCK_SECONDS):
            answer = self.interpreter.stdout.readline()
        assert answer == "done\n", f"{block} failed:\n{(self.home / 'python.log').read_text()}"

    def run_client(self, block: Block, name: str, text: str) -> None:
        """Run a program that is written with another library."""
        path = self.home / name
        path.write_text(text)
        if path.suffix == ".mjs":
            if (modules := node_modules()) is None:
                warnings.warn(f"{block} was not run: no Node here", stacklevel=1)
                return
            link = self.home / "node_modules"
            if not link.exists():
                link.symlink_to(modules)
        python = [clients_python()] if path.suffix == ".py" else ["node"]
        done = subprocess.run(
            [*python, str(path)], env=self.env, cwd=self.home, capture_output=True, text=True, timeout=BLOCK_SECONDS
        )
        assert done.returncode == 0, f"{block} failed:\n{done.stdout}{done.stderr}"

    def run(self, command: Command) -> None:
        first_words = command.text.split("#")[0].strip()
        if elsewhere := next((words for words in ELSEWHERE if f"{first_words} ".startswith(f"{words} ")), None):
            assert "/" not in elsewhere or os.access(ROOT / elsewhere, os.X_OK), f"there is no {elsewhere}"
        elif first_words.startswith("export "):
            self.export(first_words)
        elif first_words.startswith(SERVICES):
            self.serve(command)
        else:
            self.end_well(command)

    def export(self, text: str) -> None:
        for word in shlex.split(text)[1:]:
            name, _, value = word.partition("=")
            if "…" not in value:
                self.env[name] = value
            assert name in self.env, f"{name} is the reader's own, and we have none"

    def serve(self, command: Command) -> None:
        log = self.home / f"service-{len(self.services)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command.text}"],
                env=self.env,
                cwd=self.home,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.services.append((command.text, process))
        until(lambda: "ready" in log.read_text() or process.poll() is not None, READY_SECONDS)
        assert process.poll() is None, f"$ {command.text}\nended:\n{log.read_text()}"
        check_output(command, log.read_text())

    def end_well(self, command: Command) -> None:
        ran = subprocess.run(
            ["bash", "-c", command.text],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        assert ran.returncode == 0, f"$ {command.text}\nended with {ran.returncode}:\n{ran.stdout}"
        check_output(command, ran.stdout)

    def close_book(self) -> None:
        """Ends the page: its services must exit with 0."""
        for text, process in self.services:
            assert process.poll() is None, f"$ {text}\nended with {process.returncode} before the page did"
            process.send_signal(signal.SIGTERM)
            assert process.wait(COMMAND_SECONDS) == 0, f"$ {text}\nended with {process.returncode} on SIGTERM"

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [process for _, process in self.services] + ([self.interpreter] if self.interpreter else []):
            process.kill()
            process.wait()


@contextlib.contextmanager
def killed_after(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Bounds a read that has no timeout of its own: it ends the process, which ends the read."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_output(command: Command, printed: str) -> None:
    if command.expected:
        expected = command.expected.replace("…", "...")
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(expected, printed, flags), (
            f"$ {command.text}\nshall print:\n{command.expected}\nand prints:\n{printed}"
        )


def write_commands(folder: Path) -> None:
    """`python`, `floodgate` and `dramatiq` as an installed Floodgate has them."""
    folder.mkdir()
    for name, words in {"python": "", "floodgate": "-m floodgate ", "dramatiq": "-m dramatiq "}.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        script.chmod(0o755)


@pytest.fixture
def stage(vhost: Vhost, tmp_path: Path) -> Iterator[Stage]:
    with running_fake() as fake:
        made = Stage(vhost.url, fake.url, tmp_path)
        made.vouch_idle()
        yield made
        made.close()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_on_the_page_runs(page: Path, stage: Stage) -> None:
    if "<!-- snippets: worker -->" in page.read_text():
        stage.worker()
    env = {name: value for name, value in stage.env.items() if name != "FLOODGATE_BOTS"}
    with Reader({**env, "FLOODGATE_BOT_TOKEN": TOKEN}, stage.home) as reader:
        for block in blocks(page):
            reader.read(block)
        reader.close_book()
