"""Codes that name a recipient of a campaign, in what Telegram sends back: a button's data, and a deep link's payload.

    fg:u:<campaign>:<recipient>    the data of an unsubscribe button
    fg_<campaign>_<recipient>      the payload of a deep link, which arrives as "/start <payload>"

The numbers are in base 36, so that the longest code has 18 of Telegram's 64 bytes. Anyone can send any code: whoever
reads one must compare the chat it came from with the recipient's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

UNSUBSCRIBE: Final = "fg:u:"
START: Final = "fg_"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NUMBERS: Final = re.compile(r"([0-9a-z]{1,6})[:_]([0-9a-z]{1,6})")


@dataclass(frozen=True, slots=True)
class RecipientCode:
    """Names a recipient by the id of the campaign and the number in its audience."""

    campaign: int
    number: int

    @property
    def unsubscribe_data(self) -> str:
        """The data of the recipient's unsubscribe button."""
        return f"{UNSUBSCRIBE}{_base36(self.campaign)}:{_base36(self.number)}"

    @property
    def start_payload(self) -> str:
        """The payload of the recipient's deep link."""
        return f"{START}{_base36(self.campaign)}_{_base36(self.number)}"


NOBODY: Final = RecipientCode(0, 0)
"""In messages that are sent to try them out."""


def read_unsubscribe_data(data: object) -> RecipientCode | None:
    """Read the data of a button; None if it is not that of an unsubscribe button."""
    return _read(UNSUBSCRIBE, data) if isinstance(data, str) else None


def read_start_payload(payload: str) -> RecipientCode | None:
    """Read the payload of a deep link; None if it is not one of a campaign."""
    return _read(START, payload)


def _read(prefix: str, text: str) -> RecipientCode | None:
    found = _NUMBERS.fullmatch(text, len(prefix)) if text.startswith(prefix) else None
    return RecipientCode(int(found[1], 36), int(found[2], 36)) if found else None


def _base36(number: int) -> str:
    digits = ""
    while number >= 36:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return _DIGITS[number] + digits
