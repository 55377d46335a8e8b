"""A campaign under Telegram's limits: use of the rate, expected end, pause to silence; and the import of an audience.

One worker, one campaign process, a fresh Bot API with Telegram's limits. The expected end is read at half time and
compared with the end. The campaign is paused once: silence is the time from the pause to the last call that arrives.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.stage import report, servers
from benchmarks.stage.pipeline import Pipeline, pipeline
from benchmarks.stage.programs import Program
from floodgate.broker.settings.model import load_settings
from floodgate.fake_telegram.control import ControlClient
from floodgate.producer.campaigns.audience import read_file
from floodgate.producer.campaigns.checks import check
from floodgate.producer.campaigns.database import Database
from floodgate.producer.campaigns.definition import Definition, parse_definition
from floodgate.producer.campaigns.progress import progress_of
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.store import CampaignStore

FIRST_CHAT: Final = 10_000
PER_SECOND: Final = 30
LATENCY_MS: Final = (40.0, 120.0)
QUIET_SECONDS: Final = 3.0
REST_SECONDS: Final = 120.0
NAME: Final = "bench"


@dataclass(frozen=True, slots=True)
class CampaignFigures:
    """The figures of one run."""

    recipients: int
    use: float
    """Of 30 messages a second, without the pause."""
    eta_error: float
    """The expected end at half time against the end, as a share of the time that was left."""
    silence_seconds: float
    sent: int
    missing: int
    doubled: int
    refused_429: int
    imported: int
    import_seconds: float
    check_seconds: float
    peak_mib: float
    bytes_a_recipient: float


def main(arguments: Sequence[str]) -> int:
    """Run; 0 if every recipient got the message once and no call was refused with 429."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks campaigns", description=__doc__.partition("\n")[0])
    parser.add_argument("--recipients", type=int, default=1_200, help="of the campaign that is sent")
    parser.add_argument(
        "--imported", type=int, default=1_000_000, help="rows of another audience, imported and checked"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="floodgate-campaigns-") as home:
        figures = run(Path(home), options.recipients, options.imported)
    path = report.save("campaigns", [asdict(figures)], recipients=options.recipients)
    if options.json:
        print(json.dumps(asdict(figures)))
    else:
        report.table("a campaign", ["figure", "value"], [[name, value] for name, value in asdict(figures).items()])
    print(f"written to {path}", file=sys.stderr)
    return 0 if not (figures.missing or figures.doubled or figures.refused_429) else 1


def run(home: Path, recipients: int, imported: int) -> CampaignFigures:
    """Import and check one audience, then send a campaign to another."""
    import_seconds, check_seconds, size = _import(home, imported)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with (
        servers.rabbitmq() as url,
        servers.fake_telegram(home / "fake.log", LATENCY_MS) as fake,
        pipeline(home, url, fake.url, f"sqlite:///{home}/state.db", campaigns_url=f"sqlite:///{home}/sent.db") as ours,
    ):
        ours.start_workers(1)
        log = home / "campaigns.log"
        runner = Program(["-m", "floodgate", "campaigns", "run"], ours.env, log, "campaigns ready").start()
        runner.ready_line()
        try:
            eta_error, silence, took = _send(ours, fake.control, recipients)
        finally:
            runner.stop()
        texts = [str(call.params["text"]) for call in fake.control.arrivals() if call.acted]
        return CampaignFigures(
            recipients=recipients,
            use=recipients / took / PER_SECOND,
            eta_error=eta_error,
            silence_seconds=silence,
            sent=len(texts),
            missing=recipients - len(set(texts)),
            doubled=len(texts) - len(set(texts)),
            refused_429=fake.control.summary().answers_429,
            imported=imported,
            import_seconds=import_seconds,
            check_seconds=check_seconds,
            peak_mib=peak_mib,
            bytes_a_recipient=size / imported,
        )


def _import(home: Path, rows: int) -> tuple[float, float, int]:
    """Import and check an audience. Return the seconds of both, and the size of the database in bytes."""
    database = home / "imported.db"
    store = CampaignStore(Database(load_settings(_env_file=None, campaigns_url=f"sqlite:///{database}")))
    store.create(_definition(), "default")
    started = time.monotonic()
    store.import_audience(NAME, read_file(_audience(home / "imported.csv", rows)))
    imported = time.monotonic()
    check(_definition(), store.recipients(NAME))
    checked = time.monotonic()
    store.close()
    return imported - started, checked - imported, database.stat().st_size


def _send(ours: Pipeline, control: ControlClient, recipients: int) -> tuple[float, float, float]:
    """Send a campaign, with a pause at a quarter. Return the error of the expected end, the seconds from the pause to
    silence, and the seconds of sending."""
    store = CampaignStore(Database(ours.settings))
    store.create(_definition(), ours.bot)
    store.import_audience(NAME, read_file(_audience(ours.home / "sent.csv", recipients)))
    started = time.time()
    store.transition(NAME, CampaignState.RUNNING)
    _await_sent(store, recipients // 4)
    paused = time.time()
    store.transition(NAME, CampaignState.PAUSED)
    time.sleep(QUIET_SECONDS)
    silence = max(0.0, max(call.wall for call in control.arrivals()) - paused)
    resumed = time.time()
    store.transition(NAME, CampaignState.RUNNING)
    _await_sent(store, recipients // 2)
    half, eta = time.time(), progress_of(store, NAME, ours.settings).eta
    _await_sent(store, recipients)
    store.close()
    ended = max(call.wall for call in control.arrivals())
    assert eta is not None
    took = ended - started - (resumed - paused - silence)
    return abs(eta.total_seconds() - (ended - half)) / (ended - half), silence, took


def _await_sent(store: CampaignStore, wanted: int) -> None:
    deadline = time.monotonic() + wanted / PER_SECOND + REST_SECONDS
    while store.counts(NAME).get(RecipientState.SENT, 0) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{wanted} recipients were not sent in time")
        time.sleep(0.1)


def _audience(path: Path, rows: int) -> Path:
    with path.open("w") as lines:
        lines.write("chat_id,first_name,city\n")
        lines.writelines(f"{FIRST_CHAT + n},Name {n},Berlin\n" for n in range(rows))
    return path


def _definition() -> Definition:
    content = {"text": "Hello <b>{{ first_name }}</b>, news from {{ city }}", "parse_mode": "HTML"}
    return parse_definition({"name": NAME, "content": content}, "the benchmark")
