"""Decides which RabbitMQ to use, from plain facts, without looking anything up or starting anything.

In this order: Docker Compose; an installed RabbitMQ 4; a Debian tree in the cache folder, which can be created by root
on Debian or Ubuntu. If a version is wanted, options with other versions are skipped. (A server that
FLOODGATE_RABBITMQ_URL names takes precedence over all of these: `__main__` then uses it, and no node is chosen.)
"""

from dataclasses import dataclass
from pathlib import Path

DEBIAN_SUITES = {"4.0": "trixie", "4.3": "sid"}
VERSIONS = tuple(DEBIAN_SUITES)
DEFAULT_VERSION = "4.0"  # Debian stable's, which does not change
OLDEST = (4, 0)


@dataclass(frozen=True, slots=True)
class Installed:
    """A RabbitMQ found on this machine: the folder of its scripts, and its version."""

    scripts: Path
    version: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that the decision depends on."""

    compose: bool = False
    installed: Installed | None = None
    root: bool = False
    debian: bool = False


@dataclass(frozen=True, slots=True)
class UseCompose:
    """A container of RabbitMQ's own image."""

    version: str


@dataclass(frozen=True, slots=True)
class UseInstalled:
    """A private node of the installed server."""

    scripts: Path


@dataclass(frozen=True, slots=True)
class UseTree:
    """A private node of a Debian tree, which is created if it does not exist yet."""

    version: str
    suite: str


@dataclass(frozen=True, slots=True)
class NoWay:
    """There is no RabbitMQ to use; the sentence says why and what to do."""

    sentence: str


Plan = UseCompose | UseInstalled | UseTree | NoWay


def choose(facts: Facts, wanted: str | None = None) -> Plan:
    """Choose the RabbitMQ to use.

    Args:
        facts: the facts of this machine.
        wanted: the wanted version ("4.0", "4.3"), or None for any.
    """
    if facts.compose:
        return UseCompose(wanted or DEFAULT_VERSION)
    if facts.installed and fits(facts.installed.version, wanted):
        return UseInstalled(facts.installed.scripts)
    if facts.root and facts.debian:
        version = wanted or DEFAULT_VERSION
        return UseTree(version, DEBIAN_SUITES[version])
    return NoWay(_ways_out(facts, wanted))


def fits(version: str, wanted: str | None) -> bool:
    """Whether a server's version is new enough and, if a version is wanted, is the wanted one."""
    release = parse_version(version)
    return release >= OLDEST and (wanted is None or release == parse_version(wanted))


def parse_version(version: str) -> tuple[int, int]:
    """The major and minor parts of a version such as "4.0.5" or "4.1.0-rc.1"; (0, 0) if it cannot be parsed."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _ways_out(facts: Facts, wanted: str | None) -> str:
    needed = f"RabbitMQ {wanted}" if wanted else "RabbitMQ 4.0 or newer"
    found = f" (found {facts.installed.version}, which is not suitable)" if facts.installed else ""
    root = (
        "run this as root, which installs one into a cache folder" if facts.debian else "use Debian or Ubuntu as root"
    )
    return (
        f"There is no {needed} here{found}: set FLOODGATE_RABBITMQ_URL to a running one, or start Docker with its "
        f"compose plugin, or install it, or {root}."
    )
