"""The web pages: how long each takes at the server, and what a page that stays open in ten browsers costs.

One bot has a million jobs in its queues, a hundred thousand in lines, and ten thousand dead letters; a campaign has a
hundred thousand recipients. No worker runs, so the pages are all there is to read. Each page is asked for from this
machine: once first, when nothing is known yet, and then again. The targets: no answer takes longer than 300 ms, and ten
open overviews cost at most 2 % of a core.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks.stage import report
from benchmarks.stage.pipeline import TOKEN, environment
from benchmarks.stage.programs import Program
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import encode_job, new_job
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.client import Client
from rabbitmq_node.node import Node

BOT: Final = "news"
READY: Final = "The pages are ready at "
MOST_MS: Final = 300.0
MOST_CPU: Final = 0.02
BROWSERS: Final = 10
REPEATS: Final = 7
SETTLE_SECONDS: Final = 5.0
PLOT_SECONDS: Final = 15.0
REASONS: Final = ("rights", "content", "expired", "chat-unreachable")
PAGES: Final = (
    "/",
    "/bots",
    f"/bots/{BOT}",
    f"/chats/{BOT}/5",
    "/jobs?id=job-5",
    "/dead-letters",
    "/dead-letters?page=150",
    "/dead-letters?reason=rights&text=message",
    "/dead-letters/letter-77",
    "/actions/drop-letters?reason=rights",
    "/actions/replay-letters",
    "/actions/pause?bot=news&for=5m",
    "/unreachable",
    "/campaigns",
    "/campaigns/spring?chat=5",
    "/updates",
    "/audit",
)


@dataclass(frozen=True, slots=True)
class PageTimes:
    """How long a page took, in milliseconds at a client on this machine."""

    contender: str
    first_ms: float
    median_ms: float
    longest_ms: float


def fill(settings: Settings, jobs: int, lines: int, letters: int, recipients: int) -> None:
    """Make what the pages show."""
    with contextlib.closing(open_store(settings)) as store:
        store.vouch_idle(BOT)
        for number in range(lines):
            job = new_job("sendMessage", {"chat_id": number % 1000 + 1, "text": "x"}, bot=BOT, job_id=f"job-{number}")
            store.admit(ask_for(job, settings))
    with Connections(settings, "bench") as connections:
        queue_admin.declare(connections, topology.pipeline_of(settings, [BOT]))
        connections.publisher.submit_many([_letter(settings, number) for number in range(letters)]).result()
    with Client(settings) as client:
        client.enqueue_many(
            client.job("sendMessage", chat_id=number % 100_000 + 1, text=f"message {number}", priority="bulk")
            for number in range(jobs)
        )
    campaigns = Campaigns(settings, BOT)
    audience = ({"chat_id": number} for number in range(1, recipients + 1))
    campaigns.create({"name": "spring", "content": {"text": "Hello"}}, audience)
    campaigns.start("spring")
    campaigns.close()


def _letter(settings: Settings, number: int) -> dead_letters.Publication:
    params = {"chat_id": number + 1, "text": f"message {number}"}
    job = new_job("sendMessage", params, bot=BOT, job_id=f"letter-{number}")
    queue = queue_names.home_of(job, settings.partitions)
    return dead_letters.dead_job(job, encode_job(job, queue), queue, REASONS[number % len(REASONS)], "a benchmark")


def page_times(url: str) -> Iterator[PageTimes]:
    """Ask for each page, once when nothing is known of it, and then again."""
    with httpx.Client(base_url=url, timeout=60) as http:
        firsts = {page: _milliseconds(http, page) for page in PAGES}
        _await_letters(http)
        for page in PAGES:
            again = [_milliseconds(http, page) for _ in range(REPEATS)]
            yield PageTimes(page, firsts[page], statistics.median(again), max(again))


def _await_letters(http: httpx.Client) -> None:
    """Wait until the dead letters have been read in the background."""
    began = time.monotonic()
    while "Reading:" in http.get("/dead-letters").text:
        time.sleep(0.1)
    print(f"reading the dead letters took up to {time.monotonic() - began:.1f} s after the first pages")


def _milliseconds(http: httpx.Client, page: str) -> float:
    began = time.perf_counter()
    answer = http.get(page)
    took = (time.perf_counter() - began) * 1000
    if answer.status_code not in (200, 404):
        raise RuntimeError(f"{page} answered {answer.status_code}: {answer.text[:200]}")
    return took


def open_cost(program: Program, url: str, seconds: float) -> tuple[float, float]:
    """Return the CPU that ten open overviews take, in parts of a core, and the CPU while nobody looks."""
    stop = threading.Event()
    threads = [threading.Thread(target=_follow, args=(url, stop), daemon=True) for _ in range(BROWSERS)]
    for thread in threads:
        thread.start()
    time.sleep(SETTLE_SECONDS)
    watched = _cpu(program, seconds)
    stop.set()
    for thread in threads:
        thread.join(10)
    time.sleep(SETTLE_SECONDS)
    return watched, _cpu(program, seconds)


def _follow(url: str, stop: threading.Event) -> None:
    """Do what the pages' JavaScript does: follow the live part, and fetch the plots every 15 seconds."""
    drawn = float("-inf")
    with (
        httpx.Client(base_url=url, timeout=30) as http,
        httpx.stream("GET", f"{url}/live/overview", timeout=30) as answer,
    ):
        for _ in answer.iter_lines():
            if stop.is_set():
                return
            if time.monotonic() - drawn > PLOT_SECONDS:
                drawn = time.monotonic()
                for plot in ("rate", "waits"):
                    http.get(f"/data/bots/{BOT}/{plot}").raise_for_status()


