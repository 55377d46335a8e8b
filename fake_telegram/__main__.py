"""``python -m floodgate.fake_telegram``: runs a fake Telegram as a process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from floodgate.fake_telegram.limits import FloodLimits, Rate
from floodgate.fake_telegram.server import run

_EXAMPLE = "example: python -m floodgate.fake_telegram --port 8081 --latency-ms 80 120"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and serve until a signal. Return the exit code."""
    options = _parser().parse_args(arguments)
    limits = FloodLimits(
        enabled=not options.no_limits,
        bot=Rate(options.bot_per_second, 1.0),
        chat=Rate(options.chat_per_second, 1.0),
        group=Rate(options.group_per_minute, 60.0),
    )
    try:
        return run(
            ready=lambda line: print(line, flush=True),
            host=options.host,
            port=options.port,
            limits=limits,
            latency_ms=tuple(options.latency_ms),
            seed=options.seed,
            tokens=options.token,
        )
    except OSError as error:
        print(
            f"Cannot listen on {options.host}:{options.port}: {error.strerror}. Choose another --port.", file=sys.stderr
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fake_telegram", description=__doc__, epilog=_EXAMPLE)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8081, help="port to listen on; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--no-limits", action="store_true", help="turn off the flood limits")
    parser.add_argument("--bot-per-second", type=_positive, default=30, help="default: %(default)s")
    parser.add_argument("--chat-per-second", type=_positive, default=1, help="default: %(default)s")
    parser.add_argument("--group-per-minute", type=_positive, default=20, help="default: %(default)s")
    parser.add_argument(
        "--latency-ms",
        type=float,
        nargs=2,
        metavar=("LOWEST", "HIGHEST"),
        default=(0, 0),
        help="range of response times",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of latencies and faults (default: %(default)s)"
    )
    parser.add_argument("--token", action="append", default=[], help="accept only this token; may be repeated")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1; to turn off all limits, use --no-limits")
    return number


if __name__ == "__main__":
    sys.exit(main())
