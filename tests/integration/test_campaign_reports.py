"""The message that reports a campaign's progress, on a real RabbitMQ and real stores, without workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from floodgate.broker.messages.job import Job
from floodgate.producer.campaigns.sending import reports
from floodgate.producer.campaigns.sending.reports import ProgressReport, ReportStore
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.records import Campaign, RecipientOutcome
from tests.integration.test_campaign_leader import RECIPIENTS, Operation, operate
from tests.services import Vhost

CHAT = "-1001000000001"


class Operator:
    """Reports a campaign with a clock that is moved by hand, and does what a worker does."""

    def __init__(self, operation: Operation) -> None:
        self.operation, self.now = operation, 0.0
        self.published: list[Job] = []
        self.store = ReportStore(operation.database)
        self.store.direct(operation.campaign, CHAT)
        self.report = self.another()

    def another(self) -> ProgressReport:
        """The report of another process."""
        operation = self.operation
        return ProgressReport(
            operation.settings,
            store=operation.store,
            reports=self.store,
            calls=operation.calls,
            ledger=operation.ledger,
            publish=self.publish,
            clock=lambda: self.now,
        )

    async def told(self, seconds: float = reports.EDIT_SECONDS, campaign: Campaign | None = None) -> list[Job]:
        """Moves the clock and takes a step; returns the jobs that it published."""
        self.now += seconds
        self.published.clear()
        await self.report.step(campaign or self.operation.campaign)
        return list(self.published)

    async def publish(self, jobs: Iterable[Job]) -> int:
        """Enqueues jobs, and takes note of them."""
        self.published = list(jobs)
        return await self.operation.client.enqueue_many(self.published)

    def end(self, number: int, state: RecipientState = RecipientState.SENT) -> None:
        """Ends a recipient."""
        operation = self.operation
        operation.store.lead("me", 100.0)
        operation.store.release(operation.campaign, "me", 1, [0])
        operation.store.settle(operation.campaign, [RecipientOutcome(number, 0, state)])

    def is_led(self) -> bool:
        return bool(self.operation.store.lead("me", 100.0))


def shown(jobs: list[Job]) -> list[tuple[str, Any, str]]:
    return [(job.method, job.params.get("message_id"), job.params["text"].partition("\n")[0]) for job in jobs]


def test_one_message_is_edited_until_the_campaign_has_ended(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        operator = Operator(operation)
        first = await operator.told()
        assert shown(first) == [("sendMessage", None, "Campaign spring: running")]
        assert first[0].params["chat_id"] == CHAT
        operator.end(1)
        assert await operator.told() == [], "the first message is still under way"
        await operation.send(first)
        edits = await operator.told()
        assert shown(edits) == [("editMessageText", 1, "Campaign spring: running")]
        assert f"1 of {RECIPIENTS} recipients (3 %)\nsent: 1" in edits[0].params["text"]
        await operation.send(edits)
        assert await operator.told() == [], "nothing has changed"
        operation.store.transition("spring", CampaignState.PAUSED)
        assert operator.is_led()
        assert shown(await operator.told()) == [("editMessageText", 1, "Campaign spring: paused")]
        assert not operator.is_led(), "its last state has been reported"
        operation.store.transition("spring", CampaignState.CANCELLED)
        assert operator.is_led()

    operate(vhost, tmp_path, use)


def test_edits_are_seconds_apart(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        operator = Operator(operation)
        await operation.send(await operator.told())
        for number in range(1, 5):
            operator.end(number)
            assert await operator.told(reports.EDIT_SECONDS / 5) == []
        operator.end(5)
        assert len(await operator.told(reports.EDIT_SECONDS / 5)) == 1

    operate(vhost, tmp_path, use)


def test_the_next_leader_edits_the_same_message(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        operator = Operator(operation)
        first = await operator.told()
        await operation.send(first)
        operator.report = operator.another()  # the first died before it knew the message
        assert [job.id for job in await operator.told()] == [first[0].id], "a worker sends no job twice"
        operator.end(1)
        assert shown(await operator.told()) == [("editMessageText", 1, "Campaign spring: running")]
        operator.report = operator.another()
        assert shown(await operator.told()) == [("editMessageText", 1, "Campaign spring: running")]

    operate(vhost, tmp_path, use)


def test_a_report_that_telegram_refuses_ends_and_the_campaign_goes_on(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        operator = Operator(operation)
        await operation.refuse((await operator.told())[0])
        for number in range(1, 4):
            operator.end(number)
            assert await operator.told() == []
        operation.store.transition("spring", CampaignState.PAUSED)
        assert not operator.is_led()

    operate(vhost, tmp_path, use)


def test_the_chat_is_the_definitions_unless_another_is_given(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        operator = Operator(operation)
        campaign = replace(operation.campaign, id=2)  # has no report so far
        assert await operator.told(campaign=campaign) == []
        definition = campaign.definition.model_copy(update={"report_to": "77"})
        told = await operator.told(campaign=replace(campaign, definition=definition))
        assert [job.params["chat_id"] for job in told] == ["77"]
        operator.store.direct(campaign, "5")
        told = await operator.told(campaign=replace(campaign, definition=definition))
        assert [(job.method, job.params["chat_id"]) for job in told] == [("sendMessage", "5")]

    operate(vhost, tmp_path, use)
