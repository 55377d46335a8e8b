"""When a campaign's recipients may get their message. Pure functions of the schedule and the time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from floodgate.producer.campaigns.definition import WEEKDAYS, QuietHours, Schedule


def open_zones(schedule: Schedule, zones: Mapping[int, str], started: datetime, now: datetime) -> list[int]:
    """Return the numbers of the time zones whose recipients may get the message now.

    Args:
        started: when the campaign was started, with a time zone; ``schedule.at`` takes precedence if it is later.
        now: the current time, with a time zone.
    """
    begin = max(started, schedule.at) if schedule.at else started
    if now < begin:
        return []
    return [number for number, name in zones.items() if _is_open(schedule, begin, now, ZoneInfo(name))]


def missed_by(schedule: Schedule, started: datetime, now: datetime) -> timedelta | None:
    """Return how late a start would be if it is too late to start without asking; None if it is not."""
    late = now - max(started, schedule.at or started)
    return late if late > schedule.start_within else None


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
