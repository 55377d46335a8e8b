"""The gateway as a process, and programs written with third-party libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.processes import ROOT, FloodgateProcess

READY = "The gateway is ready at "
PROGRAM_SECONDS = 100.0
CLIENTS = ROOT / "tests" / "clients" / "libraries"


class GatewayProcess:
    """`floodgate gateway`. A restart keeps the port, so that its callers find it."""

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._env, self._home = dict(env), home
        self._process: FloodgateProcess | None = None
        self._starts = 0
        self.url = ""

    def start(self) -> Self:
        self._starts += 1
        name = f"gateway-{self._starts}"
        self._process = FloodgateProcess("gateway", env=self._env, home=self._home, name=name)
        # uvicorn's wording; from here on requests are answered.
        self._process.start("Application startup complete")
        self.url = next(line.removeprefix(READY) for line in self.log.splitlines() if line.startswith(READY))
        self._env["FLOODGATE_GATEWAY__PORT"] = self.url.rpartition(":")[2]
        return self

    @property
    def running(self) -> FloodgateProcess:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self.running.log

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_raised: object) -> None:
        self.running.kill()


def clients_python() -> str:
    """The interpreter with the third-party libraries: their pins differ from ours (scripts/setup --tests makes it)."""
    path = Path(os.environ.get("FLOODGATE_CLIENTS_VENV", ROOT / ".venv-clients")) / "bin" / "python"
    assert path.exists(), f"{path} is missing: scripts/setup --tests makes it"
    return str(path)


def node_modules() -> Path | None:
    """The folder of grammY and Telegraf; None without Node."""
    path = Path(os.environ.get("FLOODGATE_CLIENTS_NODE", ROOT / ".cache" / "clients")) / "node_modules"
    return path if shutil.which("node") and path.exists() else None


def run_client(program: str, *arguments: str, python: str | None = None) -> Any:
    """Parses the output of a client program, which is JSON."""
    path = CLIENTS / program
    command = ["node", str(path)] if path.suffix == ".cjs" else [python or clients_python(), str(path)]
    env = {**os.environ, "PYTHONPATH": "", "NODE_PATH": str(node_modules() or "")}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=PROGRAM_SECONDS, env=env, check=False
    )
    assert done.returncode == 0, f"{program} failed:\n{done.stderr[-3000:]}"
    return json.loads(done.stdout)


def run_command(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program of the clients' environment to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS, cwd=home, check=False)
