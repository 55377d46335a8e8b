"""Makes clients of redis-py: of a server, of the primary that Sentinels name, or of a cluster.

Bounds. A connection attempt takes at most :data:`CONNECT_SECONDS` and an answer :data:`TIMEOUT_SECONDS`; each Sentinel
has :data:`SENTINEL_SECONDS` for either. A call whose connection broke is repeated once, over a new connection, for
which Sentinels are asked again, or the cluster's nodes.
"""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.redis_address import Deployment, RedisAddress

# A call takes well under a millisecond; after this time the server or the network is down.
TIMEOUT_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5.0
SENTINEL_SECONDS: Final = 2.0


def address_of(url: str) -> RedisAddress:
    """Read a URL and check its options, without connecting.

    Raises:
        SettingsError: the URL is malformed, or has an option that redis-py does not know.
    """
    try:
        address = RedisAddress.parse(url)
        redis.ConnectionPool.from_url(address.server_url).make_connection()
    except ValueError as error:
        raise SettingsError(f"FLOODGATE_STATE_URL {error}".rstrip(".") + ".") from None
    except TypeError as error:  # its text ends in the option's name
        option = str(error).rpartition(" ")[2]
        raise SettingsError(f"FLOODGATE_STATE_URL has the option {option}, which redis-py does not know.") from None
    return address


def client_of(address: RedisAddress, retries: int = 1) -> Any:
    """Return a blocking client. That of a cluster connects at once, the others with their first call.

    Raises:
        redis.exceptions.RedisClusterException: no node of the cluster answers.
    """
    retry = Retry(NoBackoff(), retries)
    match address.deployment:
        case Deployment.SERVER:
            return redis.Redis.from_url(address.server_url, **_ours(retry))
        case Deployment.SENTINEL:
            options = _sentinel_options(address, Retry(NoBackoff(), 0))
            sentinels: Any = _Sentinels(address.nodes, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
            return sentinels.master_for(address.primary, **_options(address, retry))
        case Deployment.CLUSTER:
            nodes = [redis.cluster.ClusterNode(*each) for each in address.nodes]  # type: ignore[no-untyped-call]
            return redis.RedisCluster(startup_nodes=nodes, **_cluster_options(address, retry))


def aclient_of(address: RedisAddress) -> Any:
    """Do the same as :func:`client_of` for an event loop. Nothing is connected before the first call."""
    retry = AsyncRetry(NoBackoff(), 1)
    match address.deployment:
        case Deployment.SERVER:
            return redis.asyncio.Redis.from_url(address.server_url, **_ours(retry))
        case Deployment.SENTINEL:
            options = _sentinel_options(address, AsyncRetry(NoBackoff(), 0))
            sentinels = _AsyncSentinels(address.nodes, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
            return sentinels.master_for(address.primary, **_options(address, retry))
        case Deployment.CLUSTER:
            nodes = [redis.asyncio.cluster.ClusterNode(*each) for each in address.nodes]
            client: Any = redis.asyncio.RedisCluster(startup_nodes=nodes, **_cluster_options(address, retry))
            client.commands_parser = _NoCommands()
            return client


def _ours(retry: object) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": retry,
    }


def _options(address: RedisAddress, retry: object) -> dict[str, Any]:
    """Return a URL's options, with ours, as keywords of a client for which host and port are found."""
    options = redis.connection.parse_url(address.server_url)  # type: ignore[no-untyped-call]
    connection_class = options.pop("connection_class", None)
    tls = {"ssl": True} if connection_class is redis.SSLConnection else {}
    return _ours(retry) | {name: value for name, value in options.items() if name not in ("host", "port")} | tls


def _cluster_options(address: RedisAddress, retry: object) -> dict[str, Any]:
    return {name: value for name, value in _options(address, retry).items() if name != "db"}


def _sentinel_options(address: RedisAddress, retry: object) -> dict[str, Any]:
    """Return the keywords of the Sentinels' clients: TLS as for the server, and their own user and password."""
    tls = {name: value for name, value in _options(address, retry).items() if name.startswith("ssl")}
    times = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
    return times | tls | address.sentinel_options | {"retry": retry}


class _NoCommands:
    """Knows no commands. redis-py's own asks the node of the first slots for them whenever the client has lost any
    node, so that no node could be used while that one is away. Scripts are sent to their nodes without it."""

    async def initialize(self, _node: object) -> None:
        pass


class NoPrimaryError(redis.exceptions.ConnectionError):
    """The Sentinels do not name a primary. The text says why, and what to do."""


class _Search:
    """What Sentinels answered about one primary."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._known = self._answered = False
        self._error: Exception | None = None

    def address(self, primaries: Any) -> tuple[str, int] | None:
        """Return the primary's address from one Sentinel's list; None if it is missing there or down."""
        self._answered = True
        state = primaries.get(self._name)
        if state is None:
            return None
        self._known = True
        if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            return None
        return state["ip"], state["port"]

    def failed(self, error: Exception) -> None:
        self._error = error

    def fault(self) -> NoPrimaryError:
        if self._known:
            return NoPrimaryError("is down, and no replica has taken over yet. Sends resume when one has.")
        if self._answered:
            return NoPrimaryError("is unknown to them. Correct the name at the end of FLOODGATE_STATE_URL.")
        match self._error:
            case redis.exceptions.AuthenticationError() | redis.exceptions.NoPermissionError():
                return NoPrimaryError(
                    "cannot be found: the Sentinels refuse the user or password. Set ?sentinel_password=… in "
                    "FLOODGATE_STATE_URL, and sentinel_username if they have users."
                )
            case redis.exceptions.ResponseError():
                return NoPrimaryError(
                    "cannot be found: the servers named are no Sentinels. Name the Sentinels in FLOODGATE_STATE_URL, "
                    "usually on port 26379."
                )
        why = type(self._error).__name__
        return NoPrimaryError(
            f"cannot be found: no Sentinel answers ({why}). Start them, or correct FLOODGATE_STATE_URL."
        )


class _Sentinels(redis.sentinel.Sentinel):
    """Finds a primary, with a reason if there is none. The Sentinel that answered is the first to be asked again."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        search = _Search(service_name)
        for sentinel in tuple(self.sentinels):
            try:
                found = search.address(sentinel.sentinel_masters())
            except redis.exceptions.RedisError as error:
                search.failed(error)
                continue
            finally:
                sentinel.close()
            if found is not None:
                self.sentinels = [sentinel, *(each for each in self.sentinels if each is not sentinel)]
                return found
        raise search.fault()


class _AsyncSentinels(redis.asyncio.sentinel.Sentinel):
    """:class:`_Sentinels` on an event loop."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        search = _Search(service_name)
        for sentinel in tuple(self.sentinels):
            try:
                found = search.address(await sentinel.sentinel_masters())
            except redis.exceptions.RedisError as error:
                search.failed(error)
                continue
            finally:
                await sentinel.aclose()
            if found is not None:
                self.sentinels = [sentinel, *(each for each in self.sentinels if each is not sentinel)]
                return found
        raise search.fault()
