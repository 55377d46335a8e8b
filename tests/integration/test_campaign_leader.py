"""How a leader releases, recovers and takes back, on a real RabbitMQ and real stores, without workers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from floodgate.broker.admission.contract import AlreadyDead, Dead, Go, Sent, Standing
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages.job import Job, decode_job
from floodgate.broker.messages.queue_names import send_queue
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.broker.state.stores import open_batched
from floodgate.broker.state.thread import StateThread
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.campaigns.audience.rows import read_rows
from floodgate.producer.campaigns.content.recipient_codes import RecipientCode
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.operations.corrections import edit_sent
from floodgate.producer.campaigns.operations.edits import edit
from floodgate.producer.campaigns.sending import leader as leader_module
from floodgate.producer.campaigns.sending.leader import Leader
from floodgate.producer.campaigns.sending.process import CampaignRunner
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import Campaign, RecipientOutcome
from floodgate.producer.campaigns.storage.store import CampaignStore
from floodgate.producer.campaigns.storage.tables import campaigns
from tests.draining import drain
from tests.services import Vhost
from tests.waiting import until

BOT = "default"
RECIPIENTS = 30


@dataclass
class Operation:
    """A campaign that runs, and what a leader of it needs."""

    settings: Settings
    database: Database
    store: CampaignStore
    calls: StateThread
    ledger: BatchedAdmission
    client: AsyncClient

    @property
    def campaign(self) -> Campaign:
        return self.store.get("spring")

    def leader(self, name: str = "spring") -> Leader:
        self.store.lead("me", 100.0)
        return Leader(
            self.store.get(name),
            "me",
            self.settings,
            store=self.store,
            calls=self.calls,
            ledger=self.ledger,
            publish=self.client.enqueue_many,
            metrics=Metrics(),
        )

    async def jobs(self) -> list[Job]:
        """Take all jobs out of the queue."""
        queue = send_queue(BOT, "bulk", 0)
        drained = await asyncio.to_thread(drain, self.settings.rabbitmq_url.get_secret_value(), queue)
        return [decode_job(body) for _, body in drained]

    async def send(self, jobs: list[Job]) -> None:
        """Do what a worker does, but for the call."""
        for number, job in enumerate(jobs, 1):
            ask = ask_for(job, self.settings)
            go = await self.ledger.admit(ask)
            assert isinstance(go, Go)
            await self.ledger.settle(ask, Sent({"message_id": number}), go.grant)

    async def refuse(self, job: Job) -> None:
        """Do what a worker does if Telegram refuses the message."""
        ask = ask_for(job, self.settings)
        go = await self.ledger.admit(ask)
        assert isinstance(go, Go)
        await self.ledger.settle(ask, Dead("content", {"description": "Bad Request"}), go.grant)

    def states(self) -> dict[RecipientState, int]:
        return dict(self.store.counts("spring"))


def operate(vhost: Vhost, folder: Path, use: Callable[[Operation], Awaitable[None]], **given: Any) -> None:
    standard: dict[str, Any] = {
        "rabbitmq_url": vhost.url,
        "state_url": f"sqlite:///{folder}/state.db",
        "campaigns_url": f"sqlite:///{folder}/campaigns.db",
        "partitions": 1,
        "bots": {BOT: "100200300:" + "A" * 35},
        "limits": {"enabled": False},
    }
    settings = Settings(_env_file=None, **(standard | given))

    async def main() -> None:
        calls, thread = StateThread(), StateThread()
        database = Database(settings)
        store, ledger, client = CampaignStore(database), open_batched(settings, thread), AsyncClient(settings)
        store.create(parse_definition({"name": "spring", "content": {"text": "Hello"}}, "the test"), BOT)
        store.import_audience("spring", read_rows({"chat_id": n} for n in range(1, RECIPIENTS + 1)))
        store.transition("spring", CampaignState.RUNNING)
        try:
            await use(Operation(settings, database, store, calls, ledger, client))
        finally:
            await client.close()
            await ledger.close()
            await calls.stop()
            await thread.stop()
            store.close()

    asyncio.run(main())


def test_a_leader_that_died_after_releasing_is_followed_by_one_that_publishes(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        operation.store.lead("me", 100.0)
        operation.store.release(operation.campaign, "me", 10, [0])
        await operation.leader().step(operation.campaign)
        jobs = await operation.jobs()
        assert sorted(job.params["chat_id"] for job in jobs) == sorted(str(n) for n in range(1, RECIPIENTS + 1))
        assert operation.states() == {RecipientState.RELEASED: RECIPIENTS}

    operate(vhost, tmp_path, use)


def test_a_leader_that_died_after_publishing_is_followed_by_one_that_repeats_the_same_jobs(
    vhost: Vhost, tmp_path: Path
) -> None:
    async def use(operation: Operation) -> None:
        await operation.leader().step(operation.campaign)
        first = await operation.jobs()
        await operation.send(first[:10])
        await operation.leader().step(operation.campaign)
        again = await operation.jobs()
        assert {job.id for job in again} == {job.id for job in first[10:]}, "those that the ledger does not know"
        assert operation.states() == {RecipientState.SENT: 10, RecipientState.RELEASED: 20}

    operate(vhost, tmp_path, use)


def test_the_codes_in_an_edited_message_name_the_campaign_that_sent_it(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        await operation.send(await operation.jobs())
        await leader.look_up()
        await leader.step(operation.campaign)
        sent_by = operation.campaign.id
        content = {"text": "{{ deep_link }}", "unsubscribe": "Stop", "bot_username": "spring_bot"}
        edits = edit_sent(operation.store, "spring", content, "the test")
        running = operation.store.transition(edits.name, CampaignState.RUNNING)
        await operation.leader(edits.name).step(running)
        code = RecipientCode(sent_by, 1)
        [first] = [job.params for job in await operation.jobs() if job.params["chat_id"] == "1"]
        assert first["reply_markup"]["inline_keyboard"][-1][0]["callback_data"] == code.unsubscribe_data
        assert first["text"].endswith(code.start_payload)

    operate(vhost, tmp_path, use)


def test_outcomes_are_recorded_and_the_campaign_ends(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        jobs = await operation.jobs()
        await operation.send(jobs)
        await leader.look_up()
        await leader.step(operation.campaign)
        assert operation.states() == {RecipientState.SENT: RECIPIENTS}
        assert operation.campaign.state is CampaignState.DONE
        assert {recipient.message_id for recipient in operation.store.recipients("spring")} == set(
            range(1, RECIPIENTS + 1)
        )

    operate(vhost, tmp_path, use)


def test_a_pause_cancels_what_waits_and_the_recipients_get_other_jobs_later(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        jobs = await operation.jobs()
        await operation.send(jobs[:5])
        await leader.step(operation.store.transition("spring", CampaignState.PAUSED))
        assert operation.states() == {RecipientState.SENT: 5, RecipientState.WAITING: 25}
        assert isinstance(await operation.ledger.admit(ask_for(jobs[5], operation.settings)), AlreadyDead)
        assert await operation.ledger.not_kept(BOT) == (), "nobody needs to know of a job that gets a successor"

        await leader.step(operation.store.transition("spring", CampaignState.RUNNING))
        later = await operation.jobs()
        assert {job.params["chat_id"] for job in later} == {job.params["chat_id"] for job in jobs[5:]}
        assert not {job.id for job in later} & {job.id for job in jobs}

    operate(vhost, tmp_path, use)


def test_a_job_whose_call_has_begun_is_not_taken_back(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        first, *_ = await operation.jobs()
        ask = ask_for(first, operation.settings)
        go = await operation.ledger.admit(ask)
        assert isinstance(go, Go)
        paused = operation.store.transition("spring", CampaignState.PAUSED)
        await leader.step(paused)
        assert operation.states() == {RecipientState.RELEASED: 1, RecipientState.WAITING: RECIPIENTS - 1}
        await operation.ledger.settle(ask, Sent({"message_id": 7}), go.grant)
        record = await operation.ledger.lookup(BOT, first.id)
        assert record is not None
        assert record.standing is Standing.SENT
        leader.hear(first.id, record)
        await leader.step(paused)
        assert operation.states() == {RecipientState.SENT: 1, RecipientState.WAITING: RECIPIENTS - 1}

    operate(vhost, tmp_path, use)


def test_a_rule_stops_the_campaign_and_takes_back_the_rest(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        jobs = await operation.jobs()
        for job in jobs[:25]:
            await operation.refuse(job)
        await leader.look_up()
        await leader.step(operation.campaign)
        stopped = operation.campaign
        assert stopped.state is CampaignState.STOPPED
        assert "refused for the same reason: content: Bad Request" in str(stopped.reason)
        await leader.step(stopped)
        assert operation.states() == {RecipientState.FAILED: 25, RecipientState.WAITING: 5}

    operate(vhost, tmp_path, use)


def test_answers_429_stop_the_campaign_which_goes_on_when_it_is_resumed(
    vhost: Vhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "FLOOD_WAIT_SECONDS", 0.0)

    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        jobs = await operation.jobs()
        for job in jobs[:6]:
            await operation.ledger.too_many_requests(BOT, job.chat, timedelta(seconds=60))
        await leader.step(operation.campaign)
        stopped = operation.campaign
        assert stopped.state is CampaignState.STOPPED
        assert "more than 5 of its calls with 429" in str(stopped.reason)
        await leader.step(stopped)
        resumed = operation.store.transition("spring", CampaignState.RUNNING)
        await leader.step(resumed)
        await leader.step(resumed)
        assert operation.campaign.state is CampaignState.RUNNING
        assert len(await operation.jobs()) == RECIPIENTS

    operate(vhost, tmp_path, use)


def test_an_outcome_that_is_heard_twice_counts_once_in_the_rules(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        for job in (await operation.jobs())[:15]:
            await operation.refuse(job)
        await leader.look_up()
        await leader.look_up()
        await leader.step(operation.campaign)
        assert operation.campaign.state is CampaignState.RUNNING
        assert operation.states() == {RecipientState.FAILED: 15, RecipientState.RELEASED: 15}


def test_an_edit_takes_back_what_has_not_begun_and_sends_it_as_changed(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        jobs = await operation.jobs()
        await operation.send(jobs[:5])
        begun = ask_for(jobs[5], operation.settings)
        go = await operation.ledger.admit(begun)
        assert isinstance(go, Go)
        changed = parse_definition({"name": "spring", "content": {"text": "Goodbye"}}, "the test")
        await asyncio.to_thread(edit, operation.store, "spring", changed)

        await leader.step(operation.campaign)
        again = await operation.jobs()
        assert {job.params["chat_id"] for job in again} == {job.params["chat_id"] for job in jobs[6:]}
        assert {job.params["text"] for job in again} == {"Goodbye"}
        await operation.ledger.settle(begun, Sent({"message_id": 6}), go.grant)
        await operation.send(again)
        await leader.look_up()
        await leader.step(operation.campaign)
        assert operation.states() == {RecipientState.SENT: RECIPIENTS}
        versions = [each.version for each in operation.store.recipients("spring")]
        assert (versions.count(1), versions.count(2)) == (6, RECIPIENTS - 6)

    operate(vhost, tmp_path, use)


def test_a_leader_asks_for_recipients_again_only_after_outcomes_or_a_while(
    vhost: Vhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floodgate.producer.campaigns.sending.leader.REST_SECONDS", 3600.0)

    async def use(operation: Operation) -> None:
        leader, asked = operation.leader(), list[int]()
        release = operation.store.release
        operation.store.release = lambda *given: asked.append(given[2]) or release(*given)  # type: ignore[method-assign]
        await leader.step(operation.campaign)
        await leader.step(operation.campaign)
        assert len(asked) == 1, "all have been released"
        await operation.send((await operation.jobs())[:5])
        await leader.look_up()
        await leader.step(operation.campaign)
        assert len(asked) == 2

    operate(vhost, tmp_path, use)


@contextlib.asynccontextmanager
async def led(settings: Settings) -> AsyncIterator[CampaignRunner]:
    """A process's campaigns, whose leases are not renewed in time."""
    runner = CampaignRunner(settings, AsyncClient(settings))
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        await task


