"""What a call lacks, by the Bot API's table of methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from floodgate.broker.messages.method_table import METHODS, STANDS_FOR


def missing(method: str, params: Mapping[str, Any]) -> str | None:
    """The first missing parameter, in words for the caller; None if the call has all that are required."""
    known = METHODS.get(method)
    for name in known.required if known is not None else ():
        if name not in params and not _stood_for(name, params):
            return " or ".join(" and ".join(sorted(names)) for names in STANDS_FOR.get(name, ({name},)))
    return None


def _stood_for(name: str, params: Mapping[str, Any]) -> bool:
    return any(names <= params.keys() for names in STANDS_FOR.get(name, ()))
