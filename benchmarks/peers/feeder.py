"""Enqueues for a task queue: ``python -m benchmarks.peers.feeder MODULE METHOD`` calls ``MODULE.send.METHOD(params)``.

A process of its own, since a task's module reads its queue's name from the environment. Takes lines by
``POST /submit``, a JSON list of parameters of ``sendMessage``, and answers once they are all enqueued.
"""

from __future__ import annotations

import importlib
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


def main(module: str, method: str) -> None:
    enqueue = getattr(importlib.import_module(module).send, method)

    class Submit(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            for params in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
                enqueue(params)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: standard error is for faults."""

    server = HTTPServer(("127.0.0.1", 0), Submit)
    print(f"listening at http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:3])
