"""Creates the engine that runs nodes, according to the plan for this machine."""

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
    """Create an engine for one private node.

    Raises:
        NoServerError: this machine has no RabbitMQ 4, and none can be installed.
        InstallError: an installer failed.
    """
    return engine_for(plan(version))


@functools.cache  # asking Docker takes a while, and the answer does not change while a program runs
def plan(version: str | None) -> Plan:
    """The RabbitMQ to run private nodes with, regardless of FLOODGATE_RABBITMQ_URL."""
    return choose(gather(), version)


def engine_for(chosen: Plan) -> Engine:
    """Create the engine of a plan.

    Raises:
        NoServerError: the plan has none.
        InstallError: an installer failed.
    """
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
    """Create the engine of a node that another program started.

    Raises:
        KeyError: the record lacks a field.
        TypeError: a field of the record has the wrong type.
        ValueError: a field of the record has the wrong form.
    """
    if "project" in record:
        return ComposeEngine.adopt(record)
    return LocalEngine.adopt(record, spec)


@functools.cache
def namespaces_work() -> bool:
    """Whether the kernel allows this process to create mount and process namespaces and to mount /proc in them."""
    if shutil.which("unshare") is None:
        return False
    probe = [*NAMESPACES, "--mount-proc", "true"]
    return subprocess.run(probe, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode == 0


def state_folder(base: str | None) -> Path:
    """The folder with the homes of detached nodes. `base` is the value of XDG_STATE_HOME, if set."""
    return Path(base or Path.home() / ".local" / "state", "floodgate", "rabbitmq")
