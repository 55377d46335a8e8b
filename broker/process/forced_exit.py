"""Ending a process at once: on a second signal, or when its orderly end takes too long."""

from __future__ import annotations

import os
import threading
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
