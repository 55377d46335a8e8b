"""A Dramatiq worker with stock ``dramatiq.rate_limits`` on Redis, as its documentation shows it, sending through PTB.

Started by ``python -m dramatiq benchmarks.peers.dramatiq_rate_limits``. A send that finds no budget raises
``RateLimitExceeded`` and comes back by ``Retries``, as does one that was answered 429, after the wait it was told.
"""

from __future__ import annotations

import logging
import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import Retry
from dramatiq.middleware import AsyncIO
from dramatiq.rate_limits import RateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend
from telegram import Bot
from telegram.error import RetryAfter

QUEUE = os.environ["BENCH_QUEUE"]

logging.getLogger("httpx").setLevel(logging.CRITICAL)
broker = RabbitmqBroker(url=os.environ["BENCH_RABBITMQ_URL"])
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)
backend = RedisBackend(url=os.environ["BENCH_REDIS_URL"])
OVERALL = WindowRateLimiter(backend, f"{QUEUE}-overall", limit=30, window=1)  # type: ignore[no-untyped-call]  # Dramatiq's
_bots: list[Bot] = []


async def bot() -> Bot:
    """The bot, made on the event loop at the first message."""
    if not _bots:
        fresh = Bot(os.environ["BENCH_TOKEN"], base_url=f"{os.environ['BENCH_API_URL']}/bot")
        await fresh.initialize()
        _bots.append(fresh)
    return _bots[0]


def group_limit(chat: int) -> RateLimiter:
    return WindowRateLimiter(backend, f"{QUEUE}{chat}", limit=20, window=60)  # type: ignore[no-untyped-call]  # Dramatiq's


# The shortest waits that do not drown the broker; Dramatiq's own are 15 s to 7 days.
@dramatiq.actor(queue_name=QUEUE, max_retries=1_000_000, min_backoff=250, max_backoff=1000)
async def send(params: dict[str, object]) -> None:
    chat = int(str(params["chat_id"]))
    with OVERALL.acquire():
        if chat < 0:
            with group_limit(chat).acquire():
                await _call(params)
        else:
            await _call(params)


async def _call(params: dict[str, object]) -> None:
    try:
        await (await bot()).send_message(**params)  # type: ignore[arg-type]
    except RetryAfter as error:
        raise Retry(str(error), delay=int(float(str(error.retry_after)) * 1000)) from error
