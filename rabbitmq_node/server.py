"""A RabbitMQ on disk: how to run its programs, and where its nodes keep their files.

Three implementations share one interface. `HostServer` is an installed RabbitMQ. `ChrootServer` is a Debian tree in the
cache folder, run by root, if the kernel allows it to give each node its own mount and process namespaces: the node's
bind mounts and child processes disappear with it, so there is nothing to unmount or clean up. An unprivileged container
does not allow namespaces; there `BareChrootServer` keeps the node's files in the tree itself and works without /proc.

Every node has its own port mapper (epmd). Erlang would start a daemon that all nodes of the machine share and that
outlives them. Started next to the server, in its process group, the port mapper is private and ends with it. It reads
its port and address from ERL_EPMD_PORT and ERL_EPMD_ADDRESS.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# `epmd` is in the same folder as `erl`, which is not always on the PATH.
PORT_MAPPER = """
PATH="$PATH:$(dirname "$(readlink -f "$(command -v erl)")")"
exec epmd
"""
# Runs the port mapper next to the server. If the nodes of a cluster share one, the second one ends at once.
WITH_PORT_MAPPER = f"""
({PORT_MAPPER}) &
exec "$0"
"""

# Runs as process 1 of the node's namespaces, as root, and forwards SIGTERM; only its child gives up root. It keeps
# running because the kernel clears the parent-death signal of a process that changes its user.
IN_NAMESPACES = """
root=$1 files=$2 user=$3; shift 3
mount -t proc proc "$root/proc" && mount --bind "$files" "$root/var/lib/rabbitmq" || exit 125
trap 'kill -TERM "$child" 2>/dev/null' TERM
chroot --userspec="$user" "$root" "$@" <&0 & child=$!
wait "$child"; code=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
exit "$code"
"""
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
BIN = "/usr/lib/rabbitmq/bin"  # RabbitMQ's own scripts on Debian, without the wrapper that checks the user


class Server(Protocol):
    """The interface of an installed RabbitMQ, which its nodes use."""

    def files(self, home: Path) -> Path:
        """The folder of a node's data, logs and configuration, as the host sees it."""

    def inside(self, files: Path) -> str:
        """The same folder, as the server sees it."""

    def hand_over(self, files: Path) -> None:
        """Give the folder and its contents to the user that the server runs as."""

    def conf(self) -> dict[str, str]:
        """The lines of rabbitmq.conf that this way of running the server needs."""

    def run_server(self, files: Path) -> list[str]:
        """The command that runs a node in the foreground."""

    def run_mapper(self, files: Path) -> list[str]:
        """The command that runs a port mapper in the foreground."""

    def run_tool(self, files: Path, tool: str, args: Sequence[str]) -> list[str]:
        """The command that runs `rabbitmqctl` or another of the server's tools with these arguments."""

    def record(self) -> dict[str, str]:
        """The values from which `restore` creates this object again."""


@dataclass(frozen=True, slots=True)
class HostServer:
    """A RabbitMQ that is installed on the host. Its nodes run as the user who starts them."""

    scripts: Path

    def files(self, home: Path) -> Path:
        return home / "server"

    def inside(self, files: Path) -> str:
        return str(files)

    def hand_over(self, files: Path) -> None:
        """Do nothing: the server runs as the caller."""

    def conf(self) -> dict[str, str]:
        return {}

    def run_server(self, files: Path) -> list[str]:
        return ["sh", "-c", WITH_PORT_MAPPER, str(self.scripts / "rabbitmq-server")]

    def run_mapper(self, files: Path) -> list[str]:
        return ["sh", "-c", PORT_MAPPER]

    def run_tool(self, files: Path, tool: str, args: Sequence[str]) -> list[str]:
        return [str(self.scripts / tool), *args]

    def record(self) -> dict[str, str]:
        return {"server": "host", "path": str(self.scripts)}


@dataclass(frozen=True, slots=True)
class ChrootServer:
    """A Debian tree with RabbitMQ. Each command runs in its own namespaces, with the node's folder bind-mounted."""

    root: Path

    def files(self, home: Path) -> Path:
        return home / "server"

    def inside(self, files: Path) -> str:
        return "/var/lib/rabbitmq"

    def hand_over(self, files: Path) -> None:
        chown_tree(files, *tree_user(self.root))

    def conf(self) -> dict[str, str]:
        return {}

    def run_server(self, files: Path) -> list[str]:
        return self._enter(files, ["sh", "-c", WITH_PORT_MAPPER, f"{BIN}/rabbitmq-server"])

    def run_mapper(self, files: Path) -> list[str]:
        return self._enter(files, ["sh", "-c", PORT_MAPPER])

    def run_tool(self, files: Path, tool: str, args: Sequence[str]) -> list[str]:
        return self._enter(files, [f"{BIN}/{tool}", *args])

    def record(self) -> dict[str, str]:
        return {"server": "chroot", "path": str(self.root)}

    def _enter(self, files: Path, command: Sequence[str]) -> list[str]:
        user, group = tree_user(self.root)
        return [*NAMESPACES, "sh", "-c", IN_NAMESPACES, "sh", str(self.root), str(files), f"{user}:{group}", *command]


@dataclass(frozen=True, slots=True)
class BareChrootServer:
    """The same tree where the kernel allows no namespaces, as in an unprivileged container."""

    root: Path

    def files(self, home: Path) -> Path:
        # The server sees nothing but the tree, so its folder is inside, named after the node's home.
        return self.root / "srv" / str(home).strip("/").replace("/", "-")

    def inside(self, files: Path) -> str:
        return f"/{files.relative_to(self.root)}"

    def hand_over(self, files: Path) -> None:
        chown_tree(files, *tree_user(self.root))

    def conf(self) -> dict[str, str]:
        # Without /proc, the server can read neither the total memory nor its own usage.
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {
            "vm_memory_calculation_strategy": "allocated",
            "total_memory_available_override_value": str(memory),
        }

    def run_server(self, files: Path) -> list[str]:
        return self._enter(["sh", "-c", WITH_PORT_MAPPER, f"{BIN}/rabbitmq-server"])

    def run_mapper(self, files: Path) -> list[str]:
        return self._enter(["sh", "-c", PORT_MAPPER])

    def run_tool(self, files: Path, tool: str, args: Sequence[str]) -> list[str]:
        return self._enter([f"{BIN}/{tool}", *args])

    def record(self) -> dict[str, str]:
        return {"server": "bare-chroot", "path": str(self.root)}

    def _enter(self, command: Sequence[str]) -> list[str]:
        user, group = tree_user(self.root)
        return ["chroot", f"--userspec={user}:{group}", str(self.root), *command]


def restore(kind: str, path: Path) -> Server:
    """Create the server that a node's record names.

    Raises:
        KeyError: the kind is unknown.
    """
    kinds: dict[str, Callable[[Path], Server]] = {
        "host": HostServer,
        "chroot": ChrootServer,
        "bare-chroot": BareChrootServer,
    }
    return kinds[kind](path)


def tree_user(root: Path) -> tuple[int, int]:
    """The user and group ids of `rabbitmq` in a Debian tree.

    Raises:
        ValueError: the tree has no such user.
    """
    for line in (root / "etc/passwd").read_text().splitlines():
        name, _, user, group, *_ = line.split(":")
        if name == "rabbitmq":
            return int(user), int(group)
    raise ValueError(f"{root} has no rabbitmq user: remove the folder and start again")


def chown_tree(folder: Path, user: int, group: int) -> None:
    """Give a folder and its contents to a user, without following symbolic links."""
    for parent, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            os.chown(Path(parent, name), user, group, follow_symlinks=False)
