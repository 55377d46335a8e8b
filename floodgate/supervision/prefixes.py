"""Log lines of several processes on one standard error, each with the name of its process in front.

The thread that writes this process's own log writes the lines of its parts as well, so none is torn, and a terminal
that has stalled keeps no part waiting. With ``FLOODGATE_LOG_FORMAT=json`` lines have no prefix, as each is an object.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from floodgate.broker.process.logs import configure_logging
from floodgate.broker.settings.model import Settings

OWN: Final = "up"
PART: Final = "floodgate_part"  # a record with this attribute is a line of that part
# Cyan, yellow, green, magenta, blue: legible on dark and on light terminals, and not red, which means an error.
COLOURS: Final = (36, 33, 32, 35, 34)


class PrefixFormatter(logging.Formatter):
    """Writes lines of parts as they are, and other records as ``inner`` does, with the prefix of their process."""

    def __init__(self, inner: logging.Formatter, prefixes: Mapping[str, str]) -> None:
        super().__init__()
        self._inner = inner
        self._prefixes = prefixes

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, or lines: a traceback has several."""
        name = getattr(record, PART, None)
        text = self._inner.format(record) if name is None else record.getMessage()
        prefix = self._prefixes.get(name or OWN, "")
        return "\n".join(prefix + line for line in text.split("\n"))


def prefixes_of(names: Sequence[str], *, coloured: bool) -> dict[str, str]:
    """Return the prefix of this process and of each part, all of one width."""
    width = max(map(len, (OWN, *names)))
    plain = {name: f"{name:{width}} | " for name in (OWN, *names)}
    if not coloured:
        return plain
    return plain | {name: f"\033[{COLOURS[n % len(COLOURS)]}m{plain[name]}\033[0m" for n, name in enumerate(names)}


def configure_prefixed_logging(settings: Settings, names: Sequence[str]) -> None:
    """Log to standard error as the settings say, with prefixes for this process and the parts of these names."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    prefixes = {} if settings.log_format == "json" else prefixes_of(names, coloured=coloured)
    configure_logging(settings, lambda inner: PrefixFormatter(inner, prefixes))


def log_line(part: str, line: str) -> None:
    """Log a line of a part as it is, whatever the log level: the part has already decided that."""
    record = logging.LogRecord("floodgate.up", logging.INFO, __file__, 0, line, (), None)
    setattr(record, PART, part)
    logging.getLogger().handle(record)
