"""A RabbitMQ on disk: how its programs are run, and where a node of it keeps its files.

Three shapes, one face. `HostServer` is an installed one. `ChrootServer` is a Debian tree in the cache folder, run by
root; where the kernel lets us, each node gets mount and process namespaces of its own: its bind mounts and whatever
it spawns vanish with it, so there is nothing to unmount and nothing to leave behind. Inside an unprivileged container
there are no namespaces to be had; then `BareChrootServer` keeps the node's files in the tree itself and goes without
/proc.

Every node has a port mapper (epmd) of its own. Erlang would start one as a daemon that outlives everybody and that
all nodes of a machine share; started beside the server, in its process group, it is private and dies with it.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# The port mapper beside the server; `erl` stands in the folder that has `epmd` too, which is not always on the PATH.
WITH_PORT_MAPPER = """
PATH="$PATH:$(dirname "$(readlink -f "$(command -v erl)")")"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 &
exec "$0"
"""

# Runs as process 1 of the node's own namespaces, as root, and hands SIGTERM on; only its child gives up root. It
# stays because the kernel forgets "kill this when its parent dies" for a process that changes its user.
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
BIN = "/usr/lib/rabbitmq/bin"  # where Debian keeps RabbitMQ's own scripts, without its wrapper's check of the user


class Server(Protocol):
    """What a node needs to know of the RabbitMQ that it runs."""

    def files(self, home: Path) -> Path:
        """Where a node with this home keeps its data, logs and configuration, seen from outside."""

    def inside(self, files: Path) -> str:
        """The same folder as the server sees it."""

    def hand_over(self, files: Path) -> None:
        """Give the folder and all in it to the user that the server runs as."""

    def conf(self) -> dict[str, str]:
        """Lines of rabbitmq.conf that this way of running asks for."""

    def run_server(self, files: Path) -> list[str]:
        """The command that runs a node in the foreground."""

    def run_ctl(self, files: Path, args: Sequence[str]) -> list[str]:
        """The command that runs `rabbitmqctl` with these arguments."""

    def record(self) -> dict[str, str]:
        """What `restore` needs to make this object again."""


@dataclass(frozen=True, slots=True)
class HostServer:
    """A RabbitMQ that is installed here; its nodes run as the user who starts them."""

    scripts: Path

    def files(self, home: Path) -> Path:
        return home / "server"

    def inside(self, files: Path) -> str:
        return str(files)

    def hand_over(self, files: Path) -> None:
        """Nothing to do: the caller runs the server."""

    def conf(self) -> dict[str, str]:
        return {}

    def run_server(self, files: Path) -> list[str]:
        return ["sh", "-c", WITH_PORT_MAPPER, str(self.scripts / "rabbitmq-server")]

    def run_ctl(self, files: Path, args: Sequence[str]) -> list[str]:
        return [str(self.scripts / "rabbitmqctl"), *args]

    def record(self) -> dict[str, str]:
        return {"server": "host", "path": str(self.scripts)}


@dataclass(frozen=True, slots=True)
class ChrootServer:
    """A Debian tree with RabbitMQ in it; each command gets namespaces of its own with the node's folder bound in."""

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

    def run_ctl(self, files: Path, args: Sequence[str]) -> list[str]:
        return self._enter(files, [f"{BIN}/rabbitmqctl", *args])

    def record(self) -> dict[str, str]:
        return {"server": "chroot", "path": str(self.root)}

    def _enter(self, files: Path, command: Sequence[str]) -> list[str]:
        user, group = tree_user(self.root)
        return [*NAMESPACES, "sh", "-c", IN_NAMESPACES, "sh", str(self.root), str(files), f"{user}:{group}", *command]


@dataclass(frozen=True, slots=True)
class BareChrootServer:
    """The same tree where the kernel grants no namespaces, as in an unprivileged container."""

    root: Path

    def files(self, home: Path) -> Path:
        # The tree is all that the server can see, so its folder is in there, named after the home it belongs to.
        return self.root / "srv" / str(home).strip("/").replace("/", "-")

    def inside(self, files: Path) -> str:
        return f"/{files.relative_to(self.root)}"

    def hand_over(self, files: Path) -> None:
        chown_tree(files, *tree_user(self.root))

    def conf(self) -> dict[str, str]:
        # Without /proc the server can read neither how much memory there is nor how much it uses.
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {
            "vm_memory_calculation_strategy": "allocated",
            "total_memory_available_override_value": str(memory),
        }

    def run_server(self, files: Path) -> list[str]:
        return self._enter(["sh", "-c", WITH_PORT_MAPPER, f"{BIN}/rabbitmq-server"])

    def run_ctl(self, files: Path, args: Sequence[str]) -> list[str]:
        return self._enter([f"{BIN}/rabbitmqctl", *args])

    def record(self) -> dict[str, str]:
        return {"server": "bare-chroot", "path": str(self.root)}

    def _enter(self, command: Sequence[str]) -> list[str]:
        user, group = tree_user(self.root)
        return ["chroot", f"--userspec={user}:{group}", str(self.root), *command]


def restore(kind: str, path: Path) -> Server:
    """The server that a node's record names. Raises KeyError for a kind there is not."""
    kinds: dict[str, Callable[[Path], Server]] = {
        "host": HostServer,
        "chroot": ChrootServer,
        "bare-chroot": BareChrootServer,
    }
    return kinds[kind](path)


def tree_user(root: Path) -> tuple[int, int]:
    """User and group id of `rabbitmq` inside a Debian tree."""
    for line in (root / "etc/passwd").read_text().splitlines():
        name, _, user, group, *_ = line.split(":")
        if name == "rabbitmq":
            return int(user), int(group)
    raise ValueError(f"{root} has no rabbitmq user; remove it and start again")


def chown_tree(folder: Path, user: int, group: int) -> None:
    """Give a folder and all below it to a user, following no links."""
    for parent, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            os.chown(Path(parent, name), user, group, follow_symlinks=False)
