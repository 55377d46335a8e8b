"""A campaign waits for what is unavailable, says so in one sentence, and goes on; nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.cli import EXIT_STATE, main
from floodgate.producer.campaigns.audience.rows import read_rows
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.states import CampaignState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.store import CampaignStore
from tests.integration.test_campaign_leader import RECIPIENTS, Operation, led, operate, reached
from tests.proxy import Proxy
from tests.services import PostgresServer, Vhost
from tests.waiting import until


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodgate.producer.campaigns.storage.database.LOCK_SECONDS", 0.2)
    for module in ("leader", "process"):
        monkeypatch.setattr(f"floodgate.producer.campaigns.sending.{module}.LONGEST_RETRY_SECONDS", 0.5)


async def said(caplog: pytest.LogCaptureFixture, *parts: str) -> None:
    """Wait for a line of the log, which is one sentence and no traceback."""

    def lines() -> list[logging.LogRecord]:
        return [each for each in caplog.records if all(part in each.getMessage() for part in parts)]

    await asyncio.to_thread(until, lines, 30)
    assert all(not each.exc_info and "\n" not in each.getMessage() for each in lines())


async def goes_on(operation: Operation) -> None:
    """Whatever waits is released, published and sent, and the campaign is done."""
    await reached(operation, released=RECIPIENTS)
    jobs = {}
    while len(jobs) < RECIPIENTS:
        jobs |= {job.id: job for job in await operation.jobs()}
    assert len({job.params["chat_id"] for job in jobs.values()}) == RECIPIENTS
    await operation.send(list(jobs.values()))
    await reached(operation, sent=RECIPIENTS)


async def queues_exist(operation: Operation) -> None:
    await operation.client.enqueue(operation.client.job("sendMessage", chat_id=1, text="interactive, so elsewhere"))


def test_a_campaign_waits_for_a_locked_database(vhost: Vhost, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use(operation: Operation) -> None:
        await queues_exist(operation)
        with closing(sqlite3.connect(tmp_path / "campaigns.db", isolation_level=None)) as another:
            async with led(operation.settings):
                await reached(operation, released=RECIPIENTS)
                another.execute("BEGIN IMMEDIATE")
                await said(caplog, "campaigns wait: The campaigns' database", "is unavailable: database is locked")
                another.execute("ROLLBACK")
                await goes_on(operation)

    operate(vhost, tmp_path, use)


def test_a_campaign_waits_for_a_postgresql_that_cannot_be_reached(
    vhost: Vhost, tmp_path: Path, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(operation: Operation) -> None:
        await queues_exist(operation)
        async with led(operation.settings):
            await reached(operation, released=RECIPIENTS)
            proxy.refuse()
            proxy.cut()
            await said(caplog, "campaigns wait: The campaigns' database at 127.0.0.1 is unavailable: ")
            proxy.accept()
            await goes_on(operation)

    with Proxy(postgres.port) as proxy:
        url = postgres.new_database().replace(str(postgres.port), str(proxy.port))
        operate(vhost, tmp_path, use, campaigns_url=url)


def test_a_campaign_waits_for_rabbitmq_and_can_be_paused_meanwhile(
    vhost: Vhost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(operation: Operation) -> None:
        proxy.refuse()
        async with led(operation.settings):
            await said(caplog, "campaign spring waits: ", "RabbitMQ")
            operation.store.transition("spring", CampaignState.PAUSED)
            await reached(operation, waiting=RECIPIENTS)
            proxy.accept()
            await queues_exist(operation)
            operation.store.transition("spring", CampaignState.RUNNING)
            await goes_on(operation)
        assert len([each for each in caplog.records if "spring waits" in each.getMessage()]) < 5

    with Proxy(vhost.node.port) as proxy:
        operate(vhost, tmp_path, use, rabbitmq_url=proxy.url(vhost.url))


def test_a_pause_waits_for_the_state_store(vhost: Vhost, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "later").write_text("not a folder yet")

    async def use(operation: Operation) -> None:
        async with led(operation.settings):
            await reached(operation, released=RECIPIENTS)
            operation.store.transition("spring", CampaignState.PAUSED)
            await said(caplog, "campaign spring waits: ", "state")
            (tmp_path / "later").unlink()
            await reached(operation, waiting=RECIPIENTS)

    operate(vhost, tmp_path, use, state_url=f"sqlite:///{tmp_path}/later/state.db")


class Disk:
    """Lets SQLite files grow to so many pages."""

    def __init__(self) -> None:
        self.pages: int | None = None

    def limit(self, connection: sqlite3.Connection, *_others: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0] if self.pages is None else self.pages
        connection.execute(f"PRAGMA max_page_count = {pages}")


def test_an_import_that_fills_the_disk_leaves_a_draft_and_can_be_made_again(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, campaigns_url=f"sqlite:///{tmp_path}/campaigns.db")
    disk = Disk()
    with closing(CampaignStore(Database(settings))) as store:
        store.create(parse_definition({"name": "spring", "content": {"text": "Hello"}}, "the test"), "default")
        event.listen(Engine, "checkout", disk.limit)
        try:
            with pytest.raises(StateUnavailableError, match=r"campaigns\.db is unavailable: .*full"):
                store.import_audience("spring", read_rows({"chat_id": n} for n in range(1, 20_001)))
            disk.pages = 2**30
            assert store.get("spring").state is CampaignState.DRAFT
            assert store.import_audience("spring", read_rows([{"chat_id": 1}])).state is CampaignState.READY
        finally:
            event.remove(Engine, "checkout", disk.limit)


COMMANDS = (
    "run",
    "create spring.toml --audience audience.csv",
    "check spring",
    "start spring --yes",
    "pause spring",
    "resume spring",
    "cancel spring --yes",
    "list",
    "show spring",
    "watch spring",
    "export spring",
    "unsubscribe 42",
)


@pytest.mark.parametrize("trouble", ["not reachable", "not a database", "not a folder"])
def test_each_command_says_in_one_sentence_that_its_database_is_unavailable(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spring.toml").write_text('name = "spring"\n[content]\ntext = "Hello"\n')
    (tmp_path / "audience.csv").write_text("chat_id\n1\n")
    url = {
        "not reachable": "postgresql+psycopg://me:secret@127.0.0.1:1/campaigns",
        "not a database": f"sqlite:///{tmp_path}/audience.csv",
        "not a folder": f"sqlite:///{tmp_path}/audience.csv/campaigns.db",
    }[trouble]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOODGATE_CAMPAIGNS_URL", url)
    monkeypatch.setenv("FLOODGATE_BOT_TOKEN", "100200300:" + "A" * 35)
    monkeypatch.setattr("floodgate.broker.process.logs.configure_logging", lambda _settings: None)  # of this process
    for command in COMMANDS:
        monkeypatch.setattr("sys.argv", ["floodgate", "campaigns", *command.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == EXIT_STATE, (command, told)
        assert told.count("\n") == 1, (command, told)
        assert told.endswith("Check FLOODGATE_CAMPAIGNS_URL.\n"), (command, told)
        assert "secret" not in told
