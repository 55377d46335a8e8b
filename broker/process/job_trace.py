"""The trace of one delivery of a job, and the one that notes nothing."""

from __future__ import annotations

from typing import Final


class JobTrace:
    """What is noted about a delivery of a job. This one notes nothing."""

    __slots__ = ()

    def event(self, name: str) -> None:
        """Note that something happens now."""

    def wait(self, cause: str, seconds: float, scope: str) -> None:
        """Note that the job has to wait. ``scope`` is what has to: its ``chat``, the whole ``bot``, or only the
        ``job``."""

    def outcome(self, name: str, error: tuple[str, str] | None = None) -> None:
        """Note how the job fared; ``error`` is a keyword and a description. A later outcome replaces this one."""

    def end(self) -> None:
        """End the trace of this delivery."""


NOT_TRACED: Final = JobTrace()
