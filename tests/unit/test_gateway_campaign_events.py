"""The events of a campaign, as a stream of the gateway has them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.operations.async_service import AsyncCampaigns
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.gateway import campaigns as gateway
from floodgate.producer.gateway.state import Running


def test_a_stream_tells_changes_and_that_it_is_alive_and_ends_with_the_campaign_or_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(gateway, "HEARTBEAT_SECONDS", 0.0)
    settings = Settings(_env_file=None, campaigns_url=f"sqlite:///{tmp_path}/campaigns.db")
    running = cast(Running, SimpleNamespace(draining=False))

    async def main() -> None:
        campaigns = AsyncCampaigns(Campaigns(settings))
        for name in ("first", "second"):
            await campaigns.create({"name": name, "content": {"text": "Hello"}})
        own = gateway.OwnCampaign(campaigns, await campaigns.progress("first"))
        told = gateway.progress_events(running, own)
        assert '"state":"draft"' in await anext(told)
        assert await anext(told) == ": still here\n\n"
        await campaigns.cancel("first")
        rest = [each async for each in told if not each.startswith(":")]
        assert '"state":"cancelled"' in rest[0]
        assert rest[1:] == ["event: end\ndata: {}\n\n"]

        told = gateway.progress_events(running, gateway.OwnCampaign(campaigns, await campaigns.progress("second")))
        await anext(told)
        running.draining = True
        assert [each async for each in told] == []
        await campaigns.close()

    asyncio.run(main())
