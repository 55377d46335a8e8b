"""Logging for Floodgate's own processes. No secret reaches a log line.

Library code logs to ``floodgate.<area>`` through the standard library and configures nothing. Entry points call
:func:`configure_logging` once. Secrets are removed from the finished text of a line, which includes arguments, extra
fields and tracebacks, so it does not matter how a secret got into it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr

from floodgate.broker.process.log_writer import LogWriter
from floodgate.broker.settings.model import Settings

REDACTED: Final = "[redacted]"
# A token is the bot's id, a colon and 35 characters. The id is public and stays, to tell bots apart. In a URL the colon
# may be escaped. The number of digits is bounded so that long numbers cost linear time.
_TOKEN: Final = re.compile(r"(?<!\d)(\d{3,20}(?::|%3[Aa]))[A-Za-z0-9_-]{30,}")
# The password in scheme://user:password@host. Greedy to the last @ before a slash, since passwords hold @ in practice.
_URL_PASSWORD: Final = re.compile(r"(://[^\s:/@]{0,200}:)[^\s/]{1,500}@")

# Loggers of the libraries used, and the least severe level that is logged.
_QUIET: Final = {
    "alembic": logging.WARNING,
    "opentelemetry": logging.ERROR,  # a warning for each retry of an export
    "pika": logging.WARNING,
    "pika.channel": logging.ERROR,  # why the server closed a channel: Floodgate logs that in one sentence
    "pika.adapters": logging.CRITICAL,  # a traceback per failed connection: Floodgate logs that in one sentence
    "pika.connection": logging.CRITICAL,  # a guess at the reason, likewise
    "httpx": logging.WARNING,  # logs URLs, tokens included, at INFO
    "httpcore": logging.WARNING,
    "telegram": logging.WARNING,  # logs the API URL, token included, at DEBUG
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
}


def redact(text: str) -> str:
    """Remove bot tokens, and passwords in URLs, from ``text``."""
    return _URL_PASSWORD.sub(rf"\g<1>{REDACTED}@", _TOKEN.sub(rf"\g<1>{REDACTED}", text))


class RedactTokens(logging.Filter):
    """Redacts messages as they are logged, for a logger that must be safe under any logging configuration."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record's message; keep the record."""
        record.msg, record.args = redact(record.getMessage()), ()
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedactTokens)  # so that a logger keeps only one, however often it is added

    def __hash__(self) -> int:
        return hash(RedactTokens)


class RedactingFormatter(logging.Formatter):
    """Formats as ``inner`` does, then redacts text that looks like a secret, and the ``known`` secrets."""

    def __init__(self, inner: logging.Formatter, known: Iterable[SecretStr] = ()) -> None:
        super().__init__()
        self._inner = inner
        texts = {form for secret in known for form in _forms(secret.get_secret_value())}
        longest_first = sorted(map(re.escape, texts), key=len, reverse=True)
        self._known = re.compile("|".join(longest_first)) if texts else None

    def format(self, record: logging.LogRecord) -> str:
        """Format the record, then redact the finished text."""
        line = self._inner.format(record)
        return redact(self._known.sub(REDACTED, line) if self._known else line)


def _forms(secret: str) -> tuple[str, str]:
    """Return a secret as it is, and as it appears in a URL."""
    return secret, quote(secret, safe="")


def configure_logging(
    settings: Settings, arrange: Callable[[logging.Formatter], logging.Formatter] = lambda formatter: formatter
) -> None:
    """Log to stderr as configured in the settings. For entry points only: it replaces the root logger's handlers.

    A separate thread writes the lines, so a stalled stderr does not block the process. ``arrange`` may wrap the
    formatter that makes a line of a record; secrets are removed from what it returns.
    """
    stream = logging.StreamHandler(sys.stderr)
    keys = [key for of_bot in settings.gateway.keys.values() for key in of_bot]  # unlike tokens, they match no pattern
    stream.setFormatter(RedactingFormatter(arrange(_formatter(settings.log_format == "json")), keys))
    root = logging.getLogger()
    root.handlers[:] = [LogWriter(stream)]
    root.setLevel(settings.log_level)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def _formatter(as_json: bool) -> logging.Formatter:
    import structlog  # comes with the extra `worker`, which only processes need

    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.types.Processor]
    if as_json:
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        # Not rich's tracebacks: they show local variables, and wrap lines, even within a token.
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
    )
