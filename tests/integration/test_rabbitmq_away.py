"""RabbitMQ becomes unavailable after the first contact: a job is refused at once, or waits as long as configured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from floodgate.broker.amqp import publisher
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import EnqueueManyError, NotConnectedError
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.client import Client
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until

# Without the refusal each of them would wait for the confirm timeout, and the test for its own.
MANY = 20
SENTENCE = "was not accepted.*FLOODGATE_PUBLISH_PATIENCE_SECONDS"


@pytest.fixture
def proxy(vhost: Vhost) -> Iterator[Proxy]:
    with Proxy(vhost.node.port) as proxy:
        yield proxy


@pytest.fixture
def settings(vhost: Vhost, proxy: Proxy) -> Settings:
    return Settings(_env_file=None, rabbitmq_url=proxy.url(vhost.url), partitions=1)


def go_away(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()


def knows(client: Client | AsyncClient) -> bool:
    """Returns whether the loss was noticed. Jobs written before that may have arrived."""
    return client._declarer.publisher._away_since is not None


def is_refused(client: Client) -> bool:
    """Returns whether the next job is refused."""
    try:
        client.send_message(1, "hi")
    except NotConnectedError:
        return True
    return False


def test_a_job_is_refused_at_once_and_accepted_when_rabbitmq_is_back(settings: Settings, proxy: Proxy) -> None:
    with Client(settings) as client:
        client.send_message(1, "hi")
        go_away(proxy)
        until(lambda: knows(client))
        assert is_refused(client)
        for _ in range(MANY):
            with pytest.raises(
                NotConnectedError, match=r"was not accepted.*FLOODGATE_PUBLISH_PATIENCE_SECONDS"
            ) as told:
                client.send_message(1, "hi")
            assert len(told.value.job_ids) == 1
        with pytest.raises(NotConnectedError):
            client.send_message(1, "of a bot that is new to this process", bot="other")
        with pytest.raises(EnqueueManyError) as ended:
            client.enqueue_many(client.job("sendMessage", chat_id=n, text="hi") for n in range(1, 10))
        assert isinstance(ended.value.__cause__, NotConnectedError)
        assert ended.value.accepted == 0
        proxy.accept()
        until(lambda: not knows(client), 30)
        assert not is_refused(client)


def test_the_async_client_is_also_refused_at_once(settings: Settings, proxy: Proxy) -> None:
    async def refused(client: AsyncClient) -> bool:
        try:
            await client.send_message(1, "hi")
        except NotConnectedError:
            return True
        return False

    async def main() -> None:
        async with AsyncClient(settings) as client:
            await client.send_message(1, "hi")
            go_away(proxy)
            await asyncio.to_thread(until, lambda: knows(client))
            assert await refused(client)
            assert all(await asyncio.gather(*(refused(client) for _ in range(MANY))))
            proxy.accept()
            await asyncio.to_thread(until, lambda: not knows(client), 30)
            assert not await refused(client)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_patient_producer_waits_for_rabbitmq(settings: Settings, proxy: Proxy) -> None:
    patient = settings.model_copy(update={"publish_patience_seconds": 60.0})
    with Client(patient) as client, ThreadPoolExecutor(1) as threads:
        client.send_message(1, "hi")
        go_away(proxy)
        until(lambda: knows(client))
        waiting = threads.submit(client.send_message, 1, "patient")
        connection = client._declarer.publisher._connection
        until(lambda: connection._backoff._next_seconds > 4 * 0.2)  # enough attempts have failed
        assert not waiting.done()
        proxy.accept()
        assert waiting.result(30).method == "sendMessage"


def test_a_written_job_is_not_refused_because_it_may_have_arrived(
    settings: Settings, proxy: Proxy, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "AWAY_SECONDS", 0.0)
    with Client(settings) as client, ThreadPoolExecutor(1) as threads:
        client.send_message(1, "hi")
        proxy.stall()
        written = threads.submit(client.send_message, 1, "written")
        until(lambda: len(client._declarer.publisher._unconfirmed) == 1)
        go_away(proxy)
        until(lambda: knows(client))
        assert is_refused(client)
        assert not written.done()
        proxy.flow()
        proxy.accept()
        assert written.result(30).method == "sendMessage"


def test_connections_without_a_patience_limit_wait(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers and receivers have such connections: what they publish follows from a message in hand, which they
    cannot return because of it."""
    monkeypatch.setattr(publisher, "AWAY_SECONDS", 0.0)
    with Client(settings) as client:
        publication = client._composer.publication(client.send_message(1, "hi"))
    with Connections(settings, "worker") as connections:
        assert connections.publisher._patience_when_away is None
        connections.publisher.publish(publication)
        go_away(proxy)
        until(lambda: connections.publisher._away_since is not None)
        waiting = connections.publisher.submit_many([publication])
        connection = connections.publisher._connection
        until(lambda: connection._backoff._next_seconds > 4 * 0.2)  # enough attempts have failed
        assert not waiting.done()
        proxy.accept()
        assert waiting.result(30) == (None,)
