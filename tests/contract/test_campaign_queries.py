"""An audience from a SQL query, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.audience import queries
from floodgate.producer.campaigns.audience.queries import AudienceQuery, read_query, read_statement
from floodgate.producer.campaigns.audience.rows import AudienceRow, Candidate, RefusedRow

ROWS = "CREATE TABLE users (chat_id bigint, name text); INSERT INTO users VALUES (1, 'Ann'), (NULL, 'Bob'), (-7, NULL);"
ENDLESS = "WITH RECURSIVE n(chat_id) AS (SELECT 1 UNION ALL SELECT chat_id + 1 FROM n) "


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with users, as a user would write it."""
    if request.param == "sqlite":
        file = sqlite3.connect(tmp_path / "users.db")
        file.executescript(ROWS)
        file.close()
        return f"sqlite:///{tmp_path}/users.db"
    server = str(request.getfixturevalue("postgres").new_database()).replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(ROWS)
    return server


def read(url: str, statement: str, seconds: float = 60) -> list[AudienceRow]:
    return list(read_query(AudienceQuery(SecretStr(url), statement, timedelta(seconds=seconds))))


def test_rows_are_read_and_refused_by_their_number(url: str) -> None:
    assert read(url, "SELECT * FROM users ORDER BY name IS NULL, name; ") == [
        Candidate(1, "1", '{"name":"Ann"}'),
        RefusedRow(2, "chat_id is empty", "{'chat_id': None, 'name': 'Bob'}"),
        Candidate(3, "-7", None),
    ]


def test_the_rows_are_streamed(url: str) -> None:
    rows = read_query(AudienceQuery(SecretStr(url), ENDLESS + "SELECT chat_id FROM n"))
    assert [row.line for row in islice(rows, queries.ROWS + 2)][-1] == queries.ROWS + 2
    rows.close()


def test_percent_signs_and_colons_are_not_parameters(url: str) -> None:
    assert read(url, "SELECT 5 AS chat_id, ':a %s' AS name WHERE 'abc' LIKE 'a%'") == [
        Candidate(1, "5", '{"name":":a %s"}')
    ]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("SELECT * FROM nowhere", "refuses the query: .*nowhere"),
        ("SELEC", "refuses the query: .*syntax error"),
        ("SELECT 1 AS chat_id; SELECT 2", "refuses the query"),
        ("DELETE FROM users", "refuses the query"),
        ("INSERT INTO users VALUES (9, 'x')", "refuses the query"),
        ("SELECT name FROM users", "The query has no column 'chat_id': its columns are 'name'"),
        ("SELECT chat_id, name, name FROM users", "The query has two columns named 'name'"),
    ],
)
def test_a_wrong_query_is_one_sentence(url: str, statement: str, why: str) -> None:
    with pytest.raises(CampaignError, match=why) as raised:
        read(url, statement)
    assert "\n" not in str(raised.value)
    assert len(read(url, "SELECT chat_id FROM users")) == 3, "nothing was written"


def test_a_query_without_a_first_row_is_ended(url: str) -> None:
    with pytest.raises(CampaignError, match=r"did not return any rows within 0\.2 s"):
        read(url, ENDLESS + "SELECT count(*) AS chat_id FROM n", 0.2)


def test_a_query_that_stalls_halfway_is_ended(url: str) -> None:
    with pytest.raises(CampaignError, match="did not return further rows within 1 s"):
        read(url, ENDLESS + f"SELECT chat_id FROM n WHERE chat_id <= {queries.ROWS + 1} OR chat_id < 0", 1)


def test_a_server_that_does_not_answer_is_cut_off(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "GRACE_SECONDS", -59.7)  # before the server ends the query itself
    server = request.getfixturevalue("postgres").new_database()
    with pytest.raises(CampaignError, match="did not return any rows within 60 s"):
        read(server, "SELECT 1 AS chat_id FROM pg_sleep(60)")


def test_a_connection_that_is_lost_is_one_sentence(request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgres").new_database()
    with pytest.raises(CampaignError, match=r"The connection to the audience's database at 127\.0\.0\.1 was lost"):
        read(server, "SELECT 1 AS chat_id FROM pg_terminate_backend(pg_backend_pid())")


def test_values_without_a_json_form_become_numbers_and_text(request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgres").new_database()
    values = "5::numeric AS chat_id, 1.50::numeric AS price, date '2026-07-01' AS since"
    assert read(server, f"SELECT {values}") == [Candidate(1, "5", '{"price":"1.50","since":"2026-07-01"}')]
    [row] = read(server, f"SELECT {values}, 'x'::bytea AS raw")
    assert isinstance(row, RefusedRow)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense:secret", "The URL of the audience's database is wrong"),
        ("mysql://me:secret@host/name", "The URL of the audience's database is wrong"),
        ("postgresql://me:secret@127.0.0.1:port/name", "The URL of the audience's database is wrong"),
        ("sqlite://", "The URL of the audience's database is wrong"),
        ("postgresql://me:secret@127.0.0.1:1/name", r"Cannot open the audience's database at 127\.0\.0\.1"),
        ("sqlite:////nowhere/users.db?secret", "Cannot open the audience's database /nowhere/users.db"),
    ],
)
def test_a_wrong_url_is_one_sentence_without_the_password(url: str, why: str) -> None:
    with pytest.raises(CampaignError, match=why) as raised:
        read(url, "SELECT 1 AS chat_id")
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(AudienceQuery(SecretStr(url), ""))


def test_a_query_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "users.sql"
    path.write_text("SELECT 1")
    assert read_statement(path) == "SELECT 1"
    path.write_bytes(b"\xff")
    with pytest.raises(CampaignError, match="not UTF-8"):
        read_statement(path)
    with pytest.raises(CampaignError, match="No such file"):
        read_statement(tmp_path / "none.sql")
