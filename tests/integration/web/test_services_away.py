"""A store or RabbitMQ that is away is a sentence on the page; the rest of the page still works, and so do others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.web import picture
from floodgate.web.viewer import Action
from tests.integration.web.conftest import BOT, Desk
from tests.proxy import Proxy
from tests.services import RedisServer, Vhost
from tests.waiting import until

# Of the page that waits for what is away. The others do not wait.
PAGE_SECONDS = 15.0


@pytest.fixture
def proxy(office: Vhost) -> Iterator[Proxy]:
    with Proxy(office.node.port) as proxy:
        yield proxy


@pytest.fixture
def far_desk(office: Vhost, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose RabbitMQ is reached through a proxy."""
    monkeypatch.setattr(picture, "PATIENCE", timedelta(seconds=3))  # the store answers in that time on a busy machine
    made = Desk(proxy.url(office.url), tmp_path)
    made.store.vouch_idle(BOT)
    yield made.start()
    made.stop()


def test_a_rabbitmq_that_does_not_answer_delays_no_page_that_does_not_need_it(far_desk: Desk, proxy: Proxy) -> None:
    far_desk.get("/")
    proxy.stall()
    with ThreadPoolExecutor(4) as threads:
        began = time.monotonic()
        slow = [threads.submit(far_desk.get, path) for path in ("/", "/updates", "/dead-letters")]
        assert far_desk.http.get("/health").text == "alive\n"
        assert "No action has been taken" in far_desk.get("/audit")
        assert "There are none" in far_desk.get("/jobs")
        assert not all(page.done() for page in slow)
        pages = [page.result() for page in slow]
        assert time.monotonic() - began < PAGE_SECONDS
    proxy.flow()
    assert "<h1>Overview</h1>" in pages[0]
    assert "Sent in the last second" in pages[0], "what the store knows is shown"


def test_a_rabbitmq_that_is_down_is_named_and_actions_on_letters_are_refused(far_desk: Desk, proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()
    until(lambda: "cannot be reached" in far_desk.get("/"))
    until(lambda: "cannot be reached" in far_desk.get("/dead-letters"))
    answer = far_desk.http.get(f"/actions/{Action.DROP_LETTERS}")
    assert (answer.status_code, "cannot be counted now" in answer.text) == (400, True)


def test_a_store_that_is_down_is_named_and_the_queues_are_shown(
    office: Vhost, new_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    redis = new_redis().start()
    desk = Desk(office.url, tmp_path, state_url=redis.url)
    desk.store.vouch_idle(BOT)
    desk.start()
    try:
        redis.kill()
        overview = desk.get("/")
        assert ("The state store has not been read" in overview, "0 in queues" in overview) == (True, True)
        assert 'class="problem"' in desk.get("/jobs", id="some-job")
        assert 'class="problem"' in desk.get("/unreachable")
        answer = desk.http.get("/actions/pause", params={"bot": BOT, "for": "5m"})
        assert (answer.status_code, "FLOODGATE_STATE_URL" in answer.text) == (503, True), answer.text
    finally:
        desk.stop()


def test_a_database_of_campaigns_that_is_down_is_named(office: Vhost, tmp_path: Path) -> None:
    desk = Desk(office.url, tmp_path, campaigns_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    desk.start()
    try:
        assert "The campaigns&#39; database at 127.0.0.1 is unavailable" in desk.get("/campaigns")
        assert 'class="problem"' in desk.get("/campaigns/spring")
        assert "Sent in the last second" in desk.get("/")
    finally:
        desk.stop()
