"""A node's own configuration: our rabbitmq.conf, what this node changes in it, and the environment to find it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from rabbitmq_node.engine import NodeSpec, Ports

CONFIGURATION = Path(__file__).resolve().parent.parent / "rabbitmq"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# RabbitMQ makes no account by itself when it is given definitions. This one is for nodes on the loopback only.
GUEST = {
    "users": [{"name": "guest", "password": "guest", "tags": ["administrator"]}],
    "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}
NODE_NAME = "floodgate@localhost"  # a name that resolves on every machine, whatever it calls itself


def read_conf(text: str) -> dict[str, str]:
    """The keys and values of a rabbitmq.conf."""
    pairs = (line.split("#", 1)[0].partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def write_conf(lines: Mapping[str, str]) -> str:
    """The text of a rabbitmq.conf with these keys and values."""
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def node_conf(spec: NodeSpec, inside: str, extra: Mapping[str, str]) -> dict[str, str]:
    """What a node runs with: ours, then what its engine needs, then what its owner asked for; the later wins."""
    return {
        **read_conf((CONFIGURATION / "rabbitmq.conf").read_text()),
        "listeners.tcp.1": f"127.0.0.1:{spec.ports.amqp}",
        "distribution.listener.interface": "127.0.0.1",
        "definitions.local.path": f"{inside}/definitions",
        # A node for trying and testing may sit on a nearly full disk; it writes little.
        "disk_free_limit.absolute": "50MB",
        **extra,
        **spec.conf,
    }


def write_files(spec: NodeSpec, files: Path, inside: str, extra: Mapping[str, str]) -> None:
    """Put a node's configuration into its folder."""
    for folder in ("log", "data", "conf.d"):
        (files / folder).mkdir(parents=True, exist_ok=True)
    write_definitions(files)
    (files / "rabbitmq.conf").write_text(write_conf(node_conf(spec, inside, extra)))
    (files / "enabled_plugins").write_text(f"[{','.join(spec.plugins)}].\n")
    (files / "rabbitmq-env.conf").write_text("")
    shutil.copyfile(CONFIGURATION / "advanced.config", files / "advanced.config")


def write_definitions(files: Path) -> None:
    """Put what a node begins with into a folder of its own: our definitions, and an account that may do everything."""
    folder = files / "definitions"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONFIGURATION / "definitions.json", folder / "10-floodgate.json")
    (folder / "20-accounts.json").write_text(json.dumps(GUEST))


def environment(ports: Ports, inside: str) -> dict[str, str]:
    """The environment of a node and of its rabbitmqctl: everything its own, nothing from /etc or from the caller."""
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": inside,  # where the Erlang cookie is: no node of ours shares one with another server
        "ERL_EPMD_PORT": str(ports.mapper),
        "RABBITMQ_NODENAME": NODE_NAME,
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_CONF_ENV_FILE": f"{inside}/rabbitmq-env.conf",
        "RABBITMQ_CONFIG_FILE": f"{inside}/rabbitmq.conf",
        "RABBITMQ_CONFIG_FILES": f"{inside}/conf.d",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{inside}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{inside}/enabled_plugins",
        "RABBITMQ_LOG": "-color",
        "RABBITMQ_MNESIA_BASE": f"{inside}/data",
        "RABBITMQ_LOG_BASE": f"{inside}/log",
        # Two schedulers that sleep when idle: a node here shares the machine with workers and other nodes.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none",
        # The script then becomes the server instead of watching over it, and signals reach the server itself.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
