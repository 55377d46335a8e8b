"""The parts that ``floodgate up`` can run: which command each is, when it is wanted, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.settings.listen_address import ListenAddress
from floodgate.broker.settings.model import Settings
from floodgate.supervision.child_process import floodgate_command
from floodgate.supervision.supervisor import PartProcess, StopStage


@dataclass(frozen=True, slots=True)
class PartOptions:
    """What the caller asks for: numbers of processes, the handler of updates, and parts to add or to leave out."""

    settings: Settings
    workers: int = 1
    handlers: str | None = None
    handler_workers: int = 1
    added: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PartKind:
    """One part. Its bound on stopping must not be less than its own process's."""

    name: str
    stage: StopStage
    command: Callable[[PartOptions], list[str]]
    wanted: Callable[[PartOptions], bool]
    stop_seconds: Callable[[Settings], float]
    number: Callable[[PartOptions], int] = lambda _options: 1


def _always(_options: PartOptions) -> bool:
    return True


def _if_added(_options: PartOptions) -> bool:
    return False


def _receiver_command(options: PartOptions) -> list[str]:
    return ["updates", "--mode", "webhook" if options.settings.updates.webhook_url else "polling"]


def _updates_wanted(options: PartOptions) -> bool:
    """Not without a handler or a webhook: polling would take the updates away from whoever receives them now."""
    return options.handlers is not None or options.settings.updates.webhook_url is not None


def _campaigns_wanted(options: PartOptions) -> bool:
    """Whether the database is configured, or somebody has created a campaign in the default one."""
    settings = options.settings
    path = settings.campaigns_url.get_secret_value().removeprefix("sqlite:///")
    return "campaigns_url" in settings.model_fields_set or Path(path).exists()


# In the order in which they are started.
PARTS: Final = (
    PartKind(
        "worker",
        StopStage.WORKERS,
        command=lambda _options: ["worker"],
        wanted=lambda options: options.workers > 0,
        stop_seconds=lambda settings: settings.shutdown_seconds + 13,
        number=lambda options: options.workers,
    ),
    PartKind(
        "handlers",
        StopStage.HANDLERS,
        command=lambda options: ["worker", "--updates", options.handlers or ""],
        wanted=lambda options: options.handlers is not None,
        stop_seconds=lambda settings: settings.shutdown_seconds + 38,
        number=lambda options: options.handler_workers,
    ),
    PartKind("updates", StopStage.PRODUCERS, _receiver_command, _updates_wanted, lambda _settings: 25),
    PartKind(
        "campaigns", StopStage.PRODUCERS, lambda _options: ["campaigns", "run"], _campaigns_wanted, lambda _settings: 20
    ),
    PartKind(
        "gateway",
        StopStage.PRODUCERS,
        command=lambda _options: ["gateway"],
        wanted=_always,
        stop_seconds=lambda settings: settings.gateway.drain_seconds + 5,
    ),
    PartKind("web", StopStage.PRODUCERS, lambda _options: ["web"], _always, lambda _settings: 10),
    PartKind("metrics", StopStage.PRODUCERS, lambda _options: ["metrics"], _if_added, lambda _settings: 10),
)
NAMES: Final = tuple(part.name for part in PARTS)


def check_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of parts.

    Raises:
        InvalidParamsError: A name is not that of a part.
    """
    given = frozenset(names)
    if unknown := given - set(NAMES):
        raise InvalidParamsError(f"{min(unknown)!r} is not a part. The parts are {', '.join(NAMES)}.")
    return given


def choose_parts(options: PartOptions) -> list[PartKind]:
    """Return the parts to run, in the order in which they are started.

    Raises:
        InvalidParamsError: A part was asked for that lacks what it needs, or none is left.
    """
    if "handlers" in options.added and options.handlers is None:
        raise InvalidParamsError(
            "The part 'handlers' needs --updates MODULE:NAME, which says what handles the updates."
        )
    chosen = [part for part in PARTS if part.name in options.added or part.wanted(options)]
    chosen = [part for part in chosen if part.name not in options.left_out and part.number(options)]
    if not chosen:
        raise InvalidParamsError("No part is left to run: leave out fewer.")
    return chosen


def part_processes(options: PartOptions) -> list[PartProcess]:
    """Return the processes to run. If a part has several, they are numbered.

    Raises:
        InvalidParamsError: As :func:`choose_parts`.
    """
    named = [
        (kind, kind.name if kind.number(options) == 1 else f"{kind.name}-{number}")
        for kind in choose_parts(options)
        for number in range(1, kind.number(options) + 1)
    ]
    return [
        PartProcess(
            name,
            floodgate_command(*kind.command(options)),
            kind.stage,
            kind.stop_seconds(options.settings),
            _metrics_address(options.settings, place),
        )
        for place, (kind, name) in enumerate(named)
    ]


def _metrics_address(settings: Settings, place: int) -> dict[str, str]:
    """Return the variable that gives a process its port for metrics, as each needs its own: the next ones in turn."""
    if settings.metrics_address is None:
        return {}
    first = ListenAddress.parse(settings.metrics_address)
    host = f"[{first.host}]" if ":" in first.host else first.host
    return {"FLOODGATE_METRICS_ADDRESS": f"{host}:{first.port + place if first.port else 0}"}
