"""Answers that stream to many chats at once, beside python-telegram-bot and grammY: 429s, staleness, use of the limit.

All chats begin together; a model's tokens come at their own rate, whether they are read or not. Contenders play one
after the other, each against a strict fake Telegram of its own that answers in 40 to 120 ms. Now and then somebody else
is answered through the same contender. ``--cost`` measures what a superseded job costs instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.stage import report, servers, superseding
from benchmarks.stage.pipeline import BOT_ID
from benchmarks.stage.programs import ProgramError
from benchmarks.stage.screens import Streamed, judge
from benchmarks.stage.streamers import FloodgateStream, Performance, Scene, Streamer, streamers
from benchmarks.stage.streams import StreamLoad
from floodgate.fake_telegram.control import ControlClient

LATENCY_MS: Final = (40.0, 120.0)
READY_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5
ADMITTED_PER_SECOND: Final = 29.4
"""What Floodgate sends of a bot's 30: the even share of a chat is one update in chats / 29.4 seconds."""
LEEWAY_SECONDS: Final = 2.0
LEAST_USE: Final = 0.95
MOST_REPLY_SECONDS: Final = 0.5
MOST_SUPERSEDED_MS: Final = 0.3
QUICK: Final = StreamLoad(20, 2, 200, 30.0)


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's round."""

    contender: str
    chats: int
    missing: int
    """Chats whose messages are not the whole answer at the end."""
    cut_off_seconds: float | None
    """How long after the last token the contender was stopped, if it had not finished by then."""
    producer_cpu_seconds: float
    """Of the process that produces the answers, from the first token on."""
    worker_cpu_seconds: float
    """Of Floodgate's workers. RabbitMQ and the fake Telegram are left out."""
    superseded: int | None
    load: float
    streamed: Streamed

    @property
    def refused(self) -> int:
        """All calls answered 429."""
        return sum(self.streamed.refused.values())


@dataclass(frozen=True, slots=True)
class Must:
    """A target of Floodgate's: what is measured, what is asked, and what was found."""

    what: str
    asked: str
    found: str
    met: bool | None
    """None if this round says nothing about it."""

    @property
    def verdict(self) -> str:
        return {True: "pass", False: "FAIL", None: "not measured"}[self.met]


def play(streamer: Streamer, load: StreamLoad, rabbitmq_url: str, cut_off_seconds: float) -> Round:
    """One round, on a fake Telegram of its own. Bounded: see ``--cut-off``.

    Raises:
        ProgramError: the contender did not start.
    """
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with (
            servers.fake_telegram(home / "fake.log", LATENCY_MS) as fake,
            streamer.on_stage(Scene(home, rabbitmq_url, fake, load)) as performance,
        ):
            found = _round(streamer, load, performance, fake.control, cut_off_seconds)
    print(f"{found.contender}: {found.refused} answers 429, {found.missing} missing", file=sys.stderr, flush=True)
    return found


def _round(
    streamer: Streamer, load: StreamLoad, performance: Performance, control: ControlClient, cut_off_seconds: float
) -> Round:
    began = float(performance.producer.ready_line(READY_SECONDS).rpartition(" ")[2])
    cpu_before = performance.cpu_seconds()
    chats = streamer.chats(load)
    deadline = began + load.seconds + cut_off_seconds
    finished = _await_finish(performance, deadline)
    shows_all = _await_answers(control, load, chats, deadline if finished else time.time())
    cpu_after = performance.cpu_seconds()
    arrivals, ended = control.arrivals(), time.time()
    for line in performance.producer.log().splitlines():
        if line.startswith("lost "):
            print(f"{streamer.name}: {line}", file=sys.stderr)
    return Round(
        contender=streamer.name,
        chats=len(chats),
        missing=len(chats) - shows_all,
        cut_off_seconds=None if finished else cut_off_seconds,
        producer_cpu_seconds=cpu_after[0] - cpu_before[0],
        worker_cpu_seconds=cpu_after[1] - cpu_before[1],
        superseded=performance.superseded(),
        load=os.getloadavg()[0],
        streamed=judge(load, chats, arrivals, began, ended),
    )


