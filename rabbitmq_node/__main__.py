"""`scripts/rabbitmq start|stop|status|url|ctl`: a RabbitMQ 4 that stays until it is stopped.

What is said to people goes to stderr; stdout carries the URL (start, url, status) or rabbitmqctl's own output (ctl),
for use in scripts.
"""

import argparse
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from rabbitmq_node import provision
from rabbitmq_node.amqp import greet
from rabbitmq_node.choice import VERSIONS, fits
from rabbitmq_node.errors import NodeError, RabbitMQSetupError
from rabbitmq_node.node import Node

EXAMPLES = """examples:
  scripts/rabbitmq start                       a node at whatever port is free; prints its URL
  scripts/rabbitmq start --version 4.3 --port 5673
  scripts/rabbitmq ctl list_queues name messages
  scripts/rabbitmq stop

FLOODGATE_RABBITMQ_URL, if set, names the server to use; it is then never started or stopped from here.
"""
EXTERNAL_SECONDS = 5.0


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for a failure told in a sentence, 3 where there is no server to show."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except RabbitMQSetupError as error:
        _say(str(error))
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "prepare":
        provision.engine(options.version)
        return 0
    url = os.environ.get("FLOODGATE_RABBITMQ_URL")
    if url:
        return _external(url, options)
    match options.command:
        case "start":
            with _one_at_a_time():
                return _start(options.version, options.port)
        case "stop":
            with _one_at_a_time():
                return _stop(options.version)
        case "ctl":
            return _ctl(options.version, options.arguments)
        case _:
            return _show(options.version, with_details=options.command == "status")


def _start(version: str | None, port: int | None) -> int:
    node = _running(version)
    if node is not None:
        if port not in (None, node.port):
            raise NodeError(f"RabbitMQ {node.version} runs on port {node.port} already; stop it to move it to {port}.")
        _say(f"RabbitMQ {node.version} is up already")
    else:
        _say("Starting RabbitMQ")
        home = _home(version)
        node = Node(version, port=port or Node.last_port_in(home), home=home, detached=True).start()
        _say(f"RabbitMQ {node.version} is up")
    print(node.url)
    return 0


def _stop(version: str | None) -> int:
    node = _running(version)
    if node is None:
        _say("No RabbitMQ of ours is running")
    while node is not None:
        _say(f"Stopping RabbitMQ {node.version} on port {node.port}")
        node.stop()
        node = _running(version)
    return 0


def _ctl(version: str | None, arguments: list[str]) -> int:
    node = _running(version)
    if node is None:
        raise NodeError("No RabbitMQ of ours is running: scripts/rabbitmq start")
    print(node.ctl(*arguments))
    return 0


def _show(version: str | None, *, with_details: bool) -> int:
    node = _running(version)
    if node is None:
        _say("No RabbitMQ of ours is running: scripts/rabbitmq start")
        return 3
    answers = greet("127.0.0.1", node.port) is not None
    if with_details:
        _say(f"RabbitMQ {node.version} {'is up' if answers else 'runs but does not answer'}")
    print(node.url)
    return 0 if answers else 3


def _external(url: str, options: argparse.Namespace) -> int:
    """Everything there is to do with a server that is not ours: see whether it is there and new enough."""
    if options.command == "stop":
        _say("FLOODGATE_RABBITMQ_URL names a server that is not ours: left as it is")
        return 0
    if options.command == "ctl":
        raise NodeError("FLOODGATE_RABBITMQ_URL names a server that is not ours: use its own rabbitmqctl.")
    _check_external(url.split(",")[0], options.version)
    if options.command != "url":
        _say("Using the RabbitMQ that FLOODGATE_RABBITMQ_URL names")
    print(url)
    return 0


def _check_external(url: str, wanted: str | None) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 5672
    if parts.scheme == "amqps":
        return  # its greeting is behind TLS; the programs that log in check the version themselves
    greeting = greet(host, port, EXTERNAL_SECONDS)
    if greeting is None:
        raise NodeError(
            f"No RabbitMQ answers at {host}:{port}, which FLOODGATE_RABBITMQ_URL names; start it or unset that."
        )
    if not fits(greeting.version, wanted):
        raise NodeError(
            f"{host}:{port}, which FLOODGATE_RABBITMQ_URL names, is {greeting.product} {greeting.version}; "
            f"Floodgate needs {wanted or '4.0 or newer'}. Unset it and scripts/rabbitmq starts one."
        )


def _running(version: str | None) -> Node | None:
    nodes = (Node.running_in(home) for home in sorted(_homes().glob("*/")))
    return next((node for node in nodes if node is not None and fits(node.version, version)), None)


def _home(version: str | None) -> Path:
    # Data of one version is not always readable by another, so each has its own.
    return _homes() / (version or "any")


def _homes() -> Path:
    return provision.state_folder(os.environ.get("XDG_STATE_HOME"))


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """So that two who start at once get one node."""
    _homes().mkdir(parents=True, exist_ok=True)
    with (_homes() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/rabbitmq",
        description="A RabbitMQ 4 with ports and data of its own, for trying and testing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="start|stop|status|url|ctl|prepare")
    explanations = {
        "prepare": "install what nodes need, if it is not there yet, and start none",
        "start": "find or install RabbitMQ 4, start a node and print its URL",
        "stop": "stop it; its data stays",
        "status": "say whether it is up; exit code 3 if not",
        "url": "print its URL",
        "ctl": "run rabbitmqctl on it",
    }
    for name, explanation in explanations.items():
        command = commands.add_parser(name, help=explanation, description=explanation.capitalize())
        command.add_argument("--version", choices=VERSIONS, help="of RabbitMQ; without it, any from 4.0 on")
        command.set_defaults(port=None)
    commands.choices["start"].add_argument("--port", type=int, help="for AMQP; without it, a free one")
    commands.choices["ctl"].add_argument("arguments", nargs=argparse.REMAINDER, help="of rabbitmqctl")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
