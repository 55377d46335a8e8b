"""When a campaign's recipients may get their message. Pure functions of the schedule and the time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from floodgate.producer.campaigns.definition import WEEKDAYS, QuietHours, Schedule

# The expected end is looked for in steps of this length, and no further ahead than this.
STEP: Final = timedelta(minutes=10)
FORESEEN: Final = timedelta(days=8)


def open_zones(schedule: Schedule, zones: Mapping[int, str], started: datetime, now: datetime) -> list[int]:
    """Return the numbers of the time zones whose recipients may get the message now.

    Args:
        started: when the campaign was started, with a time zone; ``schedule.at`` takes precedence if it is later.
        now: the current time, with a time zone.
    """
    begin = _begin(schedule, started)
    if now < begin:
        return []
    return [number for number, name in zones.items() if _is_open(schedule, begin, now, ZoneInfo(name))]


def expected_end(
    schedule: Schedule,
    zones: Mapping[int, str],
    waiting: Mapping[int, int],
    started: datetime,
    now: datetime,
    per_second: float,
) -> timedelta | None:
    """Estimate how long it takes until nobody waits; None if time zones keep it from that for :data:`FORESEEN`.

    Args:
        waiting: the number of recipients who wait, by the number of their time zone.
        per_second: the rate while the time zones of enough recipients are open.
    """
    left = {zone: float(number) for zone, number in waiting.items() if number}
    ahead = max(timedelta(), _begin(schedule, started) - now)
    if not schedule.is_local:
        return ahead + timedelta(seconds=sum(left.values()) / per_second)
    most = per_second * STEP.total_seconds()
    while ahead <= FORESEEN:
        room = most
        for zone in open_zones(schedule, {zone: zones[zone] for zone in left}, started, now + ahead):
            sent = min(left[zone], room)
            left[zone], room = left[zone] - sent, room - sent
        left = {zone: number for zone, number in left.items() if number}
        if not left:
            return ahead + timedelta(seconds=(most - room) / per_second)
        ahead += STEP
    return None


def missed_by(schedule: Schedule, started: datetime, now: datetime) -> timedelta | None:
    """Return how late a start would be if it is too late to start without asking; None if it is not."""
    late = now - max(started, schedule.at or started)
    return late if late > schedule.start_within else None


def _begin(schedule: Schedule, started: datetime) -> datetime:
    return max(started, schedule.at) if schedule.at else started


def _is_open(schedule: Schedule, begin: datetime, now: datetime, zone: ZoneInfo) -> bool:
    local = now.astimezone(zone)
    if schedule.local_time is not None and now < _first(schedule.local_time, begin.astimezone(zone)):
        return False
    if WEEKDAYS[local.weekday()] not in schedule.weekdays:
        return False
    return schedule.quiet is None or not _is_quiet(schedule.quiet, local.time())


def _first(at: time, begin: datetime) -> datetime:
    """The first time that clocks in the zone of ``begin`` show ``at``, not before ``begin``."""
    first = datetime.combine(begin.date(), at, begin.tzinfo)
    return first if first >= begin else datetime.combine(begin.date() + timedelta(days=1), at, begin.tzinfo)


def _is_quiet(quiet: QuietHours, local: time) -> bool:
    if quiet.since <= quiet.until:
        return quiet.since <= local < quiet.until
    return local >= quiet.since or local < quiet.until