def _await_finish(performance: Performance, deadline: float) -> bool:
    """Wait until the contender says that it has done all it will do, or until the deadline in Unix time."""
    while time.time() < deadline:
        if "\nfinished" in performance.producer.log():
            return True
        if not performance.producer.running:
            raise ProgramError(f"A contender ended early. The end of its log:\n{performance.producer.log()[-2000:]}")
        time.sleep(POLL_SECONDS)
    return False


def _await_answers(control: ControlClient, load: StreamLoad, chats: Sequence[int], deadline: float) -> int:
    """Wait until all chats show the whole answer, or until the deadline; return how many do."""
    left = list(chats)
    while True:
        left = [chat for chat in left if not _shows_answer(control, load, chat)]
        if not left or time.time() >= deadline:
            return len(chats) - len(left)
        time.sleep(POLL_SECONDS)


def _shows_answer(control: ControlClient, load: StreamLoad, chat: int) -> bool:
    return load.is_answer([str(message.get("text", "")) for message in control.shown(BOT_ID, chat).messages])


def musts(found: Round, load: StreamLoad) -> list[Must]:
    """What is asked of Floodgate in a round."""
    streamed = found.streamed
    even = load.chats / ADMITTED_PER_SECOND + LEEWAY_SECONDS
    return [
        Must("answers 429", "0", str(found.refused), found.refused == 0),
        Must("final texts missing", "0", str(found.missing), found.missing == 0),
        Must(
            f"use of the bot's 30/s by edits, in {streamed.busy_seconds:.0f} s with something to show",
            f">= {LEAST_USE:g}",
            "-" if streamed.use is None else f"{streamed.use:.3f}",
            None if streamed.use is None else streamed.use >= LEAST_USE,
        ),
        Must(
            "staleness, p95",
            f"<= {even:.1f} s",
            f"{streamed.stale_p95_seconds:.2f} s",
            streamed.stale_p95_seconds <= even,
        ),
        Must(
            "a message in between, p99",
            f"<= {MOST_REPLY_SECONDS:g} s",
            f"{streamed.reply_p99_seconds:.2f} s",
            streamed.reply_p99_seconds <= MOST_REPLY_SECONDS,
        ),
    ]


def beside(ours: Round, rounds: Sequence[Round]) -> list[Must]:
    """Staleness beside the best peer. Where a peer streams to private chats only, ours counts in those only; without
    drafts, peers that have them are left out."""
    peers = [each for each in rounds if not each.contender.startswith(FloodgateStream.word)]
    comparable = [each for each in peers if ours.streamed.by_drafts or not each.streamed.by_drafts]
    return [must for name in ("p50", "p95") for must in _beside(ours, comparable, name)]


def _beside(ours: Round, peers: Sequence[Round], name: str) -> Iterator[Must]:
    for private in (False, True):
        field = f"stale_private_{name}_seconds" if private else f"stale_{name}_seconds"
        same = [each for each in peers if (each.chats < ours.chats) is private]
        if same:
            best, whose = min((getattr(each.streamed, field), each.contender) for each in same)
            found = getattr(ours.streamed, field)
            where = "in private chats, " if private else ""
            what = f"staleness, {where}{name}, beside the best peer ({whose})"
            yield Must(what, f"< {best:.2f} s", f"{found:.2f} s", found < best)


