"""Who looks at a page. Access control decides that for each request, and sets ``request.state.viewer``."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection


class Action(StrEnum):
    """What a viewer can do. The values appear in URLs and in the audit log: never rename one."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL_JOB = "cancel-job"
    REPLAY_LETTERS = "replay-letters"
    DROP_LETTERS = "drop-letters"
    CLEAR_CHAT = "clear-chat"
    START_CAMPAIGN = "start-campaign"
    PAUSE_CAMPAIGN = "pause-campaign"
    RESUME_CAMPAIGN = "resume-campaign"
    CANCEL_CAMPAIGN = "cancel-campaign"


DESTROYING: frozenset[Action] = frozenset({Action.CANCEL_JOB, Action.DROP_LETTERS, Action.CANCEL_CAMPAIGN})
"""Actions that cannot be undone."""


class Viewer(Protocol):
    """A person or program that has been let in."""

    @property
    def name(self) -> str:
        """The name for the audit log. Never a secret."""
        ...

    @property
    def sees_texts(self) -> bool:
        """Whether the texts of messages are shown."""
        ...

    def may(self, action: Action) -> bool:
        """Whether the viewer may take an action."""
        ...


def viewer_of(connection: HTTPConnection) -> Viewer:
    """Return who is looking.

    Raises:
        HTTPException: 403, because access has let nobody in.
    """
    viewer: Viewer | None = getattr(connection.state, "viewer", None)
    if viewer is None:
        raise HTTPException(403, "You are not logged in.")
    return viewer
