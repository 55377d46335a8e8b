"""Publishing on a real server: the resulting messages, and the error for each kind of failure."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

import pika
import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.publisher import SWEEP_SECONDS, USUAL_FRAME_OPTIONS, Entry, Publisher, PublishOutcomes
from floodgate.broker.amqp.queue_reader import QueueReader
from floodgate.broker.errors import (
    AccessRefusedError,
    BlockedError,
    ConfirmTimeoutError,
    RabbitMQError,
    RabbitMQUnreachableError,
    RejectedError,
    UnroutableError,
    UnsupportedServerError,
)
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.event_loop import THREAD_NAME
from rabbitmq_node.node import Node
from tests.draining import drain, first_seen, numbers
from tests.proxy import Proxy
from tests.publishing import publish_all
from tests.services import Vhost
from tests.waiting import until

Connect = Callable[..., Connections]
MemoryAlarm = Callable[[bool], object]
SEND = queue_names.send_queue("b", "bulk", 0)


def job(n: int, queue: str = SEND, size: int = 100) -> Publication:
    return Publication("", queue, b"%d " % n + b"x" * size, f"job-{n}")


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_a_message_is_persistent_and_carries_its_id_and_priority(declared: Vhost, connect: Connect) -> None:
    headers = {"x-floodgate-reason": "expired", "x-floodgate-attempts": 3}
    connect(declared.url).publisher.publish(Publication("", SEND, b"{}", "an-id", 9, headers))
    [(properties, body)] = drain(declared.url, SEND)
    assert (properties.delivery_mode, properties.priority, properties.message_id) == (2, 9, "an-id")
    assert (properties.content_type, properties.headers, body) == ("application/json", headers, b"{}")


def test_a_large_message_arrives_complete(declared: Vhost, connect: Connect) -> None:
    body = bytes(range(256)) * 2048
    connect(declared.url).publisher.publish(Publication("", SEND, body, "large"))
    assert [received for _, received in drain(declared.url, SEND)] == [body]


def test_a_missing_queue_fails_only_its_own_messages(declared: Vhost, connect: Connect) -> None:
    publisher = connect(declared.url).publisher
    outcomes = publisher.submit_many([job(0), job(1, "nowhere"), job(2), job(3, "nowhere")]).result(10)
    assert [type(outcome) for outcome in outcomes] == [type(None), UnroutableError, type(None), UnroutableError]
    assert outcomes[1] is not None
    assert outcomes[1].job_ids == ("job-1",)  # type: ignore[attr-defined]
    assert numbers(declared.url, SEND) == [0, 2]


def test_one_id_in_flight_to_an_existing_and_a_missing_queue_has_both_outcomes(
    declared: Vhost, connect: Connect
) -> None:
    here, nowhere = Publication("", SEND, b"0", "twin"), Publication("", "nowhere", b"1", "twin")
    outcomes = connect(declared.url).publisher.submit_many([here, nowhere, here]).result(10)
    assert [type(outcome) for outcome in outcomes] == [type(None), UnroutableError, type(None)]


def test_a_missing_exchange_fails_only_its_own_messages(declared: Vhost, connect: Connect) -> None:
    publisher = connect(declared.url).publisher
    publications = [job(0), Publication("nowhere", "key", b"", "lost"), job(1)]
    outcomes = publisher.submit_many(publications).result(10)
    assert [type(outcome) for outcome in outcomes] == [type(None), UnroutableError, type(None)]
    assert first_seen(numbers(declared.url, SEND)) == [0, 1]


def submit(publisher: Publisher, publication: Publication) -> Future[None]:
    """Submits one message without waiting for it."""
    settled: Future[None] = Future()

    def settle(outcomes: Future[PublishOutcomes]) -> None:
        (error,) = outcomes.result()
        settled.set_result(None) if error is None else settled.set_exception(error)

    publisher.submit_many([publication]).add_done_callback(settle)
    return settled


def test_messages_encoded_for_another_channel_are_encoded_again(declared: Vhost, connect: Connect) -> None:
    connections = connect(declared.url)
    publisher = connections.publisher
    with pytest.raises(UnroutableError):
        publisher.publish(Publication("nowhere", "key", b"", "lost"))  # this closes the publisher's channel
    with QueueReader(connections, "dead.b") as reader:
        encoded = submit(publisher, job(0))
        assert reader.take(1) == []  # the new channel has the number of that one
        assert encoded.result(10) is None
        assert publisher._wire.channel != USUAL_FRAME_OPTIONS.channel
    assert numbers(declared.url, SEND) == [0]


def test_a_full_queue_rejects_messages(declared: Vhost, connect: Connect) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(declared.url))
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    connection.channel().queue_declare("small", durable=True, arguments=arguments)
    connection.close()
    publisher = connect(declared.url).publisher
    # The limit is a soft one: the server informs its channels a moment later that the queue is full.
    outcomes = [publisher.submit_many([job(n, "small")]).result(10)[0] for n in range(100)]
    rejected = [type(outcome) for outcome in outcomes if outcome is not None]
    assert rejected
    assert set(rejected) == {RejectedError}
    assert len(numbers(declared.url, "small")) == 100 - len(rejected)


def test_thousands_of_jobs_are_published_in_order(declared: Vhost, connect: Connect) -> None:
    results = list(publish_all(connect(declared.url, publish_window=200).publisher, map(job, range(5000))))
    assert [publication.message_id for publication, _ in results] == [f"job-{n}" for n in range(5000)]
    assert not [outcome for _, outcome in results if outcome]
    assert numbers(declared.url, SEND) == list(range(5000))


def test_a_lost_connection_loses_nothing_and_keeps_the_order(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url), publish_window=500).publisher
        for round_number in range(4):
            was_reset = proxy.reset_after(150_000)
            start = round_number * 2000
            outcomes = list(publish_all(publisher, (job(start + n) for n in range(2000))))
            assert was_reset.wait(10)
            assert not [error for _, error in outcomes if error]
    found = numbers(declared.url, SEND)
    assert first_seen(found) == list(range(8000))
    assert max(Counter(found).values()) <= 3
    assert len(found) - 8000 <= 4 * 500


def test_messages_in_flight_when_the_connection_was_lost_precede_later_ones(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url)).publisher
        publisher.publish(job(0))
        proxy.stall()
        under_way = publisher.submit_many([job(n) for n in range(1, 6)])
        until(lambda: len(publisher._unconfirmed) == 5)
        proxy.refuse()
        proxy.cut()
        until(lambda: publisher._channel is None)
        since = publisher.submit_many([job(n) for n in range(6, 10)])
        proxy.flow()
        proxy.accept()
        assert under_way.result(10) + since.result(10) == (None,) * 9
    assert first_seen(numbers(declared.url, SEND)) == list(range(10))


def test_a_confirm_timeout_is_an_error_that_names_the_job(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url), confirm_timeout_seconds=0.5).publisher
        publisher.publish(job(0))
        proxy.stall()
        with pytest.raises(ConfirmTimeoutError, match=r"job-1 .* may or may not be queued") as caught:
            publisher.publish(job(1))
        assert caught.value.job_ids == ("job-1",)
        proxy.flow()
        publisher.publish(job(2))
    assert numbers(declared.url, SEND) == [0, 1, 2]


def test_a_full_window_makes_callers_wait_and_then_raises(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url), publish_window=4, confirm_timeout_seconds=1).publisher
        publisher.publish(job(0))
        proxy.stall()
        under_way = [submit(publisher, job(n)) for n in range(1, 5)]
        waited = threading.Thread(target=lambda: submit(publisher, job(5)))
        waited.start()
        waited.join(0.3)
        assert waited.is_alive()
        proxy.flow()
        waited.join(5)
        assert not waited.is_alive()
        assert [future.result(5) for future in under_way] == [None] * 4


def test_the_window_also_limits_bytes(declared: Vhost, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodgate.broker.amqp.publisher.WINDOW_BYTES", 10_000)
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url)).publisher
        publisher.publish(job(0, size=20_000))  # larger than the window, it passes only alone
        proxy.stall()
        under_way = publisher.submit_many([job(1, size=4_000), job(2, size=4_000)])
        third: Future[Future[None]] = Future()
        threading.Thread(target=lambda: third.set_result(submit(publisher, job(3, size=4_000)))).start()
        with pytest.raises(TimeoutError):
            third.result(0.3)
        proxy.flow()
        assert under_way.result(10) == (None, None)
        assert third.result(10).result(10) is None
    assert numbers(declared.url, SEND) == [0, 1, 2, 3]


def test_callers_waiting_for_room_continue_when_there_is_room(declared: Vhost, connect: Connect) -> None:
    """And not at the next periodic check, once a second: this would take a minute."""
    publisher = connect(declared.url, publish_window=4).publisher
    started = time.monotonic()
    under_way = [submit(publisher, job(n)) for n in range(240)]
    assert [future.result(5) for future in under_way] == [None] * 240
    assert time.monotonic() - started < 15


def test_an_unreachable_server_is_reported_at_once_in_one_sentence(connect: Connect) -> None:
    started = time.monotonic()
    with pytest.raises(RabbitMQUnreachableError, match=r"127.0.0.1:1 cannot be reached: Connection refused"):
        connect("amqp://guest:geheim@127.0.0.1:1/").publisher.publish(job(0))
    assert time.monotonic() - started < 2


def test_connecting_to_an_unresponsive_server_times_out(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(RabbitMQUnreachableError, match="no answer within"):
            connect(url, connect_timeout_seconds=0.5).connect()


def test_a_server_that_does_not_speak_amqp_is_reported_as_such(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            client.recv(8)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(RabbitMQUnreachableError, match="cannot be reached"):
            connect(f"amqp://127.0.0.1:{server.getsockname()[1]}/", connect_timeout_seconds=2).connect()


def test_a_wrong_password_is_refused_without_showing_it(rabbitmq: Node, connect: Connect) -> None:
    with pytest.raises(AccessRefusedError, match="refused user 'guest'") as caught:
        connect(f"amqp://guest:geheim@127.0.0.1:{rabbitmq.port}/").connect(keep_trying=True)
    assert "geheim" not in str(caught.value)


def test_a_missing_vhost_is_refused_by_name(rabbitmq: Node, connect: Connect) -> None:
    with pytest.raises(AccessRefusedError, match="no vhost 'no/such'"):
        connect(rabbitmq.url_of("no/such")).connect()


def test_user_password_and_vhost_may_contain_special_characters(rabbitmq: Node, connect: Connect) -> None:
    user, password, vhost = "us@er:1", "p/ä#%?&=", "a/b c"
    rabbitmq.ctl("add_vhost", vhost)
    rabbitmq.ctl("add_user", user, password)
    rabbitmq.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
    url = f"amqp://us%40er%3A1:p%2F%C3%A4%23%25%3F%26%3D@127.0.0.1:{rabbitmq.port}/a%2Fb%20c"
    connect(url).connect()
    rabbitmq.ctl("delete_user", user)
    rabbitmq.ctl("delete_vhost", vhost)


def test_an_old_server_is_refused_with_its_version(rabbitmq: Node, connect: Connect) -> None:
    old = "3.9.9".ljust(len(rabbitmq.version), "0")
    with Proxy(rabbitmq.port, rewrite=(rabbitmq.version.encode(), old.encode())) as proxy:
        with pytest.raises(UnsupportedServerError, match=f"RabbitMQ {old}.*needs RabbitMQ 4.0") as caught:
            connect(proxy.url(rabbitmq.url)).publisher.publish(job(0))
        assert caught.value.version == old


def test_a_dead_cluster_node_is_skipped(declared: Vhost, connect: Connect) -> None:
    connections = connect(f"amqp://guest:guest@127.0.0.1:1/,{declared.url}")
    connections.publisher.publish(job(0))
    assert numbers(declared.url, SEND) == [0]


def test_the_server_shows_the_connections_name(declared: Vhost, connect: Connect) -> None:
    connect(declared.url).publisher.publish(job(0))
    rows = json.loads(declared.node.ctl("list_connections", "vhost", "client_properties", "--formatter=json"))
    names = {
        {key: value for key, _, value in row["client_properties"]}.get("connection_name")
        for row in rows
        if row["vhost"] == declared.name
    }
    assert any(name and name.startswith("floodgate publish test ") for name in names)


def test_a_memory_alarm_is_tolerated_until_the_timeout_and_then_raises(
    declared: Vhost, memory_alarm: MemoryAlarm, connect: Connect
) -> None:
    publisher = connect(declared.url, blocked_timeout_seconds=1.5, confirm_timeout_seconds=1).publisher
    publisher.publish(job(0))
    memory_alarm(True)
    written = submit(publisher, job(1))  # this makes the server block us
    until(lambda: publisher._blocked_since is not None)
    withheld = submit(publisher, job(2))
    with pytest.raises(ConfirmTimeoutError, match=r"within 1.5 s.*may or may not"):
        written.result(10)
    with pytest.raises(BlockedError, match="was not accepted"):
        withheld.result(10)
    memory_alarm(False)
    until(lambda: publisher._blocked_since is None)
    publisher.publish(job(3))
    assert numbers(declared.url, SEND) == [0, 1, 3]


def alarm(proxy: Proxy, *, on: bool) -> None:
    """The server's message about an alarm: connection.blocked with a reason, or connection.unblocked."""
    payload = struct.pack(">HHB", 10, 60, 6) + b"memory" if on else struct.pack(">HH", 10, 61)
    proxy.inject(proxy.last_port, struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")


def test_the_confirm_timeout_is_suspended_during_an_alarm(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url), confirm_timeout_seconds=1.5).publisher
        publisher.publish(job(0))
        alarm(proxy, on=True)
        until(lambda: publisher._blocked_since is not None)
        withheld = submit(publisher, job(1))
        with pytest.raises(TimeoutError):
            withheld.result(1.6)
        proxy.stall()
        alarm(proxy, on=False)
        with pytest.raises(TimeoutError):
            withheld.result(2 * SWEEP_SECONDS)
        proxy.flow()
        assert withheld.result(10) is None
    assert numbers(declared.url, SEND) == [0, 1]


