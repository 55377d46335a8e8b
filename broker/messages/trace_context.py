"""The trace that a message belongs to, as W3C's ``traceparent`` and ``tracestate`` in its AMQP headers.

Whoever enqueues a job puts its active span there; every later message of the job (on the delay ladder, after a retry,
as a dead letter, replayed) carries the headers on. Nothing here needs OpenTelemetry: a program that has an active span
has imported OpenTelemetry's API, so it is looked up among the imported modules. Without it, or without an active span,
this costs a dictionary look-up and messages get no header.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
MAX_TRACESTATE: Final = 512  # characters: as many as W3C asks everybody to pass on; a longer one is dropped
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PRINTABLE: Final = re.compile(r"[ -~]+")

received: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("floodgate-trace", default=None)
"""The trace of the HTTP request that is being served, for a gateway that makes no spans itself."""


def active_trace() -> Mapping[str, str] | None:
    """Return the headers for a message that is enqueued now; None if no span is active."""
    api: Any = sys.modules.get("opentelemetry.trace")
    current_span = getattr(api, "get_current_span", None)  # another thread may be importing it
    if current_span is not None and (context := current_span().get_span_context()).is_valid:
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return _headers(traceparent, context.trace_state.to_header())
    return received.get()


def carried(headers: Mapping[str, Any] | None) -> Mapping[str, str] | None:
    """Return the trace in a message's headers, or in those of an HTTP request; None if there is none, or not a valid
    one."""
    traceparent = headers.get(TRACEPARENT) if headers else None
    if headers is None or not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        return None
    return _headers(traceparent, headers.get(TRACESTATE))


def is_sampled(headers: Mapping[str, str]) -> bool:
    """Return whether the caller's span is recorded, given its valid headers."""
    return bool(int(headers[TRACEPARENT][-2:], 16) & 1)


def _headers(traceparent: str, tracestate: object) -> Mapping[str, str]:
    if isinstance(tracestate, str) and len(tracestate) <= MAX_TRACESTATE and _PRINTABLE.fullmatch(tracestate):
        return {TRACEPARENT: traceparent, TRACESTATE: tracestate}
    return {TRACEPARENT: traceparent}
