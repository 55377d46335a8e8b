"""A local Bot API with Telegram's flood limits, for development, tests and benchmarks without a token.

``running_fake()`` runs one for a ``with`` block, ``python -m floodgate.fake_telegram`` as a process. It shares no code
with Floodgate, so that neither can hide the other's mistakes. Read the code along a call's path: ``wire`` → ``calls`` →
``exchange`` → ``scenarios`` → ``limits`` → ``methods`` → ``world`` → ``arrivals``.
"""

from floodgate.fake_telegram.control import Arrived, ControlClient, ControlRefusedError, LiveCounters, Totals
from floodgate.fake_telegram.limits import FloodLimits, Rate
from floodgate.fake_telegram.server import FakeTelegram, FakeTelegramThread, run, running_fake

__all__ = [
    "Arrived",
    "ControlClient",
    "ControlRefusedError",
    "FakeTelegram",
    "FakeTelegramThread",
    "FloodLimits",
    "LiveCounters",
    "Rate",
    "Totals",
    "run",
    "running_fake",
]
