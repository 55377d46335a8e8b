"""Tries recipients again who did not get their message. One who got it is never tried again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.records import Recipient
from floodgate.producer.campaigns.storage.store import BATCH, CampaignStore

RETRIED: Final = (RecipientState.FAILED, RecipientState.UNREACHABLE)
"""The states that are tried again if only a reason is given."""
RETRYABLE: Final = (*RETRIED, RecipientState.UNCERTAIN)


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """Chooses recipients by their state and their error."""

    states: tuple[RecipientState, ...]
    matches: Callable[[str], bool]

    def of(self, store: CampaignStore, name: str) -> Iterator[Recipient]:
        """Yield the chosen recipients of a campaign, in constant memory."""
        return (each for each in store.recipients(name, self.states) if self.matches(each.error or ""))


def retry_choice(states: Iterable[str] = (), reason: str | None = None) -> RetryChoice:
    """Choose recipients by the names of their states, or by a text or a regular expression that their error contains.

    Raises:
        CampaignError: neither is given, or a state is not one that can be tried again.
    """
    named = tuple(_state(name) for name in states)
    if not named and reason is None:
        raise CampaignError("Say whom to try again: give a state or a reason.")
    return RetryChoice(named or RETRIED, _matcher(reason))


def retry(store: CampaignStore, name: str, choice: RetryChoice) -> int:
    """Let the chosen recipients wait again. A campaign that is done runs again; one that is paused or was stopped goes
    on when it is resumed. Return how many wait again.

    Raises:
        CampaignError: there is no such campaign, or it was cancelled.
    """
    chosen, number = choice.of(store, name), 0
    while batch := list(islice(chosen, BATCH)):
        number += store.wait_again(name, batch)
    return number


def _state(name: str) -> RecipientState:
    for state in RETRYABLE:
        if name == state.name.lower():
            return state
    names = ", ".join(state.name.lower() for state in RETRYABLE)
    raise CampaignError(f"Recipients who are {name!r} cannot be tried again: the states are {names}.")


def _matcher(reason: str | None) -> Callable[[str], bool]:
    if reason is None:
        return lambda _error: True
    try:
        pattern = re.compile(reason, re.IGNORECASE)
    except re.error:
        pattern = re.compile(re.escape(reason), re.IGNORECASE)
    return lambda error: reason in error or pattern.search(error) is not None
