"""What changes after the store has gone back in time: doubtful rows, and budgets of which a part is unknown.

A store goes back when a replica that lagged is promoted, an older file is restored, or a crash loses its last writes.
Its rows then describe an earlier moment. Jobs that were sent since still stand in their lines, calls that ended since
are still under way, jobs that joined since are missing, and units that were spent since are not counted.

A process that notices it (``state.memory``) begins a new *epoch* of the bot before anything else is decided:

- Each process tells the store what it remembers of the last minute, before it asks for anything else. So lines are as
  they were, except for what only processes knew that have ended since.
- A job that was due before the epoch is *doubtful* until it asks again: it may be gone. Where the missing head of a
  line is doubtful, the jobs behind it wait for ``policy.REBUILD_GRACE_US`` and not for the usual grace period. The job
  that waits passes through the delay ladder meanwhile, and returns to its queue behind every job that was in it; so a
  head that is not gone asks first. A doubtful call does not block its chat.
- The bot starts cautiously, like a new one. A chat is taken to have received as much as its limits allowed in the time
  of which the store knows nothing, as late as possible; so is its typing. A chat with a learned pace is taken to have
  had its last call at the end of that time.

``admission.lua`` mirrors these functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from floodgate.broker.admission import policy, windows
from floodgate.broker.admission.rows import BotRow, JobRow
from floodgate.broker.admission.windows import Budget, Log, Window, cautious_budget


def begin_epoch(
    bot: BotRow, rates: policy.Rates, now: int, after: int, *, certain: bool, last_write: int | None = None
) -> None:
    """Begin a new epoch, later than the one called ``after``. The caller saves the bot.

    Args:
        last_write: when the lost writes ended; None: they may have gone on until now.
        certain: whether writes are known to be missing; otherwise, they may be.
    """
    bot.epoch = max(now, bot.epoch + 1, after + 1)
    bot.unknown_until = max(bot.granted, now if last_write is None else min(now, last_write))
    bot.gap_us = bot.unknown_until - bot.granted
    bot.rebuilt = now
    bot.rollbacks += certain
    bot.free, bot.paid = (cautious_budget(pace, now) if pace else Budget([]) for pace in (rates.free, rates.paid))


def is_doubtful(bot: BotRow, job: JobRow) -> bool:
    """Whether a job has not asked in this epoch, although it was due before it. Each ask moves ``due``."""
    return job.due < bot.rebuilt


def grace_us(bot: BotRow, head: JobRow) -> int:
    """How long the jobs behind a missing head wait for it."""
    return policy.REBUILD_GRACE_US if is_doubtful(bot, head) else policy.MISSING_GRACE_US


def cautious_log(bot: BotRow, log: Log, own: Sequence[Window], now: int) -> Log:
    """The log of a chat with the units that it may have received since its last record. Idempotent."""
    if not bot.rebuilt or not own:
        return log
    longest = max(own, key=lambda window: window.span_us)
    if now >= bot.unknown_until + longest.span_us or bot.unknown_until in log:
        return log
    if bot.gap_us >= longest.span_us:  # nothing is known: as for a chat in a new store
        units, step = longest.cap, longest.span_us // longest.cap
    else:  # as many as possible, as late as possible
        units = min(cap * (bot.gap_us // span + 1) for cap, span in own)
        step = min(span // cap for cap, span in own)
    return sorted([*log, *(bot.unknown_until - step * unit for unit in range(units))])[-windows.log_size(own) :]
