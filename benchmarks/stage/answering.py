"""The bot of ``python -m benchmarks updates`` as Floodgate runs it: 100 ms of work, one reply."""

from __future__ import annotations

import os

from telegram.ext import Application, MessageHandler, filters

from benchmarks.peers.updates_ptb import answer

application = Application.builder().token(os.environ["BENCH_TOKEN"]).build()
application.add_handler(MessageHandler(filters.TEXT, answer))
