"""A Dramatiq worker as its documentation shows it, sending through python-telegram-bot's own HTTP stack.

Started by ``python -m dramatiq benchmarks.peers.stock_worker``. No limits: the yardstick of throughput.
"""

from __future__ import annotations

import logging
import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import AsyncIO
from telegram import Bot

QUEUE = os.environ["BENCH_QUEUE"]

logging.getLogger("httpx").setLevel(logging.WARNING)
broker = RabbitmqBroker(url=os.environ["BENCH_RABBITMQ_URL"])
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)
_bots: list[Bot] = []


async def bot() -> Bot:
    """The bot, made on the event loop at the first message."""
    if not _bots:
        fresh = Bot(os.environ["BENCH_TOKEN"], base_url=f"{os.environ['BENCH_API_URL']}/bot")
        await fresh.initialize()
        _bots.append(fresh)
    return _bots[0]


@dramatiq.actor(queue_name=QUEUE)
async def send(chat: int, text: str) -> None:
    await (await bot()).send_message(chat, text)
