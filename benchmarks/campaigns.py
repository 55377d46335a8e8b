"""Campaigns: use of the rate, expected end, pause to silence, replies beside one, import, and cost a recipient.

Parts, each of which may be measured alone (``--only``):

- ``rate``: a campaign at Telegram's 30 a second, without a pause, and its expected end at half time;
- ``pause``: the time from a pause to the last call that arrives, at 30 and at 1,000 a second;
- ``fast``: a campaign at 1,000 a second beside ``enqueue_many``, in turns, on a Bot API that answers at once;
- ``replies``: how long interactive messages take beside a campaign, and without one;
- ``import``: import and check of a large audience, in a process of its own: time, memory and size;
- ``cost``: CPU and statements a recipient of a small and of a large audience, without RabbitMQ.

One worker and one campaign process. The bot is vouched for: one that the state store has never seen starts slowly.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event

from benchmarks.stage import pace, report, servers
from benchmarks.stage.pipeline import Pipeline, pipeline
from benchmarks.stage.programs import Program
from floodgate.broker.settings.model import load_settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.control import Arrived, ControlClient
from floodgate.producer.campaigns.audience.rows import read_file
from floodgate.producer.campaigns.definition import Definition, parse_definition
from floodgate.producer.campaigns.operations.checks import check
from floodgate.producer.campaigns.sending.progress import progress_of
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import RecipientOutcome
from floodgate.producer.campaigns.storage.store import CampaignStore

FIRST_CHAT: Final = 1_000_000
REPLY_CHAT: Final = 1_000  # and those after it
PER_SECOND: Final = 30
FAST: Final = 1_000
LATENCY_MS: Final = (40.0, 80.0)  # as in the other benchmarks
FAST_LATENCY_MS: Final = (2.0, 10.0)
QUIET_SECONDS: Final = 3.0
REST_SECONDS: Final = 120.0
REPLIES_A_SECOND: Final = 4
BATCH: Final = 250  # recipients that a leader releases, and records, at once
COSTED: Final = 5_000
NAME: Final = "bench"


@dataclass(frozen=True, slots=True)
class CampaignFigure:
    """One figure, and the bound it must keep: ``at_least``, ``at_most`` or neither."""

    part: str
    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_kept(self) -> bool:
        low, high = self.at_least, self.at_most
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each part sends or imports."""

    recipients: int
    fast: int
    imported: int
    rounds: int


@dataclass(slots=True)
class CampaignStage:
    """A pipeline with a worker, a campaign process and a Bot API."""

    ours: Pipeline
    control: ControlClient
    store: CampaignStore
    started: int = 0

    def start(self, recipients: int) -> str:
        """Start another campaign, and return its name."""
        self.started += 1
        name = f"{NAME}{self.started}"
        self.store.create(_definition(name), self.ours.bot)
        audience = _audience(self.ours.home / f"{name}.csv", recipients, FIRST_CHAT * self.started)
        self.store.import_audience(name, read_file(audience))
        self.store.transition(name, CampaignState.RUNNING)
        return name

    def await_sent(self, name: str, wanted: int) -> None:
        deadline = time.monotonic() + wanted / PER_SECOND + REST_SECONDS
        while self.store.counts(name).get(RecipientState.SENT, 0) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{wanted} recipients of {name} were not sent in time")
            time.sleep(0.1)

    def await_done(self, name: str) -> None:
        while self.store.get(name).state is not CampaignState.DONE:
            time.sleep(0.1)

    def calls(self) -> list[Arrived]:
        return [call for call in self.control.arrivals() if call.acted]


@contextmanager
def stage(home: Path, url: str, fake: servers.Fake, per_second: float) -> Iterator[CampaignStage]:
    """A stage whose limit is ``per_second``."""
    limits = {"bot_per_second": per_second}
    state, campaigns = f"sqlite:///{home}/state.db", f"sqlite:///{home}/campaigns.db"
    with pipeline(home, url, fake.url, state, campaigns_url=campaigns, limits=limits) as ours:
        with closing(open_store(ours.settings)) as store:
            store.vouch_idle(ours.bot)
        ours.start_workers(1)
        leader = Program(["-m", "floodgate", "campaigns", "run"], ours.env, home / "leader.log", "campaigns ready")
        leader.start().ready_line()
        try:
            with closing(CampaignStore(Database(ours.settings))) as store_of_campaigns:
                yield CampaignStage(ours, fake.control, store_of_campaigns)
        finally:
            leader.stop()


