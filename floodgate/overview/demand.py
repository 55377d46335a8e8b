"""How many calls to the Bot API have to be in flight at once to do the work there is: what workers are scaled by.

A backlog says nothing about the number of workers that help: a million jobs of one bot need its 30 calls a second, and
not more. By Little's law the calls in flight are their rate times the time that a call takes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from floodgate.overview.picture import BotOverview

ASSUMED_ANSWER: Final = timedelta(milliseconds=100)
"""How long a call takes, if none has ended in the last minute: no worker runs yet."""
_SENT: Final = ("interactive", "bulk", "answers")
_MINUTE_SECONDS: Final = 60


def needed_calls_in_flight(bot: BotOverview) -> float | None:
    """Return the calls that a bot needs in flight: the smaller of what its limit grants and what there is to send, a
    second, times the time that a call takes. 0 if the bot is idle; None if RabbitMQ or the store could not be read.

    Jobs in RabbitMQ are wanted within a second; those that workers hold in lines wait for their chat, not for a worker.
    """
    if bot.snapshot is None or bot.messages is None:
        return None
    sending = sum(bot.last_minute.sent) / _MINUTE_SECONDS
    ready = sum(bot.messages.queued.get(kind, 0) for kind in _SENT)
    per_second = max(sending, min(bot.snapshot.per_second_limit, sending + ready))
    return per_second * (bot.last_minute.answer_time or ASSUMED_ANSWER).total_seconds()
