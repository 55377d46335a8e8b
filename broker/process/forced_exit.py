"""Ending a process at once: on a second signal, or when its orderly end takes too long."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

EXIT_HANDLERS_STOPPED: Final = 5
EXIT_FORCED: Final = 70


def exit_now(*_signal: object) -> None:
    """End the process without cleaning up. RabbitMQ returns its messages to their queues. Also a signal handler."""
    os._exit(EXIT_FORCED)


def exit_after(seconds: float, code: int = EXIT_FORCED) -> threading.Timer:
    """Start a timer that ends the process; ``cancel`` it if the process ends by itself."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
    return timer


def stop_on_signals(stop: Callable[[], None], seconds: float) -> None:
    """On SIGTERM or SIGINT call ``stop``, on the running loop. The process ends ``seconds`` later at the latest, and at
    once on a second signal. Call it from the main thread."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, exit_now)
        exit_after(seconds)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
