"""The clients on a real RabbitMQ: the resulting messages on the server, and the errors if there are none."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pika
import pytest

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import (
    ClosedError,
    EnqueueManyError,
    InvalidParamsError,
    RabbitMQUnreachableError,
    RejectedError,
    UnroutableError,
)
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Job, Priority, decode_job
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.client import Client
from rabbitmq_node.node import Node
from tests.services import Vhost

PARTITIONS = 2


@pytest.fixture
def settings(vhost: Vhost) -> Settings:
    return Settings(_env_file=None, rabbitmq_url=vhost.url, partitions=PARTITIONS)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as made:
        yield made


@pytest.fixture
def server(vhost: Vhost) -> Iterator[Server]:
    with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
        yield Server(connection.channel())


class Server:
    """The contents of the queues, seen with plain pika."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def take_all(self, queue: str) -> list[tuple[Any, Any, bytes]]:
        """A queue with a single active consumer refuses ``basic.get``, so this consumes it."""
        count, taken = self.depth(queue), []
        for message in self.channel.consume(queue, auto_ack=True, inactivity_timeout=5) if count else ():
            taken.append(message)
            if len(taken) == count:
                break
        self.channel.cancel()
        return taken

    def jobs(self, queue: str) -> list[Job]:
        return [decode_job(body) for _, _, body in self.take_all(queue)]

    def count(self, priority: Priority = Priority.INTERACTIVE, bot: str = "default") -> int:
        return sum(self.depth(queue) for queue in queues(priority, bot))

    def depth(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)


def queues(priority: Priority, bot: str = "default") -> list[str]:
    return [queue_names.send_queue(bot, priority, n) for n in range(PARTITIONS)]


def home(job: Job) -> str:
    return queue_names.send_queue(job.bot, job.priority, job.partition(PARTITIONS))


def bulk(client: Client | AsyncClient, count: int) -> Iterator[Job]:
    return (client.job("sendMessage", chat_id=n + 1, text=f"news {n}", priority="bulk") for n in range(count))


