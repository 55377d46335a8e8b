"""Leads one campaign: releases its jobs just in time, follows their outcomes, and takes back what waits at a pause.

No more jobs are in RabbitMQ than the limits grant in :data:`AHEAD_SECONDS`, so a pause, an edit or a stop concerns only
those few: the ledger cancels the ones that have not begun, and their recipients wait again.

Nothing is sent twice. A recipient is marked as released before its job is published, and the job's id follows from the
recipient and the attempt. After a crash the next leader publishes again whatever is released and unknown to the ledger;
a job that RabbitMQ has already is then there twice, and is sent once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from floodgate.broker.admission.contract import Ask, Record, Snapshot
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.errors import CampaignError, EnqueueManyError, FloodgateError, JobError
from floodgate.broker.messages.job import Job, new_job, stand_in
from floodgate.broker.process.metrics import ENDED, RELEASED, Metrics
from floodgate.broker.process.outages import Backoff, OutageLog
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.content.recipient_codes import RecipientCode
from floodgate.producer.campaigns.content.templates import ContentTemplate, MissingFieldError
from floodgate.producer.campaigns.definition import Missing
from floodgate.producer.campaigns.sending.outcomes import job_id, outcome_of
from floodgate.producer.campaigns.sending.progress import granted_per_second
from floodgate.producer.campaigns.sending.rules import FloodWaits, Watch
from floodgate.producer.campaigns.sending.schedule import missed_by, open_zones
from floodgate.producer.campaigns.states import BEGUN, CampaignState, RecipientState
from floodgate.producer.campaigns.storage.records import Campaign, Recipient, RecipientOutcome
from floodgate.producer.campaigns.storage.store import CampaignStore

logger = logging.getLogger("floodgate.campaigns")

AHEAD_SECONDS: Final = 2.5
# Without limits, this many jobs are ahead.
AHEAD_WITHOUT_LIMITS: Final = 2500
# At most this many are released in a step, so that a step is short: a pause acts after it.
MOST_IN_A_STEP: Final = 500
# If something that a campaign needs is unavailable, its next step is so much later; twice as much each time.
RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 5.0
# If nobody's job ends for this long, jobs that the ledger does not know are published again, because RabbitMQ may have
# lost them: twice as long each time, so that jobs which only wait have a copy more an hour at most.
STALL_SECONDS: Final = 60.0
LONGEST_STALL_SECONDS: Final = 3600.0
# If nobody is left to be released, or the campaign is not done, the leader looks again after this long.
REST_SECONDS: Final = 1.0
# Recipients whose jobs are looked up at once.
LOOK_UP: Final = 256
# A pause after an answer 429 lasts a second at least.
FLOOD_WAIT_SECONDS: Final = 0.8

T = TypeVar("T")


class ReleasePace:
    """Lets through a share of the bot's rate. A share of 1 lets everything through: the limits do the rest."""

    def __init__(self, share: float, per_second: float) -> None:
        self._per_second = per_second if share < 1 else None
        self._room = 0.0
        self._since = time.monotonic()

    def room(self) -> int:
        """How many may be released now, at most a second's worth."""
        if self._per_second is None:
            return sys.maxsize
        now = time.monotonic()
        self._room = min(self._room + (now - self._since) * self._per_second, max(1.0, self._per_second))
        self._since = now
        return int(self._room)

    def take(self, number: int) -> None:
        """Count released jobs."""
        self._room -= number


class JobLedger(Protocol):
    """What a leader asks the state store."""

    async def lookup(self, bot: str, job_id: str) -> Record | None:
        """Return the record of a job."""
        ...

    async def snapshot(self, bot: str) -> Snapshot:
        """Return what a bot's jobs wait for."""
        ...

    async def cancel(self, ask: Ask, listed: bool = True) -> Record:
        """Cancel a job unless it has ended or may have been sent, and list it or not. Return its record afterwards."""
        ...


