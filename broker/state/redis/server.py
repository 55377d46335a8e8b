"""A connection to the Redis or Valkey server, or to the cluster, that holds the state.

A client that finds its server demoted to a replica, or no node of its cluster, is dropped: the next call makes another
one from the URL, and so asks the Sentinels, the cluster's nodes or the name service again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import redis

from floodgate.broker.settings.redis_address import Deployment, RedisAddress
from floodgate.broker.state.redis.clients import aclient_of, address_of, client_of
from floodgate.broker.state.redis.faults import ERRORS, fault, is_moved

logger = logging.getLogger("floodgate.admission")

T = TypeVar("T")


class RedisConnection:
    """A server, or a cluster of them, connected at first use. Thread-safe and fork-safe, as the client library's pool
    is. ``close`` is safe to call twice, and unused.

    Raises:
        SettingsError: the URL is malformed.
    """

    def __init__(self, url: str) -> None:
        self.address = address_of(url)
        self._lock = threading.Lock()
        self._client: Any = None  # made under _lock

    def use(self, act: Callable[[Any], T]) -> T:
        """Call ``act`` with the client and return its result.

        Raises:
            StateUnavailableError: the server cannot answer.
        """
        try:
            return act(self._client or self._open())
        except ERRORS as error:
            if is_moved(error):
                self.close()
            raise fault(error, self.address) from error

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client, infos = reach(self.address)
                _warn_of_eviction(infos, self.address)
            return self._client


class AsyncRedisConnection:
    """:class:`RedisConnection` on an event loop, used by one task at a time."""

    def __init__(self, url: str) -> None:
        self.address = address_of(url)
        self._client: Any = None

    async def use(self, act: Callable[[Any], Awaitable[T]]) -> T:
        """Do the same as :meth:`RedisConnection.use`."""
        try:
            if self._client is None:
                self._client, infos = await areach(self.address)
                _warn_of_eviction(infos, self.address)
            return await act(self._client)
        except ERRORS as error:
            raise await self.explained(error) from error
        except OSError as error:
            raise fault(redis.exceptions.ConnectionError(str(error)), self.address) from error

    async def explained(self, error: Exception) -> Exception:
        """Translate an error that one of several replies was. Closes the connection if the state may have moved."""
        if is_moved(error):
            await self.close()
        return fault(error, self.address)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def reach(address: RedisAddress, retries: int = 1) -> tuple[Any, list[dict[str, Any]]]:
    """Return a client of the server, or of the cluster that it belongs to, and the ``INFO memory`` of the server, or of
    each primary of the cluster that answers.

    Raises:
        redis.exceptions.RedisError: the server does not answer.
        redis.exceptions.RedisClusterException: no node of the cluster answers.
    """
    client = client_of(address, retries)
    if address.deployment is Deployment.CLUSTER:
        return client, [info for each in client.get_primaries() for info in _info_of(client, each)]
    try:
        info = client.info()
    except BaseException:
        client.close()
        raise
    if not info.get("cluster_enabled"):
        return client, [info]
    client.close()
    return reach(replace(address, deployment=Deployment.CLUSTER), retries)


async def areach(address: RedisAddress) -> tuple[Any, list[dict[str, Any]]]:
    """Do the same as :func:`reach` on an event loop."""
    client = aclient_of(address)
    try:
        if address.deployment is Deployment.CLUSTER:
            await client.initialize()
            return client, [info for each in client.get_primaries() for info in await _ainfo_of(client, each)]
        info = await client.info()
    except BaseException:
        await client.aclose()
        raise
    if not info.get("cluster_enabled"):
        return client, [info]
    await client.aclose()
    return await areach(replace(address, deployment=Deployment.CLUSTER))


def _info_of(client: Any, node: Any) -> list[dict[str, Any]]:
    try:
        return [client.info("memory", target_nodes=node)]
    except ERRORS:
        return []  # a part of the cluster is away


async def _ainfo_of(client: Any, node: Any) -> list[dict[str, Any]]:
    try:
        return [await client.info("memory", target_nodes=node)]
    except ERRORS:
        return []


def _warn_of_eviction(infos: Iterable[dict[str, Any]], address: RedisAddress) -> None:
    policies = {info["maxmemory_policy"] for info in infos if info.get("maxmemory")} - {"noeviction"}
    if policies:
        logger.warning(
            "%s evicts keys when its memory is full (%s), and would forget which jobs were sent. "
            "Set maxmemory-policy noeviction.",
            address,
            ", ".join(sorted(policies)),
        )


def memory_of(url: str) -> list[dict[str, Any]]:
    """Return the ``INFO memory`` of the server, or of each primary of a cluster; nothing if it does not answer."""
    try:
        client, infos = reach(address_of(url), retries=0)
    except ERRORS:
        return []  # sends fail as well, and report it
    client.close()
    return infos
