"""What a call lacks, by the Bot API's table of methods."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from floodgate.broker.messages.methods import REQUIRED

# What stands for several parameters in the table, and the sets of which a call needs one.
_STANDS_FOR: Final[Mapping[str, tuple[frozenset[str], ...]]] = MappingProxyType(
    {
        "@message": (frozenset({"chat_id", "message_id"}), frozenset({"inline_message_id"})),
        "@recipient": (frozenset({"chat_id"}), frozenset({"user_id"})),
    }
)


def missing(method: str, params: Mapping[str, Any]) -> str | None:
    """The first missing parameter, in words for the caller; None if the call has all that are required."""
    for name in REQUIRED.get(method, ()):
        if name not in params and not _stood_for(name, params):
            return " or ".join(" and ".join(sorted(names)) for names in _STANDS_FOR.get(name, ({name},)))
    return None


def _stood_for(name: str, params: Mapping[str, Any]) -> bool:
    return any(names <= params.keys() for names in _STANDS_FOR.get(name, ()))
