"""How a gateway ends, on request or not, and what its callers notice. Each test has its own gateway."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.waiting import until

GIVE_UP_SECONDS = 60.0
BURST = 40
MakeGateway = Callable[..., GatewayProcess]


@pytest.fixture
def gateway(stage: Stage) -> Iterator[MakeGateway]:
    stage.vouch_idle()  # a bot with an unknown history begins slowly
    with ExitStack() as stack:

        def make(**settings: str) -> GatewayProcess:
            given = {f"FLOODGATE_GATEWAY__{name.upper()}": value for name, value in settings.items()}
            env = {**stage.env, "FLOODGATE_GATEWAY__PORT": "0", **given}
            return stack.enter_context(GatewayProcess(env, stage.home))

        yield make


def send(url: str, chat: int, text: str, timeout: float = 30, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(
        f"{url}/bot{TOKEN}/sendMessage", json={"chat_id": chat, "text": text}, headers=names, timeout=timeout
    )


def refuses(url: str) -> bool:
    """Returns whether it refuses new connections."""
    try:
        httpx.get(f"{url}/health")
    except httpx.TransportError:
        return True
    return False


def test_a_gateway_killed_during_a_burst_leaves_one_message_per_call(stage: Stage, gateway: MakeGateway) -> None:
    stage.worker()
    process = gateway()

    def insist(number: int) -> int:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = send(process.url, 1000 + number, f"text {number}", Idempotency_Key=f"burst-{number}")
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                return int(answer.json()["result"]["chat"]["id"])
        raise AssertionError(f"caller {number} got no result")

    with ThreadPoolExecutor(BURST) as threads:
        chats = threads.map(insist, range(BURST))
        until(lambda: len(stage.sent()) >= BURST // 4)
        process.running.kill()
        process.start()
        assert list(chats) == [1000 + number for number in range(BURST)]
    assert Counter(stage.sent()) == Counter({f"text {number}": 1 for number in range(BURST)})


def test_on_sigterm_it_serves_waiting_callers_informs_the_rest_and_exits_with_0(
    stage: Stage, gateway: MakeGateway
) -> None:
    worker = stage.worker()
    process = gateway(drain_seconds="2")
    send(process.url, 1, "first")
    with ThreadPoolExecutor(2) as threads:
        soon = threads.submit(send, process.url, 1, "in a second")
        until(lambda: httpx.get(f"{process.url}/ready").json()["waiting"] == 1)
        process.running.signal()
        until(lambda: refuses(process.url))
        assert soon.result().json()["result"]["text"] == "in a second"
    assert process.running.wait() == 0
    worker.kill()

    process.start()
    with ThreadPoolExecutor(1) as threads:
        never = threads.submit(send, process.url, 3, "no worker")
        until(lambda: httpx.get(f"{process.url}/ready").json()["waiting"] == 1)
        assert process.running.stop() == 0
        answer = never.result()
    assert answer.status_code == 408
    assert "is safe" in answer.json()["description"]
    assert "Traceback" not in process.log


def test_a_caller_of_typing_waits_no_longer_than_it_is_worth(stage: Stage, gateway: MakeGateway) -> None:
    url, headers = gateway().url, {"X-Floodgate-Worth-Seconds": "0.2"}
    typing = {"chat_id": 3, "action": "typing"}
    answer = httpx.post(f"{url}/bot{TOKEN}/sendChatAction", json=typing, headers=headers, timeout=GIVE_UP_SECONDS)
    assert (answer.status_code, answer.json()["result"]) == (202, True), "there is no worker"
    job = answer.json()["floodgate_job_id"]
    stage.worker()
    result = f"{url}/floodgate/v1/jobs/{job}/result?wait_seconds=50"
    late = httpx.get(result, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=GIVE_UP_SECONDS)
    assert (late.status_code, late.json()["description"]) == (410, f"Not sent: shed (job {job}).")


def test_callers_beyond_the_limit_are_told_when_to_retry(stage: Stage, gateway: MakeGateway) -> None:
    process = gateway(max_queued="20")
    for number in range(21):
        answer = send(process.url, number + 1, "x", X_Floodgate_Wait_Seconds="0")
        if answer.status_code != 202:
            break
    accepted = number
    assert 10 <= accepted <= 20  # callers accepted while others are being counted may be counted twice
    assert answer.status_code == 429
    seconds = answer.json()["parameters"]["retry_after"]
    assert answer.json()["description"] == f"Too Many Requests: retry after {seconds}"
    assert answer.headers["Retry-After"] == str(seconds)
    bulk = send(process.url, 99, "another line", X_Floodgate_Wait_Seconds="0", X_Floodgate_Priority="bulk")
    assert bulk.status_code == 202
    queues = [queue_names.send_queue(BOT, "interactive", n) for n in range(stage.partitions)]
    with Connections(stage.settings, "test") as connections:
        assert sum(depth or 0 for depth in queue_admin.depth(connections, queues).values()) == accepted
    stage.worker()
    until(lambda: send(process.url, 99, "room again", timeout=60).status_code == 200)


def test_without_rabbitmq_calls_are_refused_with_a_clear_error(stage: Stage, gateway: MakeGateway) -> None:
    stage.extra["FLOODGATE_RABBITMQ_URL"] = "amqp://guest:guest@127.0.0.1:1/"
    process = gateway()
    answer = send(process.url, 1, "x")
    assert answer.status_code == 503
    assert "nothing was accepted" in answer.json()["description"]
    ready = httpx.get(f"{process.url}/ready")
    assert ready.status_code == 503
    assert ready.json()["troubles"]
    assert httpx.get(f"{process.url}/health").status_code == 200
