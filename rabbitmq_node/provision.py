"""From a plan to an engine that runs nodes: the step between deciding and doing."""

import functools
import shutil
import subprocess
from pathlib import Path

from rabbitmq_node import debootstrap
from rabbitmq_node.choice import NoWay, Plan, UseCompose, UseInstalled, UseTree, choose
from rabbitmq_node.compose import ComposeEngine
from rabbitmq_node.engine import Engine, NodeSpec
from rabbitmq_node.errors import NoServerError
from rabbitmq_node.facts import gather
from rabbitmq_node.local import LocalEngine
from rabbitmq_node.server import NAMESPACES, BareChrootServer, ChrootServer, HostServer

PROBE_SECONDS = 5.0


def engine(version: str | None = None) -> Engine:
    """An engine for one private node. Raises NoServerError or InstallError."""
    return engine_for(plan(version))


@functools.cache  # asking Docker takes a while, and the answer holds for as long as a program of ours runs
def plan(version: str | None) -> Plan:
    """What to run private nodes with, whatever server FLOODGATE_RABBITMQ_URL may name."""
    return choose(gather(), version)


def engine_for(chosen: Plan) -> Engine:
    """The engine that a plan speaks of. Raises NoServerError or InstallError."""
    match chosen:
        case UseCompose(version):
            return ComposeEngine(version)
        case UseInstalled(scripts):
            return LocalEngine(HostServer(scripts))
        case UseTree(version, suite):
            root = debootstrap.tree(version, suite)
            return LocalEngine(ChrootServer(root) if namespaces_work() else BareChrootServer(root))
        case NoWay(sentence):
            raise NoServerError(sentence)


def adopt(record: dict[str, object], spec: NodeSpec) -> Engine:
    """The engine of a node that another program started. Raises KeyError, TypeError or ValueError if strange."""
    if "project" in record:
        return ComposeEngine.adopt(record)
    return LocalEngine.adopt(record, spec)


@functools.cache
def namespaces_work() -> bool:
    """Whether the kernel lets us have mount and process namespaces and mount /proc there."""
    if shutil.which("unshare") is None:
        return False
    probe = [*NAMESPACES, "--mount-proc", "true"]
    return subprocess.run(probe, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode == 0


def state_folder(base: str | None) -> Path:
    """Where nodes that stay have their homes; base is XDG_STATE_HOME, if set."""
    return Path(base or Path.home() / ".local" / "state", "floodgate", "rabbitmq")
