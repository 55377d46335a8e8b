"""The poller's shutdown: what RabbitMQ has is acknowledged to Telegram, so that a clean restart repeats nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from floodgate.producer.updates import polling
from floodgate.producer.updates.intake import Intake
from floodgate.producer.updates.polling import Poller
from floodgate.producer.updates.telegram import ReceivingApi

BATCH = [{"update_id": 1}, {"update_id": 2}]


class LosesPolls:
    """Answers the first poll with a batch; later ones that wait never reach Telegram."""

    def __init__(self) -> None:
        self.acknowledged: list[int | None] = []
        self.sending = asyncio.Event()

    async def delete_webhook(self, _bot: str) -> None:
        pass

    async def get_updates(self, _bot: str, offset: int | None, wait_seconds: int, *, limit: int = 100) -> list[Any]:
        if offset is not None and wait_seconds:
            self.sending.set()
            await asyncio.Event().wait()
        self.acknowledged.append(offset)
        return BATCH if offset is None else []


class Takes:
    async def take(self, _bot: str, given: list[Any]) -> int | None:
        return given[-1]["update_id"] if given else None


@pytest.mark.parametrize(("active", "acknowledged"), [(True, [None, 3]), (False, [None])])
def test_a_stop_before_the_next_poll_arrives_acknowledges_the_batch(
    monkeypatch: pytest.MonkeyPatch, active: bool, acknowledged: list[int | None]
) -> None:
    monkeypatch.setattr(polling, "HANG_UP_SECONDS", 0)

    async def play() -> list[int | None]:
        api, valid = LosesPolls(), [True]
        poller = Poller("1", cast(ReceivingApi, api), cast(Intake, Takes()), 30, lambda: valid[0])
        run = asyncio.create_task(poller.run())
        await api.sending.wait()
        valid[0] = active
        run.cancel()
        await asyncio.wait({run})
        return api.acknowledged

    assert asyncio.run(play()) == acknowledged
