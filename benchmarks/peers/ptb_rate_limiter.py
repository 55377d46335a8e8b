"""python-telegram-bot with its ``AIORateLimiter``, as its documentation shows it: one process, all jobs in memory.

Started by ``python -m benchmarks.peers.ptb_rate_limiter API_URL TOKEN``. It takes lines by ``POST /submit`` (a JSON
list of parameters of ``sendMessage``) and sends each in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from aiohttp import web
from telegram.error import TelegramError
from telegram.ext import AIORateLimiter, ExtBot
from telegram.request import HTTPXRequest

# Without retries every call that meets a 429 is lost; with many, a chat's jobs change places. These lose none here.
MAX_RETRIES = 100


async def serve(api_url: str, token: str) -> None:
    """Send what is submitted until SIGTERM."""
    request = HTTPXRequest(connection_pool_size=256, pool_timeout=600, read_timeout=60)
    limiter = AIORateLimiter(max_retries=MAX_RETRIES)
    bot = ExtBot(token, base_url=f"{api_url}/bot", request=request, rate_limiter=limiter)
    tasks: set[asyncio.Task[None]] = set()

    async def send(params: dict[str, object]) -> None:
        try:
            await bot.send_message(**params)  # type: ignore[arg-type]
        except TelegramError as error:
            print(f"lost: {error}", file=sys.stderr)

    async def submit(incoming: web.Request) -> web.Response:
        for params in await incoming.json():
            task = asyncio.create_task(send(params))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return web.Response()

    async with bot:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/submit", submit)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"listening at http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        ending = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
        await ending.wait()
        for task in tasks:
            task.cancel()
        await runner.cleanup()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(*sys.argv[1:3]))
