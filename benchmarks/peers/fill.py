"""Enqueues for a stock worker by ``MODULE.send.send(chat, text)``: ``python -m benchmarks.peers.fill MODULE COUNT``."""

from __future__ import annotations

import importlib
import sys


def main(module: str, count: str) -> None:
    send = importlib.import_module(module).send
    for chat in range(1, int(count) + 1):
        send.send(chat, f"message {chat}")
    print("filled", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
