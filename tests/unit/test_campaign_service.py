"""The operations on campaigns, as programs use them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from floodgate.broker.errors import CampaignError, ClosedError, InvalidParamsError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.campaigns.audience.queries import AudienceQuery
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.operations.async_service import MOST_THREADS
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.client import Client

FIELDS = {"name": "spring", "content": {"text": "Hello {{ name }}!", "fallbacks": {"name": "you"}}}
AUDIENCE = [{"chat_id": number, "name": f"Name {number}"} for number in range(1, 6)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None, campaigns_url=f"sqlite:///{tmp_path}/campaigns.db", state_url=f"sqlite:///{tmp_path}/state.db"
    )


@pytest.fixture
def campaigns(settings: Settings) -> Iterator[Campaigns]:
    campaigns = Campaigns(settings, "news")
    yield campaigns
    campaigns.close()
    campaigns.close()


@pytest.mark.parametrize("form", ["mapping", "definition", "file"])
def test_a_definition_may_be_a_mapping_a_definition_or_a_file(campaigns: Campaigns, tmp_path: Path, form: str) -> None:
    file = tmp_path / "spring.toml"
    file.write_text('name = "spring"\ncontent = {text = "Hello"}\n')
    given: Any = {"mapping": FIELDS, "definition": parse_definition(FIELDS, "the test"), "file": file}[form]
    campaign = campaigns.create(given, AUDIENCE)
    assert (campaign.name, campaign.bot, campaign.state) == ("spring", "news", CampaignState.READY)


def test_chats_that_the_bot_cannot_reach_are_left_out_and_counted(
    campaigns: Campaigns, settings: Settings, tmp_path: Path
) -> None:
    with closing(open_store(settings)) as state:
        state.mark_unreachable("news", "2", "Forbidden: bot was blocked by the user")
        state.mark_unreachable("other", "3", "Forbidden: bot was blocked by the user")
    campaigns.create(FIELDS, AUDIENCE)
    assert [recipient.chat for recipient in campaigns.recipients("spring")] == ["1", "3", "4", "5"]
    assert [(each.why, each.number, each.line) for each in campaigns.refused("spring")] == [
        ("the chat is known to be unreachable", 1, 2)
    ]


def test_an_audience_may_be_a_query(campaigns: Campaigns, tmp_path: Path) -> None:
    file = sqlite3.connect(tmp_path / "users.db")
    file.executescript("CREATE TABLE users (chat_id, name); INSERT INTO users VALUES (1, 'Ann'), ('x', 'Bob')")
    file.close()
    database = SecretStr(f"sqlite:///{tmp_path}/users.db")
    campaigns.create(FIELDS, AudienceQuery(database, "SELECT * FROM users"))
    assert [recipient.chat for recipient in campaigns.recipients("spring")] == ["1"]
    assert [each.line for each in campaigns.refused("spring")] == [2]


def test_an_audience_is_imported_before_the_first_worker_has_created_the_state_file(
    campaigns: Campaigns, tmp_path: Path
) -> None:
    assert campaigns.create(FIELDS, AUDIENCE).state is CampaignState.READY
    assert not (tmp_path / "state.db").exists()


def test_the_audience_may_be_a_file_and_what_is_left_out_files_and_chats(campaigns: Campaigns, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("chat_id\n1\n2\n3\n@Some_channel\nnobody\n")
    (tmp_path / "some.csv").write_text("chat_id\n2\n")
    campaigns.unsubscribe("3")
    campaigns.create(FIELDS, tmp_path / "all.csv", exclude=[tmp_path / "some.csv", "@some_CHANNEL"])
    assert [recipient.chat for recipient in campaigns.recipients("spring")] == ["1"]
    assert {each.why: each.number for each in campaigns.refused("spring")} == {
        "it is excluded": 2,
        "the chat has unsubscribed": 1,
        "chat_id is neither a chat's id nor an @name": 1,
    }


def test_an_audience_that_cannot_be_read_leaves_no_campaign_behind(campaigns: Campaigns, tmp_path: Path) -> None:
    for exclude in ([], ["nobody"]):
        with pytest.raises((CampaignError, InvalidParamsError)):
            campaigns.create(FIELDS, AUDIENCE if exclude else tmp_path / "none.csv", exclude=exclude)
    assert campaigns.list() == []
    campaigns.create(FIELDS, AUDIENCE)


def test_a_campaign_without_an_audience_is_a_draft_that_gets_one_later(campaigns: Campaigns, tmp_path: Path) -> None:
    assert campaigns.create(FIELDS).state is CampaignState.DRAFT
    with pytest.raises(CampaignError, match="Cannot read"):
        campaigns.import_audience("spring", tmp_path / "none.csv")
    assert campaigns.import_audience("spring", AUDIENCE, exclude=[1]).state is CampaignState.READY
    assert campaigns.progress("spring").total == 4
    with pytest.raises(CampaignError, match="its audience is frozen"):
        campaigns.import_audience("spring", AUDIENCE)


def test_a_campaign_is_started_paused_resumed_and_cancelled(campaigns: Campaigns) -> None:
    campaigns.create(FIELDS, AUDIENCE)
    with pytest.raises(CampaignError, match="is ready, not paused or stopped"):
        campaigns.resume("spring")
    assert campaigns.start("spring").state is CampaignState.RUNNING
    assert campaigns.pause("spring").state is CampaignState.PAUSED
    assert campaigns.resume("spring").state is CampaignState.RUNNING
    assert campaigns.cancel("spring").state is CampaignState.CANCELLED
    progress = campaigns.progress("spring")
    assert (progress.total, progress.left, progress.counts) == (5, 5, {RecipientState.WAITING: 5})


def test_a_campaign_that_telegram_would_refuse_does_not_start(campaigns: Campaigns) -> None:
    campaigns.create({"name": "spring", "content": {"text": "Hello {{ name }}"}}, [*AUDIENCE, {"chat_id": 9}])
    assert campaigns.check("spring").as_json() == {
        "checked": 6,
        "skipped": 0,
        "longest": 12,
        "findings": [{"why": "The field 'name' is missing and has no fallback.", "recipients": 1, "first": "9"}],
    }
    with pytest.raises(CampaignError, match="spring does not start: The field 'name' is missing"):
        campaigns.start("spring")
    assert campaigns.progress("spring").campaign.state is CampaignState.READY


def test_the_chat_of_the_report_is_checked(campaigns: Campaigns) -> None:
    with pytest.raises(CampaignError, match="The definition: report_to: "):
        campaigns.create(FIELDS | {"report_to": "nobody"}, AUDIENCE)
    assert campaigns.create(FIELDS | {"report_to": -1001}, AUDIENCE).definition.report_to == "-1001"
    with pytest.raises(InvalidParamsError):
        campaigns.start("spring", report_to="nobody")
    assert campaigns.start("spring", report_to="@Operators").state is CampaignState.RUNNING


def test_campaigns_are_listed_by_bot_the_latest_first(campaigns: Campaigns) -> None:
    for number, bot in enumerate(["news", "shop", "news"]):
        campaigns.create(FIELDS | {"name": f"n{number}", "bot": bot}, AUDIENCE)
    assert [progress.campaign.name for progress in campaigns.list()] == ["n2", "n1", "n0"]
    assert [progress.campaign.name for progress in campaigns.list("news")] == ["n2", "n0"]


def test_text_that_no_database_can_keep_is_refused_in_an_audience_and_in_a_definition(campaigns: Campaigns) -> None:
    with pytest.raises(CampaignError, match="cannot be written as JSON in UTF-8"):
        campaigns.create({"name": "spring", "content": {"text": "half a \ud83d"}}, AUDIENCE)
    rows = [{"chat_id": 1, "name": "half a \ud83d"}, {"chat_id": "\ud83d\0"}, {"chat_id": 2, "name": "nul \0"}]
    campaigns.create(FIELDS, rows)
    assert [recipient.chat for recipient in campaigns.recipients("spring")] == ["2"]
    assert {each.why: each.line for each in campaigns.refused("spring")} == {
        "a text is not valid Unicode": 1,
        "chat_id is neither a chat's id nor an @name": 2,
    }


def test_a_long_import_tells_how_many_rows_it_has_read_and_ends_when_closed(campaigns: Campaigns) -> None:
    told: list[int] = []

    def audience() -> Iterator[dict[str, int]]:
        for number in range(1, 10_000):
            if number == 3000:
                campaigns.close()
            yield {"chat_id": number}

    with pytest.raises(ClosedError):
        campaigns.create(FIELDS, audience(), on_rows=told.append)
    assert told == [1000, 2000]


def test_a_forked_process_opens_its_own_connections(campaigns: Campaigns, tmp_path: Path) -> None:
    file = tmp_path.resolve() / "campaigns.db"
    campaigns.create(FIELDS, AUDIENCE)

    def connections() -> int:
        return sum(each.resolve() == file for each in Path("/proc/self/fd").iterdir())

    inherited = connections()
    assert inherited > 0
    child = os.fork()
    if child == 0:
        status = 1
        try:
            campaigns.start("spring")
            status = 0 if connections() > inherited else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert campaigns.pause("spring").state is CampaignState.PAUSED


def test_a_client_has_the_campaigns_of_its_bot_and_opens_nothing_before_the_first_operation(
    settings: Settings, tmp_path: Path
) -> None:
    with Client(settings, bot="shop") as client:
        campaigns = client.campaigns
        assert list(tmp_path.iterdir()) == []
        assert campaigns.create(FIELDS, AUDIENCE).bot == "shop"
        assert client.campaigns is campaigns
    client.close()
    assert client.campaigns.progress("spring").total == 5  # as its other methods, they open again
    client.close()


def test_the_campaigns_of_an_event_loop_run_on_few_threads_which_end_with_the_client(settings: Settings) -> None:
    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("floodgate-campaigns")]

    async def main() -> None:
        async with AsyncClient(settings) as client:
            campaigns = client.campaigns
            assert threads() == []
            await campaigns.create(FIELDS, AUDIENCE)
            assert (await campaigns.check("spring")).checked == 5
            assert (await campaigns.start("spring")).state is CampaignState.RUNNING
            found = await asyncio.gather(*(campaigns.progress("spring") for _ in range(50)))
            assert {progress.total for progress in found} == {5}
            assert 0 < len(threads()) <= MOST_THREADS
            assert [recipient.chat async for recipient in campaigns.recipients("spring")] == list("12345")
            assert (await campaigns.pause("spring")).state is CampaignState.PAUSED
            assert (await campaigns.resume("spring")).state is CampaignState.RUNNING
            assert (await campaigns.cancel("spring")).state is CampaignState.CANCELLED
            await campaigns.unsubscribe(1)
            assert await campaigns.refused("spring") == []
            assert [variant.name for variant in (await campaigns.results("spring")).variants] == ["spring"]
            assert len(await campaigns.list()) == 1
        assert threads() == []
        await client.close()

    asyncio.run(main())


def test_an_import_under_way_ends_when_the_client_of_an_event_loop_closes(settings: Settings) -> None:
    reading, closing = threading.Event(), threading.Event()

    def audience() -> Iterator[dict[str, int]]:
        yield {"chat_id": 1}
        reading.set()
        closing.wait()
        yield {"chat_id": 2}

    async def main() -> None:
        campaigns = AsyncClient(settings).campaigns
        creating = asyncio.create_task(campaigns.create(FIELDS, audience()))
        await asyncio.to_thread(reading.wait)
        ended = asyncio.create_task(campaigns.close())
        await asyncio.sleep(0)  # it marks the campaigns as closed, then waits for the thread
        closing.set()
        await ended
        with pytest.raises(ClosedError):
            await creating

    asyncio.run(main())