class BlockingCalls(Protocol):
    """Runs blocking calls on another thread."""

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function and await its result."""
        ...


class Leader:
    """Leads one campaign. Belongs to one event loop; :meth:`step` is called every fraction of a second."""

    def __init__(
        self,
        campaign: Campaign,
        name: str,
        settings: Settings,
        *,
        store: CampaignStore,
        calls: BlockingCalls,
        ledger: JobLedger,
        publish: Callable[[Iterable[Job]], Awaitable[int]],
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._campaign = campaign
        self._name = name
        self._settings = settings
        self._store = store
        self._calls = calls
        self._ledger = ledger
        self._publish = publish
        self._version = 0  # of the definition that is followed
        self._ahead = 0.0
        self._watch = Watch(campaign.definition.rules)
        self._flood_waits = FloodWaits()
        self._look_for_flood_waits_at = 0.0
        self._pace = ReleasePace(1.0, 0.0)
        self._templates: tuple[ContentTemplate, ...] = ()
        self._zones: Mapping[int, str] = {}
        self._outstanding: dict[str, Recipient] = {}
        self._unpublished: list[Recipient] = []
        self._ended: dict[str, RecipientOutcome] = {}  # by job, not yet recorded
        self._recovered = False
        self._missed = False
        self._outage, self._backoff = OutageLog(), Backoff(RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        self._retry_at = 0.0  # monotonic
        self._stall = Backoff(STALL_SECONDS, LONGEST_STALL_SECONDS)
        self._repeat_at = time.monotonic() + self._stall.next_seconds()
        self._look_at = 0.0  # monotonic
        self._begun = 0  # recipients who are not waiting any more

    @property
    def outstanding(self) -> int:
        """The number of jobs that are released and have not ended, as far as is known."""
        return len(self._outstanding)

    def hear(self, job: str, record: Record) -> None:
        """Take note of a job's record. Jobs of other campaigns are ignored."""
        if job in self._outstanding and (outcome := outcome_of(self._campaign, job, record)) is not None:
            self._ended.setdefault(job, outcome)

    async def try_step(self, campaign: Campaign, share: float, *, missed: bool) -> None:
        """Take a step, or log what is unavailable and wait for it; other campaigns go on. A change of the campaign's
        state is not kept waiting. ``missed``: outcomes may have been missed."""
        self._missed |= missed
        if time.monotonic() < self._retry_at and campaign.state is self._campaign.state:
            return
        try:
            if self._missed:
                await self.look_up()
                self._missed = False
            await self.step(campaign, share)
        except FloodgateError as error:
            why = error.__cause__ if isinstance(error, EnqueueManyError) else error
            if self._outage.is_due(str(why)):
                logger.warning("campaign %s waits: %s", campaign.name, why)
            self._retry_at = time.monotonic() + self._backoff.next_seconds()
            return
        self._outage.end()
        self._backoff.reset()

    async def step(self, campaign: Campaign, share: float = 1.0) -> None:
        """Do what there is to do now. ``share`` is that of the bot's rate, beside its other campaigns.

        Raises:
            StateUnavailableError: a database or the state store is unavailable. The next step goes on from there.
            RabbitMQError, EnqueueManyError: RabbitMQ is unavailable. The next step publishes again.
        """
        self._campaign = campaign
        if campaign.version != self._version:
            await self._follow_definition()
        if not self._recovered:
            await self._recover()
        await self._settle()
        if outdated := self._outdated():
            await self._take_back(outdated)
            await self._settle()
        if campaign.state is CampaignState.RUNNING:
            await self._advance(share)
            return
        self._look_at = 0.0
        if campaign.state is CampaignState.CANCELLED:
            await self._calls.call(self._store.cancel_waiting, campaign)

    async def look_up(self) -> None:
        """Look up all outstanding jobs, because outcomes may have been missed, or jobs lost."""
        unknown = await self._look_up(list(self._outstanding))
        if unknown and time.monotonic() >= self._repeat_at:
            logger.warning(
                "campaign %s publishes jobs again that nobody has begun: %d", self._campaign.name, len(unknown)
            )
            self._unpublished = [self._outstanding[job] for job in unknown]
            self._repeat_at = time.monotonic() + self._stall.next_seconds()

    async def _follow_definition(self) -> None:
        """Follow the campaign's definition from now on. The rules count anew."""
        campaign, definition = self._campaign, self._campaign.definition
        rate = granted_per_second(campaign, self._settings)
        self._ahead = AHEAD_WITHOUT_LIMITS if rate is None else rate * AHEAD_SECONDS
        self._pace = ReleasePace(definition.schedule.share_of_rate, self._ahead / AHEAD_SECONDS)
        self._watch = Watch(definition.rules)
        self._templates = tuple(ContentTemplate(content) for content in definition.contents)
        self._zones = await self._calls.call(self._store.zones, campaign)
        self._version, self._look_at = campaign.version, 0.0

    async def _recover(self) -> None:
        """Go on from where another leader, or this one before a crash, ended."""
        released = await self._calls.call(self._store.released, self._campaign)
        self._outstanding = self._by_job(released)
        unknown = await self._look_up(list(self._outstanding))
        self._unpublished = [self._outstanding[job] for job in unknown]
        counts = await self._calls.call(self._store.counts, self._campaign.name)
        self._begun = sum(counts.get(state, 0) for state in BEGUN)
        self._recovered = True

    def _by_job(self, recipients: Iterable[Recipient]) -> dict[str, Recipient]:
        return {job_id(self._campaign, each.number, each.attempt): each for each in recipients}

    async def _look_up(self, jobs: Sequence[str]) -> list[str]:
        """Hear the records of jobs. Return those that the ledger does not know."""
        unknown = []
        for start in range(0, len(jobs), LOOK_UP):
            some = jobs[start : start + LOOK_UP]
            records = await asyncio.gather(*(self._ledger.lookup(self._campaign.bot, job) for job in some))
            for job, record in zip(some, records, strict=True):
                if record is None:
                    unknown.append(job)
                else:
                    self.hear(job, record)
        return unknown

    async def _settle(self) -> None:
        """Record what has ended, and stop the campaign if a rule says so."""
        if not self._ended:
            return
        outcomes = dict(self._ended)  # more may be heard meanwhile
        ended = list(outcomes.values())
        await self._calls.call(self._store.settle, self._campaign, ended)
        for outcome in ended:
            self._metrics.count(ENDED, self._campaign.bot, outcome.state.name.lower())
        for job in outcomes:
            del self._ended[job]
            self._outstanding.pop(job, None)
        self._begun -= sum(outcome.state is RecipientState.WAITING for outcome in ended)
        self._stall.reset()
        self._repeat_at = time.monotonic() + self._stall.next_seconds()
        self._look_at = 0.0
        if (why := self._watch.see(ended)) and self._campaign.state is CampaignState.RUNNING:
            await self._stop(why)

    async def _advance(self, share: float) -> None:
        """Release recipients, unless the campaign is done or must stop."""
        if (why := self._must_stop() or await self._see_flood_waits()) is not None:
            await self._stop(why)
            return
        if self._unpublished:
            await self._publish_jobs()
        if time.monotonic() < self._look_at:
            return
        ahead = math.ceil(self._ahead * share) - len(self._outstanding)
        room = min(ahead, self._canary_room(), self._pace.room(), MOST_IN_A_STEP)
        zones = self._open_zones()
        if room > 0 and zones:
            await self._release(room, zones)
        if not self._outstanding:
            await self._finish()

    async def _see_flood_waits(self) -> str | None:
        """Look for answers 429. Return why the campaign must stop, or None."""
        now = time.monotonic()
        if now < self._look_for_flood_waits_at or not self._outstanding:
            return None
        self._look_for_flood_waits_at = now + FLOOD_WAIT_SECONDS
        snapshot = await self._ledger.snapshot(self._campaign.bot)
        chats = {recipient.chat for recipient in self._outstanding.values()} if snapshot.pauses else set()
        return self._watch.see_flood_waits(self._flood_waits.new(snapshot.pauses, chats, now))

    def _canary_room(self) -> int:
        """How many may be released while the canary is under way: first so many, and none until they have ended."""
        canary = self._campaign.definition.canary
        if self._begun < canary:
            return canary - self._begun
        return 0 if self._begun == canary and self._outstanding else sys.maxsize

    async def _release(self, room: int, zones: Sequence[int]) -> None:
        released = await self._calls.call(self._store.release, self._campaign, self._name, room, zones)
        if len(released) < room:
            self._look_at = time.monotonic() + REST_SECONDS
        self._outstanding |= self._by_job(released)
        self._begun += len(released)
        self._pace.take(len(released))
        self._unpublished.extend(released)
        await self._publish_jobs()

    async def _publish_jobs(self) -> None:
        """Publish what is released and not yet published."""
        recipients = self._unpublished
        jobs = await self._publish([job for recipient in recipients if (job := self._job(recipient)) is not None])
        self._metrics.count(RELEASED, self._campaign.bot, by=jobs)
        self._unpublished = self._unpublished[len(recipients) :]

    def _job(self, recipient: Recipient) -> Job | None:
        """Make a recipient's job; None if there is none to be made, and the recipient has ended."""
        definition = self._campaign.definition
        template = self._templates[recipient.variant]
        try:
            sent_by = self._campaign.corrects or self._campaign.id
            params = template.render(recipient.fields, RecipientCode(sent_by, recipient.number))
            return new_job(
                template.method,
                {**recipient.address(definition.contents[recipient.variant]), **params},
                bot=self._campaign.bot,
                priority=definition.priority,
                job_id=job_id(self._campaign, recipient.number, recipient.attempt),
                campaign=definition.name,
                on_uncertain=definition.on_uncertain,
                charge=self._settings.own_charge(template.method),
            )
        except MissingFieldError as error:
            skips = definition.contents[recipient.variant].missing is Missing.SKIP
            self._end(recipient, RecipientState.SKIPPED if skips else RecipientState.FAILED, str(error))
        except (CampaignError, JobError) as error:
            self._end(recipient, RecipientState.FAILED, str(error))
        return None

    def _end(self, recipient: Recipient, state: RecipientState, error: str) -> None:
        job = job_id(self._campaign, recipient.number, recipient.attempt)
        self._ended[job] = RecipientOutcome(recipient.number, recipient.attempt, state, error=error)

    def _outdated(self) -> list[str]:
        """The jobs that must not be sent any more: all if the campaign does not run, else those of earlier versions."""
        if self._campaign.state is not CampaignState.RUNNING:
            return list(self._outstanding)
        return [job for job, each in self._outstanding.items() if each.version != self._campaign.version]

    async def _take_back(self, jobs: Sequence[str]) -> None:
        """Cancel those jobs whose calls have not begun. Their recipients wait again, or are cancelled, too."""
        taken = {self._outstanding[job].number for job in jobs}
        self._unpublished = [each for each in self._unpublished if each.number not in taken]
        for start in range(0, len(jobs), LOOK_UP):
            some = jobs[start : start + LOOK_UP]
            records = await asyncio.gather(*(self._ledger.cancel(self._ask(job), listed=False) for job in some))
            for job, record in zip(some, records, strict=True):
                self.hear(job, record)

    def _ask(self, job: str) -> Ask:
        return ask_for(stand_in(self._campaign.bot, job, self._outstanding[job].chat), self._settings)

    def _open_zones(self) -> list[int]:
        return open_zones(self._campaign.definition.schedule, self._zones, self._campaign.started, datetime.now(UTC))

    def _must_stop(self) -> str | None:
        schedule, now = self._campaign.definition.schedule, datetime.now(UTC)
        if schedule.finish_by is not None and now >= schedule.finish_by:
            return f"it was to finish by {schedule.finish_by:%Y-%m-%d %H:%M %Z}"
        late = missed_by(schedule, self._campaign.started, now) if not self._begun and schedule.at else None
        if late is not None:
            return f"its start at {schedule.at:%Y-%m-%d %H:%M %Z} was missed by {late}; resume it to send it anyway"
        return None

    async def _stop(self, why: str) -> None:
        logger.warning("campaign %s stops: %s", self._campaign.name, why)
        self._watch = Watch(self._campaign.definition.rules)  # once resumed, only what happens from then on counts
        self._campaign = await self._calls.call(self._store.transition, self._campaign.name, CampaignState.STOPPED, why)

    async def _finish(self) -> None:
        """End the campaign if nobody waits."""
        counts = await self._calls.call(self._store.counts, self._campaign.name)
        left = counts.get(RecipientState.WAITING) or counts.get(RecipientState.RELEASED)
        if not left and await self._calls.call(self._store.finish, self._campaign):
            logger.info("campaign %s is done", self._campaign.name)
        else:
            self._look_at = time.monotonic() + REST_SECONDS