def test_the_blocked_timeout_starts_at_the_alarm_and_not_at_publishing(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url), blocked_timeout_seconds=1.5).publisher
        publisher.publish(job(0))
        proxy.stall()
        under_way = submit(publisher, job(1))
        with pytest.raises(TimeoutError):
            under_way.result(1.6)
        alarm(proxy, on=True)
        with pytest.raises(TimeoutError):
            under_way.result(2 * SWEEP_SECONDS)
        proxy.flow()
        assert under_way.result(10) is None


def test_an_alarm_ends_with_its_connection(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        publisher = connect(proxy.url(declared.url)).publisher
        publisher.publish(job(0))
        alarm(proxy, on=True)
        until(lambda: publisher._blocked_since is not None)
        withheld = submit(publisher, job(1))
        proxy.reset()
        assert withheld.result(10) is None


def test_after_a_restart_the_server_gets_the_rest(new_node: Callable[..., Node], connect: Connect) -> None:
    node = new_node().start()
    queue_admin.declare(connect(node.url), topology.pipeline(["b"], 1))
    # RabbitMQ writes down half a second late which log is a new queue's: if killed before, it empties the queue.
    node.stop()
    node.start()
    publisher = connect(node.url, publish_window=100).publisher
    outcomes: list[object] = []
    streaming = threading.Thread(
        target=lambda: outcomes.extend(e for _, e in publish_all(publisher, map(job, range(5000))))
    )
    streaming.start()
    until(lambda: len(outcomes) > 200)
    node.kill()
    node.start()
    streaming.join(60)
    assert outcomes == [None] * 5000
    found = numbers(node.url, SEND)
    assert first_seen(found) == list(range(5000))
    assert len(found) - 5000 <= 100


def test_blocking_calls_on_the_event_loop_are_refused(declared: Vhost, connect: Connect) -> None:
    """The loop would wait for itself, and everything else in the process with it."""
    connections = connect(declared.url)
    connections.publisher.publish(job(0))
    faults: Future[list[str]] = Future()

    def misuse() -> None:
        said = []
        for call in (
            lambda: connections.publisher.publish(job(1)),
            lambda: connections.publisher.submit_many([job(1)]),
            lambda: queue_admin.depth(connections, [SEND]),
            connections.connect,
        ):
            with pytest.raises(RuntimeError) as caught:
                call()
            said.append(str(caught.value))
        faults.set_result(said)

    connections.io.call_soon(misuse)
    publishing, submitting, asking, connecting = faults.result(10)
    assert "await apublish" in publishing
    assert "await apublish" in submitting
    assert "await its async counterpart" in asking
    assert "await its async counterpart" in connecting
    assert numbers(declared.url, SEND) == [0]


def test_a_coroutine_gets_the_result_of_each_of_its_messages(declared: Vhost, connect: Connect) -> None:
    connections = connect(declared.url)

    async def publish() -> tuple[RabbitMQError | None, ...]:
        with pytest.raises(UnroutableError):
            await connections.publisher.apublish(job(0, "nowhere"))
        await connections.publisher.apublish(job(1))
        assert await connections.publisher.apublish_many([]) == ()
        return await connections.publisher.apublish_many([job(2), job(3, "nowhere"), job(4)])

    outcomes = connections.io.run(publish(), 20)
    assert [type(outcome) for outcome in outcomes] == [type(None), UnroutableError, type(None)]
    assert numbers(declared.url, SEND) == [1, 2, 4]


def test_a_coroutine_of_another_loop_can_publish(declared: Vhost, connect: Connect) -> None:
    publisher = connect(declared.url).publisher

    async def publish() -> tuple[RabbitMQError | None, ...]:
        return await (await publisher.asubmit_many([job(0), job(1)]))

    assert asyncio.run(publish()) == (None, None)
    assert numbers(declared.url, SEND) == [0, 1]


def test_coroutines_and_threads_share_one_window(declared: Vhost, connect: Connect) -> None:
    connections = connect(declared.url, publish_window=4)
    publisher, most = connections.publisher, 0
    entered = publisher._hold

    def hold(entries: list[Entry], count: int, size: int) -> None:
        nonlocal most
        entered(entries, count, size)
        most = max(most, publisher._held)

    publisher._hold = hold  # type: ignore[method-assign]

    async def publish() -> None:
        await asyncio.gather(*(publisher.apublish(job(n)) for n in range(200)))

    under_way = connections.io.begin(publish())
    for n in range(200, 400):
        publisher.publish(job(n))
    under_way.result(30)
    assert most <= 4
    found = numbers(declared.url, SEND)
    assert [n for n in found if n < 200] == list(range(200))
    assert [n for n in found if n >= 200] == list(range(200, 400))


def test_a_full_window_makes_coroutines_wait_in_order_of_arrival(declared: Vhost, connect: Connect) -> None:
    """Also if one that just got room returns at once: it is queued behind those who waited with it."""
    with Proxy(declared.node.port) as proxy:
        connections = connect(proxy.url(declared.url), publish_window=4)
        publisher = connections.publisher
        publisher.publish(job(0))
        proxy.stall()

        async def submit(*numbers: int) -> None:
            for n in numbers:
                await publisher.asubmit_many([job(n)])

        async def fill() -> None:
            await publisher.asubmit_many([job(n) for n in range(1, 5)])
            waiting = [asyncio.create_task(submit(*numbers)) for numbers in ((5, 8), (6,), (7,))]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting)
            proxy.flow()
            await asyncio.gather(*waiting)

        connections.io.run(fill(), 20)
        assert publisher.flush(10) == 0
    assert numbers(declared.url, SEND) == list(range(9))


