"""Codes that name a recipient of a campaign, in what Telegram sends back: a button's data, and a deep link's payload.

    fg:u:<campaign>:<recipient>    the data of an unsubscribe button

The numbers are in base 36, so that the longest code has 18 of Telegram's 64 bytes. Anyone can send any code: whoever
reads one must compare the chat it came from with the recipient's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

UNSUBSCRIBE: Final = "fg:u:"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NUMBERS: Final = re.compile(r"([0-9a-z]{1,6}):([0-9a-z]{1,6})")


@dataclass(frozen=True, slots=True)
class RecipientCode:
    """Names a recipient by the id of the campaign and the number in its audience."""

    campaign: int
    number: int

    @property
    def unsubscribe_data(self) -> str:
        """The data of the recipient's unsubscribe button."""
        return f"{UNSUBSCRIBE}{_base36(self.campaign)}:{_base36(self.number)}"


NOBODY: Final = RecipientCode(0, 0)


def read_unsubscribe_data(data: object) -> RecipientCode | None:
    """Read the data of a button; None if it is not that of an unsubscribe button."""
    if not isinstance(data, str) or not data.startswith(UNSUBSCRIBE):
        return None
    return _code(_NUMBERS.fullmatch(data, len(UNSUBSCRIBE)))


def _code(found: re.Match[str] | None) -> RecipientCode | None:
    return RecipientCode(int(found[1], 36), int(found[2], 36)) if found else None


def _base36(number: int) -> str:
    digits = ""
    while number >= 36:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return _DIGITS[number] + digits
