"""No secret leaves in a log line, however it got into it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from floodgate.broker.process.log_writer import MOST_QUEUED, LogWriter
from floodgate.broker.process.logs import REDACTED, RedactTokens, configure_logging, redact
from floodgate.broker.settings.model import Settings

TOKEN = "123456789:AA" + "Bc-_9" * 7 + "z"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"token {TOKEN}.", "token 123456789:[redacted]."),
        (f"https://api.telegram.org/bot{TOKEN}/getMe", "https://api.telegram.org/bot123456789:[redacted]/getMe"),
        (f"/bot{TOKEN.replace(':', '%3A')}/getMe", "/bot123456789%3A[redacted]/getMe"),
        (f"{TOKEN} {TOKEN}", "123456789:[redacted] 123456789:[redacted]"),
        ("amqp://guest:s3cret@rabbit:5672/%2F", "amqp://guest:[redacted]@rabbit:5672/%2F"),
        ("amqps://u:p@ss:w0rd@h/v", "amqps://u:[redacted]@h/v"),
        ("redis://:s3cret@h:6379/0", "redis://:[redacted]@h:6379/0"),
        ("a amqp://u:one@h, amqp://u:two@h", "a amqp://u:[redacted]@h, amqp://u:[redacted]@h"),
        ("http://127.0.0.1:8081/ at 12:30:45", "http://127.0.0.1:8081/ at 12:30:45"),
        ("job 0f3c2a, chat -1001234567890", "job 0f3c2a, chat -1001234567890"),
    ],
)
def test_only_tokens_and_passwords_are_redacted(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_long_lines_cost_linear_time() -> None:
    for evil in ("1" * 200_000, "1:" * 100_000, "://a:" * 40_000, "://" + "a" * 200_000):
        assert redact(evil)


def written(capsys: pytest.CaptureFixture[str]) -> str:
    """The output on standard error, once the log's thread has written it."""
    (writer,) = logging.getLogger().handlers
    writer.flush()
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_gateway_key_of_any_form_is_redacted(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = "short words: a key"
    gateway = {"keys": {"default": [SecretStr(key), SecretStr(f"{key}, longer")]}}
    configure_logging(Settings(_env_file=None, log_format=log_format, bot_token=TOKEN, gateway=gateway))
    logging.getLogger("uvicorn.error").warning("GET //bot%s/x and //botshort%%20words%%3A%%20a%%20key/x", key)
    logging.getLogger("floodgate.test").info("%s, longer", key)
    said = written(capsys)
    assert "words" not in said
    assert "longer" not in said
    assert said.count(REDACTED) == 3


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_every_part_of_a_log_line_is_redacted(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(_env_file=None, log_format=log_format))
    logger = logging.getLogger("floodgate.test")
    url = f"https://api.telegram.org/bot{TOKEN}/sendMessage"
    logger.info("plain %s", url)
    logger.info("by an extra", extra={"url": url})
    try:
        raise ValueError(url) from RuntimeError("amqp://guest:s3cret@h")
    except ValueError:
        logger.exception("by a traceback")
    logged = written(capsys)
    assert TOKEN not in logged
    assert "s3cret" not in logged
    assert logged.count(REDACTED) >= 4
    assert "Traceback" in logged
    assert "test_logs.py" in logged


def test_json_lines_are_one_object_each_with_level_logger_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(_env_file=None, log_format="json"))
    logging.getLogger("floodgate.test").warning("two\nlines", extra={"job": "j1"})
    line = json.loads(written(capsys))
    assert (line["event"], line["level"], line["logger"], line["job"]) == (
        "two\nlines",
        "warning",
        "floodgate.test",
        "j1",
    )
    assert line["timestamp"].endswith("Z")


def test_libraries_that_log_urls_or_too_much_are_quiet_even_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(_env_file=None, log_level="DEBUG"))
    for name in ("httpx", "telegram.Bot", "pika.channel", "aiohttp.access", "alembic.runtime.migration"):
        logging.getLogger(name).info("noise")
    logging.getLogger("floodgate.test").debug("ours")
    assert "noise" not in (logged := written(capsys))
    assert "ours" in logged


def test_after_configuring_twice_lines_are_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        configure_logging(Settings(_env_file=None))
    logging.getLogger("floodgate.test").info("once")
    assert written(capsys).count("once") == 1


def test_a_filtered_logger_is_safe_with_any_configuration(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("floodgate.test-filtered")
    logger.addFilter(RedactTokens())
    logger.addFilter(RedactTokens())
    assert len(logger.filters) == 1
    logger.warning("at %s", TOKEN)
    assert caplog.messages == ["at 123456789:[redacted]"]


class Terminal(logging.Handler):
    """Accepts nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.takes.wait(30)
        self.lines.append(record.getMessage())


def test_a_blocked_terminal_delays_nothing_and_only_lines_beyond_the_limit_are_dropped() -> None:
    terminal = Terminal()
    writer = LogWriter(terminal)
    logger = logging.getLogger("floodgate.test-blocked")
    logger.propagate = False
    logger.addHandler(writer)
    for number in range(MOST_QUEUED + 10):  # more than it queues; none of these calls waits
        logger.warning("line %d", number)
    terminal.takes.set()
    writer.flush()
    logger.warning("the last")
    writer.flush()
    logger.removeHandler(writer)
    assert terminal.lines[:2] == ["line 0", "line 1"]
    assert "log lines were dropped" in terminal.lines[-2]
    assert terminal.lines[-1] == "the last"


def test_a_log_line_shows_its_arguments_as_they_were_when_logged() -> None:
    terminal, values = Terminal(), [1]
    writer = LogWriter(terminal)
    writer.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%s", (values,), None))
    values.append(2)
    terminal.takes.set()
    writer.flush()
    assert terminal.lines == ["[1]"]
