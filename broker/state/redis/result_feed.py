"""The result feed on Redis or Valkey: each job is published as it ends (``admission.lua``, ``finish``).

A broken subscription may have missed results, and Redis does not say which. So it is not reopened here: the caller gets
an error, calls ``skip`` and looks up the jobs it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import redis

from floodgate.broker.admission.result_feed import EndedJob, dead_record, sent_record
from floodgate.broker.errors import StateUnavailableError

TIMEOUT_SECONDS: Final = 5.0
# Messages taken at once; the rest stays in the socket.
PAGE: Final = 1000


class RedisResultFeed:
    """``result_feed.ResultFeed`` on a Redis or Valkey server. Connected by ``skip``; belongs to one thread."""

    def __init__(self, url: str, bots: Sequence[str]) -> None:
        self._url = url
        self._bots = {f"floodgate:{{{bot}}}:ended": bot for bot in bots}
        self._client: Any = None
        self._pubsub: Any = None

    def skip(self) -> None:
        self.close()
        try:
            self._client = redis.Redis.from_url(
                self._url,
                decode_responses=True,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                single_connection_client=False,
            )
            self._pubsub = self._client.pubsub()
            self._pubsub.subscribe(*self._bots)
            for _ in self._bots:  # the server's confirmations, after which nothing is missed
                self._pubsub.get_message(timeout=TIMEOUT_SECONDS)
        except redis.exceptions.RedisError as error:
            raise self._fault(error) from error

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        if self._pubsub is None:
            raise self._fault(ConnectionError("not subscribed"))
        try:
            found = self._take(seconds)
            while found and len(found) < PAGE and (more := self._take(0)):
                found += more
            return found
        except (redis.exceptions.RedisError, OSError) as error:
            raise self._fault(error) from error

    def close(self) -> None:
        pubsub, client, self._pubsub, self._client = self._pubsub, self._client, None, None
        for each in (pubsub, client):
            if each is not None:
                with suppress(redis.exceptions.RedisError, OSError):
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
        return StateUnavailableError(
            f"The result feed from Redis failed ({type(error).__name__}). Start Redis, or correct FLOODGATE_STATE_URL."
        )
