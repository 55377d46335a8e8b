"""Opens the state stores that ``FLOODGATE_STATE_URL`` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from floodgate.broker.admission.contract import Admission
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.admission.result_feed import ResultFeed
from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.activity import Activity
from floodgate.broker.state.calls import BatchedAdmission, Batches
from floodgate.broker.state.handled import HandledUpdates
from floodgate.broker.state.sessions import Sessions
from floodgate.broker.state.sqlite.activity import SqliteActivity
from floodgate.broker.state.sqlite.admission import SqliteAdmission, SqliteBatches
from floodgate.broker.state.sqlite.file import NO_FILE
from floodgate.broker.state.sqlite.handled import SqliteHandled
from floodgate.broker.state.sqlite.result_feed import SqliteResultFeed
from floodgate.broker.state.sqlite.sessions import SqliteSessions
from floodgate.broker.state.thread import StateThread

if TYPE_CHECKING:
    from floodgate.broker.state.redis.scripts import ReplicaWait

_NO_REDIS: Final = (
    "FLOODGATE_STATE_URL names a Redis server, but its client is not installed: install telegram-floodgate[redis]."
)

T = TypeVar("T")


def open_store(settings: Settings, *, create: bool = True) -> Admission:
    """Return the admission of ``FLOODGATE_STATE_URL``. Nothing is opened or connected before its first call.

    Args:
        create: whether the first call creates a missing file; if not, the store is empty until it is opened again.

    Raises:
        SettingsError: the URL does not name a file, or has an option that the store's client library does not know, or
            that library is not installed.
    """
    policy = policy_of(settings)

    def redis(url: str) -> Admission:
        from floodgate.broker.state.redis.admission import RedisAdmission

        return RedisAdmission(url, policy)

    def sqlite(path: Path) -> Admission:
        return SqliteAdmission(path if create or path.exists() else NO_FILE, policy)

    return by_url(settings, sqlite, redis)


def open_batched(settings: Settings, thread: StateThread) -> BatchedAdmission:
    """Do the same as :func:`open_store` for an event loop: calls that wait at the same time are carried out together.
    Blocking work runs on the thread.

    Raises:
        SettingsError: as :func:`open_store`.
    """
    policy = policy_of(settings)

    def redis(url: str) -> Batches:
        from floodgate.broker.state.redis.admission import RedisBatches

        return RedisBatches(url, policy, replicas=_replica_wait(settings))

    return BatchedAdmission(by_url(settings, lambda path: SqliteBatches(SqliteAdmission(path, policy), thread), redis))


def _replica_wait(settings: Settings) -> ReplicaWait | None:
    from floodgate.broker.state.redis.scripts import ReplicaWait

    seconds = timedelta(seconds=settings.redis_wait_seconds)
    return ReplicaWait(settings.redis_wait_replicas, seconds) if settings.redis_wait_replicas else None


def open_result_feed(settings: Settings, bots: Sequence[str]) -> ResultFeed:
    """Return a feed of these bots' ended jobs. Nothing is opened or connected before its ``skip``.

    Raises:
        SettingsError: as :func:`open_store`.
    """

    def redis(url: str) -> ResultFeed:
        from floodgate.broker.state.redis.result_feed import RedisResultFeed

        return RedisResultFeed(url, bots)

    return by_url(settings, lambda path: SqliteResultFeed(path, bots), redis)


def open_activity(settings: Settings, *, create: bool = True) -> Activity:
    """Return the reports of processes and the history. Nothing is opened or connected before its first call.

    Args:
        create: as for :func:`open_store`.

    Raises:
        SettingsError: as :func:`open_store`.
    """
    policy = policy_of(settings)

    def redis(url: str) -> Activity:
        from floodgate.broker.state.redis.activity import RedisActivity

        return RedisActivity(url, policy)

    def sqlite(path: Path) -> Activity:
        return SqliteActivity(path if create or path.exists() else NO_FILE, policy)

    return by_url(settings, sqlite, redis)


def open_handled(settings: Settings) -> HandledUpdates:
    """Return the ledger of handled updates. Nothing is opened or connected before its first call.

    Raises:
        SettingsError: as :func:`open_store`.
    """

    def redis(url: str) -> HandledUpdates:
        from floodgate.broker.state.redis.handled import RedisHandled

        return RedisHandled(url)

    return by_url(settings, SqliteHandled, redis)


def open_sessions(settings: Settings) -> Sessions:
    """Return the session data. Nothing is opened or connected before its first call.

    Raises:
        SettingsError: as :func:`open_store`.
    """

    def redis(url: str) -> Sessions:
        from floodgate.broker.state.redis.sessions import RedisSessions

        return RedisSessions(url)

    return by_url(settings, SqliteSessions, redis)


def state_file(settings: Settings) -> Path | None:
    """Return the file that ``FLOODGATE_STATE_URL`` names; None if it names a Redis server.

    Raises:
        SettingsError: as :func:`open_store`.
    """
    return by_url(settings, lambda path: path, lambda _url: None)


def missing_state_file(settings: Settings) -> str | None:
    """Return a sentence about a state file that does not exist yet; None if it does, or on Redis.

    Raises:
        SettingsError: as :func:`open_store`.
    """
    path = state_file(settings)
    if path is None or path.exists():
        return None
    return f"The state file {path} does not exist yet: the first worker creates it."


def by_url(settings: Settings, sqlite: Callable[[Path], T], redis: Callable[[str], T]) -> T:
    """Make what ``FLOODGATE_STATE_URL`` calls for, of the file or of the server's URL. ``redis`` imports what needs the
    client library.

    Raises:
        SettingsError: as :func:`open_store`.
    """
    url = settings.state_url.get_secret_value()
    if url.startswith("sqlite:"):
        return sqlite(_sqlite_path(url))
    try:
        return redis(url)
    except ImportError:
        raise SettingsError(_NO_REDIS) from None


def _sqlite_path(url: str) -> Path:
    """Return the path in ``sqlite:////absolute/path`` or ``sqlite:///relative/path``."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.strip("/"):
        raise SettingsError(
            "FLOODGATE_STATE_URL does not name a file: write sqlite:////absolute/path/state.db (four slashes)."
        )
    return Path(parts.path[1:]).expanduser()
