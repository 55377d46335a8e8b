"""Opens the campaigns' database: a SQLite file, or PostgreSQL for many machines, at the current version."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from floodgate.broker.errors import SettingsError, StateSchemaError, StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.sqlite.file import create_file, enter_wal_mode

SETTING: Final = "FLOODGATE_CAMPAIGNS_URL"
# How long a statement waits for a lock, and a connection to be made.
LOCK_SECONDS: Final = 10
# Only one process at a time may apply versions; PostgreSQL's lock for that.
_VERSIONS_LOCK: Final = 7_013_460_117
# And only one thread: Alembic keeps the migration under way in a global.
_ALEMBIC_LOCK: Final = threading.Lock()


class Database:
    """Connections to the database. Thread-safe. Nothing is opened before the first use; a forked process opens its own.

    Raises:
        SettingsError: the URL is wrong, or its driver is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.campaigns_url.get_secret_value()
        self._lock = threading.Lock()  # protects _engine
        self._engine: Engine | None = None
        self._process = os.getpid()  # the one that opened the engine

    @property
    def is_sqlite(self) -> bool:
        return self._url.startswith("sqlite")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database.

        Raises:
            StateUnavailableError: the database is unavailable.
            StateSchemaError: it was written by a newer version.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes: committed at the end of the block, or rolled back if it raises. On SQLite
        there is one at a time. Raises as :meth:`reading` does."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        try:
            with self._opened().connect().execution_options(begin=begin) as connection, connection.begin():
                yield connection
        except DBAPIError as error:
            raise unavailable(error, self._url) from None

    def _opened(self) -> Engine:
        if self._process != os.getpid():
            self._forget()
        with self._lock:
            if self._engine is None:
                self._engine = self._upgraded()
            return self._engine

    def _forget(self) -> None:
        """After a fork: the connections are the parent's, and the lock may be held by one of its threads."""
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._lock, self._engine, self._process = threading.Lock(), None, os.getpid()

    def _upgraded(self) -> Engine:
        engine = self._made()
        try:
            begin = {"begin": "BEGIN IMMEDIATE"}
            with engine.connect().execution_options(**begin) as connection, connection.begin(), _ALEMBIC_LOCK:
                _upgrade(connection)
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _made(self) -> Engine:
        try:
            if self.is_sqlite:
                return _sqlite(self._url)
            return create_engine(self._url, pool_pre_ping=True, connect_args={"connect_timeout": LOCK_SECONDS})
        except ImportError:
            raise SettingsError(
                f"{SETTING} names a PostgreSQL server, but its driver is not installed: install "
                "telegram-floodgate[postgresql]."
            ) from None
        except (ArgumentError, NoSuchModuleError):
            raise SettingsError(
                f"{SETTING} is not a database's URL: write sqlite:////absolute/path/campaigns.db or "
                "postgresql+psycopg://user:password@host/name."
            ) from None


def unavailable(error: DBAPIError, url: str) -> StateUnavailableError:
    """Describe a failure of the database in a sentence, without the URL's password and without the statement."""
    parts = urlsplit(url)
    where = parts.path[1:] if parts.scheme == "sqlite" else f"at {parts.hostname}"
    why = str(error.orig).strip().splitlines()[0].rstrip(".")
    return StateUnavailableError(f"The campaigns' database {where} is unavailable: {why}. Check {SETTING}.")


def _sqlite(url: str) -> Engine:
    parts = urlsplit(url)
    if parts.netloc or not parts.path.strip("/"):
        raise SettingsError(f"{SETTING} does not name a file: write sqlite:////absolute/path/campaigns.db.")
    path = Path(parts.path[1:]).expanduser()
    try:
        create_file(path)
    except OSError as error:
        raise StateUnavailableError(f"Cannot write {path}: {error.strerror}. Check {SETTING}.") from None
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": LOCK_SECONDS})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below
        enter_wal_mode(connection)
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _VERSIONS_LOCK})
    config = Config()
    config.set_main_option("script_location", "floodgate.producer.campaigns.storage:migrations")
    scripts = ScriptDirectory.from_config(config)
    try:
        with EnvironmentContext(config, scripts, fn=lambda since, _: scripts._upgrade_revs("head", since)) as context:
            context.configure(connection=connection, version_table="campaign_version")
            context.run_migrations()
    except CommandError:
        raise StateSchemaError(
            "The campaigns' database was written by a newer version of Floodgate: upgrade this one, or set "
            f"{SETTING} to another database."
        ) from None
