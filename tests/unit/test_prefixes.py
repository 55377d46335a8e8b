"""Prefixes of log lines: whose each line is, in colour on a terminal, and none in JSON."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from floodgate.broker.settings.model import Settings
from floodgate.supervision.prefixes import configure_prefixed_logging, log_line, prefixes_of

TOKEN = "123456789:AA" + "Bc-_9" * 7 + "z"


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    (writer,) = logging.getLogger().handlers
    writer.flush()
    return capsys.readouterr().err.splitlines()


def test_each_line_begins_with_the_name_of_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_prefixed_logging(Settings(_env_file=None), ["worker-1", "gateway"])
    log_line("worker-1", "50 % done")
    log_line("gateway", "ready")
    logging.getLogger("floodgate.up").info("stopping")
    worker, gateway, own = written(capsys)
    assert (worker, gateway) == ("worker-1 | 50 % done", "gateway  | ready")
    assert own.startswith("up       | ") and "stopping" in own


def test_lines_of_parts_are_shown_whatever_the_level_and_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_prefixed_logging(Settings(_env_file=None, log_level="ERROR"), ["worker"])
    log_line("worker", f"calls {TOKEN}")
    assert written(capsys) == ["worker | calls 123456789:[redacted]"]


def test_lines_in_json_stay_objects(capsys: pytest.CaptureFixture[str]) -> None:
    configure_prefixed_logging(Settings(_env_file=None, log_format="json"), ["worker"])
    log_line("worker", '{"event": "ready"}')
    logging.getLogger("floodgate.up").info("stopping")
    first, own = written(capsys)
    assert first == '{"event": "ready"}'
    assert own.startswith("{") and own.endswith("}")


def test_colours_are_outside_of_the_line_and_differ() -> None:
    prefixes = prefixes_of(["worker", "gateway"], coloured=True)
    assert prefixes == {
        "up": "up      | ",
        "worker": "\033[36mworker  | \033[0m",
        "gateway": "\033[33mgateway | \033[0m",
    }
