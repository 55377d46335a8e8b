"""A campaign under random kills: leaders, workers, RabbitMQ and PostgreSQL get SIGKILL until most have got the message.

``python -m tests.chaos.campaign_run --recipients 100000`` runs it at full length. What is killed, and after how many
calls, follows from the seed; the processes' timing does not.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.limits import FloodLimits, Rate
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.campaigns.states import RecipientState
from rabbitmq_node.node import Node
from tests.chaos.leading import CampaignUnderTest, Ending, ProcessUnderTest, bounds
from tests.services import PostgresServer
from tests.waiting import until

BOT = "chaos"
LATENCY_MS = (2.0, 25.0)
PARTITIONS = 16
READY_SECONDS = 60.0
CALLS_KEPT = 1_000_000


class Victim(StrEnum):
    LEADER = "leader"
    WORKER = "worker"
    RABBITMQ = "RabbitMQ"
    POSTGRESQL = "PostgreSQL"


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a run. ``kills`` are spread over the first nine tenths of the calls."""

    seed: int
    recipients: int = 1000
    kills: int = 6
    per_second: int = 400
    leaders: int = 2
    workers: int = 2
    version: str | None = None

    def schedule(self) -> Sequence[tuple[int, Victim]]:
        """The number of calls after which each victim is killed. Each kind comes once before any comes again."""
        draw = random.Random(self.seed)
        last = int(self.recipients * 0.9)
        after = sorted(draw.sample(range(self.recipients // 20, last), self.kills))
        first = draw.sample(list(Victim), len(Victim))
        more = draw.choices([Victim.LEADER, Victim.WORKER, Victim.POSTGRESQL], k=max(0, self.kills - len(first)))
        return list(zip(after, [*first, *more], strict=False))


@dataclass(slots=True)
class Result:
    """How a run ended. ``faults`` is empty if all that is promised holds."""

    plan: Plan
    ending: Ending
    kills: Counter[str]
    seconds: float
    faults: dict[str, object] = field(default_factory=dict)

    def render(self) -> str:
        states = Counter(state.name.lower() for state in self.ending.rows.values())
        calls = Counter(self.ending.acted.values())
        plan = self.plan
        lines = [
            f"seed {plan.seed}: {plan.recipients} recipients in {self.seconds:.0f} s, killed {dict(self.kills)}",
            f"endings {dict(states)}; messages by recipient {dict(calls)}",
            *(f"FAULT {what}: {found}" for what, found in self.faults.items()),
        ]
        return "\n".join(lines)


class Stage:
    """The servers and processes of a run. Used by one thread."""

    def __init__(self, plan: Plan, home: Path) -> None:
        self._plan, self._home = plan, home
        self._node, self._postgres = Node(plan.version), PostgresServer()
        self._leaders: list[ProcessUnderTest] = []
        self._workers: list[ProcessUnderTest] = []

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[CampaignUnderTest, ControlClient]]:
        limits = FloodLimits(bot=Rate(self._plan.per_second, 1.0))
        with contextlib.ExitStack() as stack:
            stack.callback(self._node.remove)
            stack.callback(self._postgres.remove)
            self._node.start()
            self._postgres.start()
            fake = stack.enter_context(running_fake(limits=limits, latency_ms=LATENCY_MS, keep_arrivals=CALLS_KEPT))
            self.campaign = self._campaign(fake.url)
            stack.callback(self.campaign.store.close)
            with contextlib.closing(open_store(self.campaign.settings)) as store:
                store.vouch_idle(BOT)
            stack.callback(self._end_processes)
            self.revive()
            self._age_queues()
            yield self.campaign, fake.control

    def kill(self, victim: Victim, draw: random.Random) -> None:
        match victim:
            case Victim.LEADER:
                draw.choice(self._leaders).kill()
                self.campaign.free()
            case Victim.WORKER:
                draw.choice(self._workers).kill()
            case Victim.RABBITMQ:
                self._node.kill()
                self._node.start()
            case Victim.POSTGRESQL:
                self._postgres.kill()
                self._postgres.start()
        self.revive()

    def revive(self) -> None:
        """Start what is not running."""
        self._leaders = [each for each in self._leaders if not each.is_dead]
        self._workers = [each for each in self._workers if not each.is_dead]
        self._leaders += [self.campaign.leader() for _ in range(self._plan.leaders - len(self._leaders))]
        self._workers += [self.campaign.worker() for _ in range(self._plan.workers - len(self._workers))]

    def _campaign(self, api_url: str) -> CampaignUnderTest:
        given = {
            "bots": {BOT: "200300:" + "K" * 35},
            "rabbitmq_url": self._node.url,
            "state_url": f"sqlite:///{self._home}/state.db",
            "campaigns_url": self._postgres.new_database(),
            "telegram_api_url": api_url,
            "limits": {"bot_per_second": self._plan.per_second},
            "partitions": PARTITIONS,
            "update_partitions": 1,
            "call_timeout_seconds": 2,
            "lease_margin_seconds": 1,
            "heartbeat_seconds": 3,
            "connect_timeout_seconds": 3,
            "confirm_timeout_seconds": 10,
        }
        return CampaignUnderTest("spring", 10_000, self._home, given)

    def _age_queues(self) -> None:
        """RabbitMQ writes down half a second late which log is a new queue's; if it is killed before, the queue is
        emptied. The queues of a restarted node are old."""
        log = self._home / "worker.log"
        until(lambda: log.exists() and log.read_text().count("worker ready") == self._plan.workers, READY_SECONDS)
        self._node.stop()
        self._node.start()

    def _end_processes(self) -> None:
        for process in (*self._leaders, *self._workers):
            process.kill()


def run(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Result:
    """Run a plan to its end."""
    home = Path(tempfile.mkdtemp(prefix=f"floodgate-campaign-{plan.seed}-"))
    stage, draw, kills = Stage(plan, home), random.Random(plan.seed), Counter[str]()
    with stage.opened() as (campaign, control):
        campaign.start(plan.recipients)
        started = time.monotonic()
        most = 60.0 + plan.recipients / 50
        for after, victim in plan.schedule():
            until(lambda after=after: control.stats().arrived >= after, most)  # type: ignore[misc]
            say(f"{time.monotonic() - started:6.1f} s, after {after} calls: {victim}")
            stage.kill(victim, draw)
            kills[victim] += 1
        until(lambda: _is_done(campaign), most)
        seconds = time.monotonic() - started
        ending = campaign.ending(control)
    result = Result(plan, ending, kills, seconds, {what: found for what, found in bounds(ending).items() if found})
    uncertain = sum(state is RecipientState.UNCERTAIN for state in ending.rows.values())
    if uncertain > PARTITIONS * (kills[Victim.WORKER] + kills[Victim.RABBITMQ]):
        result.faults["uncertain"] = uncertain
    if not result.faults:
        shutil.rmtree(home, ignore_errors=True)
    return result


def _is_done(campaign: CampaignUnderTest) -> bool:
    with contextlib.suppress(StateUnavailableError):  # a connection to the server that was killed
        return campaign.is_done
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.chaos.campaign_run", description=__doc__.partition("\n")[0])
    parser.add_argument("--recipients", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--per-second", type=int, default=1000, help="the limit of the fake and of admission alike")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    plan = Plan(options.seed, options.recipients, options.kills, options.per_second)
    result = run(plan, lambda line: print(line, flush=True))
    print(result.render())
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
