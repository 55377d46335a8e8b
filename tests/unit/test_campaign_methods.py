"""The class that FLOODGATE_METHODS gives a method travels with each job that campaigns make."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from floodgate.broker.messages.job import Job
from floodgate.broker.messages.method_table import Charge
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_batched
from floodgate.broker.state.thread import StateThread
from floodgate.producer.campaigns.audience.rows import read_rows
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.operations.samples import sample_job
from floodgate.producer.campaigns.sending.leader import Leader
from floodgate.producer.campaigns.sending.reports import EDIT_SECONDS, ProgressReport, ReportStore
from floodgate.producer.campaigns.states import CampaignState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.store import CampaignStore


def published(folder: Path, method: str, **methods: str) -> list[Job]:
    """The jobs of a campaign: a sample, the recipient's and the report's."""
    settings = Settings(
        _env_file=None,
        state_url=f"sqlite:///{folder}/state.db",
        campaigns_url=f"sqlite:///{folder}/campaigns.db",
        methods=methods,
    )
    database = Database(settings)
    store, reports, jobs = CampaignStore(database), ReportStore(database), list[Job]()
    content = {"method": method, "text": "Hello"}
    definition = parse_definition({"name": "spring", "content": content, "report_to": -1001000000001}, "the test")
    store.create(definition, "news")
    store.import_audience("spring", read_rows([{"chat_id": 1}]))
    jobs.append(sample_job(store, settings, "spring", 42))
    campaign = store.transition("spring", CampaignState.RUNNING)
    store.lead("me", 100.0)

    async def publish(given: Iterable[Job]) -> int:
        made = list(given)
        jobs.extend(made)
        return len(made)

    async def step() -> None:
        calls, thread = StateThread(), StateThread()
        ledger = open_batched(settings, thread)
        now = 0.0
        leader = Leader(
            campaign, "me", settings, store=store, calls=calls, ledger=ledger, publish=publish, metrics=Metrics()
        )
        report = ProgressReport(
            settings, store=store, reports=reports, calls=calls, ledger=ledger, publish=publish, clock=lambda: now
        )
        try:
            await leader.step(campaign)
            now = EDIT_SECONDS
            await report.step(campaign)
        finally:
            await ledger.close()
            await calls.stop()
            await thread.stop()

    asyncio.run(step())
    store.close()
    return jobs


def test_each_job_of_a_campaign_carries_the_class_that_the_setting_gives(tmp_path: Path) -> None:
    sample, message, report = published(tmp_path, "sendHologram", SENDHOLOGRAM="action", sendMessage="free")
    assert [job.method for job in (sample, message, report)] == ["sendHologram", "sendHologram", "sendMessage"]
    assert [job.charge for job in (sample, message, report)] == [Charge.ACTION, Charge.ACTION, Charge.FREE]


def test_without_the_setting_the_jobs_carry_no_class(tmp_path: Path) -> None:
    assert [job.charge for job in published(tmp_path, "sendMessage")] == [None, None, None]
