"""Questions about methods of the Bot API, answered from the one table (:mod:`floodgate.broker.messages.method_table`).

Names are matched without regard to case, as Telegram does. A method that is newer than the table is classed by its
verb: ``send``, ``copy`` and ``forward`` make messages, ``edit`` edits, ``answer`` answers a query; all others draw on
no budget. ``FLOODGATE_METHODS`` adds or corrects classes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from floodgate.broker.errors import UnknownMethodError
from floodgate.broker.messages.method_table import METHODS, BotApiMethod, Charge

logger = logging.getLogger("floodgate.methods")

Charges = Mapping[str, Charge]
"""The setting ``FLOODGATE_METHODS``: classes by name in lower case."""

_BY_LOWER: Final[Mapping[str, BotApiMethod]] = MappingProxyType({name.lower(): each for name, each in METHODS.items()})
# Letters only and no longer than this, so that no name can be a part of a path or a secret.
_NAME: Final = re.compile("[A-Za-z]{2,64}")

_VERBS: Final = (
    ("send", Charge.MESSAGE, "Message"),
    ("copy", Charge.MESSAGE, "Message"),
    ("forward", Charge.MESSAGE, "Message"),
    ("edit", Charge.EDIT, "Message | True"),
    ("answer", Charge.ANSWER, ""),
    ("", Charge.FREE, ""),
)
# What a queued method returns whose class comes from the setting.
_RETURNS: Final = {
    Charge.MESSAGE: "Message",
    Charge.EDIT: "Message | True",
    Charge.ACTION: "True",
    Charge.TYPING: "True",
}

# How long after its query an answer is worth sending. Telegram's documentation says 10 s of pre-checkout and of join
# request queries; a shipping query is part of the same checkout, and an inline query shows its results while the user
# types. It gives no time for the others, for which 15 s is our choice.
_ANSWER_WITHIN: Final = timedelta(seconds=15)
_ANSWER_SOON: Final = frozenset(
    {
        "answerInlineQuery",
        "answerPreCheckoutQuery",
        "answerShippingQuery",
        "answerChatJoinRequestQuery",
        "sendChatJoinRequestWebApp",
    }
)
_ANSWER_SOON_WITHIN: Final = timedelta(seconds=10)

# A chat shows an action for 5 s, and a newer draft or the message itself makes a late draft worthless.
TYPING_WORTH: Final = timedelta(seconds=5)

# Repeating these calls has no further effect. Each call of the others creates, moves or charges something anew.
_REPEATABLE_VERBS: Final = re.compile(
    "answer|approve|ban|close|decline|delete|edit|get|hide|leave|pin|promote|read|remove|reopen|restrict|revoke|set|stop"
    "|unban|unhide|unpin|verify"
)
_REPEATABLE: Final = frozenset(
    {"sendChatAction", "sendMessageDraft", "sendRichMessageDraft", "sendChatJoinRequestWebApp"}
)


def find_method(name: str, charges: Charges = MappingProxyType({})) -> BotApiMethod:
    """Return the method of this name, charged as ``charges`` says. One that is not in the table is classed by its verb.

    Raises:
        UnknownMethodError: no method can have this name.
    """
    method = METHODS.get(name) or _BY_LOWER.get(name.lower()) or _newer(name)
    charge = charges.get(method.name.lower()) if charges else None
    if charge is None or charge is method.charge:
        return method
    return replace(method, charge=charge, returns=method.returns or _RETURNS.get(charge, ""))


def classed_method(name: str, charges: Charges) -> BotApiMethod:
    """:func:`find_method`, and log a warning, once in a process, about a method that neither the table nor the setting
    knows.

    Raises:
        UnknownMethodError: no method can have this name.
    """
    method = find_method(name, charges)
    if not method.known and method.name.lower() not in charges:
        _warn(method.name, method.charge)
    return method


def canonical_method(name: str) -> str:
    """The Bot API's spelling of the name of a method that can be a job. A name that is not in the table stays as it is.

    Raises:
        UnknownMethodError: no method can have this name, or it cannot be a job.
    """
    method = find_method(name)
    if method.charge is Charge.UNQUEUED:
        raise UnknownMethodError(f"{method.name} cannot be queued: call the Bot API directly for it.")
    return method.name


def answer_within(method: str) -> timedelta:
    """How long after its query an answer by this method is worth sending."""
    return _ANSWER_SOON_WITHIN if method in _ANSWER_SOON else _ANSWER_WITHIN


def repeatable(method: str) -> bool:
    """Whether a call that may have acted can be repeated without a second effect."""
    known = METHODS.get(method)
    if known is not None and known.charge is Charge.MESSAGE:
        return False
    verb = re.split("[A-Z]", method, maxsplit=1)[0]
    return method in _REPEATABLE or _REPEATABLE_VERBS.fullmatch(verb) is not None


def can_pay(method: str) -> bool:
    """Whether a call may be a paid broadcast. One of a method that is not in the table counts as a free message."""
    known = METHODS.get(method)
    return known is not None and "allow_paid_broadcast" in known.optional


def cost(method: str, params: Mapping[str, object]) -> int:
    """How many messages a call counts as: n for an album or a bulk copy or forward of n, else 1."""
    known = METHODS.get(method)
    counted = params.get(known.counted_by) if known is not None else None
    return max(1, len(counted)) if isinstance(counted, list | tuple) else 1


def _newer(name: str) -> BotApiMethod:
    if _NAME.fullmatch(name) is None:
        raise UnknownMethodError(f"The Bot API has no method {name[:60]!r}. Methods are named as in sendMessage.")
    lower = name.lower()
    charge, returns = next(
        (charge, returns) for verb, charge, returns in _VERBS if lower.startswith(verb) and lower != verb
    )
    return BotApiMethod(name, charge, returns, known=False)


@lru_cache(maxsize=1000)  # as many methods are warned about once
def _warn(name: str, charge: Charge) -> None:
    near = get_close_matches(name, METHODS, n=1, cutoff=0.9)
    logger.warning(
        "the Bot API method %r is not in Floodgate's table: it is classed by its verb as %r; set FLOODGATE_METHODS if "
        "that is wrong%s",
        *(name, str(charge), f", or correct its name if you mean {near[0]}" if near else ""),
    )
