"""The operations on campaigns, as programs use them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.errors import CampaignError, ClosedError, InvalidParamsError
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.service import Campaigns
from floodgate.producer.campaigns.states import CampaignState, RecipientState

FIELDS = {"name": "spring", "content": {"text": "Hello {{ name }}!", "fallbacks": {"name": "you"}}}
AUDIENCE = [{"chat_id": number, "name": f"Name {number}"} for number in range(1, 6)]


@pytest.fixture
def campaigns(tmp_path: Path) -> Iterator[Campaigns]:
    settings = Settings(_env_file=None, campaigns_url=f"sqlite:///{tmp_path}/campaigns.db")
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


def test_campaigns_are_listed_by_bot_the_latest_first(campaigns: Campaigns) -> None:
    for number, bot in enumerate(["news", "shop", "news"]):
        campaigns.create(FIELDS | {"name": f"n{number}", "bot": bot}, AUDIENCE)
    assert [progress.campaign.name for progress in campaigns.list()] == ["n2", "n1", "n0"]
    assert [progress.campaign.name for progress in campaigns.list("news")] == ["n2", "n0"]


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


def test_a_forked_process_opens_its_own_connections(campaigns: Campaigns) -> None:
    campaigns.create(FIELDS, AUDIENCE)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            campaigns.start("spring")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert campaigns.pause("spring").state is CampaignState.PAUSED
