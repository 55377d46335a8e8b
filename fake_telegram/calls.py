"""A decoded Bot API call: the bot, the method and its parameters.

The Bot API takes parameters from the query string, from JSON, from a urlencoded form or from a multipart form, and in
any of them a structured value may be written as JSON text. A ``Call`` reads a parameter as Telegram's server
does: invalid numbers count as 0; ``true``, ``yes`` and ``1`` are true, and everything else is false.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from floodgate.fake_telegram.errors import bad_request

KEPT_SOURCE_BYTES: Final = 64 * 1024  # of a longer body, the record keeps only the size
_TRUE: Final = frozenset({"true", "yes", "1"})


@dataclass(frozen=True, slots=True)
class FormUpload:
    """A file in a multipart form."""

    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class CallSource:
    """The undecoded parameters, which keep a record small."""

    encoding: str
    """``form`` or ``json``."""
    content: bytes

    def params(self) -> dict[str, Any]:
        """Decode the parameters."""
        return decode_form(self.content) if self.encoding == "form" else decode_json(self.content)


EMPTY: Final = CallSource("form", b"")


@dataclass(frozen=True, slots=True)
class Call:
    """A call by ``bot_id`` of ``method`` (lower case)."""

    bot_id: int
    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    uploads: Mapping[str, FormUpload] = field(default_factory=dict)
    source: CallSource = EMPTY

    def has(self, name: str) -> bool:
        """Return whether the parameter was sent, even if it is empty."""
        return self.params.get(name) is not None

    def text(self, name: str) -> str:
        """Return the parameter as text; empty if it was not sent."""
        return as_text(self.params.get(name))

    def required(self, name: str) -> str:
        """Return the parameter as text.

        Raises:
            ApiError: It is missing or empty.
        """
        value = self.text(name)
        if not value:
            raise bad_request(f'parameter "{name}" is required')
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """Return the parameter as an integer; 0 if it is not a number, ``default`` if it was not sent."""
        value = self.params.get(name)
        return default if value is None or value == "" else as_integer(value)

    def number(self, name: str) -> float:
        """Return the parameter as a float; 0 if it is not a number."""
        try:
            return float(self.text(name))
        except ValueError:
            return 0.0

    def flag(self, name: str) -> bool:
        """Return the parameter as a boolean."""
        value = self.params.get(name)
        return value if isinstance(value, bool) else as_text(value).strip().lower() in _TRUE

    def structure(self, name: str, called: str) -> Any:
        """Return the parameter as a JSON value; None if it is empty. ``called`` is its name in Telegram's error.

        Raises:
            ApiError: It is not valid JSON.
        """
        value = self.params.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise bad_request(f"can't parse {called} JSON object") from None

    def array(self, name: str, called: str) -> list[Any]:
        """Return the parameter as a JSON array; empty if it was not sent.

        Raises:
            ApiError: It is not a JSON array.
        """
        value = self.structure(name, called)
        if value is None:
            return []
        if not isinstance(value, list):
            raise bad_request(f"expected an Array of {called}")
        return value


def as_text(value: Any) -> str:
    """Return a decoded parameter as the text that a form would contain."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else json.dumps(value)


def as_integer(value: Any) -> int:
    """Return a decoded parameter as an integer of at most 64 bits, as in Telegram; 0 if it is not one."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return number if -(2**63) <= number < 2**63 else 0


def decode_form(content: bytes) -> dict[str, Any]:
    """Decode a query string or urlencoded form."""
    return dict(parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True))


def decode_json(content: bytes) -> dict[str, Any]:
    """Decode a JSON body.

    Raises:
        ApiError: It is not a JSON object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise bad_request("can't parse JSON object") from None
    if not isinstance(value, dict):
        raise bad_request("can't parse JSON object: object expected")
    return value


def kept(source: CallSource) -> CallSource:
    """Return the source as the record keeps it: unchanged, or only its size if it is long."""
    if len(source.content) <= KEPT_SOURCE_BYTES:
        return source
    return CallSource("json", json.dumps({"too_long_to_keep_bytes": len(source.content)}).encode())