def _cpu(program: Program, seconds: float) -> float:
    before, began = program.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (program.cpu_seconds() - before) / (time.monotonic() - began)


def main(arguments: list[str]) -> int:
    """Run it; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks web", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs in the queues")
    parser.add_argument("--lines", type=int, default=100_000, help="jobs in lines")
    parser.add_argument("--letters", type=int, default=10_000, help="dead letters")
    parser.add_argument("--recipients", type=int, default=100_000, help="recipients of a campaign")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the CPU is measured, each time")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder, Node() as node:
        home = Path(folder)
        env = environment(
            {
                "rabbitmq_url": node.url,
                "state_url": f"sqlite:///{home}/state.db",
                "campaigns_url": f"sqlite:///{home}/campaigns.db",
                "bots": {BOT: TOKEN},
            }
        )
        settings = load_settings(
            rabbitmq_url=node.url,
            state_url=f"sqlite:///{home}/state.db",
            campaigns_url=f"sqlite:///{home}/campaigns.db",
            bots={BOT: TOKEN},
            _env_file=None,
        )
        fill(settings, given.jobs, given.lines, given.letters, given.recipients)
        program = Program(["-m", "floodgate", "web", "--address", "127.0.0.1:0"], env, home / "web.log", READY)
        try:
            url = program.start().ready_line().partition(READY)[2]
            times = list(page_times(url))
            watched, idle = open_cost(program, url, given.seconds)
        finally:
            program.stop()
    return _judge(times, watched, idle)


def _judge(times: list[PageTimes], watched: float, idle: float) -> int:
    rows = [(each.contender, each.first_ms, each.median_ms, each.longest_ms) for each in times]
    report.table(f"pages, ms (target: none above {MOST_MS:.0f})", ("page", "first", "median", "longest"), rows)
    cpu = [("ten overviews open", watched * 100), ("nobody looks", idle * 100)]
    report.table(f"CPU, % of a core (target: at most {MOST_CPU * 100:.0f} while open)", ("", "%"), cpu)
    report.save("web", [asdict(each) for each in times], watched_cpu=watched, idle_cpu=idle, load=os.getloadavg())
    missed = [each.contender for each in times if max(each.first_ms, each.longest_ms) > MOST_MS]
    for page in missed:
        print(f"missed: {page} took longer than {MOST_MS:.0f} ms", file=sys.stderr)
    if watched > MOST_CPU:
        print(f"missed: ten open overviews cost {watched:.1%} of a core", file=sys.stderr)
    return 1 if missed or watched > MOST_CPU else 0
