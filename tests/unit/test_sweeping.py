"""The sweeper runs from its start until its stop, whatever errors the spool raises meanwhile."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from floodgate.broker.errors import SpoolError
from floodgate.broker.uploads import sweeper
from floodgate.broker.uploads.spool import Spool
from floodgate.broker.uploads.sweeper import Sweeper


class Noting:
    """A spool that is unavailable at first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self._away = True

    def sweep(self, older_than_seconds: float) -> int:
        self._loop.call_soon_threadsafe(self.asked.put_nowait, older_than_seconds)
        if self._away:
            self._away = False
            raise SpoolError("away")
        return 2


def test_it_sweeps_at_once_and_again_after_an_error_until_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.001)

    async def main() -> None:
        spool = Noting(asyncio.get_running_loop())
        sweeper = Sweeper(cast(Spool, spool), 77)
        await sweeper.stop()
        await sweeper.start()
        await sweeper.start()
        async with asyncio.timeout(10):
            assert [await spool.asked.get() for _ in range(3)] == [77, 77, 77]
        await sweeper.stop()
        await sweeper.stop()
        names = {task.get_name() for task in asyncio.all_tasks() if not task.cancelling()}
        assert "floodgate-spool-sweep" not in names

    asyncio.run(main())
    assert "was not swept: away" in caplog.text
