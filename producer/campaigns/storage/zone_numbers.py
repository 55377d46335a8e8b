"""Numbers the time zones of an audience, so that a recipient's row has a small number instead of a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, Insert, delete, insert, select

from floodgate.producer.campaigns.definition import Schedule, is_zone
from floodgate.producer.campaigns.storage.recipient_rows import update_recipients
from floodgate.producer.campaigns.storage.records import Campaign
from floodgate.producer.campaigns.storage.tables import recipients, zones

# Recipients that are read at once.
BATCH: Final = 10_000


class ZoneNumbers:
    """Numbers the time zones of an audience. One that does not exist counts as the schedule's own."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._numbers = {schedule.zone: 0}

    def number(self, fields: str | None) -> int:
        """Return the number of the time zone that a recipient's fields name."""
        if not self._schedule.is_local or fields is None:
            return 0
        name = json.loads(fields).get(self._schedule.zone_field)
        if name in self._numbers or not is_zone(name):
            return self._numbers.get(name, 0)
        return self._numbers.setdefault(name, len(self._numbers))

    def inserts(self, campaign: int) -> Iterator[Insert]:
        """Yield the statements that record the numbers."""
        for name, number in self._numbers.items():
            yield insert(zones).values(campaign=campaign, number=number, name=name)


def number_zones(db: Connection, campaign: Campaign, schedule: Schedule) -> None:
    """Number the time zones of an audience by another schedule."""
    known, after = ZoneNumbers(schedule), 0
    columns = (recipients.c.number, recipients.c.zone, recipients.c.fields)
    statement = select(*columns).where(recipients.c.campaign == campaign.id).order_by(recipients.c.number).limit(BATCH)
    while rows := db.execute(statement.where(recipients.c.number > after)).all():
        numbers = ((row, known.number(row.fields)) for row in rows)
        update_recipients(db, campaign, [{"at": row.number, "zone": zone} for row, zone in numbers if zone != row.zone])
        after = rows[-1].number
    db.execute(delete(zones).where(zones.c.campaign == campaign.id))
    for one in known.inserts(campaign.id):
        db.execute(one)
