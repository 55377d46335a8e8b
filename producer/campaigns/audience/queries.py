"""Reads an audience from a SQL query on a SQLite file or a PostgreSQL server: read only, streamed, in constant memory.

Each wait for rows is bounded by the query's time limit. PostgreSQL enforces it as ``statement_timeout``; a server that
does not answer at all is cut off :data:`GRACE_SECONDS` later. A query on SQLite is interrupted.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import URL, Connection, CursorResult, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.audience.rows import AudienceRow, read_columns, read_row
from floodgate.producer.campaigns.definition import read_text

# Rows that are held in memory.
ROWS: Final = 500
CONNECT_SECONDS: Final = 10
GRACE_SECONDS: Final = 5.0
MAX_QUERY_BYTES: Final = 256 * 1024
_TIMED_OUT: Final = ("57014", "SQLITE_INTERRUPT")  # PostgreSQL's code, and SQLite's


@dataclass(frozen=True, slots=True)
class AudienceQuery:
    """A query whose rows are an audience. One of its columns holds the chat.

    Args:
        database: ``sqlite:////absolute/path.db`` or ``postgresql://user:password@host/name``.
        timeout: limits each wait for rows, the first included.
    """

    database: SecretStr
    statement: str
    timeout: timedelta = timedelta(minutes=5)


def read_query(query: AudienceQuery, chat_field: str = "chat_id") -> Iterator[AudienceRow]:
    """Yield the rows of a query. A row's line is its ordinal.

    Raises:
        CampaignError: the database or the query is wrong, there is no column for the chat, or the time limit is over.
    """
    url = _url(query.database.get_secret_value())
    engine = _engine(url)
    try:
        with _connected(engine, url) as connection:
            yield from _rows(connection, query, url, chat_field)
    finally:
        engine.dispose()


def read_statement(path: Path) -> str:
    """Read a query from a file.

    Raises:
        CampaignError: the file cannot be read, or is larger than :data:`MAX_QUERY_BYTES`.
    """
    return read_text(path, MAX_QUERY_BYTES, "a query")


def _url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the message would contain the password
        url = None
    if url is not None and url.get_backend_name() in ("postgresql", "postgres") and url.host:
        return url.set(drivername="postgresql+psycopg")
    if url is not None and url.get_backend_name() == "sqlite" and url.database:
        return url
    raise CampaignError(
        "The URL of the audience's database is wrong: write sqlite:////absolute/path.db or "
        "postgresql://user:password@host/name."
    )


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return create_engine("sqlite://", creator=lambda: _open_file(Path(str(url.database))), poolclass=NullPool)
    try:
        return create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    except ImportError:
        raise CampaignError(
            "The driver of PostgreSQL is not installed: install telegram-floodgate[postgresql]."
        ) from None


def _open_file(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.expanduser()))}?mode=ro", uri=True, timeout=CONNECT_SECONDS, check_same_thread=False
    )
    connection.text_factory = lambda found: found.decode(errors="surrogateescape")  # read_row refuses such a row
    return connection


@contextmanager
def _connected(engine: Engine, url: URL) -> Iterator[Connection]:
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise CampaignError(f"Cannot open the audience's database {_where(url)}: {_why(error, url)}.") from None
    with connection:
        yield connection


def _rows(connection: Connection, query: AudienceQuery, url: URL, chat_field: str) -> Iterator[AudienceRow]:
    read, limit = 0, _Limit(query.timeout, connection)
    try:
        with limit:
            result = _executed(connection, query)
        names = _names(result, chat_field)
        while True:
            with limit:
                rows = result.fetchmany(ROWS)
            if not rows:
                return
            for row in rows:
                read += 1
                yield read_row(read, dict(zip(names, map(_plain, row), strict=True)), chat_field)
    except (DBAPIError, sqlite3.Warning) as error:
        raise CampaignError(_failure(error, query, url, read, cut=limit.is_over)) from None


def _executed(connection: Connection, query: AudienceQuery) -> CursorResult[Any]:
    options = {"stream_results": True, "yield_per": ROWS, "no_parameters": True}
    if connection.dialect.name == "postgresql":
        connection.execution_options(postgresql_readonly=True)
        milliseconds = query.timeout // timedelta(milliseconds=1)
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    return connection.exec_driver_sql(query.statement.strip().rstrip(";"), execution_options=options)


def _names(result: CursorResult[Any], chat_field: str) -> Sequence[str]:
    if not result.returns_rows:
        raise CampaignError("The query returns no rows: write a SELECT.")
    return read_columns(list(result.keys()), "The query", chat_field)


class _Limit:
    """Bounds how long one call at a time may take: cuts the connection off when that time is over."""

    def __init__(self, timeout: timedelta, connection: Connection) -> None:
        self._seconds = timeout.total_seconds()
        self._cut: Callable[[], None]
        if connection.dialect.name == "postgresql":
            self._seconds += GRACE_SECONDS
            self._cut = lambda: _shut_down(connection)
        else:
            self._cut = lambda: _driver(connection).interrupt()
        self._timer: threading.Timer | None = None
        self.is_over = False

    def __enter__(self) -> None:
        self._timer = threading.Timer(self._seconds, self._end)
        self._timer.name, self._timer.daemon = "floodgate-query-limit", True
        self._timer.start()

    def __exit__(self, *_exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self.is_over = True
        self._cut()


def _shut_down(connection: Connection) -> None:
    """Close the socket's directions, which wakes whoever waits for the server."""
    with socket.socket(fileno=os.dup(_driver(connection).pgconn.socket)) as server:
        server.shutdown(socket.SHUT_RDWR)


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _plain(value: object) -> object:
    """Turn a SQL value into a JSON value, as far as it has one."""
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else str(value)
        case UUID():
            return str(value)
        case _:
            return value


def _failure(error: Exception, query: AudienceQuery, url: URL, rows: int, *, cut: bool) -> str:
    cause = getattr(error, "orig", error)
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    if cut or code in _TIMED_OUT:
        return (
            f"The query did not return {'further' if rows else 'any'} rows within {query.timeout.total_seconds():g} s: "
            "make it faster, or allow it more time."
        )
    if isinstance(error, DBAPIError) and (error.connection_invalidated or str(code).startswith(("08", "57"))):
        return f"The connection to the audience's database {_where(url)} was lost after row {rows}: {_why(error, url)}."
    return f"The audience's database {_where(url)} refuses the query: {_why(error, url)}."


def _where(url: URL) -> str:
    return str(url.database) if url.get_backend_name() == "sqlite" else f"at {url.host}"


def _why(error: Exception, url: URL) -> str:
    """Return the first line of an error, without the password."""
    text = str(getattr(error, "orig", error)).strip() or "no reason was given"
    line = text.splitlines()[0].rstrip(".")
    return line.replace(str(url.password), "***") if url.password else line
