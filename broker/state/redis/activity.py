"""Reports of processes and the history in Redis or Valkey.

A report is one round trip: a run of ``processes.lua``, and one of ``history.lua`` for each bot. All of a bot's buckets
are on one node of a cluster, beside what admission keeps of it; the processes have a hash tag of their own. If a
bot's node is away, what was counted of it is kept here and reported later, since the other bots' is reported already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.policy import RECOVERY_US_PER_PERMILLE, SECOND, Policy, per_second
from floodgate.broker.state.activity import LIVE_SECONDS, Counts, History, ProcessReport, Resolution, Series
from floodgate.broker.state.buckets import FOLDS, SERIES, history_of, merged
from floodgate.broker.state.processes import active, report_of, text_of
from floodgate.broker.state.redis.faults import ERRORS
from floodgate.broker.state.redis.scripts import LuaScript, Run, run_all
from floodgate.broker.state.redis.server import RedisConnection

# A hash with so many small fields is compact: Redis's hash-max-listpack-entries is 128 or more.
IN_A_HASH: Final = 60
_PROCESS_KEYS: Final = ("floodgate:{processes}:heard", "floodgate:{processes}:reports")
_PLACES: Final = {
    "waiting_interactive": Series.WAITING_INTERACTIVE,
    "waiting_bulk": Series.WAITING_BULK,
    "in_flight": Series.IN_FLIGHT,
    "limit": Series.LIMIT,
}
_CONSTANTS: Final = (
    f"local FOLDS = {{ {', '.join(repr(FOLDS[series]) for series in SERIES)} }}\n"
    f"local GAUGES = {{ {', '.join(f'{name} = {SERIES.index(series) + 1}' for name, series in _PLACES.items())} }}\n"
    f"local RESOLUTIONS = {{ {', '.join(f'{{ {each.seconds}, {each.buckets} }}' for each in Resolution)} }}\n"
    f"local IN_A_HASH, RECOVERY_US_PER_PERMILLE = {IN_A_HASH}, {RECOVERY_US_PER_PERMILLE}\n"
)
_TIME: Final = "return redis.call('TIME')[1]"


class RedisActivity:
    """``activity.Activity`` on a Redis or Valkey server, or a cluster. Thread-safe; connects at first use."""

    def __init__(self, url: str, policy: Policy, clock: Clock | None = None) -> None:
        self._server = RedisConnection(url)
        self._policy = policy
        self._clock = clock  # for tests; otherwise the server's own clock is used
        self._processes = LuaScript("processes.lua", len(_PROCESS_KEYS))
        self._history = LuaScript("history.lua", 2, _CONSTANTS)
        self._owed: dict[str, str] = {}  # by bot: counts of which the caller believes that they are reported

    def report(self, process: ProcessReport, increments: Mapping[str, Counts], sampled: Collection[str] = ()) -> None:
        uptime = str(process.uptime // timedelta(microseconds=1))
        self._send(self._of_process("hear", process.id, uptime, text_of(process)), increments, sampled)

    def leave(self, process: ProcessReport, increments: Mapping[str, Counts]) -> None:
        self._send(self._of_process("leave", process.id), increments, ())

    def processes(self) -> Sequence[ProcessReport]:
        script, given = self._of_process("list")
        found = self._server.use(lambda client: script.run(client, given))
        return active(report_of(text, timedelta(microseconds=int(uptime))) for uptime, text in found)

    def history(self, bot: str, resolution: Resolution, last: timedelta | None = None) -> History:
        prefix = _prefix(bot)
        now = self._now(prefix)
        after = now - int(min(last or resolution.span, resolution.span).total_seconds())
        length = resolution.seconds * IN_A_HASH
        keys = [f"{prefix}history:{resolution.seconds}:{each}" for each in range(after // length, now // length + 1)]

        def read(client: Any) -> list[dict[str, str]]:
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            found: list[dict[str, str]] = pipeline.execute()
            return found

        buckets = [(int(at), text) for each in self._server.use(read) for at, text in each.items()]
        return history_of(sorted(each for each in buckets if after < each[0] <= now))

    def close(self) -> None:
        self._server.close()

    def _of_process(self, operation: str, *given: str) -> Run:
        return self._processes, (*_PROCESS_KEYS, operation, str(LIVE_SECONDS * SECOND), *self._time(), *given)

    def _send(self, of_process: Run, increments: Mapping[str, Counts], sampled: Collection[str]) -> None:
        counts = {
            bot: merged(self._owed.get(bot, ""), increments.get(bot, {}))
            for bot in {*increments, *sampled, *self._owed}
        }
        runs = [
            (self._history, (_prefix(bot), f"{_prefix(bot)}bot", text, self._rate(bot, sampled), *self._time()))
            for bot, text in counts.items()
        ]

        def act(client: Any) -> list[Any]:
            first, *replies = run_all(client, [of_process, *runs])
            if isinstance(first, Exception):
                raise first
            return replies

        replies = self._server.use(act)
        self._owed = {
            bot: text for (bot, text), reply in zip(counts.items(), replies, strict=True) if isinstance(reply, ERRORS)
        }

    def _rate(self, bot: str, sampled: Collection[str]) -> str:
        return str(per_second(self._policy.rates(bot).free)) if bot in sampled else ""

    def _time(self) -> tuple[str]:
        return ("" if self._clock is None else str(self._clock.read().unix_us),)

    def _now(self, prefix: str) -> int:
        if self._clock is not None:
            return self._clock.read().unix_us // SECOND
        return int(self._server.use(lambda client: client.eval(_TIME, 1, prefix)))


def _prefix(bot: str) -> str:
    return f"floodgate:{{{bot}}}:"