def until(happened: Callable[[], bool], seconds: float = 10) -> None:
    """Bounded; RabbitMQ has no event for "a queue holds a message" except delivering it."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_job_is_persistent_in_its_chats_queue_when_the_call_returns(client: Client, server: Server) -> None:
    job = client.send_message(42, "hi", parse_mode="HTML")
    ((method, properties, body),) = server.take_all(home(job))
    assert decode_job(body) == job
    assert job.params == {"chat_id": 42, "text": "hi", "parse_mode": "HTML"}
    assert (properties.delivery_mode, properties.message_id, properties.priority) == (2, job.id, 4)
    assert properties.content_type == "application/json"
    assert method.redelivered is False


def test_jobs_of_one_chat_are_queued_in_the_order_of_the_calls(client: Client, server: Server) -> None:
    sent = [client.send_message(42, f"{n}") for n in range(20)]
    assert server.jobs(home(sent[0])) == sent


def test_each_bot_has_separate_queues_for_interactive_and_bulk_jobs(client: Client, server: Server) -> None:
    client.send_message(42, "now")
    client.call("sendMessage", chat_id=42, text="some time", priority="bulk")
    client.send_message(42, "from another", bot="news")
    assert [server.count(), server.count(Priority.BULK), server.count(bot="news")] == [1, 1, 1]


@pytest.mark.parametrize("when", [{"delay": 0.5}, {"delay": timedelta(seconds=0.5)}, {"at": timedelta(seconds=0.5)}])
def test_a_scheduled_job_reaches_its_queue_when_due(client: Client, server: Server, when: dict[str, Any]) -> None:
    client.send_message(1, "warm up")  # so that declaring is not timed
    if "at" in when:
        when = {"at": datetime.now(UTC) + when["at"]}
    began = time.monotonic()
    job = client.send_message(42, "later", priority="bulk", **when)
    assert server.depth(home(job)) == 0
    until(lambda: server.depth(home(job)) == 1)
    assert 0.45 <= time.monotonic() - began < 3
    assert server.jobs(home(job)) == [job]


def test_many_jobs_are_all_queued_in_order(client: Client, server: Server) -> None:
    sent = list(bulk(client, 3000))
    assert client.enqueue_many(iter(sent)) == 3000
    lying = {queue: server.jobs(queue) for queue in queues(Priority.BULK)}
    assert lying == {queue: [job for job in sent if home(job) == queue] for queue in lying}


def test_enqueue_each_yields_each_job_once_it_is_safe(client: Client, server: Server) -> None:
    sent = list(bulk(client, 250))
    assert list(client.enqueue_each(sent)) == sent
    assert server.count(Priority.BULK) == 250


def test_a_job_of_a_slow_iterable_does_not_wait_for_a_full_batch(client: Client, server: Server) -> None:
    client.send_message(1, "warm up")
    go_on = threading.Event()

    def slowly() -> Iterator[Job]:
        yield from sent[:2]  # the second right after the first, so in a separate batch
        assert go_on.wait(10)
        yield sent[2]

    sent = [client.job("sendMessage", chat_id=1, text=text, priority="bulk") for text in ("first", "second", "third")]
    waiting = threading.Thread(target=client.enqueue_many, args=(slowly(),))
    waiting.start()
    try:
        until(lambda: server.count(Priority.BULK) == 2)
    finally:
        go_on.set()
        waiting.join(10)
    assert server.jobs(home(sent[0])) == sent


@pytest.mark.parametrize("shared", [False, True], ids=["its own loop", "a loop that it shares"])
def test_a_job_of_a_slow_async_iterable_does_not_wait_for_a_full_batch(
    settings: Settings, server: Server, shared: bool
) -> None:
    async def main() -> list[Job]:
        connections = Connections(settings, "test") if shared else None
        async with AsyncClient(settings, connections=connections) as client:
            await client.send_message(1, "warm up")
            sent = [client.job("sendMessage", chat_id=1, text=text, priority="bulk") for text in ("1", "2", "3")]
            go_on = asyncio.Event()

            async def slowly() -> AsyncIterator[Job]:
                for job in sent[:2]:
                    yield job
                await asyncio.wait_for(go_on.wait(), 10)
                yield sent[2]

            waiting = asyncio.create_task(client.enqueue_many(slowly()))
            try:
                await asyncio.to_thread(until, lambda: server.count(Priority.BULK) == 2)
            finally:
                go_on.set()
                assert await waiting == 3
        if connections is not None:
            await asyncio.to_thread(connections.stop, 2)
        return sent

    sent = asyncio.run(main())
    assert server.jobs(home(sent[0])) == sent


def test_when_an_iterable_raises_its_earlier_jobs_are_safe_and_counted(client: Client, server: Server) -> None:
    def faulty() -> Iterator[Job]:
        yield from bulk(client, 137)
        client.job("sendMessage", chat_id=1, text="")

    with pytest.raises(EnqueueManyError, match="137 jobs are safe, 0 are not known to be") as caught:
        client.enqueue_many(faulty())
    assert isinstance(caught.value.__cause__, InvalidParamsError)
    assert (caught.value.accepted, caught.value.failed, caught.value.job_ids) == (137, 0, ())
    assert server.count(Priority.BULK) == 137


def test_a_value_that_is_not_a_job_ends_enqueue_many_with_a_clear_error(client: Client, server: Server) -> None:
    with pytest.raises(EnqueueManyError, match=r"This is a dict, not a job: make one with client\.job"):
        client.enqueue_many([*bulk(client, 3), {"chat_id": 1}])
    assert server.count(Priority.BULK) == 3


def test_a_queue_deleted_in_between_is_reported_with_the_failed_ids_and_all_other_jobs_are_safe(
    client: Client, server: Server
) -> None:
    missing = queues(Priority.BULK)[0]
    taken: list[Job] = []

    def deleting() -> Iterator[Job]:
        for job in bulk(client, 100_000):
            taken.append(job)
            yield job
            if len(taken) == 1000:
                server.channel.queue_delete(missing)

    with pytest.raises(EnqueueManyError, match=f"'{missing}'") as caught:
        client.enqueue_many(deleting())
    error = caught.value
    # Messages unconfirmed when the queue was deleted are rejected, and later ones have no queue: either may come first.
    assert isinstance(error.__cause__, UnroutableError | RejectedError)
    assert error.accepted + error.failed == len(taken) < 100_000
    assert 0 < error.failed == len(error.job_ids)
    # RabbitMQ may answer such a deletion with an internal error; then unconfirmed messages are published twice.
    lying = dict.fromkeys(job.id for job in server.jobs(queues(Priority.BULK)[1]))
    assert list(lying) == [job.id for job in taken if home(job) != missing and job.id not in error.job_ids]


def test_a_queue_deleted_under_a_long_lived_client_is_declared_again(client: Client, server: Server) -> None:
    job = client.send_message(42, "one")
    server.channel.queue_delete(home(job))
    again = client.send_message(42, "two")
    assert server.jobs(home(job)) == [again]


def test_a_job_enqueued_twice_has_the_same_id_on_the_server(client: Client, server: Server) -> None:
    job = client.send_message(42, "hi")
    client.enqueue(job)
    assert [each.id for each in server.jobs(home(job))] == [job.id, job.id]


def test_errors_are_raised_before_a_connection_is_opened() -> None:
    settings = Settings(_env_file=None, rabbitmq_url="amqp://127.0.0.1:1/")
    with Client(settings) as client, pytest.raises(InvalidParamsError, match="text is empty"):
        client.send_message(42, "")


def test_an_unreachable_server_is_reported_in_one_sentence_without_the_password() -> None:
    settings = Settings(_env_file=None, rabbitmq_url="amqp://me:hunter2@127.0.0.1:1/")
    with Client(settings) as client, pytest.raises(RabbitMQUnreachableError, match=r"127\.0\.0\.1:1") as caught:
        client.send_message(42, "hi")
    assert "hunter2" not in str(caught.value)


def test_with_an_unresponsive_server_concurrent_callers_wait_for_one_timeout() -> None:
    async def main(settings: Settings) -> list[object]:
        async with AsyncClient(settings) as client:
            calls = (client.send_message(n + 1, "hi") for n in range(100))
            return await asyncio.gather(*calls, return_exceptions=True)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        outcomes = asyncio.run(main(Settings(_env_file=None, rabbitmq_url=url, connect_timeout_seconds=0.5)))
    assert {type(outcome) for outcome in outcomes} == {RabbitMQUnreachableError}
    assert time.monotonic() - began < 5


def test_a_client_can_be_closed_twice_or_unused_and_raises_when_used_afterwards(settings: Settings) -> None:
    unused, used = Client(settings), Client(settings)
    used.send_message(42, "hi")
    for client in (unused, unused, used, used):
        client.close()
    for client in (unused, used):
        with pytest.raises(ClosedError, match="create another"):
            client.send_message(42, "hi")


def test_shared_connections_stay_open_when_a_client_closes(settings: Settings, server: Server) -> None:
    connections = Connections(settings, "test")
    for _ in range(2):
        with Client(settings, connections=connections) as client:
            client.send_message(42, "hi")
    connections.stop()
    assert server.count() == 2


def test_threads_share_a_client(client: Client, server: Server) -> None:
    start = threading.Barrier(8)

    def enqueue() -> None:
        start.wait(10)
        for n in range(25):
            client.send_message(n + 1, "hi")

    threads = [threading.Thread(target=enqueue) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert server.count() == 200


def test_eight_forked_children_enqueue_at_once_with_the_client_of_their_parent(client: Client, server: Server) -> None:
    client.send_message(1, "from the parent, before")
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(8)

    def child() -> None:
        start.wait(10)
        for n in range(10):
            client.send_message(n + 1, "from a child")

    children = [fork.Process(target=child) for _ in range(8)]
    for process in children:
        process.start()
    for process in children:
        process.join(30)
    assert [process.exitcode for process in children] == [0] * 8
    client.send_message(1, "from the parent, after")
    assert server.count() == 82


def test_a_program_that_enqueues_and_returns_ends_at_once_with_all_jobs_safe(vhost: Vhost, server: Server) -> None:
    program = """
        import time
        from floodgate import Client
        client = Client()
        client.enqueue_many(client.job("sendMessage", chat_id=n + 1, text="hi") for n in range(500))
        print(time.time())
    """
    ran = run(program, vhost)
    ended = time.time()
    assert ran.returncode == 0
    (said,) = ran.stderr.splitlines()
    assert said.startswith("no worker takes the jobs of bot 'default' at present"), said
    assert ended - float(ran.stdout) < 5  # a stop that waits for something takes 10
    assert server.count() == 500


def test_a_program_that_cannot_enqueue_ends_with_an_exception(vhost: Vhost) -> None:
    program = """
        from floodgate import Client
        Client().send_message(42, "hi")
    """
    ran = run(program, vhost, url="amqp://127.0.0.1:1/")
    assert ran.returncode == 1
    assert "RabbitMQUnreachableError" in ran.stderr


def run(program: str, vhost: Vhost, *, url: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"FLOODGATE_RABBITMQ_URL": url or vhost.url, "FLOODGATE_PARTITIONS": str(PARTITIONS), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_async_client_enqueues_like_the_client(settings: Settings, server: Server) -> None:
    async def main() -> Job:
        async with AsyncClient(settings) as client:
            await asyncio.gather(*(client.send_message(n + 1, "hi") for n in range(300)))
            assert await client.enqueue_many(bulk(client, 1500)) == 1500
            return await client.send_message(42, "later", delay=0.25, bot="news")

    job = asyncio.run(main())
    assert (server.count(), server.count(Priority.BULK)) == (300, 1500)
    until(lambda: server.depth(home(job)) == 1)


def test_the_async_client_accepts_async_iterables_and_reports_where_one_raised(
    settings: Settings, server: Server
) -> None:
    async def faulty(client: AsyncClient) -> AsyncIterator[Job]:
        for job in bulk(client, 30):
            yield job
        raise LookupError("the database went away")

    async def main() -> None:
        async with AsyncClient(settings) as client:
            await client.enqueue_many(faulty(client))

    with pytest.raises(EnqueueManyError, match=r"30 jobs are safe, .* the database went away") as caught:
        asyncio.run(main())
    assert isinstance(caught.value.__cause__, LookupError)
    assert server.count(Priority.BULK) == 30


def test_the_event_loop_keeps_running_while_the_async_client_waits_for_room(new_node: Callable[..., Node]) -> None:
    node = new_node().start()
    narrow = Settings(_env_file=None, rabbitmq_url=node.url, partitions=1, publish_window=4)

    async def main() -> None:
        async with AsyncClient(narrow) as client:
            await client.send_message(1, "warm up")
            node.ctl("set_vm_memory_high_watermark", "0.000001")  # an alarm: publishers are blocked
            tasks = [asyncio.create_task(client.send_message(n + 1, "hi")) for n in range(20)]
            for _ in range(20):
                beat = time.monotonic()
                await asyncio.sleep(0.01)
                assert time.monotonic() - beat < 0.5, "the loop stood still"
            assert not any(task.done() for task in tasks)
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.6")
            async with asyncio.timeout(30):
                await asyncio.gather(*tasks)

    asyncio.run(main())


def test_a_cancelled_caller_does_not_affect_the_others(settings: Settings, server: Server) -> None:
    async def main() -> None:
        async with AsyncClient(settings) as client:
            await client.send_message(1, "warm up")
            tasks = [asyncio.create_task(client.send_message(n + 1, "hi")) for n in range(50)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results[1:]] == [Job] * 49

    asyncio.run(main())
    assert 50 <= server.count() <= 51


def test_one_async_client_serves_successive_asyncio_runs(settings: Settings, server: Server) -> None:
    """As in a script, or in a framework that runs each request on its own loop. The connection is closed with its
    loop; the next loop opens another."""
    client = AsyncClient(settings)

    async def send(count: int) -> None:
        await asyncio.gather(*(client.send_message(n + 1, "hi") for n in range(count)))

    for count in (10, 20, 30):
        asyncio.run(send(count))
    assert server.count() == 60

    async def close() -> None:
        await client.send_message(1, "bye")
        await client.close()
        await client.close()

    asyncio.run(close())
    assert server.count() == 61
    with pytest.raises(ClosedError):
        asyncio.run(send(1))


def test_an_async_client_whose_loop_has_ended_can_be_closed_on_another(settings: Settings, server: Server) -> None:
    client = AsyncClient(settings)

    async def send() -> None:
        await client.send_message(1, "hi")

    asyncio.run(send())
    asyncio.run(client.close())
    assert server.count() == 1


def test_an_async_client_starts_no_thread(settings: Settings) -> None:
    before = set(threading.enumerate())

    async def main() -> None:
        async with AsyncClient(settings) as client:
            await client.send_message(1, "hi")
            assert await client.enqueue_many(bulk(client, 300)) == 300
            assert set(threading.enumerate()) <= before

    asyncio.run(main())


def test_a_blocking_call_on_the_loop_of_its_own_connections_is_refused(settings: Settings) -> None:
    """It would wait for itself. A ``Client`` has its own loop, so its calls block and return."""

    async def main() -> None:
        async with AsyncClient(settings) as client:
            await client.send_message(1, "hi")
            with pytest.raises(RuntimeError, match="await apublish"):
                client._declarer.publisher.publish(
                    client._composer.publication(client.job("sendMessage", chat_id=1, text="x"))
                )
        with Client(settings) as blocking:
            blocking.send_message(1, "hi")

    asyncio.run(main())


def unserved(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each for each in caplog.messages if each.startswith("no worker takes the jobs of bot")]


def test_a_bot_that_no_worker_serves_is_warned_about_once_and_its_jobs_are_accepted(
    client: Client, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("one", "two"):
        client.send_message(42, text, bot="newz")
        client._declarer.forget("newz")  # as after its queues were deleted
    assert server.count(bot="newz") == 2
    (said,) = unserved(caplog)
    assert "'newz'" in said and "floodgate worker" in said
    client.send_message(42, "three")
    assert len(unserved(caplog)) == 2  # once for each bot


def test_a_bot_that_a_worker_serves_is_not_warned_about(
    settings: Settings, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(settings) as first:
        first.send_message(42, "hi")
    caplog.clear()
    for queue in queues(Priority.INTERACTIVE):
        server.channel.basic_consume(queue, lambda *_: None)
    with Client(settings) as second:
        second.send_message(42, "hi")
    assert unserved(caplog) == []


def test_an_async_client_warns_of_a_bot_that_no_worker_serves(
    settings: Settings, vhost: Vhost, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with AsyncClient(settings) as client:
            await asyncio.gather(*(client.send_message(42, text) for text in ("one", "two")))

    asyncio.run(main())
    assert len(unserved(caplog)) == 1
