"""Debian's Prometheus and promtool, which scripts/setup --tests provides. Nothing here uses port 9090."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from rabbitmq_node.engine import free_ports
from rabbitmq_node.process import ProcessGroup
from tests.processes import ROOT
from tests.waiting import until

UNPACKED = ROOT / ".cache" / "prometheus" / "usr" / "bin"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``."""
    path = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    assert path is not None, f"{name} is missing: scripts/setup --tests provides it"
    return path


def promtool(*arguments: str | Path) -> str:
    """Runs promtool to its end; AssertionError with its output if it fails."""
    ended = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


class PrometheusServer:
    """A Prometheus that scrapes one target each second, as the jobs of the example configuration do.

    Args:
        home: its folder.
        target: the host and port that it scrapes.
        rules: the file of rules.
    """

    def __init__(self, home: Path, target: str, rules: Path) -> None:
        self._home = home
        self._port = free_ports().amqp
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "floodgate", "static_configs": [{"targets": [target]}]}],
        }
        (home / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML, too
        self._group: ProcessGroup | None = None

    def start(self) -> Self:
        """Returns when it answers queries."""
        flags = {
            "--config.file": str(self._home / "prometheus.yml"),
            "--storage.tsdb.path": str(self._home / "data"),
            "--web.listen-address": f"127.0.0.1:{self._port}",
        }
        command = [program("prometheus"), *(f"{name}={value}" for name, value in flags.items())]
        log = self._home / "prometheus.log"
        self._group = ProcessGroup.start(command, dict(os.environ), log, guarded=True)
        until(lambda: "Server is ready" in log.read_text(errors="replace"), READY_SECONDS)
        return self

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop(STOP_SECONDS)
            self._group = None

    def query(self, expression: str) -> list[Any]:
        """The series that a query finds now."""
        answer: list[Any] = self._ask("query?" + urllib.parse.urlencode({"query": expression}))["result"]
        return answer

    def firing(self) -> dict[str, str]:
        """The summaries of the alerts that fire, by name."""
        alerts = self._ask("alerts")["alerts"]
        return {
            each["labels"]["alertname"]: each["annotations"]["summary"] for each in alerts if each["state"] == "firing"
        }

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_raised: object) -> None:
        self.stop()