def musts_of_cost(cost: superseding.SupersededCost) -> list[Must]:
    """What is asked of superseded jobs."""
    took = cost.worker_ms + cost.producer_ms
    return [
        Must(f"calls for {cost.superseded} superseded jobs", "0", str(cost.extra_calls), cost.extra_calls == 0),
        Must(
            f"CPU of a superseded job: {cost.worker_ms:.3f} ms in the worker "
            f"(of one that is sent: {cost.call_ms:.3f}), {cost.producer_ms:.3f} ms to enqueue it",
            f"<= {MOST_SUPERSEDED_MS:g} ms",
            f"{took:.3f} ms",
            took <= MOST_SUPERSEDED_MS,
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when Floodgate missed no target."""
    options = _parser().parse_args(arguments)
    load = QUICK if options.quick else StreamLoad(options.chats, options.groups, options.tokens, options.rate)
    everybody = [] if options.cost else list(streamers())
    chosen = [each for each in everybody if not options.who or _is_meant(each.name, everybody, options.who)]
    with servers.rabbitmq() as url:
        rounds = [play(each, load, url, options.cut_off) for _ in range(options.rounds) for each in chosen]
        cost = superseding.measure(url) if options.cost or not options.who else None
    asked = {
        f"{each.contender}, round {number // len(chosen) + 1}": musts(each, load) + beside(each, rounds)
        for number, each in enumerate(rounds)
        if each.contender.startswith(FloodgateStream.word)
    }
    if cost is not None:
        asked["superseded jobs"] = musts_of_cost(cost)
    if rounds:
        _show(load, rounds)
    report.table(
        "What is asked of Floodgate",
        ["", "must", "asked", "found", "verdict"],
        [[who, must.what, must.asked, must.found, must.verdict] for who, of_one in asked.items() for must in of_one],
    )
    path = report.save(
        "streaming",
        map(asdict, rounds),
        load=asdict(load),
        superseded=asdict(cost) if cost else None,
        musts={who: [asdict(must) for must in of_one] for who, of_one in asked.items()},
    )
    print(f"written to {path}", file=sys.stderr)
    return 1 if any(must.met is False for of_one in asked.values() for must in of_one) else 0


def _is_meant(name: str, everybody: Sequence[Streamer], words: Sequence[str]) -> bool:
    """Whether one of the words is the name, or is part of it and the name of nobody."""
    names = {each.name for each in everybody}
    return any(word == name or (word in name and word not in names) for word in words)


def _show(load: StreamLoad, rounds: Sequence[Round]) -> None:
    report.table(
        f"{load.chats} chats, {load.groups} of them groups, are streamed {load.tokens} tokens each at {load.rate:g}/s, "
        "all at once. Rates are from a tenth of the stream to its end",
        ["", *(each.contender for each in rounds)],
        [[name, *(figure(each) for each in rounds)] for name, figure in _FIGURES.items()],
    )


def _by_family(found: Round) -> str:
    parts = ", ".join(f"{count} {kind}" for kind, count in sorted(found.streamed.refused.items()))
    return f"{found.refused} ({parts})" if parts else "0"


_FIGURES: Final[dict[str, Callable[[Round], object]]] = {
    "answers 429": _by_family,
    "final texts missing": lambda found: f"{found.missing} of {found.chats}",
    "stopped so many s after the last token": lambda found: found.cut_off_seconds,
    "calls/s that count against the bot's 30": lambda found: found.streamed.counted_per_second,
    "use of the 30/s by edits": lambda found: found.streamed.use,
    "calls/s that changed an answer on a screen": lambda found: found.streamed.shown_per_second,
    "calls a minute in a group": lambda found: found.streamed.group_calls_a_minute,
    "first words after s, p95": lambda found: found.streamed.first_words_seconds,
    "staleness s, p50": lambda found: found.streamed.stale_p50_seconds,
    "staleness s, p95": lambda found: found.streamed.stale_p95_seconds,
    "staleness s in private chats, p50": lambda found: found.streamed.stale_private_p50_seconds,
    "staleness s in private chats, p95": lambda found: found.streamed.stale_private_p95_seconds,
    "a message in between s, p50": lambda found: found.streamed.reply_p50_seconds,
    "a message in between s, p99": lambda found: found.streamed.reply_p99_seconds,
    "last answer complete after s": lambda found: found.streamed.last_seconds,
    "CPU s": lambda found: found.producer_cpu_seconds + found.worker_cpu_seconds,
    "of them in workers": lambda found: found.worker_cpu_seconds or None,
    "superseded jobs": lambda found: found.superseded,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks streaming", description=__doc__)
    parser.add_argument("--chats", type=int, default=200, help="that are streamed to (default: %(default)s)")
    parser.add_argument("--groups", type=int, default=20, help="of them (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=2000, help="of an answer (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=30.0, help="tokens a second (default: %(default)s)")
    parser.add_argument(
        "--cut-off",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="after the last token was due, stop a contender that has not finished (default: %(default)s)",
    )
    parser.add_argument(
        "--contenders",
        dest="who",
        nargs="+",
        metavar="WORD",
        help="of these names, or whose names hold one of these words",
    )
    parser.add_argument("--rounds", type=int, default=1, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="20 chats, 2 of them groups, 200 tokens; for development")
    parser.add_argument("--cost", action="store_true", help="only what superseded jobs cost")
    return parser