def rate(home: Path, url: str, sizes: Sizes) -> Iterator[CampaignFigure]:
    """A campaign at 30 a second."""
    with servers.fake_telegram(home / "fake.log", LATENCY_MS) as fake, stage(home, url, fake, PER_SECOND) as ours:
        name = ours.start(sizes.recipients)
        began = time.time()
        ours.await_sent(name, sizes.recipients // 2)
        half, eta = time.time(), progress_of(ours.store, name, ours.ours.settings).eta
        ours.await_done(name)
        calls = ours.calls()
        texts = [str(call.params["text"]) for call in calls]
        walls = sorted(call.wall for call in calls)
        first, last, (since, until) = walls[0], walls[-1], (walls[len(walls) // 10], walls[-len(walls) // 10])
        assert eta is not None
        error = abs(half + eta.total_seconds() - last) / (last - half)
        yield CampaignFigure("rate", "use of 30/s, from start to last call", _use(len(texts), began, last), 0.97)
        yield CampaignFigure("rate", "use of 30/s, from first to last call", _use(len(texts) - 1, first, last))
        middle = sum(since < wall <= until for wall in walls)
        yield CampaignFigure("rate", "use of 30/s, the middle four fifths", _use(middle, since, until), 0.97)
        yield CampaignFigure("rate", "seconds from the start to the first call", first - began, at_most=0.5)
        yield CampaignFigure("rate", "error of the expected end", error, at_most=0.05)
        yield CampaignFigure("rate", "missing", sizes.recipients - len(set(texts)), at_most=0)
        yield CampaignFigure("rate", "sent twice", len(texts) - len(set(texts)), at_most=0)
        yield CampaignFigure("rate", "answers 429", fake.control.summary().answers_429, at_most=0)


def pause(home: Path, url: str, sizes: Sizes) -> Iterator[CampaignFigure]:
    """The time from a pause to silence."""
    with servers.fake_telegram(home / "fake.log", LATENCY_MS) as fake, stage(home, url, fake, PER_SECOND) as ours:
        yield _silence(ours, PER_SECOND, sizes.recipients)
    (home / "fast").mkdir()
    with (
        servers.fake_telegram(home / "fast.log", FAST_LATENCY_MS, limits=False) as fake,
        stage(home / "fast", url, fake, FAST) as ours,
    ):
        yield _silence(ours, FAST, sizes.fast)


def _silence(ours: CampaignStage, per_second: int, recipients: int) -> CampaignFigure:
    name = ours.start(recipients)
    ours.await_sent(name, min(recipients // 2, 5 * per_second))
    paused = time.time()
    ours.store.transition(name, CampaignState.PAUSED)
    time.sleep(QUIET_SECONDS)
    last = max(call.wall for call in ours.control.arrivals())
    return CampaignFigure("pause", f"seconds to silence at {per_second}/s", max(0.0, last - paused), at_most=1.0)


def fast(home: Path, url: str, sizes: Sizes) -> Iterator[CampaignFigure]:
    """A campaign at 1,000 a second, and as many jobs by ``enqueue_many``, in turns."""
    with servers.instant_telegram(home / "fake.log") as fake, stage(home, url, fake, FAST) as ours:
        sent, rates = 0, dict[str, list[float]](campaign=[], enqueue_many=[])
        for number in range(sizes.rounds):
            for what, begin in (
                ("campaign", lambda: ours.start(sizes.fast)),
                ("enqueue_many", lambda first=number: ours.ours.enqueue(1 + first * sizes.fast, sizes.fast)),
            ):
                began = time.monotonic()
                begin()
                sent += sizes.fast
                samples = pace.watch(fake.control, sent, REST_SECONDS)
                rates[what].append(pace.rate(samples))
                print(f"{what}: {rates[what][-1]:.0f}/s, {samples[-1].at - began:.1f} s", file=sys.stderr, flush=True)
                time.sleep(1.0)  # the campaign records its last endings
        middle = {what: statistics.median(found) for what, found in rates.items()}
        yield CampaignFigure("fast", "campaign, messages a second", middle["campaign"])
        yield CampaignFigure("fast", "enqueue_many, messages a second", middle["enqueue_many"])
        yield CampaignFigure("fast", "campaign beside enqueue_many", middle["campaign"] / middle["enqueue_many"], 0.9)


def replies(home: Path, url: str, sizes: Sizes) -> Iterator[CampaignFigure]:
    """Interactive messages beside a campaign, and without one."""
    with servers.fake_telegram(home / "fake.log", LATENCY_MS) as fake, stage(home, url, fake, PER_SECOND) as ours:
        seconds = sizes.recipients / PER_SECOND * 0.7
        alone = _replies(ours, 0, seconds)
        ours.start(sizes.recipients)
        beside = _replies(ours, len(alone), seconds)
    for name, found in (("without a campaign", alone), ("beside one", beside)):
        yield CampaignFigure("replies", f"p50 {name}, ms", 1000 * statistics.median(found))
        yield CampaignFigure("replies", f"p99 {name}, ms", 1000 * statistics.quantiles(found, n=100)[98])


def _replies(ours: CampaignStage, first: int, seconds: float) -> list[float]:
    """Send interactive messages at an even rate. Return the seconds from each enqueue to its call."""
    enqueued: dict[str, float] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        text = f"reply {first + len(enqueued)}"
        chat = REPLY_CHAT + first + len(enqueued)
        enqueued[text] = time.time()
        ours.ours.client.send_message(chat_id=chat, text=text, priority="interactive")
        time.sleep(1 / REPLIES_A_SECOND)
    time.sleep(QUIET_SECONDS)
    arrived = {str(call.params["text"]): call.wall for call in ours.calls()}
    return [arrived[text] - at for text, at in enqueued.items()]


def import_(home: Path, _url: str, sizes: Sizes) -> Iterator[CampaignFigure]:
    """Import and check of an audience, in another process, so that its memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        importing, checking, peak_mib, size = pool.submit(_imported, home, sizes.imported).result()
    yield CampaignFigure("import", f"import of {sizes.imported} rows, s", importing)
    yield CampaignFigure("import", "check of them, s", checking)
    yield CampaignFigure("import", "both, s", importing + checking, at_most=60.0 * sizes.imported / 1_000_000)
    yield CampaignFigure("import", "peak memory, MiB", peak_mib, at_most=150.0)
    yield CampaignFigure("import", "bytes a recipient", size / sizes.imported, at_most=400.0)


def _imported(home: Path, rows: int) -> tuple[float, float, float, int]:
    store = _store(home)
    started = time.monotonic()
    _import(store, home, rows)
    imported = time.monotonic()
    check(_definition(NAME), store.recipients(NAME))
    checked = time.monotonic()
    store.close()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return imported - started, checked - imported, peak_mib, (home / "campaigns.db").stat().st_size


def cost(home: Path, _url: str, sizes: Sizes) -> Iterator[CampaignFigure]:
    """CPU and statements a recipient of an audience, and of one that is a hundred times as large."""
    small, large = max(COSTED, sizes.imported // 100), sizes.imported
    audiences = [Costed(home / str(rows), rows) for rows in (small, large)]
    for _ in range(COSTED // BATCH):  # in turns, so that whatever else the machine does is shared
        for audience in audiences:
            audience.send_batch()
    of_small, of_large = (audience.close() for audience in audiences)
    for what in of_small:
        yield CampaignFigure("cost", f"{what}, of {small}", of_small[what])
        yield CampaignFigure("cost", f"{what}, of {large}", of_large[what])
        yield CampaignFigure("cost", f"{what}, large beside small", of_large[what] / of_small[what], at_most=1.15)


class Costed:
    """An audience, some of whom are released and recorded as sent."""

    def __init__(self, home: Path, rows: int) -> None:
        home.mkdir()
        self._store = _store(home)
        before = time.process_time()
        _import(self._store, home, rows)
        self._importing = (time.process_time() - before) / rows
        self._campaign = self._store.transition(NAME, CampaignState.RUNNING)
        self._store.lead("bench", 3600.0)
        self._costs: list[float] = []
        self._statements = 0

    def send_batch(self) -> None:
        with _counted() as statements:
            before = time.process_time()
            found = self._store.release(self._campaign, "bench", BATCH, [0])
            outcomes = [RecipientOutcome(each.number, 0, RecipientState.SENT, 1) for each in found]
            self._store.settle(self._campaign, outcomes)
            self._costs.append((time.process_time() - before) / BATCH)
        self._statements += statements[0]

    def close(self) -> dict[str, float]:
        """Return the costs by what they are of."""
        self._store.close()
        return {
            "import, µs of CPU a recipient": 1e6 * self._importing,
            "release and record, µs of CPU a recipient": 1e6 * statistics.median(self._costs),
            "statements a recipient": self._statements / COSTED,
        }


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Count statements; one for many rows counts as one."""
    counted = [0]

    def count(*_arguments: object) -> None:
        counted[0] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield counted
    finally:
        event.remove(Engine, "before_cursor_execute", count)


Part = Callable[[Path, str, Sizes], Iterator[CampaignFigure]]
PARTS: Final[dict[str, Part]] = {
    "rate": rate,
    "pause": pause,
    "fast": fast,
    "replies": replies,
    "import": import_,
    "cost": cost,
}


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 if every bound was kept."""
    options = _parser().parse_args(arguments)
    sizes = Sizes(options.recipients, options.fast, options.imported, options.rounds)
    figures: list[CampaignFigure] = []
    with servers.rabbitmq() as url:
        for part in options.only or PARTS:
            with tempfile.TemporaryDirectory(prefix=f"floodgate-{part}-") as home:
                figures += PARTS[part](Path(home), url, sizes)
            print(f"{part} is measured", file=sys.stderr, flush=True)
    path = report.save("campaigns", map(asdict, figures), sizes=asdict(sizes))
    _show(figures, as_json=options.json)
    print(f"written to {path}", file=sys.stderr)
    return 0 if all(figure.is_kept for figure in figures) else 1


def _show(figures: Iterable[CampaignFigure], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(figure) for figure in figures]))
        return
    rows = [
        [figure.part, figure.name, figure.value, figure.bound, "" if figure.is_kept else "missed"] for figure in figures
    ]
    report.table("campaigns", ["part", "figure", "value", "must", ""], rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks campaigns", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, help="the parts to measure (default: all)")
    parser.add_argument("--recipients", type=int, default=3_000, help="at 30 a second (default: %(default)s)")
    parser.add_argument("--fast", type=int, default=20_000, help="at 1,000 a second (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the part `fast` (default: %(default)s)")
    parser.add_argument("--imported", type=int, default=1_000_000, help="rows (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _store(home: Path) -> CampaignStore:
    settings: dict[str, Any] = {"campaigns_url": f"sqlite:///{home}/campaigns.db"}
    return CampaignStore(Database(load_settings(_env_file=None, **settings)))


def _import(store: CampaignStore, home: Path, rows: int) -> None:
    store.create(_definition(NAME), "default")
    store.import_audience(NAME, read_file(_audience(home / "audience.csv", rows, FIRST_CHAT)))


def _audience(path: Path, rows: int, first: int) -> Path:
    with path.open("w") as lines:
        lines.write("chat_id,first_name,city\n")
        lines.writelines(f"{first + n},Name {n},Berlin\n" for n in range(rows))
    return path


def _definition(name: str) -> Definition:
    content = {"text": "Hello <b>{{ first_name }}</b>, news from {{ city }}", "parse_mode": "HTML"}
    return parse_definition({"name": name, "content": content}, "the benchmark")


def _use(calls: int, since: float, until: float) -> float:
    return calls / (until - since) / PER_SECOND
