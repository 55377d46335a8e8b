"""An outage of Telegram under a broadcast: what it costs in calls, dead letters and order, and how sending resumes.

Each kind has a fresh Bot API and one worker at Telegram's limits; they play side by side. The outage begins when a
tenth of the broadcast is sent. ``refused``: the port is closed. ``502``: so is every call answered. ``time-out``: calls
act and are not answered, the worst case, so that those made during the outage act twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.stage import pace, report, servers
from benchmarks.stage.editions import CURRENT, Edition
from benchmarks.stage.pipeline import Pipeline, pipeline
from benchmarks.stage.programs import Program
from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.fake_telegram.control import Arrived, ControlClient
from rabbitmq_node.engine import free_ports

KINDS: Final = ("refused", "502", "time-out")
FAULTS: Final = {"502": {"kind": "error", "code": 502}, "time-out": {"kind": "stall"}}
PARTS: Final = 3
FIRST_CHAT: Final = 10_000
PER_SECOND: Final = 30
# Sending is even again in the first second with so many sends.
EVEN: Final = 26
# Beside the broadcast's own time: the longest interval between probes, a call's time-out, and a slow machine.
REST_SECONDS: Final = 180.0
MOST_CALLS: Final = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """One kind. ``resumed_seconds`` count from the end of the outage to the first second of even sending."""

    contender: str
    outage_seconds: float
    sent: int
    calls: int
    """Made during the outage."""
    dead_letters: int
    disorder: int
    """Sends that came before an earlier one of their chat."""
    missing: int
    doubled: int
    refused_429: int
    resumed_seconds: float | None

    @property
    def good(self) -> bool:
        return not (self.dead_letters or self.disorder or self.missing) and self.calls < MOST_CALLS


@dataclass(frozen=True, slots=True)
class NotedEdition(Edition):
    """This tree's worker, with a notebook of its calls beside its log."""

    def worker(self, env: dict[str, str], log: Path) -> Program:  # type: ignore[override]
        arguments = ["-m", "benchmarks.stage.noted_worker", str(log.parent / "notebook")]
        return Program(arguments, env, log, "worker ready")


@dataclass(slots=True)
class BotApi:
    """A fake Telegram on one port that can be out of service. One thread only."""

    home: Path
    port: int = field(default_factory=lambda: free_ports().amqp)
    _before: list[Arrived] = field(default_factory=list)
    _program: Program | None = None
    _starts: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def control(self) -> ControlClient:
        return ControlClient(self.url)

    def acted(self) -> list[Arrived]:
        """All calls that took effect, over a restart, too."""
        return self._before + [call for call in self.control.arrivals() if call.acted]

    def start(self) -> None:
        self._starts += 1
        log = self.home / f"fake-{self._starts}.log"
        self._program = Program(
            ["-m", "floodgate.fake_telegram", "--port", str(self.port)], {}, log, "ready at http"
        ).start()
        self._program.ready_line()

    def stop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.stop()

    def begin(self, kind: str) -> None:
        """Go out of service."""
        if fault := FAULTS.get(kind):
            self.control.set_server(faults=[fault])
        else:
            self._before = self.acted()
            self.stop()

    def end(self, kind: str) -> None:
        """Be back."""
        if kind in FAULTS:
            self.control.set_server(faults=[])
        else:
            self.start()


def main(arguments: Sequence[str]) -> int:
    """Play; 0 when no kind cost a dead letter, order, a message, or a hundred calls."""
    options = _parser().parse_args(arguments)
    kinds = options.only or KINDS
    with servers.rabbitmq() as url, ThreadPoolExecutor(len(kinds), thread_name_prefix="benchmark-outage") as threads:
        play_one = partial(play, rabbitmq_url=url, seconds=options.seconds, messages=options.messages)
        outcomes = list(threads.map(play_one, kinds))
    path = report.save("outage", map(asdict, outcomes), seconds=options.seconds, messages=options.messages)
    _show(outcomes, as_json=options.json)
    print(f"written to {path}", file=sys.stderr)
    return 0 if all(outcome.good for outcome in outcomes) else 1


