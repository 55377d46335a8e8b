"""Keeps campaigns and their recipients, in SQL.

Each recipient has one row: who gets what, and what became of it. Counts by state are kept beside the rows and change in
the same transaction, so progress costs one query whatever the size of the audience. A campaign's audience is imported
while the campaign is a draft, and frozen when it becomes ready.

Bounds. An import writes :data:`BATCH` rows a transaction.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Insert,
    Row,
    and_,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    update,
)

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.audience.rows import AudienceRow
from floodgate.producer.campaigns.definition import (
    MAX_NAME,
    Definition,
)
from floodgate.producer.campaigns.states import BEGUN, FOLLOWING, CampaignState, RecipientState
from floodgate.producer.campaigns.storage import clock
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.exclusions import (
    UNREACHABLE,
    Among,
    Exclusions,
    Refusals,
    find_campaigns,
    leave_out,
    valid,
)
from floodgate.producer.campaigns.storage.recipient_rows import (
    HELD_OUT_VARIANT,
    count_states,
    insert_new,
    mark,
    new_recipient,
    settled,
    update_recipients,
)
from floodgate.producer.campaigns.storage.records import (
    Campaign,
    Recipient,
    RecipientOutcome,
    RefusedRows,
    read_campaign,
    read_recipient,
)
from floodgate.producer.campaigns.storage.releases import deletable_ms, release_zone, rest_of
from floodgate.producer.campaigns.storage.rest import lock_bot
from floodgate.producer.campaigns.storage.sent_messages import copy_recipients
from floodgate.producer.campaigns.storage.tables import (
    REPORT_FAILED,
    campaigns,
    counts,
    recipients,
    refused_rows,
    reports,
    unsubscribed,
    zones,
)
from floodgate.producer.campaigns.storage.zone_numbers import ZoneNumbers, number_zones

BATCH: Final = 10_000

# What changes of a campaign without a new version.
_CHANGING: Final = tuple(campaigns.c[name] for name in ("id", "version", "state", "reason", "started_ms", "ended_ms"))


class CampaignStore:
    """The campaigns of a database. Thread-safe.

    Any method raises ``StateUnavailableError`` if the database is unavailable. One that takes a campaign's name raises
    ``CampaignError`` if there is no such campaign, or if its state does not allow the operation.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._led: Mapping[tuple[int, int], Campaign] = {}  # by id and version; replaced, never changed

    def close(self) -> None:
        """Close the database. Safe to call twice."""
        self._database.close()

    def create(self, definition: Definition, bot: str) -> Campaign:
        """Create a campaign as a draft. Replaces the bot's draft of its name, such as a failed import leaves.

        Raises:
            CampaignError: there is another of this name.
        """
        with self._database.writing() as db:
            found = _found(db, definition.name, for_update=True)
            if found is not None and (found.state, found.bot) != (CampaignState.DRAFT, bot):
                raise CampaignError(f"There is a campaign named {definition.name!r}: choose another name.")
            values = _first_version(definition, bot)
            db.execute(
                insert(campaigns) if found is None else update(campaigns).where(campaigns.c.id == found.id), values
            )
            return _campaign(db, definition.name)

    def create_correction(self, corrected: Campaign, definition: Definition, kind: str) -> Campaign:
        """Create a campaign that corrects what another has sent. Its name is derived from the other's, and it is ready.

        Raises:
            CampaignError: the other is a correction itself, or none of its messages can be corrected.
        """
        if corrected.corrects is not None:
            raise CampaignError(
                f"{corrected.name} is a correction itself: correct the campaign that sent the messages."
            )
        with self._database.writing() as db:
            definition = definition.model_copy(update={"name": _correction_name(db, corrected.name, kind)})
            values = {"corrects": corrected.id, "fingerprint": corrected.fingerprint, "state": CampaignState.READY}
            db.execute(insert(campaigns).values(_first_version(definition, corrected.bot) | values))
            correction = _campaign(db, definition.name)
            others = db.execute(select(campaigns).where(campaigns.c.corrects == corrected.id)).all()
            deletions = [each.id for each in map(read_campaign, others) if each.deletes and each.id != correction.id]
            since_ms = deletable_ms() if correction.deletes else None
            number, left_out = copy_recipients(db, corrected.id, correction.id, deletions, since_ms)
            if not number:
                reasons = "; ".join(f"{each.number}: {each.why}" for each in left_out) or "nobody has got one"
                raise CampaignError(f"No message of {corrected.name} can be corrected ({reasons}).")
            count_states(db, correction.id, {RecipientState.WAITING: number})
            known = ZoneNumbers(definition.schedule)
            refused = (
                insert(refused_rows).values(
                    campaign=correction.id, why=each.why, number=each.number, line=each.first, sample=each.chat
                )
                for each in left_out
            )
            for statement in (*known.inserts(correction.id), *refused):
                db.execute(statement)
            return correction

    def get(self, name: str) -> Campaign:
        """Return a campaign."""
        with self._database.reading() as db:
            return _campaign(db, name)

    def all(self) -> Sequence[Campaign]:
        """Return all campaigns, the latest first."""
        with self._database.reading() as db:
            return [read_campaign(row) for row in db.execute(select(campaigns).order_by(campaigns.c.id.desc()))]

    def running(self, bot: str) -> Sequence[Campaign]:
        """Return the campaigns of a bot that run."""
        with self._database.reading() as db:
            running = (campaigns.c.bot == bot, campaigns.c.state == CampaignState.RUNNING)
            return [read_campaign(row) for row in db.execute(select(campaigns).where(*running))]

    def import_audience(
        self,
        name: str,
        rows: Iterable[AudienceRow],
        *,
        excluded: Iterable[str] = (),
        earlier: Sequence[str] = (),
        unreachable: Among | None = None,
    ) -> Campaign:
        """Replace a draft's audience by the rows, without chats that come twice, have unsubscribed, are unreachable or
        excluded, or got one of the bot's earlier campaigns; then freeze it: the campaign becomes ready.

        An import that ends early leaves a draft, and may be made again. ``excluded`` are chat keys.
        """
        campaign = self._emptied(name)
        exclusions = self._exclusions(campaign, excluded, earlier)
        source, number = iter(rows), 0
        fingerprint, refused = hashlib.blake2b(digest_size=16), Refusals()
        known = ZoneNumbers(campaign.definition.schedule)
        while batch := list(islice(source, BATCH)):
            candidates = valid(batch, refused)
            if unreachable is not None:
                leave_out(candidates, refused, UNREACHABLE, unreachable)
            with self._database.writing() as db:
                _still_draft(db, campaign)
                exclusions.leave_out(db, candidates, refused)
                taken = list(candidates.values())
                values = [
                    new_recipient(campaign, n, each, known.number(each.fields))
                    for n, each in enumerate(taken, number + 1)
                ]
                if values:
                    db.execute(insert(recipients), values)
                count_states(db, campaign.id, Counter(each["state"] for each in values))
                if not number and db.dialect.name == "postgresql":
                    # Without statistics on this campaign, it looks for each chat among all the campaign's rows.
                    db.execute(text("ANALYZE campaign_recipients"))
            number += len(taken)
            for each in taken:
                fingerprint.update(f"{each.chat}\0{each.fields or ''}\n".encode(errors="surrogatepass"))
        self._forget(campaign, exclusions)
        return self._frozen(campaign, [*refused.inserts(campaign.id), *known.inserts(campaign.id)], fingerprint, number)

    def refused(self, name: str) -> Sequence[RefusedRows]:
        """Return the rows that the import of the audience did not take, by reason, the most frequent first."""
        with self._database.reading() as db:
            campaign = _campaign(db, name)
            columns = refused_rows.c
            statement = select(columns.why, columns.number, columns.line, columns.sample).where(
                columns.campaign == campaign.id
            )
            return [RefusedRows(*row) for row in db.execute(statement.order_by(columns.number.desc(), columns.why))]

    def recipients(self, name: str, states: Sequence[RecipientState] = ()) -> Iterator[Recipient]:
        """Yield all recipients, or those in some states, in the order of the audience and in constant memory. Each
        batch is of one state of the database, all together are not."""
        campaign, after = self.get(name), 0
        chosen = (recipients.c.campaign == campaign.id, *([recipients.c.state.in_(states)] if states else []))
        while True:
            with self._database.reading() as db:
                statement = (
                    select(recipients)
                    .where(*chosen, recipients.c.number > after)
                    .order_by(recipients.c.number)
                    .limit(BATCH)
                )
                rows = db.execute(statement).all()
            if not rows:
                return
            yield from map(read_recipient, rows)
            after = rows[-1].number

    def find_recipient(self, name: str, chat: str | None) -> Recipient | None:
        """Return the recipient with a chat's key; with None, the first one who is not held out."""
        with self._database.reading() as db:
            campaign = _campaign(db, name)
            chosen = recipients.c.variant != HELD_OUT_VARIANT if chat is None else recipients.c.chat == chat
            statement = select(recipients).where(recipients.c.campaign == campaign.id, chosen)
            row = db.execute(statement.order_by(recipients.c.number).limit(1)).first()
            return None if row is None else read_recipient(row)

    def ended_over_time(self, campaign: Campaign, step_ms: int) -> Mapping[int, Mapping[RecipientState, int]]:
        """Return the number of recipients that ended in each step of time, by state. A step is named by its beginning
        in Unix milliseconds. Reads the whole audience."""
        step = (recipients.c.ended_ms // step_ms) * step_ms
        statement = (
            select(step.label("step"), recipients.c.state, func.count())
            .where(recipients.c.campaign == campaign.id, recipients.c.ended_ms.is_not(None))
            .group_by("step", recipients.c.state)
        )
        found: dict[int, dict[RecipientState, int]] = {}
        with self._database.reading() as db:
            for began_ms, state, number in db.execute(statement):
                found.setdefault(began_ms, {})[RecipientState(state)] = number
        return found

    def counts(self, name: str) -> Mapping[RecipientState, int]:
        """Return the number of recipients by state; states without any are left out."""
        with self._database.reading() as db:
            campaign = _campaign(db, name)
            found = db.execute(select(counts.c.state, counts.c.number).where(counts.c.campaign == campaign.id))
            return {RecipientState(state): number for state, number in found if number}

    def transition(self, name: str, to: CampaignState, reason: str | None = None) -> Campaign:
        """Put a campaign into another state. Does nothing if it is in that state. One that runs again before any
        recipient's job was released starts anew."""
        with self._database.writing() as db:
            campaign = _campaign(db, name, for_update=True)
            if campaign.state is to:
                return campaign
            if to not in FOLLOWING[campaign.state]:
                raise CampaignError(f"The campaign {name!r} is {campaign.state}, so it cannot become {to}.")
            _put(db, campaign, to, reason)
            return _campaign(db, name)

    def lead(self, leader: str, seconds: float) -> Sequence[Campaign]:
        """Take or renew the leases of all campaigns that need a leader: those that run, those that have released
        recipients, and cancelled ones with waiting recipients. Return those that ``leader`` leads now.

        A lease ends ``seconds`` after its last renewal, by the database's clock where there are several machines.
        """
        with self._database.writing() as db:
            free = or_(campaigns.c.leader == leader, campaigns.c.leader_until_ms < _clock_ms(db))
            found = db.execute(select(*_CHANGING).where(free, _needs_leader()).with_for_update()).all()
            values = {"leader": leader, "leader_until_ms": _clock_ms(db) + int(seconds * 1000)}
            db.execute(update(campaigns).where(campaigns.c.id.in_([row.id for row in found])).values(values))
            return self._campaigns(db, found)

    def look(self, leader: str) -> tuple[Sequence[Campaign], bool]:
        """Read the campaigns that ``leader`` leads, and whether there are any that need a leader and have none."""
        with self._database.reading() as db:
            now = _clock_ms(db)
            leads = and_(campaigns.c.leader == leader, campaigns.c.leader_until_ms >= now)
            free = campaigns.c.leader_until_ms < now
            statement = select(*_CHANGING, free.label("free")).where(or_(leads, free), _needs_leader())
            found: list[Row[Any]] = list(db.execute(statement))
            led = self._campaigns(db, [row for row in found if not row.free])
            return led, len(led) < len(found)

    def _campaigns(self, db: Connection, rows: Sequence[Row[Any]]) -> Sequence[Campaign]:
        """Make campaigns of their changing columns. The rest is read once for each version."""
        unread = [row.id for row in rows if (row.id, row.version) not in self._led]
        if unread:
            read = map(read_campaign, db.execute(select(campaigns).where(campaigns.c.id.in_(unread))))
            self._led = {**self._led, **{(campaign.id, campaign.version): campaign for campaign in read}}
        self._led = {(row.id, row.version): self._led[row.id, row.version] for row in rows}
        return [
            replace(
                self._led[row.id, row.version],
                state=CampaignState(row.state),
                reason=row.reason,
                started_ms=row.started_ms,
                ended_ms=row.ended_ms,
            )
            for row in rows
        ]

    def resign(self, leader: str) -> None:
        """Give up all leases, so that another process can take them at once."""
        with self._database.writing() as db:
            db.execute(update(campaigns).where(campaigns.c.leader == leader).values(leader=None, leader_until_ms=0))

    def zones(self, campaign: Campaign) -> Mapping[int, str]:
        """Return the time zones of the audience by their numbers."""
        with self._database.reading() as db:
            found = db.execute(select(zones.c.number, zones.c.name).where(zones.c.campaign == campaign.id))
            return {row.number: row.name for row in found}

    def waiting_by_zone(self, campaign: Campaign) -> Mapping[int, int]:
        """Count the recipients who wait by the number of their time zone. Reads the index of all who wait."""
        with self._database.reading() as db:
            waiting = (recipients.c.campaign == campaign.id, recipients.c.state == RecipientState.WAITING)
            statement = select(recipients.c.zone, func.count()).where(*waiting).group_by(recipients.c.zone)
            return {row[0]: row[1] for row in db.execute(statement)}

    def release(self, campaign: Campaign, leader: str, most: int, open_zones: Iterable[int]) -> Sequence[Recipient]:
        """Mark up to ``most`` waiting recipients as released, in the order of the audience within each zone, and return
        them. Those whose chats rest are put off, and overtaken; those who unsubscribed are skipped. Returns none if
        the campaign does not run any more or was edited, or if another process leads it."""
        with self._database.writing() as db:
            if not _leads(db, campaign, leader):
                return []
            if rest_of(campaign):
                lock_bot(db, campaign.bot)
            rows: list[Row[Any]] = []
            for zone in open_zones:
                if len(rows) >= most:
                    break
                rows.extend(release_zone(db, campaign, zone, most - len(rows)))
            count_states(db, campaign.id, {RecipientState.WAITING: -len(rows), RecipientState.RELEASED: len(rows)})
            return [replace(read_recipient(row), version=campaign.version) for row in rows]

    def recipient(self, campaign: int, number: int) -> tuple[Campaign, Recipient] | None:
        """Return a recipient and its campaign, by their numbers; None if there are none."""
        with self._database.reading() as db:
            row = (recipients.c.campaign == campaign, recipients.c.number == number)
            found = db.execute(select(recipients).where(*row)).one_or_none()
            its = db.execute(select(campaigns).where(campaigns.c.id == campaign)).one_or_none()
            return (read_campaign(its), read_recipient(found)) if found is not None and its is not None else None

    def released(self, campaign: Campaign) -> Sequence[Recipient]:
        """Return the recipients whose jobs have been released and have not ended, as far as is known."""
        with self._database.reading() as db:
            released = (recipients.c.campaign == campaign.id, recipients.c.state == RecipientState.RELEASED)
            return [read_recipient(row) for row in db.execute(select(recipients).where(*released))]

    def settle(self, campaign: Campaign, outcomes: Sequence[RecipientOutcome]) -> int:
        """Record how released recipients ended. An outcome counts only while its attempt is released: once.
        Return how many counted."""
        with self._database.writing() as db:
            of_number = {outcome.number: outcome for outcome in outcomes}
            statement = select(recipients.c.number, recipients.c.attempt, recipients.c.message_id).where(
                recipients.c.campaign == campaign.id,
                recipients.c.state == RecipientState.RELEASED,
                recipients.c.number.in_(list(of_number)),
            )
            rows = [row for row in db.execute(statement) if of_number[row.number].attempt == row.attempt]
            found = [of_number[row.number] for row in rows]
            update_recipients(db, campaign, [settled(of_number[row.number], row.message_id) for row in rows])
            changes = Counter(outcome.state for outcome in found)
            changes[RecipientState.RELEASED] -= len(found)
            count_states(db, campaign.id, changes)
            return len(found)

    def wait_again(self, name: str, ended: Sequence[Recipient]) -> int:
        """Let up to :data:`BATCH` recipients who have ended wait again, for another attempt. A campaign that is done
        runs again. One who is not any more as given stays as it is. Return how many wait again."""
        with self._database.writing() as db:
            campaign = _campaign(db, name, for_update=True)
            if campaign.state is CampaignState.CANCELLED:
                raise CampaignError(f"The campaign {name!r} is cancelled: nobody is tried again.")
            columns = (recipients.c.number, recipients.c.attempt, recipients.c.state)
            chosen = recipients.c.number.in_([each.number for each in ended])
            statement = select(*columns).where(recipients.c.campaign == campaign.id, chosen)
            now = {tuple(row) for row in db.execute(statement)}
            found = [each for each in ended if (each.number, each.attempt, each.state) in now]
            again = {"state": RecipientState.WAITING, "attempt": recipients.c.attempt + 1}
            mark(db, campaign, [each.number for each in found], **again, error=None, ended_ms=None)
            changes = Counter({RecipientState.WAITING: len(found)})
            changes.subtract(each.state for each in found)
            count_states(db, campaign.id, changes)
            if found and campaign.state is CampaignState.DONE:
                _put(db, campaign, CampaignState.RUNNING)
            return len(found)

    def finish(self, campaign: Campaign) -> bool:
        """End a campaign that runs, unless somebody waits or is released. Return whether it has ended."""
        with self._database.writing() as db:
            now = _campaign(db, campaign.name, for_update=True)
            left = (counts.c.state.in_([RecipientState.WAITING, RecipientState.RELEASED]), counts.c.number > 0)
            found = db.execute(select(counts.c.state).where(counts.c.campaign == campaign.id, *left)).first()
            if now.state is not CampaignState.RUNNING or found is not None:
                return False
            _put(db, now, CampaignState.DONE)
            return True

    def replace_definition(self, campaign: Campaign, definition: Definition) -> Campaign:
        """Give a campaign another definition and its next version, for the recipients who wait.

        Raises:
            CampaignError: its audience is not frozen, it was cancelled, or it is not any more of this version.
        """
        with self._database.writing() as db:
            now = _campaign(db, campaign.name, for_update=True)
            if now.state in (CampaignState.DRAFT, CampaignState.CANCELLED):
                raise CampaignError(f"The campaign {now.name!r} is {now.state}, so it cannot be edited.")
            if now.version != campaign.version:
                raise CampaignError(f"The campaign {now.name!r} was edited in the meantime: edit it again.")
            if definition.schedule.is_local and definition.schedule != now.definition.schedule:
                number_zones(db, now, definition.schedule)
            values = {"definition": definition.model_dump_json(exclude_defaults=True), "version": now.version + 1}
            db.execute(update(campaigns).where(campaigns.c.id == now.id).values(values))
            return _campaign(db, now.name)

    def cancel_waiting(self, campaign: Campaign) -> int:
        """Mark up to :data:`BATCH` waiting recipients of a cancelled campaign as cancelled. Return how many."""
        with self._database.writing() as db:
            waiting = (recipients.c.campaign == campaign.id, recipients.c.state == RecipientState.WAITING)
            numbers = list(db.execute(select(recipients.c.number).where(*waiting).limit(BATCH)).scalars())
            mark(db, campaign, numbers, state=RecipientState.CANCELLED, ended_ms=clock.now_ms())
            count_states(
                db, campaign.id, {RecipientState.WAITING: -len(numbers), RecipientState.CANCELLED: len(numbers)}
            )
            return len(numbers)

    def unsubscribe(self, bot: str, *chats: str) -> None:
        """Leave chats out of the audiences of all later campaigns of a bot, and skip them where they still wait."""
        with self._database.writing() as db:
            insert_new(db, unsubscribed, [{"bot": bot, "chat": chat, "since_ms": clock.now_ms()} for chat in chats])

    def _emptied(self, name: str) -> Campaign:
        """Delete what an earlier import left."""
        while True:
            with self._database.writing() as db:
                campaign = _campaign(db, name, for_update=True)
                if campaign.state is not CampaignState.DRAFT:
                    raise CampaignError(f"The campaign {name!r} is {campaign.state}: its audience is frozen.")
                db.execute(delete(counts).where(counts.c.campaign == campaign.id))
                db.execute(delete(refused_rows).where(refused_rows.c.campaign == campaign.id))
                db.execute(delete(zones).where(zones.c.campaign == campaign.id))
                numbers = (
                    select(recipients.c.number)
                    .where(recipients.c.campaign == campaign.id)
                    .order_by(recipients.c.number)
                    .limit(BATCH)
                )
                found = db.execute(
                    delete(recipients).where(recipients.c.campaign == campaign.id, recipients.c.number.in_(numbers))
                )
                if found.rowcount < BATCH:
                    return campaign

    def _exclusions(self, campaign: Campaign, excluded: Iterable[str], earlier: Sequence[str]) -> Exclusions:
        with self._database.reading() as db:
            exclusions = Exclusions(campaign.id, campaign.bot, find_campaigns(db, campaign.bot, earlier))
        self._forget(campaign, exclusions)  # an earlier import may have left some
        source = iter(excluded)
        while batch := list(islice(source, BATCH)):
            with self._database.writing() as db:
                exclusions.add(db, batch)
        return exclusions

    def _forget(self, campaign: Campaign, exclusions: Exclusions) -> None:
        while True:
            with self._database.writing() as db:
                _still_draft(db, campaign)
                if exclusions.clear(db, BATCH):
                    return

    def _frozen(self, campaign: Campaign, inserts: Sequence[Insert], fingerprint: Any, number: int) -> Campaign:
        with self._database.writing() as db:
            _still_draft(db, campaign)
            for statement in inserts:
                db.execute(statement)
            state = CampaignState.READY if number else CampaignState.DRAFT
            values = {"state": state, "fingerprint": fingerprint.hexdigest()}
            db.execute(update(campaigns).where(campaigns.c.id == campaign.id).values(values))
            return _campaign(db, campaign.name)


def _first_version(definition: Definition, bot: str) -> dict[str, Any]:
    return {
        "name": definition.name,
        "bot": bot,
        "state": CampaignState.DRAFT,
        "definition": definition.model_dump_json(exclude_defaults=True),
        "version": 1,
        "created_ms": clock.now_ms(),
    }


def _correction_name(db: Connection, name: str, kind: str) -> str:
    """Return the first name such as ``spring.edit-1`` that is free."""
    candidates = (f"{name[: MAX_NAME - len(ending)]}{ending}" for ending in (f".{kind}-{n}" for n in count(1)))
    return next(each for each in candidates if _found(db, each) is None)


def _put(db: Connection, campaign: Campaign, to: CampaignState, reason: str | None = None) -> None:
    """Put a campaign into another state."""
    values: dict[str, Any] = {"state": to, "reason": reason, "ended_ms": None}
    if to is CampaignState.RUNNING and not _has_begun(db, campaign.id):
        values["started_ms"] = clock.now_ms()
    if to in (CampaignState.DONE, CampaignState.CANCELLED):
        values["ended_ms"] = clock.now_ms()
    db.execute(update(campaigns).where(campaigns.c.id == campaign.id).values(values))


def _has_begun(db: Connection, campaign: int) -> bool:
    begun = (counts.c.campaign == campaign, counts.c.state.in_(BEGUN), counts.c.number > 0)
    return db.execute(select(counts.c.state).where(*begun).limit(1)).first() is not None


def _leads(db: Connection, campaign: Campaign, leader: str) -> bool:
    statement = select(campaigns.c.id).where(
        campaigns.c.id == campaign.id,
        campaigns.c.state == CampaignState.RUNNING,
        campaigns.c.version == campaign.version,
        campaigns.c.leader == leader,
        campaigns.c.leader_until_ms >= _clock_ms(db),
    )
    return db.execute(statement.with_for_update()).one_or_none() is not None


def _needs_leader() -> ColumnElement[bool]:
    released, waiting = (
        select(counts.c.campaign).where(counts.c.state == state, counts.c.number > 0)
        for state in (RecipientState.RELEASED, RecipientState.WAITING)
    )
    unreported = select(reports.c.campaign).where(
        reports.c.campaign == campaigns.c.id, reports.c.state.not_in([campaigns.c.state, REPORT_FAILED])
    )
    return or_(
        campaigns.c.state == CampaignState.RUNNING,
        campaigns.c.id.in_(released),
        and_(campaigns.c.started_ms.is_not(None), unreported.exists()),
        and_(campaigns.c.state == CampaignState.CANCELLED, campaigns.c.id.in_(waiting)),
    )


def _clock_ms(db: Connection) -> ColumnElement[int]:
    """The clock by which leases end: one for all machines."""
    if db.dialect.name == "postgresql":
        return literal_column("(extract(epoch FROM clock_timestamp()) * 1000)::bigint", BigInteger)
    return literal(clock.now_ms(), BigInteger)


def _found(db: Connection, name: str, *, for_update: bool = False) -> Row[Any] | None:
    statement = select(campaigns).where(campaigns.c.name == name)
    return db.execute(statement.with_for_update() if for_update else statement).one_or_none()


def _campaign(db: Connection, name: str, *, for_update: bool = False) -> Campaign:
    row = _found(db, name, for_update=for_update)
    if row is None:
        raise CampaignError(f"There is no campaign named {name!r}: `floodgate campaigns list` shows those there are.")
    return read_campaign(row)


def _still_draft(db: Connection, campaign: Campaign) -> None:
    statement = select(campaigns.c.state, campaigns.c.created_ms).where(campaigns.c.id == campaign.id)
    now = db.execute(statement.with_for_update()).one()
    if (now.state, now.created_ms) != (CampaignState.DRAFT, campaign.created_ms):
        state = "another draft" if now.state == CampaignState.DRAFT else now.state
        raise CampaignError(f"The campaign became {state} during the import, which has ended.")
