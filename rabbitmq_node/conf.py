"""A node's configuration: the repository's rabbitmq.conf, the node's changes to it, and the environment that selects
it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from rabbitmq_node.engine import NodeIdentity, NodeSpec, Ports

CONFIGURATION = Path(__file__).resolve().parent.parent / "rabbitmq"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# RabbitMQ does not create its default account if it loads definitions. This one is for nodes on the loopback only.
GUEST = {
    "users": [{"name": "guest", "password": "guest", "tags": ["administrator"]}],
    "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}


def read_conf(text: str) -> dict[str, str]:
    """Parse a rabbitmq.conf."""
    pairs = (line.split("#", 1)[0].partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def write_conf(lines: Mapping[str, str]) -> str:
    """Format keys and values as a rabbitmq.conf."""
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def node_conf(spec: NodeSpec, inside: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Merge a node's configuration: the repository's, then the engine's, then the owner's. Later values win.

    Args:
        inside: the node's folder as the server sees it.
        extra: the lines that the engine needs.
    """
    return {
        **read_conf((CONFIGURATION / "rabbitmq.conf").read_text()),
        "listeners.tcp.1": f"{spec.identity.client_address}:{spec.ports.amqp}",
        "distribution.listener.interface": spec.identity.peer_address,
        # In a namespace of its own, a node is reached from elsewhere, by this machine only.
        **({"loopback_users": "none"} if spec.identity.enter else {}),
        "definitions.local.path": f"{inside}/definitions",
        # A node for trying and testing writes little, so it may run on a nearly full disk.
        "disk_free_limit.absolute": "50MB",
        **extra,
        **spec.conf,
    }


def write_files(spec: NodeSpec, files: Path, inside: str, extra: Mapping[str, str]) -> None:
    """Write a node's configuration to its folder."""
    for folder in ("log", "data", "conf.d"):
        (files / folder).mkdir(parents=True, exist_ok=True)
    write_definitions(files)
    (files / "rabbitmq.conf").write_text(write_conf(node_conf(spec, inside, extra)))
    (files / "enabled_plugins").write_text(f"[{','.join(spec.plugins)}].\n")
    (files / "rabbitmq-env.conf").write_text("")
    if spec.identity.cookie is not None:
        write_cookie(files / ".erlang.cookie", spec.identity.cookie)
    shutil.copyfile(CONFIGURATION / "advanced.config", files / "advanced.config")


def write_definitions(files: Path) -> None:
    """Write the definitions that a node loads at its start: the repository's, and an account with all permissions."""
    folder = files / "definitions"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONFIGURATION / "definitions.json", folder / "10-floodgate.json")
    (folder / "20-accounts.json").write_text(json.dumps(GUEST))


def write_cookie(path: Path, cookie: str) -> None:
    """Write an Erlang cookie, which must be readable by its owner only."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(cookie)


def mapper_environment(identity: NodeIdentity, ports: Ports) -> dict[str, str]:
    """The environment of a port mapper, and of those who ask it."""
    return {"PATH": PATH, "ERL_EPMD_PORT": str(ports.mapper), "ERL_EPMD_ADDRESS": identity.peer_address}


def environment(spec: NodeSpec, inside: str) -> dict[str, str]:
    """The environment of a node and its tools, which takes nothing from /etc or from the caller."""
    flags = {"RABBITMQ_FEATURE_FLAGS": ",".join(spec.identity.feature_flags)} if spec.identity.feature_flags else {}
    return {
        **flags,
        **mapper_environment(spec.identity, spec.ports),
        "LANG": "C.UTF-8",
        "HOME": inside,  # the folder of the Erlang cookie
        "RABBITMQ_NODENAME": spec.identity.name,
        "RABBITMQ_USE_LONGNAME": str(spec.identity.has_long_name).lower(),
        "RABBITMQ_DIST_PORT": str(spec.ports.distribution),
        "RABBITMQ_CONF_ENV_FILE": f"{inside}/rabbitmq-env.conf",
        "RABBITMQ_CONFIG_FILE": f"{inside}/rabbitmq.conf",
        "RABBITMQ_CONFIG_FILES": f"{inside}/conf.d",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{inside}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{inside}/enabled_plugins",
        "RABBITMQ_LOG": "-color",
        "RABBITMQ_MNESIA_BASE": f"{inside}/data",
        "RABBITMQ_LOG_BASE": f"{inside}/log",
        # Two schedulers that sleep when idle, because workers and other nodes run on the same machine.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none",
        # The script then executes the server instead of supervising it, so that signals reach the server.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
