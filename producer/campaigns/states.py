"""The states of campaigns and recipients, and which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final


class CampaignState(StrEnum):
    """The state of a campaign."""

    DRAFT = "draft"  # has no audience, or one that is being imported
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # by a rule; the campaign's reason says which
    DONE = "done"
    CANCELLED = "cancelled"


FOLLOWING: Final[Mapping[CampaignState, frozenset[CampaignState]]] = MappingProxyType(
    {
        CampaignState.DRAFT: frozenset({CampaignState.READY, CampaignState.CANCELLED}),
        CampaignState.READY: frozenset({CampaignState.RUNNING, CampaignState.CANCELLED}),
        CampaignState.RUNNING: frozenset(
            {CampaignState.PAUSED, CampaignState.STOPPED, CampaignState.DONE, CampaignState.CANCELLED}
        ),
        CampaignState.PAUSED: frozenset({CampaignState.RUNNING, CampaignState.CANCELLED}),
        CampaignState.STOPPED: frozenset({CampaignState.RUNNING, CampaignState.CANCELLED}),
        CampaignState.DONE: frozenset({CampaignState.RUNNING}),  # some recipients are to be tried again
        CampaignState.CANCELLED: frozenset(),
    }
)
"""The states that may follow each state."""


class RecipientState(IntEnum):
    """The state of a recipient. The numbers are those in the database; they must not change."""

    WAITING = 0
    RELEASED = 1  # its job is in RabbitMQ, or about to be
    SENT = 2
    FAILED = 3
    UNREACHABLE = 4
    UNCERTAIN = 5  # the call may have taken effect, and is not made again
    SKIPPED = 6  # a field was missing, or the recipient has unsubscribed
    CANCELLED = 7
    HELD_OUT = 8  # gets nothing, for comparison


BEGUN: Final = frozenset(RecipientState) - {
    *(RecipientState.WAITING, RecipientState.HELD_OUT, RecipientState.SKIPPED, RecipientState.CANCELLED)
}
"""The states of recipients for whom a job has been released and not been taken back."""
