"""Runs Lua scripts by their digest, and by their text where a server does not have them yet.

On a cluster each run goes to its node separately, so that a node that is away, or a bot whose keys are being moved,
does not delay or fail the runs for others.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final

import redis
import redis.asyncio

from floodgate.broker.process.outages import OutageLog
from floodgate.broker.state.redis.faults import ERRORS

logger = logging.getLogger("floodgate.admission")

# Runs on a cluster at a time, and so connections of a process to each node.
MOST_AT_ONCE: Final = 16


class LuaScript:
    """A script of this package with its digest.

    Args:
        keys: the number of its keys.
        constants: Lua that is put before it.
    """

    def __init__(self, name: str, keys: int, constants: str = "") -> None:
        self.keys = str(keys)
        self.text = constants + files(__package__).joinpath(name).read_text()
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Any, given: Sequence[str]) -> Any:
        """Run it with these keys and arguments, and return its reply."""
        try:
            return client.evalsha(self.digest, self.keys, *given)
        except redis.exceptions.NoScriptError:
            return client.eval(self.text, self.keys, *given)

    async def arun(self, client: Any, given: Sequence[str]) -> Any:
        """Do the same as :meth:`run` on an event loop."""
        try:
            return await client.evalsha(self.digest, self.keys, *given)
        except redis.exceptions.NoScriptError:
            return await client.eval(self.text, self.keys, *given)


class ReplicaWait:
    """Waits, after each pipeline of runs, until so many replicas have its writes (Redis's ``WAIT``).

    It makes the loss of a write less likely and does not prevent it: after the timeout the replies count even so.
    """

    def __init__(self, replicas: int, timeout: timedelta) -> None:
        self._replicas = replicas
        self._timeout = timeout
        self._outage = OutageLog()

    @property
    def command(self) -> tuple[str, int, int]:
        """The command and its arguments."""
        return "WAIT", self._replicas, max(1, self._timeout // timedelta(milliseconds=1))

    def note(self, acknowledged: object) -> None:
        """Log if too few replicas have acknowledged."""
        if isinstance(acknowledged, int) and acknowledged >= self._replicas:
            self._outage.end()
        elif self._outage.is_due():
            logger.warning(
                "%d of %d replicas of Redis had the last writes in time: if the primary is lost now, so are they",
                *(acknowledged if isinstance(acknowledged, int) else 0, self._replicas),
            )


Run = tuple[LuaScript, Sequence[str]]


def run_all(client: Any, runs: Sequence[Run]) -> list[Any]:
    """Run scripts in order, and return a reply or an error for each; on a server, in one round trip."""
    if isinstance(client, redis.RedisCluster):
        return [_attempt(client, each) for each in runs]
    pipeline = client.pipeline(transaction=False)
    for script, given in runs:
        pipeline.evalsha(script.digest, script.keys, *given)
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    return [
        _attempt(client, run) if isinstance(reply, redis.exceptions.NoScriptError) else reply
        for run, reply in zip(runs, replies, strict=True)
    ]


async def arun_all(client: Any, runs: Sequence[Run], replicas: ReplicaWait | None = None) -> list[Any]:
    """Do the same as :func:`run_all` on an event loop. On a cluster, runs whose first key differs are not in order, and
    replicas are not waited for."""
    if isinstance(client, redis.asyncio.RedisCluster):
        return await _arun_on_cluster(client, runs)
    pipeline = client.pipeline(transaction=False)
    for script, given in runs:
        pipeline.evalsha(script.digest, script.keys, *given)
    if replicas is not None:
        pipeline.execute_command(*replicas.command)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    if replicas is not None:
        replicas.note(replies.pop())
    for place, reply in enumerate(replies):
        if isinstance(reply, redis.exceptions.NoScriptError):
            replies[place] = await _aattempt(client, runs[place])
    return replies


async def _arun_on_cluster(client: Any, runs: Sequence[Run]) -> list[Any]:
    replies: list[Any] = [None] * len(runs)
    slots = asyncio.Semaphore(MOST_AT_ONCE)
    places_of: dict[str, list[int]] = {}
    for place, (_, given) in enumerate(runs):
        places_of.setdefault(given[0], []).append(place)

    async def run_those(places: Sequence[int]) -> None:
        async with slots:
            for place in places:
                replies[place] = await _aattempt(client, runs[place])

    await asyncio.gather(*map(run_those, places_of.values()))
    return replies


def _attempt(client: Any, run: Run) -> Any:
    script, given = run
    try:
        return script.run(client, given)
    except ERRORS as error:
        return error


async def _aattempt(client: Any, run: Run) -> Any:
    script, given = run
    try:
        return await script.arun(client, given)
    except ERRORS as error:
        return error