def test_a_coroutine_that_waits_too_long_for_room_gets_an_error(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        connections = connect(proxy.url(declared.url), publish_window=4, confirm_timeout_seconds=1)
        publisher = connections.publisher
        publisher.publish(job(0))
        proxy.stall()

        async def overfill() -> None:
            under_way = await publisher.asubmit_many([job(n) for n in range(1, 5)])
            for entry in publisher._unconfirmed.values():
                entry.since += 60  # those in flight are not given up meanwhile
            with pytest.raises(ConfirmTimeoutError, match=r"window was full for 1 s.*Nothing was accepted"):
                await publisher.apublish(job(5))
            proxy.flow()
            assert await under_way == (None,) * 4

        connections.io.run(overfill(), 20)
    assert numbers(declared.url, SEND) == [0, 1, 2, 3, 4]


def test_a_cancelled_coroutine_does_not_affect_others(declared: Vhost, connect: Connect) -> None:
    """While it waits for room, its message is not accepted; while it waits for the confirm, it is in flight."""
    with Proxy(declared.node.port) as proxy:
        connections = connect(proxy.url(declared.url), publish_window=4)
        publisher = connections.publisher
        publisher.publish(job(0))
        proxy.stall()

        async def cancel() -> None:
            accepted = asyncio.create_task(publisher.apublish_many([job(n) for n in range(1, 5)]))
            await asyncio.sleep(0)
            first, second, third = (asyncio.create_task(publisher.apublish(job(n))) for n in (5, 6, 7))
            await asyncio.sleep(0.05)
            for task in (accepted, first, second):
                task.cancel()
            await asyncio.wait({accepted, first, second})
            proxy.flow()
            await third

        connections.io.run(cancel(), 20)
    assert numbers(declared.url, SEND) == [0, 1, 2, 3, 4, 7]


def test_nothing_is_accepted_after_stop_which_may_be_called_twice_or_early(declared: Vhost, connect: Connect) -> None:
    before = len(loop_threads())
    connections = connect(declared.url)
    under_way = [submit(connections.publisher, job(n)) for n in range(500)]
    connections.stop()
    assert [future.result(0) for future in under_way] == [None] * 500
    with pytest.raises(RabbitMQUnreachableError, match="closed by this program"):
        connections.publisher.publish(job(500))
    connections.stop()
    connect(declared.url).stop()
    assert len(loop_threads()) == before
