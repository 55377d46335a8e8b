"""Connects to a Redis or Valkey server or cluster, and explains its errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from floodgate.broker.errors import StateSchemaError, StateUnavailableError

logger = logging.getLogger("floodgate.admission")

# A call takes well under a millisecond; after this time the server or the network is down.
TIMEOUT_SECONDS: Final = 5.0

T = TypeVar("T")


class RedisConnection:
    """A server, or a cluster of them, connected at first use. Thread-safe and fork-safe, as the client library's pool
    is. ``close`` is safe to call twice, and unused."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._client: Any = None  # made under _lock

    def use(self, act: Callable[[Any], T]) -> T:
        """Call ``act`` with the client and return its result.

        Raises:
            StateUnavailableError: the server cannot answer.
        """
        try:
            return act(self._client or self._open())
        except redis.exceptions.RedisError as error:
            raise fault(error, where(self.url)) from error

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = connect_to(self.url)
            return self._client


def connect_to(url: str) -> Any:
    """Return a client of the server, or of the cluster that it belongs to.

    Raises:
        redis.exceptions.RedisError: the server does not answer.
    """
    client = _client(redis.Redis, url, Retry(NoBackoff(), 1))
    info = client.info()
    if info.get("cluster_enabled"):
        client.close()
        client = _client(redis.RedisCluster, url, Retry(NoBackoff(), 1))
    _warn_of_eviction(info, url)
    return client


async def aconnect_to(url: str) -> Any:
    """Do the same as :func:`connect_to` on an event loop."""
    retry = AsyncRetry(NoBackoff(), 1)
    client = _client(redis.asyncio.Redis, url, retry)
    info = await client.info()
    if info.get("cluster_enabled"):
        await client.aclose()
        client = _client(redis.asyncio.RedisCluster, url, retry)
    _warn_of_eviction(info, url)
    return client


def _warn_of_eviction(info: dict[str, Any], url: str) -> None:
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        logger.warning(
            "%s evicts keys when its memory is full (%s), and would forget which jobs were sent. "
            "Set maxmemory-policy noeviction.",
            where(url),
            info.get("maxmemory_policy"),
        )


def memory_of(url: str) -> dict[str, Any] | None:
    """Return the ``INFO memory`` of the server, or of one node of a cluster; None if it does not answer."""
    client = _client(redis.Redis, url, Retry(NoBackoff(), 0))
    try:
        found: dict[str, Any] = client.info("memory")
    except redis.exceptions.RedisError:
        return None  # sends fail as well, and report it
    finally:
        client.close()
    return found


def where(url: str) -> str:
    """Return the server's address without user and password."""
    parts = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    return str(parts.get("path") or f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}")


def _client(kind: Any, url: str, retry: Any) -> Any:
    return kind.from_url(
        url,
        decode_responses=True,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=retry,
    )


def fault(error: redis.exceptions.RedisError, where: str) -> StateUnavailableError | StateSchemaError:
    """Translate an error of the client into one that names the cause and the remedy."""
    text = str(error)
    match error:
        case redis.exceptions.AuthenticationError():
            why = "refuses the user or password. Correct FLOODGATE_STATE_URL."
        case redis.exceptions.ReadOnlyError():
            why = "is a read-only replica. Point FLOODGATE_STATE_URL at the primary."
        case redis.exceptions.OutOfMemoryError():
            why = "has no memory left. Raise its maxmemory; sends then resume by themselves."
        case redis.exceptions.BusyLoadingError():
            why = "is still loading its data. Sends resume when it has finished."
        case redis.exceptions.ConnectionError() | redis.exceptions.TimeoutError():
            why = f"does not answer ({type(error).__name__}). Start it, or correct FLOODGATE_STATE_URL."
        case _ if text.startswith("SCHEMA "):
            return StateSchemaError(
                f"The state in Redis at {where} has schema {text[7:]}, unknown to this Floodgate. Stop all workers and "
                "delete its floodgate:* keys: no message is lost, since messages are in RabbitMQ."
            )
        case _ if "MISCONF" in text:
            why = "cannot write to its disk and refuses writes. Free some space there; sends then resume by themselves."
        case _:
            why = f"failed: {text[:200]}. Check its log."
    return StateUnavailableError(f"Redis at {where} {why}")
