"""Reports a campaign's progress in one message of an operator's chat, which is edited until the campaign has ended.

The message is an interactive job, as any other; its edits are further ones. There is one at a time, at most every
:data:`EDIT_SECONDS`, and none if nothing has changed, so a report obeys a group's limit of 20 messages a minute.

The chat, the message and the state that was last reported are kept in the database: the next leader edits the same
message, and a campaign is led until its last state has been reported. The first message's job has the same id in every
process, so a leader that dies before it knows the message does not cause a second one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete, insert, select, update

from floodgate.broker.admission.contract import Standing
from floodgate.broker.messages.job import Job, new_job
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.sending.leader import BlockingCalls, JobLedger
from floodgate.producer.campaigns.sending.outcomes import message_id, report_job_id
from floodgate.producer.campaigns.sending.progress import CampaignProgress, progress_of
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import Campaign
from floodgate.producer.campaigns.storage.store import CampaignStore
from floodgate.producer.campaigns.storage.tables import REPORT_FAILED, reports

logger = logging.getLogger("floodgate.campaigns")

EDIT_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 1.0
MAX_REASON: Final = 500  # characters of a report's text


@dataclass(frozen=True, slots=True)
class ReportTarget:
    """The chat of a report, its message once that is known, and the state that was last reported."""

    chat: str
    message: int | None = None
    state: str = ""


class ReportStore:
    """Keeps where campaigns are reported. Thread-safe. Raises ``StateUnavailableError`` as the campaigns do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, campaign: Campaign) -> ReportTarget | None:
        """Return where a campaign is reported."""
        with self._database.reading() as db:
            columns = (reports.c.chat, reports.c.message, reports.c.state)
            row = db.execute(select(*columns).where(reports.c.campaign == campaign.id)).one_or_none()
            return None if row is None else ReportTarget(*row)

    def direct(self, campaign: Campaign, chat: str) -> ReportTarget:
        """Report a campaign in a chat, with a new message. ``chat`` is a chat key."""
        with self._database.writing() as db:
            db.execute(delete(reports).where(reports.c.campaign == campaign.id))
            db.execute(insert(reports).values(campaign=campaign.id, chat=chat, state=""))
        return ReportTarget(chat)

    def note(self, campaign: Campaign, target: ReportTarget) -> None:
        """Keep a report's message and state."""
        with self._database.writing() as db:
            same = (reports.c.campaign == campaign.id, reports.c.chat == target.chat)
            db.execute(update(reports).where(*same).values(message=target.message, state=target.state))


class ProgressReport:
    """The report of one campaign. Belongs to one event loop; :meth:`step` is called every fraction of a second."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: CampaignStore,
        reports: ReportStore,
        calls: BlockingCalls,
        ledger: JobLedger,
        publish: Callable[[Iterable[Job]], Awaitable[int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._reports = reports
        self._calls = calls
        self._ledger = ledger
        self._publish = publish
        self._clock = clock
        self._look_at = self._edit_at = clock()
        self._chat = ""
        self._text = ""
        self._job: str | None = None  # the one under way

    async def step(self, campaign: Campaign) -> None:
        """Send or edit the message if that is due.

        Raises:
            StateUnavailableError: a database or the state store is unavailable. The next step goes on from there.
            RabbitMQError: RabbitMQ is unavailable.
        """
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        target = await self._target(campaign)
        if target is not None and target.chat != self._chat:
            self._chat, self._text, self._job = target.chat, "", None
        if target is not None and self._job is not None:
            target = await self._followed(campaign, target)
        if target is None or target.state == REPORT_FAILED or self._job is not None or now < self._edit_at:
            return
        progress = await self._calls.call(progress_of, self._store, campaign.name, self._settings)
        text = report_text(progress)
        if text != self._text:
            await self._say(campaign, target, text)
            self._edit_at = now + EDIT_SECONDS
        if progress.campaign.state != target.state and _is_settled(progress):
            await self._calls.call(self._reports.note, campaign, replace(target, state=progress.campaign.state))

    async def _target(self, campaign: Campaign) -> ReportTarget | None:
        target = await self._calls.call(self._reports.read, campaign)
        if target is None and (chat := campaign.definition.report_to) is not None:
            return await self._calls.call(self._reports.direct, campaign, chat)
        return target

    async def _followed(self, campaign: Campaign, target: ReportTarget) -> ReportTarget:
        """Look whether the job under way has ended. Return the target with what it brought."""
        assert self._job is not None
        record = await self._ledger.lookup(campaign.bot, self._job)
        match record.standing if record else None:
            case Standing.SENT if record and target.message is None:
                target = replace(target, message=message_id(record.result))
            case Standing.DEAD if record:
                logger.warning("the report of campaign %s ends: %s", campaign.name, record.reason)
                target = replace(target, state=REPORT_FAILED)
            case Standing.SENT:
                pass
            case _:
                return target  # no worker has sent it yet
        self._job = None
        await self._calls.call(self._reports.note, campaign, target)
        return target

    async def _say(self, campaign: Campaign, target: ReportTarget, text: str) -> None:
        params: dict[str, Any] = {"chat_id": target.chat, "text": text}
        method = "sendMessage"
        if target.message is not None:
            method, params["message_id"] = "editMessageText", target.message
        is_first = target.message is None and not self._text
        key = target.chat if is_first else f"{target.chat} {time.time_ns()}"
        charge = self._settings.own_charge(method)
        job = new_job(method, params, bot=campaign.bot, job_id=report_job_id(campaign, key), charge=charge)
        await self._publish([job])
        self._job, self._text = job.id, text


def report_text(progress: CampaignProgress) -> str:
    """Describe a campaign's progress in a few lines."""
    campaign, total = progress.campaign, progress.total
    because = f", because {campaign.reason[:MAX_REASON]}" if campaign.reason else ""
    lines = [f"Campaign {campaign.name}: {campaign.state}{because}"]
    lines.append(f"{progress.ended} of {total} recipients ({progress.ended * 100 // max(1, total)} %)")
    lines += [
        f"{state.name.lower()}: {number}"
        for state, number in progress.counts.items()
        if state > RecipientState.RELEASED and number
    ]
    if progress.eta is not None:
        lines.append(f"done in about {timedelta(seconds=round(progress.eta.total_seconds()))}")
    return "\n".join(lines)


def _is_settled(progress: CampaignProgress) -> bool:
    """Whether nothing changes any more while the campaign is in this state, or it is led in any case."""
    state = progress.campaign.state
    if state is CampaignState.CANCELLED:
        return progress.left == 0
    return state is CampaignState.RUNNING or not progress.counts.get(RecipientState.RELEASED)
