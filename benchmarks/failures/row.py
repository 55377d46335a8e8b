"""A row of the table: the servers it needs, what happens to them, and what may come out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.failures.load import Load
from benchmarks.stage.pipeline import Pipeline
from benchmarks.stage.scenarios import Target
from benchmarks.stage.servers import Fake

# What no failure may cost.
NOTHING: Final = (
    Target("lost", at_most=0),
    Target("doubled", at_most=0),
    Target("disordered", at_most=0),
)
PAUSE: Final = "pause s"
ENQUEUE: Final = "enqueue s"


def within(pause_seconds: float, enqueue_seconds: float | None = None) -> tuple[Target, ...]:
    """The targets of a failure that may interrupt sending, and a single enqueue, for so long."""
    enqueue = () if enqueue_seconds is None else (Target(ENQUEUE, at_most=enqueue_seconds),)
    return (Target(PAUSE, at_most=pause_seconds), *enqueue, *NOTHING)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Servers:
    """What a row's pipeline runs on.

    ``before_striking`` is called once, when workers and client are connected and send.
    """

    rabbitmq_url: str
    state_url: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of all processes."""
    before_striking: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Scene:
    """What is under way while a failure strikes."""

    ours: Pipeline
    fake: Fake
    load: Load


class Failure(Protocol):
    """One row. Used by one thread."""

    @property
    def name(self) -> str:
        """What fails, and for how long."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """Bounds on the figures of :func:`benchmarks.failures.play.figures_of`."""

    def why_not(self) -> str | None:
        """Why this machine cannot play the row; None if it can."""

    def servers(self, home: Path) -> contextlib.AbstractContextManager[Servers]:
        """Open the servers."""

    def strike(self, scene: Scene) -> None:
        """Break something, wait, and repair it. Returns when it is repaired."""
