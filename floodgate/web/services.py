"""What the pages read and act on: the stores, RabbitMQ and campaigns. Opened with the application, closed with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from starlette.requests import HTTPConnection

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import RabbitMQError, StateError
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_activity, open_sessions, open_store
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.web.audit import AuditLog
from floodgate.web.campaign_plots import CampaignPlots
from floodgate.web.history import Histories
from floodgate.web.letter_index import LetterIndex
from floodgate.web.live import LiveParts
from floodgate.web.service_threads import ServiceThreads

# For actions under way to record their end, and then for closing connections and ending threads.
CLOSE_SECONDS: Final = 3.0

T = TypeVar("T")


class Services:
    """See the module. Belongs to the event loop; opens nothing before the first call.

    Args:
        metrics: where messages to RabbitMQ are counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.bots = sorted(settings.tokens)
        self.store = open_store(settings)
        self.sessions = open_sessions(settings)
        self.connections = Connections(settings, "web", metrics=metrics)
        self.campaigns = Campaigns(settings)
        self.letters = LetterIndex(settings, self.connections)
        self._store_calls = ServiceThreads("the state store", StateError)
        self._rabbitmq_calls = ServiceThreads("RabbitMQ", RabbitMQError)
        self._campaign_calls = ServiceThreads("the campaigns' database", StateError)
        self._audience_calls = ServiceThreads("the campaigns' database", StateError, threads=1)
        self._cpu_calls = ServiceThreads("this process", StateError, threads=1)
        self.audit = AuditLog(self.sessions, self._store_calls)
        self.activity = open_activity(settings)
        self.histories = Histories(lambda *asked: self.ask_store(self.activity.history, *asked))
        self.plots = CampaignPlots(lambda name: self.ask_audience(self.campaigns.pace, name))
        self.live = LiveParts()
        self.tasks: set[asyncio.Task[Any]] = set()  # actions under way

    async def ask_store(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a method of the state store."""
        return await self._store_calls.call(function, *arguments)

    async def ask_rabbitmq(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that uses the connections to RabbitMQ."""
        return await self._rabbitmq_calls.call(function, *arguments)

    async def ask_campaigns(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call an operation on campaigns that reads few rows."""
        return await self._campaign_calls.call(function, *arguments)

    async def ask_audience(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call an operation that reads a whole audience, and wait for as long as it takes."""
        return await self._audience_calls.call(function, *arguments, seconds=None)

    async def compute(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what takes the processor for some milliseconds."""
        return await self._cpu_calls.call(function, *arguments)

    async def close(self) -> None:
        """End everything; what does not end within :data:`CLOSE_SECONDS` ends with the process. Safe to call twice."""
        self.campaigns.close()  # ends the check of an audience
        calls = (self._store_calls, self._rabbitmq_calls, self._campaign_calls, self._audience_calls, self._cpu_calls)
        await self._wait([self.letters.close(), *self.tasks])  # an action records its end
        await self._wait([asyncio.to_thread(self.connections.stop, CLOSE_SECONDS), *(each.stop() for each in calls)])
        self.store.close()
        self.sessions.close()
        self.activity.close()

    async def _wait(self, steps: Iterable[Awaitable[Any]]) -> None:
        await asyncio.wait([asyncio.ensure_future(each) for each in steps], timeout=CLOSE_SECONDS)


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the application that answers a request."""
    services: Services = connection.app.state.services
    return services
