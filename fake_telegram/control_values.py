"""Validates and converts the values of control requests. Without I/O; each error is one sentence for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from floodgate.fake_telegram.calls import as_integer
from floodgate.fake_telegram.limits import FloodLimits, Rate
from floodgate.fake_telegram.scenarios import ChatState, ChatTrouble, Fault, FaultKind

_RATES: Final = frozenset({"bot", "paid", "chat", "group", "edits", "typing", "long_typing", "cool_down"})
_Kind = TypeVar("_Kind", bound=StrEnum)


class ControlError(Exception):
    """An invalid control request. The message says why."""


def limits_from(current: FloodLimits, changes: Mapping[str, Any]) -> FloodLimits:
    """Return the limits with changes applied. A rate is ``[count, per_seconds]``, or null for no limit."""
    _check_names("limit", changes, {field.name for field in fields(FloodLimits)})
    try:
        changed: dict[str, Any] = {k: _rate(v) if k in _RATES else v for k, v in changes.items()}
        return replace(current, **changed)
    except ValueError as error:
        raise ControlError(str(error)) from None


def rate_as_json(rate: Rate | None) -> list[float] | None:
    """Return a rate as the control API returns it."""
    return None if rate is None else [rate.count, rate.per_seconds]


def limits_as_json(limits: FloodLimits) -> dict[str, Any]:
    """Return limits in the form that the control API returns and accepts."""
    shown = {field.name: getattr(limits, field.name) for field in fields(FloodLimits)}
    return {name: rate_as_json(value) if name in _RATES else value for name, value in shown.items()}


def _rate(value: Any) -> Rate | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return Rate(int(value[0]), float(value[1]))
    raise ControlError(f"A rate is [count, per_seconds] or null, not {value!r}.")


def chat_state_from(values: Mapping[str, Any]) -> ChatState:
    """Build the state of a chat.

    Raises:
        ControlError: The values are invalid.
    """
    _check_names("chat trouble", values, {field.name for field in fields(ChatState)})
    trouble = _kind("trouble", ChatTrouble, values.get("trouble"))
    if trouble is ChatTrouble.MIGRATED and not as_integer(values.get("migrate_to")):
        raise ControlError("A migrated chat needs migrate_to, the id of the chat it became.")
    if trouble is ChatTrouble.SLOW_MODE and not float(values.get("seconds") or 0) > 0:
        raise ControlError("Slow mode needs seconds, the delay of an answer.")
    if trouble is ChatTrouble.ANSWER and not values.get("description"):
        raise ControlError("An answer needs code and description.")
    return ChatState(**{**values, "trouble": trouble})


def fault_from(values: Mapping[str, Any]) -> Fault:
    """Build a fault of the server. Case in ``methods`` is ignored.

    Raises:
        ControlError: The values are invalid.
    """
    _check_names("fault", values, {field.name for field in fields(Fault)})
    kind = _kind("kind", FaultKind, values.get("kind"))
    probability = float(values.get("probability", 1.0))
    if not 0 <= probability <= 1:
        raise ControlError(f"A probability must be between 0 and 1, not {probability}.")
    methods = frozenset(str(name).lower() for name in values.get("methods") or ())
    chats = frozenset(as_integer(chat) for chat in values.get("chats") or ())
    return Fault(**{**values, "kind": kind, "probability": probability, "methods": methods, "chats": chats})


def latency_from(value: Any) -> tuple[float, float]:
    """Return the range of latencies, ``[lowest, highest]`` in milliseconds.

    Raises:
        ControlError: The value is not such a range.
    """
    if isinstance(value, list | tuple) and len(value) == 2 and 0 <= value[0] <= value[1]:
        return float(value[0]), float(value[1])
    raise ControlError(f"latency_ms is [lowest, highest], not {value!r}.")


def _kind(called: str, kinds: type[_Kind], value: Any) -> _Kind:
    try:
        return kinds(value)
    except ValueError:
        raise ControlError(f"{called} {value!r} is unknown; use one of: {', '.join(kinds)}.") from None


def _check_names(called: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ControlError(f"Unknown {called} {unknown[0]!r}; use one of: {', '.join(sorted(known))}.")