def play(kind: str, rabbitmq_url: str, seconds: float, messages: int) -> Outcome:
    """One outage, from the broadcast's first send to its last."""
    with _stage(rabbitmq_url) as (api, ours, home):
        texts = _enqueue(ours, messages)
        ours.start_workers(1)
        pace.watch(api.control, len(texts) // 10, REST_SECONDS)
        api.begin(kind)
        began = time.time()
        time.sleep(seconds)
        api.end(kind)
        ended = time.time()
        arrived = _await_all(api, texts, len(texts) / PER_SECOND + REST_SECONDS)
        seen = Counter(str(call.params["text"]) for call in arrived)
        return Outcome(
            contender=kind,
            outage_seconds=seconds,
            sent=len(seen),
            calls=sum(began <= at < ended for at in _calls(home / "notebook")),
            dead_letters=_dead_letters(ours),
            disorder=_disorder(seen),
            missing=len(texts) - len(seen),
            doubled=seen.total() - len(seen),
            refused_429=api.control.summary().answers_429,
            resumed_seconds=_resumed(arrived, ended),
        )


@contextmanager
def _stage(rabbitmq_url: str) -> Iterator[tuple[BotApi, Pipeline, Path]]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="floodgate-outage-")))
        api = BotApi(home)
        stack.callback(api.stop)
        api.start()
        edition = NotedEdition(CURRENT.name, CURRENT.root, CURRENT.interpreter)
        state_url = f"sqlite:///{home}/state.db"
        yield api, stack.enter_context(pipeline(home, rabbitmq_url, api.url, state_url, edition)), home


def _enqueue(ours: Pipeline, messages: int) -> set[str]:
    chats = range(FIRST_CHAT, FIRST_CHAT + messages // PARTS)
    texts = [(chat, f"{chat} {part}") for part in range(PARTS) for chat in chats]
    ours.client.enqueue_many(
        ours.client.job("sendMessage", chat_id=chat, text=text, priority="bulk") for chat, text in texts
    )
    return {text for _, text in texts}


def _await_all(api: BotApi, texts: set[str], at_most_seconds: float) -> list[Arrived]:
    """All that took effect, once that is everything or so long has passed."""
    deadline = time.monotonic() + at_most_seconds
    while True:
        arrived = api.acted()
        if {str(call.params["text"]) for call in arrived} >= texts or time.monotonic() > deadline:
            return arrived
        time.sleep(1.0)  # reading all arrivals costs the Bot API time


def _calls(notebook: Path) -> list[float]:
    return [float(line) for line in notebook.read_text().splitlines()]


def _dead_letters(ours: Pipeline) -> int:
    queue = queue_names.dead_queue(ours.bot)
    with Connections(ours.settings, "bench") as connections:
        return queue_admin.depth(connections, [queue])[queue] or 0


def _disorder(seen: Counter[str]) -> int:
    """By first arrivals, whose order the counter keeps."""
    latest: dict[str, int] = {}
    wrong = 0
    for chat, part in (text.split() for text in seen):
        wrong += int(part) < latest.get(chat, 0)
        latest[chat] = int(part)
    return wrong


def _resumed(arrived: Sequence[Arrived], ended: float) -> float | None:
    """Seconds from the end of the outage to the first send of a second that has enough of them."""
    after = [call.wall for call in arrived if call.wall >= ended]
    pairs = zip(after, itertools.islice(after, EVEN - 1, None), strict=False)
    return next((first - ended for first, last in pairs if last - first <= 1), None)


def _show(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    if as_json:
        for outcome in outcomes:
            print(json.dumps(asdict(outcome)), flush=True)
        return
    columns = ["", *list(asdict(outcomes[0]))[1:]]
    report.table("outages under a broadcast", columns, [list(asdict(outcome).values()) for outcome in outcomes])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long each outage lasts")
    parser.add_argument("--messages", type=int, default=3_000, help="of the broadcast, three to a chat")
    parser.add_argument("--only", nargs="+", choices=KINDS, help="of these kinds")
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    return parser
