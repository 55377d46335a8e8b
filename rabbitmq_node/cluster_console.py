"""`scripts/cluster`: three RabbitMQ nodes that run until Ctrl-C, and commands that make one of them fail.

stdout carries the URL only; everything else goes to stderr. Commands are read from stdin, one a line. When stdin ends,
the cluster keeps running until it is stopped by a signal.
"""

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from rabbitmq_node import network
from rabbitmq_node.choice import VERSIONS
from rabbitmq_node.cluster import SIZE, Cluster, ClusterNode
from rabbitmq_node.errors import RabbitMQSetupError

COMMANDS = """commands, with the number of a node:
  kill 2          end node 2 with SIGKILL; start 2 starts it again with its data
  restart 2       stop node 2 cleanly and start it again
  freeze 2        suspend node 2; thaw 2 lets it run on
  cut 2           lose all packets of node 2
  split 2         lose the packets between node 2 and the other nodes only
  heal            start, thaw and reconnect all nodes
  leaders         how many queues each node leads
  ctl 2 status    rabbitmqctl on node 2; queues 2 … is rabbitmq-queues, diagnostics 2 … is rabbitmq-diagnostics
  help, quit
"""
EPILOG = f"""{COMMANDS}
Set FLOODGATE_RABBITMQ_URL to the printed line in another terminal, and start workers and clients there.
To cut nodes off, this needs root, the ip command (Debian and Ubuntu: iproute2) and a kernel that allows network
namespaces.
"""
ACTS: dict[str, Callable[[ClusterNode], object]] = {
    "kill": ClusterNode.kill,
    "start": ClusterNode.start,
    "restart": ClusterNode.restart,
    "freeze": ClusterNode.freeze,
    "thaw": ClusterNode.thaw,
    "cut": ClusterNode.cut_off,
    "split": ClusterNode.split_from_peers,
}
TOOLS = {"ctl": "rabbitmqctl", "queues": "rabbitmq-queues", "diagnostics": "rabbitmq-diagnostics"}


def main(argv: list[str] | None = None) -> int:
    """Run a cluster until it is stopped. The exit code is 0, or 1 for a reported failure."""
    options = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    cluster = Cluster(options.version, size=options.nodes, plugins=tuple(options.plugin))
    try:
        _say(f"Starting {options.nodes} RabbitMQ nodes (about ten seconds)")
        cluster.start()
        _introduce(cluster)
        _read_commands(cluster)
    except RabbitMQSetupError as error:
        _say(str(error))
        return 1
    except _Ended:
        _say("Stopping")
    finally:
        _ignore_signals()  # a second Ctrl-C must not interrupt the cleaning up, which takes a second
        cluster.stop()
    return 0


class _Ended(Exception):  # noqa: N818 - not an error
    """A signal asks the program to end."""


def _end(number: int, frame: FrameType | None) -> None:
    raise _Ended


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _introduce(cluster: Cluster) -> None:
    print(cluster.url, flush=True)
    nodes = ", ".join(f"{node.number} at {node.address}:{node.port}" for node in cluster.nodes)
    _say(f"RabbitMQ {cluster.nodes[0].version}: nodes {nodes}")
    if not cluster.can_cut:
        _say(f"The nodes share the loopback, so that cut and split do not work: {network.why_not()}.")
    _say("help lists the commands; Ctrl-C stops all nodes and deletes their data.")


def _read_commands(cluster: Cluster) -> None:
    for line in sys.stdin:
        try:
            if not _run(cluster, shlex.split(line)):
                return
        except (RabbitMQSetupError, ValueError) as error:
            _say(str(error))
    threading.Event().wait()  # stdin has ended: until a signal comes


def _run(cluster: Cluster, words: list[str]) -> bool:
    """Run one command. Returns whether to go on."""
    match words:
        case []:
            pass
        case ["quit" | "exit"]:
            return False
        case ["heal"]:
            cluster.heal()
        case ["leaders"]:
            led = list(cluster.leaders().values())
            _say(", ".join(f"node {node.number} leads {led.count(node)} queues" for node in cluster.nodes))
        case [name, number, *arguments] if name in TOOLS:
            _say(_node(cluster, number).ctl(*arguments, tool=TOOLS[name]))
        case [name, number] if name in ACTS:
            ACTS[name](_node(cluster, number))
            _say(f"done: {name} {number}")
        case _:
            _say(COMMANDS)
    return True


def _node(cluster: Cluster, number: str) -> ClusterNode:
    found = next((node for node in cluster.nodes if str(node.number) == number), None)
    if found is None:
        raise ValueError(f"There is no node {number}: the nodes are 1 to {len(cluster.nodes)}.")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/cluster",
        description="Run a private RabbitMQ cluster on this machine until Ctrl-C, and make its nodes fail.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", choices=VERSIONS, help="the RabbitMQ version; default: any from 4.0 on")
    parser.add_argument(
        "--nodes", type=int, choices=range(1, 8), default=SIZE, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--plugin", action="append", default=[], help="a plugin to enable, such as rabbitmq_management")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