async def reached(operation: Operation, **wanted: int) -> None:
    """Wait until the recipients are in these states."""
    states = {RecipientState[state.upper()]: number for state, number in wanted.items()}
    await asyncio.to_thread(until, lambda: operation.states() == states, 30)


@pytest.fixture
def no_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodgate.producer.campaigns.sending.process.RENEW_SECONDS", 3600.0)
    monkeypatch.setattr("floodgate.producer.campaigns.sending.process.LEASE_SECONDS", 7200.0)


@pytest.mark.usefixtures("no_renewal")
def test_a_start_a_pause_and_a_resume_do_not_wait_for_a_renewal_of_leases(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        operation.store.transition("spring", CampaignState.PAUSED)
        async with led(operation.settings):
            for _ in range(2):
                operation.store.transition("spring", CampaignState.RUNNING)
                await reached(operation, released=RECIPIENTS)
                operation.store.transition("spring", CampaignState.PAUSED)
                await reached(operation, waiting=RECIPIENTS)

    operate(vhost, tmp_path, use)


@pytest.mark.usefixtures("no_renewal")
def test_a_process_that_lost_a_lease_recovers_what_another_one_did_since(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        await operation.client.enqueue(operation.client.job("sendMessage", chat_id=1, text="-", job_id="a-b-c"))
        async with led(operation.settings):
            await reached(operation, released=RECIPIENTS)
            with operation.database.writing() as db:
                db.execute(update(campaigns).values(leader="another", leader_until_ms=2**42))
            released = operation.store.released(operation.campaign)
            back = [RecipientOutcome(each.number, each.attempt, RecipientState.WAITING) for each in released]
            operation.store.settle(operation.campaign, back)
            operation.store.release(operation.campaign, "another", RECIPIENTS, [0])
            operation.store.resign("another")
            jobs = {f"{number}-1" for number in range(1, RECIPIENTS + 1)}
            seen = set[str]()
            async with asyncio.timeout(30):
                while not jobs <= seen:
                    seen |= {job.id.split("-", 2)[2] for job in await operation.jobs()}


def test_a_leader_that_died_before_an_edit_is_followed_by_one_that_sends_it_as_changed(
    vhost: Vhost, tmp_path: Path
) -> None:
    async def use(operation: Operation) -> None:
        operation.store.lead("me", 100.0)
        operation.store.release(operation.campaign, "me", 10, [0])
        changed = parse_definition({"name": "spring", "content": {"text": "Goodbye"}}, "the test")
        await asyncio.to_thread(edit, operation.store, "spring", changed)
        await operation.leader().step(operation.campaign)
        assert {job.params["text"] for job in await operation.jobs()} == {"Goodbye"}
        assert [each.attempt for each in operation.store.recipients("spring")] == [1] * 10 + [0] * 20

    operate(vhost, tmp_path, use)


def test_jobs_that_rabbitmq_lost_are_published_again_when_nothing_ends(
    vhost: Vhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        lost = await operation.jobs()
        await operation.send(lost[:10])
        await leader.look_up()
        await leader.step(operation.campaign)
        await leader.look_up()
        await leader.step(operation.campaign)
        assert await operation.jobs() == [], "they may still wait"

        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 120)
        monkeypatch.setattr("floodgate.producer.campaigns.sending.leader.time", later)
        await leader.look_up()
        await leader.step(operation.campaign)
        assert {job.id for job in await operation.jobs()} == {job.id for job in lost[10:]}

    operate(vhost, tmp_path, use)


def test_an_edit_of_what_was_sent_names_the_message_and_the_campaign_that_sent_it(vhost: Vhost, tmp_path: Path) -> None:
    async def use(operation: Operation) -> None:
        leader = operation.leader()
        await leader.step(operation.campaign)
        await operation.send(await operation.jobs())
        await leader.look_up()
        await leader.step(operation.campaign)
        changed = {"text": "Sorry", "unsubscribe": "Stop"}
        name = (await asyncio.to_thread(edit_sent, operation.store, "spring", changed, "the test")).name
        edits = operation.store.transition(name, CampaignState.RUNNING)
        await operation.leader(name).step(edits)
        job = next(job for job in await operation.jobs() if job.params["chat_id"] == "7")
        assert (job.method, job.params["text"], job.campaign) == ("editMessageText", "Sorry", "spring.edit-1")
        spring = {each.chat: each for each in operation.store.recipients("spring")}["7"]
        assert job.params["message_id"] == spring.message_id
        [[button]] = job.params["reply_markup"]["inline_keyboard"]
        assert button["callback_data"] == RecipientCode(operation.campaign.id, spring.number).unsubscribe_data

    operate(vhost, tmp_path, use)
