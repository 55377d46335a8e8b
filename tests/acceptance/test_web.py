"""`floodgate web` as a process: it starts, its live pages follow what happens, and SIGTERM ends it in bounded time."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from floodgate.broker.state.stores import open_store
from tests.acceptance.scraping import ANYWHERE, scraped, value
from tests.acceptance.stage import BOT, Stage
from tests.acceptance.test_nothing_blocks_the_loop import locked
from tests.processes import FloodgateProcess

READY = "The pages are ready at "
# For streams, the pages' connections and the interpreter.
ENDING_SECONDS = 10.0
PROMPT_SECONDS = 4.0  # far less than the lock is waited for


@pytest.fixture
def web(stage: Stage) -> FloodgateProcess:
    env = {**stage.env, **ANYWHERE}
    return stage.keep(FloodgateProcess("web", "--address", "127.0.0.1:0", env=env, home=stage.home)).start(READY)


@pytest.fixture
def http(web: FloodgateProcess) -> Iterator[httpx.Client]:
    url = web.said(READY).partition(READY)[2].strip()
    with httpx.Client(base_url=url, timeout=30, follow_redirects=True) as client:
        yield client


def next_event(lines: Iterator[str], word: str) -> str:
    """Reads events until one contains the word; the client's time-out ends it otherwise."""
    return next(line for line in lines if word in line)


def test_live_pages_follow_what_happens_and_end_with_the_process(
    stage: Stage, web: FloodgateProcess, http: httpx.Client
) -> None:
    with contextlib.ExitStack() as open_streams:
        streams = [open_streams.enter_context(http.stream("GET", "/live/overview")) for _ in range(10)]
        lines = [stream.iter_lines() for stream in streams]
        for each in lines:
            next_event(each, "Sent in the last second")
        with contextlib.closing(open_store(stage.settings)) as store:
            store.pause(BOT, None, timedelta(minutes=5), "a storm")
        for each in lines:
            next_event(each, "a storm")
        counted = scraped(web)
        assert value(counted, "floodgate_web_event_streams") == 10
        assert value(counted, "floodgate_web_requests_total", page="live", status="2xx") == 10
        asked = time.monotonic()
        web.signal(signal.SIGTERM)
        assert web.wait(ENDING_SECONDS * 2) == 0
        assert time.monotonic() - asked < ENDING_SECONDS
        assert not any(line for line in list(lines[0]) if "Traceback" in line)
    assert "Traceback" not in web.log


def test_a_locked_state_file_delays_only_the_action_that_needs_it(
    stage: Stage, web: FloodgateProcess, http: httpx.Client
) -> None:
    http.get("/")
    confirmed = {"bot": BOT, "for": "5m", "touches": "1", "csrf_token": csrf_token(http)}
    with locked(stage.home / "state.db"):
        answer = http.post("/actions/pause", data=confirmed, headers={"origin": str(http.base_url).rstrip("/")})
        assert answer.status_code == 200
        asked = time.monotonic()
        assert http.get("/health").text == "alive\n"
        assert "Sent in the last second" in http.get("/").text, "reading needs no lock"
        assert time.monotonic() - asked < PROMPT_SECONDS
    assert "Traceback" not in web.log


def test_an_address_that_others_can_reach_needs_authentication(stage: Stage) -> None:
    ended = stage.floodgate("web", "--address", "0.0.0.0:0")
    assert (ended.returncode, "FLOODGATE_WEB__TOKENS" in ended.stderr) == (2, True)
    ended = stage.floodgate("web", "--address", "nowhere")
    assert (ended.returncode, "--address is not an address and a port" in ended.stderr) == (2, True)


def csrf_token(http: httpx.Client) -> str:
    """The token in the form of a confirmation."""
    page = http.get("/actions/pause", params={"bot": BOT, "for": "5m"}).text
    return page.partition('name="csrf_token" value="')[2].partition('"')[0]
