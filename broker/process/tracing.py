"""Turns traces on, in a process of ours.

A process traces if the standard variables of OpenTelemetry name an exporter or an endpoint. Everything that needs
OpenTelemetry's packages is in :mod:`floodgate.broker.process.spans`, which is imported only then.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from floodgate.broker.process.spans import Tracing

logger = logging.getLogger("floodgate.traces")

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_DISABLED: Final = "OTEL_SDK_DISABLED"


def start_tracing(process: str, environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Start to trace in this process, if ``OTEL_*`` variables ask for it; None if not.

    Logs a warning and returns None if they do, and traces cannot be made: messages matter more.
    """
    if not is_wanted(environment):
        return None
    try:
        from floodgate.broker.process.spans import Tracing
    except ModuleNotFoundError as error:
        logger.warning(
            "no traces: %s is not installed: pip install 'telegram-floodgate[tracing]', or unset OTEL_*.", error.name
        )
        return None
    try:
        return Tracing.from_environment(process, environment)
    except ValueError as error:
        logger.warning("no traces: %s", error)
        return None


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether the variables name an exporter or an endpoint, and do not switch tracing off."""
    if environment.get(_DISABLED, "").strip().lower() == "true":
        return False
    exporter = environment.get(_EXPORTER, "").strip()
    if exporter:
        return exporter != "none"
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)
