"""The operations on campaigns for programs on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from floodgate.producer.campaigns.checks import CheckReport
from floodgate.producer.campaigns.definition import Definition
from floodgate.producer.campaigns.progress import CampaignProgress
from floodgate.producer.campaigns.service import Audience, Campaigns, OnRows
from floodgate.producer.campaigns.store import Campaign, Recipient, RefusedRows

# Operations that are carried out at once; further ones wait.
MOST_THREADS: Final = 4
# Recipients that are read at once.
READ_AT_ONCE: Final = 1000

P = ParamSpec("P")
T = TypeVar("T")


class AsyncCampaigns:
    """:class:`~floodgate.producer.campaigns.service.Campaigns` for an event loop: the same methods, as coroutines.

    They run on up to :data:`MOST_THREADS` threads, started when needed, and raise what the methods there raise. An
    operation whose task is cancelled goes on. Belongs to one process: a process forked after the first operation needs
    its own.
    """

    def __init__(self, campaigns: Campaigns) -> None:
        self._campaigns = campaigns
        self._executor = ThreadPoolExecutor(MOST_THREADS, "floodgate-campaigns")

    async def create(
        self,
        definition: Definition | Mapping[str, Any] | Path,
        audience: Audience,
        *,
        exclude: Iterable[Path | int | str] = (),
        exclude_campaigns: Sequence[str] = (),
        bot: str | None = None,
        on_rows: OnRows | None = None,
    ) -> Campaign:
        """Create a campaign, import its audience and freeze it. The audience is read, and ``on_rows`` called, on a
        thread."""
        return await self._call(
            self._campaigns.create,
            definition,
            audience,
            exclude=exclude,
            exclude_campaigns=exclude_campaigns,
            bot=bot,
            on_rows=on_rows,
        )

    async def check(self, name: str, *, on_rows: OnRows | None = None) -> CheckReport:
        """Render the message of every recipient, and report what Telegram would refuse."""
        return await self._call(self._campaigns.check, name, on_rows=on_rows)

    async def start(self, name: str, *, on_rows: OnRows | None = None) -> Campaign:
        """Check a campaign and start it."""
        return await self._call(self._campaigns.start, name, on_rows=on_rows)

    async def pause(self, name: str) -> Campaign:
        """Pause a campaign. What waits in RabbitMQ is taken back within a second."""
        return await self._call(self._campaigns.pause, name)

    async def resume(self, name: str) -> Campaign:
        """Resume a campaign that was paused, or that a rule stopped."""
        return await self._call(self._campaigns.resume, name)

    async def cancel(self, name: str) -> Campaign:
        """End a campaign for good. Recipients who have not got their message will not get it."""
        return await self._call(self._campaigns.cancel, name)

    async def progress(self, name: str) -> CampaignProgress:
        """Return a campaign's state, what became of its recipients, and when it is expected to be done."""
        return await self._call(self._campaigns.progress, name)

    async def list(self, bot: str | None = None) -> Sequence[CampaignProgress]:
        """Return the progress of all campaigns, or of a bot's, the latest first."""
        return await self._call(self._campaigns.list, bot)

    async def recipients(self, name: str) -> AsyncIterator[Recipient]:
        """Yield all recipients in the order of the audience, in constant memory."""
        source = self._campaigns.recipients(name)
        while batch := await self._call(lambda: tuple(islice(source, READ_AT_ONCE))):
            for recipient in batch:
                yield recipient

    async def refused(self, name: str) -> Sequence[RefusedRows]:
        """Return the rows of the audience that were not taken, by reason, the most frequent first."""
        return await self._call(self._campaigns.refused, name)

    async def unsubscribe(self, chat: int | str, *, bot: str | None = None) -> None:
        """Leave a chat out of the audiences of all later campaigns of a bot."""
        await self._call(self._campaigns.unsubscribe, chat, bot=bot)

    async def close(self) -> None:
        """End imports and checks that are under way, wait for the threads, and close the database. Safe to call
        twice."""
        self._campaigns.close()
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)
        self._campaigns.close()  # an operation that was under way may have opened it again

    async def _call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(function, *arguments, **named))
