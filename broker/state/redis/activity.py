"""Reports of processes and the history in Redis or Valkey.

A report is one round trip: a run of ``processes.lua``, and one of ``history.lua`` for each bot. All of a bot's buckets
are on one node of a cluster, beside what admission keeps of it; the processes have a hash tag of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final

import redis

from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.policy import RECOVERY_US_PER_PERMILLE, SECOND, Policy, per_second
from floodgate.broker.state.activity import LIVE_SECONDS, Counts, History, ProcessReport, Resolution, Series
from floodgate.broker.state.buckets import FOLDS, SERIES, encoded, history_of
from floodgate.broker.state.processes import active, report_of, text_of
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
        self._processes = _Script("processes.lua", len(_PROCESS_KEYS))
        self._history = _Script("history.lua", 1, _CONSTANTS)

    def report(self, process: ProcessReport, increments: Mapping[str, Counts], sampled: Collection[str] = ()) -> None:
        uptime = str(process.uptime // timedelta(microseconds=1))
        self._send(
            [self._of_process("hear", process.id, uptime, text_of(process)), *self._counted(increments, sampled)]
        )

    def leave(self, process: ProcessReport, increments: Mapping[str, Counts]) -> None:
        self._send([self._of_process("leave", process.id), *self._counted(increments, ())])

    def processes(self) -> Sequence[ProcessReport]:
        (found,) = self._send([self._of_process("list")])
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

    def _of_process(self, operation: str, *given: str) -> _Run:
        return self._processes, (*_PROCESS_KEYS, operation, str(LIVE_SECONDS * SECOND), *self._time(), *given)

    def _counted(self, increments: Mapping[str, Counts], sampled: Collection[str]) -> list[_Run]:
        return [
            (self._history, (_prefix(bot), encoded(increments.get(bot, {})), self._rate(bot, sampled), *self._time()))
            for bot in {*increments, *sampled}
        ]

    def _rate(self, bot: str, sampled: Collection[str]) -> str:
        return str(per_second(self._policy.rates(bot).free)) if bot in sampled else ""

    def _time(self) -> tuple[str]:
        return ("" if self._clock is None else str(self._clock.read().unix_us),)

    def _now(self, prefix: str) -> int:
        if self._clock is not None:
            return self._clock.read().unix_us // SECOND
        return int(self._server.use(lambda client: client.eval(_TIME, 1, prefix)))

    def _send(self, runs: Sequence[_Run]) -> list[Any]:
        """Run scripts in one round trip, and again those that the server did not have."""

        def act(client: Any) -> list[Any]:
            replies = _pipelined(client, runs)
            unknown = [place for place, each in enumerate(replies) if isinstance(each, redis.exceptions.NoScriptError)]
            if unknown:
                for script in {runs[place][0] for place in unknown}:
                    client.script_load(script.text)
                for place, reply in zip(unknown, _pipelined(client, [runs[each] for each in unknown]), strict=True):
                    replies[place] = reply
            for each in replies:
                if isinstance(each, Exception):
                    raise each
            return replies

        return self._server.use(act)


class _Script:
    """A script with its digest."""

    def __init__(self, name: str, keys: int, constants: str = "") -> None:
        self.keys = str(keys)
        self.text = constants + files(__package__).joinpath(name).read_text()
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_Run = tuple[_Script, tuple[str, ...]]


def _pipelined(client: Any, runs: Sequence[_Run]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for script, given in runs:
        # Not ``evalsha``, which a cluster's pipeline refuses; this command is routed by its keys as well.
        pipeline.execute_command("EVALSHA", script.digest, script.keys, *given)
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    return replies


def _prefix(bot: str) -> str:
    return f"floodgate:{{{bot}}}:"
