"""The result feed on Redis or Valkey: each job is published as it ends (``admission.lua``, ``finish``).

A broken subscription may have missed results, and Redis does not say which. So it is not reopened here: the caller gets
an error, calls ``skip`` and looks up the jobs it waits for.

Redis's channels ignore its databases. So the number of a database other than 0 is part of the channel's name. A cluster
passes what is published to all its nodes, so one subscription to one of them hears all bots, whichever nodes hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import redis

from floodgate.broker.admission.result_feed import EndedJob, dead_record, sent_record
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.settings.redis_address import RedisAddress
from floodgate.broker.state.redis.clients import TIMEOUT_SECONDS, address_of
from floodgate.broker.state.redis.faults import ERRORS, fault
from floodgate.broker.state.redis.server import reach

# Messages taken at once; the rest stays in the socket.
PAGE: Final = 1000


class RedisResultFeed:
    """``result_feed.ResultFeed`` on a Redis or Valkey server, or a cluster. Connected by ``skip``; belongs to one
    thread."""

    def __init__(self, url: str, bots: Sequence[str]) -> None:
        self._address = address_of(url)
        self._bots = {channel_of(bot, self._address): bot for bot in bots}
        self._client: Any = None
        self._pubsub: Any = None

    def skip(self) -> None:
        self.close()
        try:
            self._client, _ = reach(self._address, retries=0)
            self._pubsub = self._client.pubsub()
            self._pubsub.subscribe(*self._bots)
            for _ in self._bots:  # the server's confirmations, after which nothing is missed
                self._pubsub.get_message(timeout=TIMEOUT_SECONDS)
        except ERRORS as error:
            raise self._fault(error) from error

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        if self._pubsub is None:
            raise self._fault(redis.exceptions.ConnectionError("not subscribed"))
        try:
            found = self._take(seconds)
            while found and len(found) < PAGE and (more := self._take(0)):
                found += more
            return found
        except (*ERRORS, OSError) as error:
            raise self._fault(error) from error

    def close(self) -> None:
        pubsub, client, self._pubsub, self._client = self._pubsub, self._client, None, None
        for each in (pubsub, client):
            if each is not None:
                with suppress(*ERRORS, OSError):
                    each.close()

    def _take(self, seconds: float) -> list[EndedJob]:
        message = self._pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds)
        if message is None or message["type"] != "message":
            return []
        ids, state, outcome = message["data"].split("\n", 2)
        job_id, _, chain = ids.partition(" ")
        record = sent_record(outcome) if state == "sent" else dead_record(outcome)
        return [EndedJob(self._bots[message["channel"]], job_id, record, chain or None)]

    def _fault(self, error: Exception) -> StateUnavailableError:
        self.close()
        if isinstance(error, OSError):
            error = redis.exceptions.ConnectionError(str(error))
        return StateUnavailableError(f"The result feed failed: {fault(error, self._address)}")


def channel_of(bot: str, address: RedisAddress) -> str:
    """Return the channel on which a bot's ended jobs are published."""
    return f"floodgate:{{{bot}}}:ended" + (f":{address.database}" if address.database else "")
