"""`scripts/rabbitmq start|stop|status|url|ctl|prepare`: a RabbitMQ 4 that runs until it is stopped.

Messages for people go to stderr. stdout carries the URL (start, url, status) or rabbitmqctl's own output (ctl), for use
in scripts.
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
  scripts/rabbitmq start                       start a node on a free port and print its URL
  scripts/rabbitmq start --version 4.3 --port 5673
  scripts/rabbitmq ctl list_queues name messages
  scripts/rabbitmq stop

If FLOODGATE_RABBITMQ_URL is set, it names the server to use, and these commands neither start nor stop it.
"""
EXTERNAL_SECONDS = 5.0


def main(argv: list[str] | None = None) -> int:
    """Run one command. The exit code is 0 for success, 1 for a reported failure, and 3 if no server is running."""
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
            raise NodeError(f"RabbitMQ {node.version} already runs on port {node.port}: stop it first to use {port}.")
        _say(f"RabbitMQ {node.version} is already running")
    else:
        _say("Starting RabbitMQ")
        home = _home(version)
        node = Node(version, port=port or Node.last_port_in(home), home=home, detached=True).start()
        _say(f"RabbitMQ {node.version} is running")
    print(node.url)
    return 0


def _stop(version: str | None) -> int:
    node = _running(version)
    if node is None:
        _say("No node is running")
    while node is not None:
        _say(f"Stopping RabbitMQ {node.version} on port {node.port}")
        node.stop()
        node = _running(version)
    return 0


def _ctl(version: str | None, arguments: list[str]) -> int:
    node = _running(version)
    if node is None:
        raise NodeError("No node is running: start one with scripts/rabbitmq start.")
    print(node.ctl(*arguments))
    return 0


def _show(version: str | None, *, with_details: bool) -> int:
    node = _running(version)
    if node is None:
        _say("No node is running: start one with scripts/rabbitmq start.")
        return 3
    answers = greet("127.0.0.1", node.port) is not None
    if with_details:
        _say(f"RabbitMQ {node.version} is running{'' if answers else ' but does not answer'}")
    print(node.url)
    return 0 if answers else 3


def _external(url: str, options: argparse.Namespace) -> int:
    """Run a command for an external server: at most, check that it answers and is new enough."""
    if options.command == "stop":
        _say("FLOODGATE_RABBITMQ_URL names an external server, which is left running")
        return 0
    if options.command == "ctl":
        raise NodeError("FLOODGATE_RABBITMQ_URL names an external server: use its own rabbitmqctl.")
    _check_external(url.split(",")[0], options.version)
    if options.command != "url":
        _say("Using the RabbitMQ server that FLOODGATE_RABBITMQ_URL names")
    print(url)
    return 0


def _check_external(url: str, wanted: str | None) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 5672
    if parts.scheme == "amqps":
        return  # its greeting requires TLS; clients check the version when they log in
    greeting = greet(host, port, EXTERNAL_SECONDS)
    if greeting is None:
        raise NodeError(
            f"No RabbitMQ answers at {host}:{port}, which FLOODGATE_RABBITMQ_URL names: start it or unset the variable."
        )
    if not fits(greeting.version, wanted):
        raise NodeError(
            f"{host}:{port}, which FLOODGATE_RABBITMQ_URL names, is {greeting.product} {greeting.version}; "
            f"Floodgate needs {wanted or '4.0 or newer'}. Unset the variable to let scripts/rabbitmq start one."
        )


def _running(version: str | None) -> Node | None:
    nodes = (Node.running_in(home) for home in sorted(_homes().glob("*/")))
    return next((node for node in nodes if node is not None and fits(node.version, version)), None)


def _home(version: str | None) -> Path:
    # One version cannot always read another's data, so each has its own folder.
    return _homes() / (version or "any")


def _homes() -> Path:
    return provision.state_folder(os.environ.get("XDG_STATE_HOME"))


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold a lock, so that two simultaneous starts give one node."""
    _homes().mkdir(parents=True, exist_ok=True)
    with (_homes() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/rabbitmq",
        description="Run a private RabbitMQ 4 with its own ports and data, for trying and testing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="start|stop|status|url|ctl|prepare")
    explanations = {
        "prepare": "install RabbitMQ 4 if necessary, without starting a node",
        "start": "find or install RabbitMQ 4, start a node and print its URL",
        "stop": "stop the node; its data is kept",
        "status": "report whether the node is running; exit code 3 if not",
        "url": "print the node's URL",
        "ctl": "run rabbitmqctl on the node",
    }
    for name, explanation in explanations.items():
        command = commands.add_parser(name, help=explanation, description=explanation.capitalize())
        command.add_argument("--version", choices=VERSIONS, help="the RabbitMQ version; default: any from 4.0 on")
        command.set_defaults(port=None)
    commands.choices["start"].add_argument("--port", type=int, help="the AMQP port; default: a free one")
    commands.choices["ctl"].add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of rabbitmqctl")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
