"""One run: start the stage, run producers and faults, repair everything, wait, and make the account.

The schedule and the jobs are functions of the seed, but their timing is not, so a failing seed is likely to fail
again but not certain to.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from floodgate.broker.messages.job import decode_job
from floodgate.producer.core import job_id_of
from tests.chaos.account import Evidence, Note, Report, account_for
from tests.chaos.faults import Cast, Fault, Kind, schedule
from tests.chaos.producing import BOT, Accepted, Work, read_ledger
from tests.chaos.stage import TOKEN, Stage
from tests.chaos.telegram import read_journal
from tests.draining import drain

SETTLE_SECONDS = 180.0
QUIET_SECONDS = 230.0  # longer than a line waits for a missing head
FAULT_OF = {
    Kind.SERVER_ERRORS: ({"kind": "error", "code": 502, "acts": True}, {"kind": "error", "code": 500}),
    Kind.CUTS_BEFORE: ({"kind": "cut_before"},),
    Kind.CUTS_AFTER: ({"kind": "cut_after"},),
    Kind.SILENCE: ({"kind": "stall"},),
}
FAULT_PROBABILITY = 0.3


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a run. ``every`` is the mean time between faults in seconds."""

    seed: int
    jobs: int = 10_000
    seconds: float = 240.0
    every: float = 2.5
    redis: bool = False
    workers: int = 3
    producers: int = 3
    bot_per_second: int = 90
    version: str | None = None
    without: frozenset[Kind] = frozenset()

    def works(self) -> list[Work]:
        share = -(-self.jobs // self.producers)
        users = max(40, share // 8)
        return [
            Work(n, share, self.seconds * 0.8, users, max(3, share // 150), self.seed, batches=n % 2 == 1)
            for n in range(self.producers)
        ]


@dataclass(slots=True)
class Result:
    plan: Plan
    report: Report
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    home: Path | None = None
    """Where the evidence lies, when the run failed or was asked to keep them."""
    disk_was_small: bool = False


def run(plan: Plan, say: Callable[[str], None] = lambda _: None, *, keep: bool = False) -> Result:
    """Runs a plan to its end. Raises AssertionError only if the stage itself does not work."""
    home = Path(tempfile.mkdtemp(prefix=f"floodgate-chaos-{plan.seed}-"))
    stage = Stage(
        home,
        redis=plan.redis,
        workers=plan.workers,
        bot_per_second=plan.bot_per_second,
        version=plan.version,
    )
    started = time.monotonic()
    try:
        stage.open()
        say(f"up after {time.monotonic() - started:.0f} s: RabbitMQ {stage.node.version}, {plan.workers} workers")
        faults = _play(plan, stage, say)
        report = _settle(plan, stage, say)
        result = Result(plan, report, faults, time.monotonic() - started, disk_was_small=stage.small_disk)
    finally:
        stage.close()
    if keep or result.report.faults:
        result.home = home
    else:
        shutil.rmtree(home, ignore_errors=True)
    return result


def _play(plan: Plan, stage: Stage, say: Callable[[str], None]) -> Counter[str]:
    for work in plan.works():
        stage.start_producer(work.producer, work)
    cast = Cast(plan.workers, plan.producers, plan.redis, stage.small_disk)
    striker = Striker(stage)
    started = time.monotonic()
    for fault in schedule(plan.seed, plan.seconds, plan.every, cast):
        if fault.kind in plan.without:
            continue
        while time.monotonic() - started < fault.at:
            stage.revive()
            time.sleep(0.05)
        say(f"{time.monotonic() - started:6.1f} s  {fault.kind} ({fault.target}, {fault.seconds:g} s)")
        striker.strike(fault)
    striker.make_well()
    return striker.count


class Striker:
    """Carries faults out. Lasting faults are ended by timers or by ``make_well``."""

    def __init__(self, stage: Stage) -> None:
        self.count: Counter[str] = Counter()
        self._stage = stage
        self._timers: list[tuple[threading.Timer, Callable[[], None]]] = []

    def strike(self, fault: Fault) -> None:
        self.count[fault.kind] += 1
        stage, seconds = self._stage, fault.seconds
        match fault.kind:
            case Kind.WORKER_KILLED:
                stage.kill_worker(fault.target)
                time.sleep(seconds)
                stage.revive()
            case Kind.WORKERS_ROLLED:
                stage.roll()
            case Kind.PRODUCER_KILLED:
                stage.producers[fault.target][1].kill()
            case Kind.RABBITMQ_KILLED:
                stage.node.kill()
                time.sleep(seconds)
                stage.node.start()
            case Kind.REDIS_KILLED:
                assert stage.redis is not None
                stage.redis.kill()
                time.sleep(seconds)
                stage.redis.start()
            case Kind.FAKE_KILLED:
                stage.restart_fake(seconds)
            case Kind.CUT:
                stage.links[fault.target].cut()
            case Kind.RESET:
                stage.links[fault.target].reset()
            case Kind.STALLED:
                link = stage.links[fault.target]
                link.stall()
                self._later(seconds, link.flow)
            case Kind.REFUSED:
                link = stage.links[fault.target]
                link.refuse()
                link.cut()
                self._later(seconds, link.accept)
            case Kind.DISK_FULL:
                self._later(seconds, stage.fill_disk())
            case Kind.CLOCK_STEPPED:
                stage.step_clock(fault.target)
            case Kind.CHAT_429:
                for chat in range(10_000, 10_008):
                    stage.control.pause(_bot_id(), seconds, chat)
            case Kind.BOT_429:
                stage.control.pause(_bot_id(), seconds)
            case Kind.SERVER_ERRORS | Kind.CUTS_BEFORE | Kind.CUTS_AFTER | Kind.SILENCE:
                for of_bot_api in FAULT_OF[fault.kind]:
                    self._later(seconds, stage.add_fault({**of_bot_api, "probability": FAULT_PROBABILITY}))

    def make_well(self) -> None:
        """Ends all lasting faults and corrects the clock."""
        for timer, end in self._timers:
            timer.cancel()
            timer.join()
            end()
        self._stage.step_clock(0)
        self._stage.revive()

    def _later(self, seconds: float, end: Callable[[], None]) -> None:
        once = _once(end)
        timer = threading.Timer(seconds, once)
        timer.daemon = True
        timer.start()
        self._timers.append((timer, once))


def _once(act: Callable[[], None]) -> Callable[[], None]:
    done = threading.Lock()

    def only_once() -> None:
        if done.acquire(blocking=False):
            act()

    return only_once


def _bot_id() -> int:
    return int(TOKEN.partition(":")[0])


def _settle(plan: Plan, stage: Stage, say: Callable[[str], None]) -> Report:
    """Waits until every accepted job has ended or nothing changes any more; then stops the workers and counts."""
    began = moved = time.monotonic()
    before: tuple[int, int] = (0, 0)
    while time.monotonic() - began < SETTLE_SECONDS + plan.seconds and time.monotonic() - moved < QUIET_SECONDS:
        stage.revive()
        accepted = read_evidence(stage)
        dead = _dead(stage, accepted)
        acted = {arrival.text for arrival in read_journal(stage.journal) if arrival.acted}
        open_jobs = [text for text, job in accepted.items() if job.safe_at and text not in acted and text not in dead]
        producing = any(process.exitcode != 0 for _, process in stage.producers.values())
        if not producing and not open_jobs:
            break
        if (state := (len(acted) + len(dead), len(accepted))) != before:
            before, moved = state, time.monotonic()
            say(f"settling: {len(accepted)} handed over, {len(acted)} acted, {len(dead)} dead, {len(open_jobs)} open")
        time.sleep(1.0)
    stage.end_workers()
    return account_for(read_all(plan, stage))


def read_evidence(stage: Stage) -> dict[str, Accepted]:
    evidence: dict[str, Accepted] = {}
    for number in stage.producers:
        if (ledger := stage.ledger(number)).exists():
            evidence.update(read_ledger(number, ledger))
    return evidence


def read_all(plan: Plan, stage: Stage) -> Evidence:
    accepted = read_evidence(stage)
    return Evidence(
        expected=sum(work.jobs for work in plan.works()),
        accepted=accepted,
        arrivals=read_journal(stage.journal),
        notes=_notes(stage.notebook, accepted),
        dead=_dead(stage, accepted),
        waiting=_waiting(stage),
        limits={"bot": (plan.bot_per_second, 1.0), "chat": (1, 1.0), "group": (20, 60.0)},
    )


def _dead(stage: Stage, accepted: Mapping[str, Accepted]) -> dict[str, str]:
    """Reason by text of each dead job: from its dead letter or from the state store's list."""
    reasons = stage.not_kept()
    listed = {text: reasons[job_id] for text in accepted if (job_id := job_id_of(BOT, text)) in reasons}
    return listed | stage.dead_letters()


def _waiting(stage: Stage) -> frozenset[str]:
    """The jobs left in queues after the workers have ended. They are removed: this is the last step."""
    texts: set[str] = set()
    for queue in stage.depths():
        texts.update(str(decode_job(body).params["text"]) for _, body in drain(stage.node.url, queue))
    return frozenset(texts)


def _notes(notebook: Path, accepted: Mapping[str, Accepted]) -> dict[str, list[Note]]:
    """The workers' notes by text of the job, in order of time."""
    text_of = {job_id_of(BOT, text): text for text in accepted}
    notes: dict[str, list[Note]] = defaultdict(list)
    for line in notebook.read_text().splitlines() if notebook.exists() else ():
        event, job_id, at, *detail = line.split()
        notes[text_of.get(job_id, job_id)].append(Note(event, float(at), " ".join(detail)))
    for each in notes.values():
        each.sort(key=lambda note: note.at)
    return notes


def render(result: Result) -> str:
    """The report as text."""
    plan, report = result.plan, result.report
    lines = [
        f"seed {plan.seed}, state {'redis' if plan.redis else 'sqlite'}: {report.accepted} jobs accepted from "
        f"{plan.producers} producers, {sum(result.faults.values())} faults, {result.seconds:.0f} s",
        "strokes: " + ", ".join(f"{kind} {count}" for kind, count in result.faults.most_common()),
        f"sent {report.sent}, dead {sum(report.dead.values())} {dict(report.dead)}, waiting {report.waiting}, "
        f"lost {len(report.lost)}",
        f"handed over and never acknowledged to their producer: {report.unacknowledged}",
        f"duplicates {len(report.duplicates)}: {dict(Counter(one.why for one in report.duplicates))}",
        *(f"  {one.text} {one.times} times: {one.why}" for one in report.duplicates),
        f"sent and dead {len(report.sent_and_dead)}: {dict(Counter(one.why for one in report.sent_and_dead))}",
        f"order inversions {len(report.inversions)}",
        "fullest windows (limit, at arrival, by the time of the call): "
        + ", ".join(f"{name} {w.limit}/{w.at_arrival}/{w.at_call}" for name, w in report.windows.items()),
        f"answers 429 by what refused: {dict(report.refused)}",
    ]
    if not plan.redis and not result.disk_was_small:
        lines.append("no file system could be mounted here, so the disk was never full")
    lines += [f"FAULT {fault}" for fault in report.faults] or ["every accepted job is accounted for"]
    if result.home is not None:
        lines.append(f"evidence is in {result.home}")
    if report.faults:
        lines.append(
            f"replay: python -m tests.chaos --seed {plan.seed} --jobs {plan.jobs}"
            f" --seconds {plan.seconds:g} --state {'redis' if plan.redis else 'sqlite'}"
        )
    return "\n".join(lines)
