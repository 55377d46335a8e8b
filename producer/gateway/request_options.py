"""Reads the options of a call: ``X-Floodgate-…`` headers, or parameters ``floodgate_…`` where headers are hard to set.

    X-Floodgate-Wait-Seconds      floodgate_wait_seconds      how long to wait for the result; 0: not at all
    X-Floodgate-Idempotency-Key   floodgate_idempotency_key   a repeat with this key waits for the first job's result
    X-Floodgate-Dedupe-Key        floodgate_dedupe_key        the same, shared with all producers of the bot
    X-Floodgate-Priority          floodgate_priority          interactive · bulk
    X-Floodgate-Bot               floodgate_bot               the bot to use, for keys of several bots
    X-Floodgate-At                floodgate_at                earliest time to send: Unix seconds, or ISO 8601 with zone
    X-Floodgate-Delay-Seconds     floodgate_delay_seconds     earliest time to send, relative to now
    X-Floodgate-Expires-Seconds   floodgate_expires_seconds   latest time to send, relative to now
    X-Floodgate-Worth-Seconds     floodgate_worth_seconds     until when it is worth sending, relative to now
    X-Floodgate-Campaign          floodgate_campaign          a label by which to find the job
    X-Floodgate-Coalesce          floodgate_coalesce          of the jobs with this key that wait, send the newest only
    X-Floodgate-Final             floodgate_final             true: send it even if a newer job with the key arrives
    X-Floodgate-On-Uncertain      floodgate_on_uncertain      resend · dead-letter

A header takes precedence over a parameter. The plain header ``Idempotency-Key`` is supported as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final

from floodgate.broker.settings.gateway import GatewaySettings
from floodgate.producer.gateway.answers import RefusalError

HEADER: Final = "x-floodgate-"
PARAMETER: Final = "floodgate_"


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """A caller's options for a call. ``options`` are :class:`floodgate.producer.core.JobOptions`."""

    wait_seconds: float
    bot: str | None
    options: Mapping[str, Any]

    @property
    def keyed(self) -> bool:
        """Whether the job has a key, so that an earlier job with the same id may exist."""
        return "dedupe_key" in self.options


def request_options(
    headers: Mapping[str, str], params: Mapping[str, Any], settings: GatewaySettings
) -> tuple[RequestOptions, dict[str, Any]]:
    """Separate a call's options from the parameters of the Bot API.

    Raises:
        RefusalError: an option is unknown, or its value is invalid.
    """
    said = {name: value for name, value in headers.items() if name.lower().startswith(HEADER)}
    asked = {_option(name): value for name, value in params.items() if is_option(name)}
    asked |= {_option(name): value for name, value in said.items()}
    if (key := headers.get("idempotency-key")) is not None:
        asked.setdefault("idempotency_key", key)
    if unknown := [name for name in asked if name not in _READERS]:
        raise RefusalError(400, f"Bad Request: unknown option {PARAMETER}{unknown[0][:40]}: {_nearest(unknown[0])}")
    read = {name: _read(name, value) for name, value in asked.items() if value not in ("", None)}
    wait = read.pop("wait_seconds", settings.wait_seconds)
    options = RequestOptions(min(wait, settings.longest_wait_seconds), read.pop("bot", None), _options(read))
    return options, {name: value for name, value in params.items() if not is_option(name)}


def is_option(name: str) -> bool:
    """Whether a parameter is meant for the gateway: no parameter of the Bot API begins like this."""
    return name.lower().startswith("floodgate")


def _option(name: str) -> str:
    """Return an option's name without the prefix of a header or a parameter."""
    return name.lower().replace("-", "_").removeprefix("x_").removeprefix(PARAMETER)


def _options(read: dict[str, Any]) -> dict[str, Any]:
    if (key := read.pop("idempotency_key", None)) is not None:
        read.setdefault("dedupe_key", f"idempotency:{key}")
    return {_OPTION_NAMES.get(name, name): value for name, value in read.items()}


_OPTION_NAMES: Final = {"delay_seconds": "delay", "expires_seconds": "expires", "worth_seconds": "worth_until"}


def _nearest(name: str) -> str:
    near = [known for known in _READERS if known.startswith(name)] or get_close_matches(name, _READERS, n=1)
    return f"did you mean {PARAMETER}{near[0]}?" if near else f"the options are {', '.join(_READERS)}"


def _read(name: str, value: Any) -> Any:
    try:
        return _READERS[name](value)
    except (ValueError, TypeError, OverflowError, OSError):
        raise RefusalError(400, f"Bad Request: invalid value for {PARAMETER}{name}: {str(value)[:60]!r}") from None


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(seconds)
    return seconds


def _moment(value: Any) -> datetime:
    try:
        return datetime.fromtimestamp(float(value), UTC)
    except (ValueError, TypeError):
        return datetime.fromisoformat(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(value)
        return str(value)

    return read


def _flag(value: Any) -> bool:
    return _one_of("true", "false")(str(value).lower()) == "true"


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "wait_seconds": _seconds,
    "bot": str,
    "priority": _one_of("interactive", "bulk"),
    "at": _moment,
    "delay_seconds": _seconds,
    "expires_seconds": _seconds,
    "worth_seconds": _seconds,
    "dedupe_key": str,
    "idempotency_key": str,
    "campaign": str,
    "coalesce": str,
    "final": _flag,
    "on_uncertain": _one_of("resend", "dead-letter"),
}
