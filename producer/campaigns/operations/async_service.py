"""The operations on campaigns for programs on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from floodgate.broker.messages.job import Job
from floodgate.producer.campaigns.definition import Definition
from floodgate.producer.campaigns.operations.checks import CheckReport
from floodgate.producer.campaigns.operations.service import Audience, Campaigns, OnRows
from floodgate.producer.campaigns.responses.results import CampaignResults
from floodgate.producer.campaigns.sending.progress import CampaignProgress
from floodgate.producer.campaigns.storage.records import Campaign, Recipient, RefusedRows

# Operations that are carried out at once; further ones wait.
MOST_THREADS: Final = 4
# Recipients that are read at once.
READ_AT_ONCE: Final = 1000

P = ParamSpec("P")
T = TypeVar("T")


class AsyncCampaigns:
    """:class:`~floodgate.producer.campaigns.operations.service.Campaigns` with its methods as coroutines.

    They run on up to :data:`MOST_THREADS` threads, started when needed, and raise what the methods there raise. Half of
    the threads are for what reads a whole audience, such as ``create``, ``check`` and ``start``, so that a ``pause``
    need not wait for it. An operation whose task is cancelled goes on. Belongs to one process: a process
    forked after the first operation needs its own.
    """

    def __init__(self, campaigns: Campaigns) -> None:
        self._campaigns = campaigns
        self._imports = ThreadPoolExecutor(MOST_THREADS // 2, "floodgate-campaigns-imports")
        self._others = ThreadPoolExecutor(MOST_THREADS // 2, "floodgate-campaigns")

    async def create(
        self,
        definition: Definition | Mapping[str, Any] | Path,
        audience: Audience | None = None,
        *,
        exclude: Iterable[Path | int | str] = (),
        exclude_campaigns: Sequence[str] = (),
        bot: str | None = None,
        on_rows: OnRows | None = None,
    ) -> Campaign:
        """Create a campaign, import its audience and freeze it; without an audience, create a draft. The audience is
        read, and ``on_rows`` called, on a thread."""
        return await self._long(
            self._campaigns.create,
            definition,
            audience,
            exclude=exclude,
            exclude_campaigns=exclude_campaigns,
            bot=bot,
            on_rows=on_rows,
        )

    async def import_audience(
        self,
        name: str,
        audience: Audience,
        *,
        exclude: Iterable[Path | int | str] = (),
        exclude_campaigns: Sequence[str] = (),
        on_rows: OnRows | None = None,
    ) -> Campaign:
        """Import the audience of a draft and freeze it. It is read, and ``on_rows`` called, on a thread."""
        return await self._long(
            self._campaigns.import_audience,
            name,
            audience,
            exclude=exclude,
            exclude_campaigns=exclude_campaigns,
            on_rows=on_rows,
        )

    async def check(self, name: str, *, on_rows: OnRows | None = None) -> CheckReport:
        """Render the message of every recipient, and report what Telegram would refuse."""
        return await self._long(self._campaigns.check, name, on_rows=on_rows)

    async def start(self, name: str, *, report_to: int | str | None = None, on_rows: OnRows | None = None) -> Campaign:
        """Check a campaign and start it."""
        return await self._long(self._campaigns.start, name, report_to=report_to, on_rows=on_rows)

    async def sample(self, name: str, to: int | str, *, recipient: int | str | None = None) -> Job:
        """Make a job that sends to the chat ``to`` what a recipient gets, the first by default."""
        return await self._call(self._campaigns.sample, name, to, recipient=recipient)

    async def edit(
        self, name: str, definition: Definition | Mapping[str, Any] | Path, *, on_rows: OnRows | None = None
    ) -> Campaign:
        """Change the content, the rules, the schedule or the weight for the recipients who have not got their
        message."""
        return await self._long(self._campaigns.edit, name, definition, on_rows=on_rows)

    async def retryable(self, name: str, *, states: Iterable[str] = (), reason: str | None = None) -> int:
        """Return how many recipients :meth:`retry` would let wait again."""
        return await self._long(self._campaigns.retryable, name, states=states, reason=reason)

    async def retry(self, name: str, *, states: Iterable[str] = (), reason: str | None = None) -> int:
        """Let recipients wait again who failed or were unreachable. Return how many."""
        return await self._long(self._campaigns.retry, name, states=states, reason=reason)

    async def pause(self, name: str) -> Campaign:
        """Pause a campaign. What waits in RabbitMQ is taken back within a second."""
        return await self._call(self._campaigns.pause, name)

    async def resume(self, name: str) -> Campaign:
        """Resume a campaign that was paused, or that a rule stopped."""
        return await self._call(self._campaigns.resume, name)

    async def cancel(self, name: str) -> Campaign:
        """End a campaign for good. Recipients who have not got their message will not get it."""
        return await self._call(self._campaigns.cancel, name)

    async def edit_sent(
        self, name: str, content: Mapping[str, Any] | Path, *, on_rows: OnRows | None = None
    ) -> Campaign:
        """Edit the messages that a campaign has sent. Returns the campaign that does it."""
        return await self._long(self._campaigns.edit_sent, name, content, on_rows=on_rows)

    async def delete_sent(self, name: str) -> Campaign:
        """Delete the messages that a campaign has sent. Returns the campaign that does it."""
        return await self._long(self._campaigns.delete_sent, name)

    async def progress(self, name: str) -> CampaignProgress:
        """Return a campaign's state, what became of its recipients, and when it is expected to be done."""
        return await self._call(self._campaigns.progress, name)

    async def list(self, bot: str | None = None, *, most: int | None = None) -> Sequence[CampaignProgress]:
        """Return the progress of the ``most`` latest campaigns, or of a bot's, the latest first; None means all."""
        return await self._call(self._campaigns.list, bot, most=most)

    async def recipients(self, name: str) -> AsyncIterator[Recipient]:
        """Yield all recipients in the order of the audience, in constant memory."""
        source = self._campaigns.recipients(name)
        while batch := await self._call(lambda: tuple(islice(source, READ_AT_ONCE))):
            for recipient in batch:
                yield recipient

    async def refused(self, name: str) -> Sequence[RefusedRows]:
        """Return the rows of the audience that were not taken, by reason, the most frequent first."""
        return await self._call(self._campaigns.refused, name)

    async def results(self, name: str) -> CampaignResults:
        """Return how the variants did, by the responses of their recipients."""
        return await self._call(self._campaigns.results, name)

    async def unsubscribe(self, chat: int | str, *, bot: str | None = None) -> None:
        """Leave a chat out of all campaigns of a bot."""
        await self._call(self._campaigns.unsubscribe, chat, bot=bot)

    async def close(self) -> None:
        """End imports and checks that are under way, wait for the threads, and close the database. Safe to call
        twice."""
        self._campaigns.close()
        for executor in (self._imports, self._others):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        self._campaigns.close()  # an operation that was under way may have opened it again

    async def _long(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run what reads a whole audience."""
        return await _run(self._imports, partial(function, *arguments, **named))

    async def _call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await _run(self._others, partial(function, *arguments, **named))


async def _run(executor: ThreadPoolExecutor, operation: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, operation)
