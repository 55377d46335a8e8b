"""Redis URLs in ``FLOODGATE_STATE_URL``: a server, a primary that Sentinels name, or a cluster.

redis-py has URLs for single servers only. For the others this module reads the forms that libraries on top of it
share::

    redis://[user:password@]host[:port][/database]
    redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/database][?sentinel_password=…]
    redis+cluster://[user:password@]host[:port][,host[:port]…]
    unix:///path/to/redis.sock[?db=database]

``rediss`` instead of ``redis`` is TLS, with the Sentinels as well. All other options after the ``?`` are redis-py's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")
_HOW_TO_NAME_SEVERAL: Final = (
    "write redis+cluster://host1:port,host2:port for a Redis Cluster, or redis+sentinel://host1:port,host2:port/name "
    "for Sentinels"
)


class Deployment(Enum):
    """How to find the server that holds the state."""

    SERVER = ""
    SENTINEL = "+sentinel"
    CLUSTER = "+cluster"


_SCHEMES: Final = {f"{scheme}{kind.value}": kind for scheme in ("redis", "rediss") for kind in Deployment} | {
    "unix": Deployment.SERVER
}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL. Its text has no user and no password.

    Attributes:
        nodes: host and port of the server, or of each Sentinel or cluster node that is named; empty for a socket.
        primary: the name that the Sentinels have for the primary.
        server_url: a URL for redis-py, of the first node, with the database and the options that are not a Sentinel's.
        sentinel_options: username and password for the Sentinels.
    """

    deployment: Deployment
    nodes: tuple[tuple[str, int], ...]
    primary: str
    database: int
    server_url: str = field(repr=False)
    sentinel_options: dict[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Read a URL.

        Raises:
            ValueError: the URL is malformed. The text continues "FLOODGATE_STATE_URL …", and does not quote the URL.
        """
        scheme, _, rest = url.partition("://")
        deployment = deployment_of(scheme)
        place, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        sentinel_options = {
            name.removeprefix("sentinel_"): options.pop(name) for name in _SENTINEL_OPTIONS if name in options
        }
        if sentinel_options and deployment is not Deployment.SENTINEL:
            raise ValueError("has a sentinel_ option without Sentinels: write redis+sentinel://")
        if scheme == "unix":
            return cls(deployment, (), "", _database(options.pop("db", "")), url, {})
        place, *path = place.split("/")
        user, at, hosts = place.rpartition("@")
        nodes = tuple(_node(each, deployment) for each in hosts.split(","))
        if len(nodes) > 1 and deployment is Deployment.SERVER:
            raise ValueError(f"names {len(nodes)} servers: {_HOW_TO_NAME_SEVERAL}")
        primary = unquote(path.pop(0)) if deployment is Deployment.SENTINEL and path else ""
        if deployment is Deployment.SENTINEL and not primary:
            raise ValueError("does not name the primary: write redis+sentinel://host1:port,host2:port/name")
        database = _database(options.pop("db", "/".join(path).strip("/")))
        if deployment is Deployment.CLUSTER and database:
            raise ValueError("names a database, and a Redis Cluster has only database 0: remove it")
        host, port = nodes[0]
        quoted = f"[{host}]" if ":" in host else host
        tls = scheme.partition("+")[0]
        server_url = f"{tls}://{user}{at}{quoted}:{port}/{database}" + (f"?{urlencode(options)}" if options else "")
        return cls(deployment, nodes, primary, database, server_url, sentinel_options)

    def __str__(self) -> str:
        nodes = ", ".join(f"{host}:{port}" for host, port in self.nodes)
        match self.deployment:
            case Deployment.SENTINEL:
                return f"{self.primary!r} of the Sentinels {nodes}"
            case Deployment.CLUSTER:
                return f"{nodes} (a cluster)"
            case Deployment.SERVER:
                return nodes or unquote(self.server_url.partition("://")[2].partition("?")[0].rpartition("@")[2])


def deployment_of(scheme: str) -> Deployment:
    """Return what a URL of this scheme names.

    Raises:
        ValueError: it is no scheme of Redis.
    """
    try:
        return _SCHEMES[scheme]
    except KeyError:
        schemes = "redis://, redis+sentinel:// or redis+cluster://, with rediss for TLS"
        raise ValueError(f"must start with sqlite:///, {schemes}") from None


def _node(text: str, deployment: Deployment) -> tuple[str, int]:
    usual = SENTINEL_PORT if deployment is Deployment.SENTINEL else REDIS_PORT
    bracketed, closing, after = text.partition("]")
    host, colon, port = (bracketed[1:], *after.partition(":")[1:]) if closing else text.partition(":")
    if colon and not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError("has a port that is not a number from 1 to 65535")
    if not host and deployment is not Deployment.SERVER:
        raise ValueError(f"has an empty host: {_HOW_TO_NAME_SEVERAL}")
    return unquote(host) or "localhost", int(port) if colon else usual


def _database(text: str) -> int:
    if text and not text.isdecimal():
        raise ValueError(
            "has a path that is not the number of a database: end it in /0, or for Sentinels in /name or /name/0"
        )
    return int(text or 0)
