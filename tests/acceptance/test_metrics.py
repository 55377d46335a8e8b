"""What a process that is scraped says of itself."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from urllib.parse import urlsplit

from floodgate.broker.process.metrics import ProcessRole
from floodgate.exporter import Exporter
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.scraping import ANYWHERE, Series, check_names, scraped, url_of, value
from tests.acceptance.stage import BOT, Stage
from tests.processes import FloodgateProcess
from tests.waiting import until
from tests.web import WebClient


def test_a_worker_tells_prometheus_what_became_of_its_jobs(stage: Stage) -> None:
    stage.control.set_chat(2, trouble="blocked")
    worker = stage.worker(**ANYWHERE)
    client = stage.client()
    for _ in range(3):
        client.send_message(chat_id=42, text="hi")
    client.send_message(chat_id=2, text="hi")

    def done() -> Series | None:
        series = scraped(worker)
        ended = value(series, "floodgate_sends_total", bot=BOT, outcome="sent") == 3
        dead = value(series, "floodgate_dead_total", bot=BOT, reason="chat-unreachable") == 1
        return series if ended and dead else None

    series = until(done)
    check_names(series, ProcessRole.WORKER)
    assert value(series, "floodgate_permits_total", bot=BOT) >= 4  # a permit that expires unused is renewed
    assert value(series, "floodgate_call_seconds_count", bot=BOT) == 4
    assert value(series, "floodgate_too_many_requests_total", bot=BOT, scope="chat") == 0
    assert value(series, "floodgate_admission_seconds_count") >= 4
    waits = [number for (name, _), number in series.items() if name == "floodgate_wait_seconds_count"]
    assert sum(waits) >= 1, "the second message to a chat waits for the first"
    assert value(series, "floodgate_published_total", outcome="confirmed") >= 1  # the dead letter
    assert value(series, "floodgate_event_loop_lag_seconds_count") > 0
    assert value(series, "process_resident_memory_bytes") > 0
    with contextlib.closing(Exporter(stage.settings)) as exporter:
        until(lambda: b'floodgate_processes{role="worker"} 1.0' in exporter.text())
    address = url_of(worker).removeprefix("http://").removesuffix("/metrics")
    ended = stage.floodgate("gateway", "--port", "0", FLOODGATE_METRICS_ADDRESS=address)
    told = f"Cannot serve metrics on {address}: Address already in use. Change FLOODGATE_METRICS_ADDRESS.\n"
    assert (ended.returncode, ended.stderr) == (2, told)
    worker.signal()
    assert worker.wait() == 0


def test_receiver_gateway_and_campaigns_serve_theirs(stage: Stage) -> None:
    gateway = GatewayProcess({**stage.env, **ANYWHERE}, stage.home).start()
    stage.keep(gateway.running)
    receiver = FloodgateProcess("updates", env={**stage.env, **ANYWHERE}, home=stage.home, name="updates")
    campaigns = FloodgateProcess("campaigns", "run", env={**stage.env, **ANYWHERE}, home=stage.home, name="campaigns")
    stage.keep(receiver).start("receiver ready")
    stage.keep(campaigns).start("campaigns ready")
    urllib.request.urlopen(f"{gateway.url}/health").close()
    answered = scraped(gateway.running)
    check_names(answered, ProcessRole.GATEWAY)
    assert value(answered, "floodgate_gateway_requests_total", kind="other", status="2xx") == 1
    assert value(answered, "floodgate_gateway_callers") == 0
    until(lambda: value(scraped(receiver), "floodgate_receiver_active", bot=BOT) == 1)
    check_names(scraped(receiver), ProcessRole.UPDATES)
    led = scraped(campaigns)
    check_names(led, ProcessRole.CAMPAIGNS)
    assert value(led, "floodgate_campaign_released_total", bot=BOT) == 0
    for process in (gateway.running, receiver, campaigns):
        process.signal()
        assert process.wait() == 0


def test_the_web_pages_count_requests_and_refused_logins(stage: Stage) -> None:
    token, ready = "correct-horse-battery-staple", "The pages are ready at "
    tokens = json.dumps({"ann": {"token": token, "role": "read"}})
    env = {**stage.env, **ANYWHERE, "FLOODGATE_WEB__TOKENS": tokens}
    web = stage.keep(FloodgateProcess("web", "--address", "127.0.0.1:0", env=env, home=stage.home)).start(ready)
    url = web.said(ready).partition(ready)[2].strip()
    visitor = WebClient("127.0.0.1", urlsplit(url).port or 0)
    assert visitor.get("/wp-login.php").status == 303, "to the login"
    assert [visitor.log_in("wrong").status for _ in range(6)] == [401] * 5 + [429]
    series = scraped(web)
    check_names(series, ProcessRole.WEB)
    requests = "floodgate_web_requests_total"
    assert value(series, requests, page="other", status="3xx") == 1
    assert [value(series, requests, page="login", status=each) for each in ("2xx", "4xx", "429")] == [6, 5, 1]
    assert value(series, "floodgate_web_request_seconds_count", page="login") == 12
    refused = "floodgate_web_logins_refused_total"
    assert [value(series, refused, cause=cause) for cause in ("token", "attempts")] == [5, 1]
    until(lambda: value(scraped(web), "floodgate_event_loop_lag_seconds_count") > 0)
    web.signal()
    assert web.wait() == 0
