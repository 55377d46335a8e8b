"""Malformed, huge, slow and aborted bodies: a clear answer, never a 500, and bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodgate.producer.gateway.server import SPARE_CONNECTIONS
from floodgate.producer.http_protocol import HEAD_SECONDS
from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.gateway.programs import GatewayProcess, clients_python, run_command
from tests.acceptance.stage import TOKEN, Stage
from tests.waiting import until

CALLERS = 2000
MEGABYTE = 1024 * 1024
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=b"


def post(gate: Gate, body: bytes, kind: str, method: str = "sendMessage") -> httpx.Response:
    url = f"{gate.url}/bot{TOKEN}/{method}"
    return httpx.post(url, content=body, headers={"content-type": kind, "X-Floodgate-Wait-Seconds": "0"}, timeout=30)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'"text"', JSON, 400),
        (b"{" * 100_000, JSON, 400),
        (b'{"a":' * 50_000, JSON, 400),
        (b'{"chat_id": NaN}', JSON, 400),
        (b'{"chat_id": {"a": 1}, "text": "x"}', JSON, 400),
        (b'{"chat_id": 99999999999999999999999, "text": "x"}', JSON, 400),
        (b'{"chat_id": true, "text": "x"}', JSON, 400),
        (b"\xff\xfe\x00", JSON, 400),
        (b"&&&=", FORM, 400),
        (b"\xff=1", FORM, 400),
        (b"&".join(b"a%d=1" % n for n in range(500)), FORM, 400),
        (b"no parts at all", PARTS, 400),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", PARTS, 400),
        (b"x", "multipart/form-data", 400),
        (b"<xml/>", "text/xml", 400),
        (b"x" * (2 * MEGABYTE), JSON, 413),
        (b"a=" + b"x" * (2 * MEGABYTE), FORM, 413),
    ],
)
def test_an_unusable_body_gets_a_clear_answer(gate: Gate, body: bytes, kind: str, code: int) -> None:
    answer = post(gate, body, kind)
    assert answer.status_code == code
    assert answer.json()["error_code"] == code
    assert answer.json()["description"]
    assert gate.stage.control.arrivals() == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=300), kind=st.sampled_from([JSON, FORM, PARTS, "multipart/form-data; boundary=", "", "x/y"])
)
def test_the_gateway_survives_arbitrary_bytes(gate: Gate, body: bytes, kind: str) -> None:
    assert post(gate, b"--b\r\n" + body if kind == PARTS else body, kind).status_code < 500


def test_a_huge_upload_is_refused_before_it_is_read(gate: Gate) -> None:
    with raw(gate, f"Content-Length: {10**12}\r\nContent-Type: {PARTS}") as connection:
        assert b" 413 " in connection.recv(200)


def test_a_huge_upload_without_a_length_is_cut_off_and_uses_little_memory(gate: Gate) -> None:
    before = resident_bytes(gate)

    def pieces() -> object:
        yield b'--b\r\nContent-Disposition: form-data; name="document"; filename="x"\r\n\r\n'
        for _ in range(80):
            yield b"x" * MEGABYTE

    with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):  # the gateway may close early
        url = f"{gate.url}/bot{TOKEN}/sendDocument?chat_id=1"
        answer = httpx.post(url, content=pieces(), headers={"content-type": PARTS}, timeout=60)  # type: ignore[arg-type]
        assert answer.status_code == 413
    assert resident_bytes(gate) - before < 40 * MEGABYTE
    assert not [path for path in (gate.stage.home / "spool" / "jobs").rglob("*") if path.is_file()]


def test_a_stalled_body_is_abandoned(gate: Gate) -> None:
    with raw(gate, "Content-Length: 100\r\nContent-Type: application/json") as connection:
        connection.sendall(b'{"chat')
        assert b" 408 " in connection.recv(200)


def test_an_aborted_body_leaves_nothing_behind(gate: Gate) -> None:
    for kind in (JSON, FORM, PARTS):
        with raw(gate, f"Content-Length: 5000\r\nContent-Type: {kind}") as connection:
            connection.sendall(b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nhalf')
    assert httpx.get(f"{gate.url}/health").status_code == 200
    assert gate.stage.control.arrivals() == []
    assert "Traceback" not in gate.process.log


def test_two_thousand_callers_wait_in_bounded_memory_and_disconnected_ones_are_released(gate: Gate) -> None:
    """All callers use one paused chat, so none of them gets a result."""
    before = resident_bytes(gate)
    gate.stage.control.pause(int(TOKEN.partition(":")[0]), 600, chat_id=77)
    body = json.dumps({"chat_id": 77, "text": "wait", "floodgate_expires_seconds": 60}).encode()
    head = f"POST /bot{TOKEN}/sendMessage HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(CALLERS):
            connection = stack.enter_context(socket.create_connection(address(gate)))
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: waiting(gate) == CALLERS, 60)
        per_caller = (resident_bytes(gate) - before) / CALLERS
    until(lambda: waiting(gate) == 0, 30)
    assert per_caller < 60_000


def test_callers_are_served_while_strangers_exceed_the_connection_limit(stage: Stage, tmp_path: Path) -> None:
    env = stage.env | {"FLOODGATE_GATEWAY__PORT": "0", "FLOODGATE_GATEWAY__MAX_WAITING": "1"}
    with GatewayProcess(env, tmp_path) as process, contextlib.ExitStack() as stack:
        place = process.url.removeprefix("http://").split(":")
        for _ in range(1 + SPARE_CONNECTIONS + 1000):
            stranger = stack.enter_context(socket.create_connection((place[0], int(place[1]))))
            stranger.sendall(b"POST /bot1:x/sendMessage HTTP/1.1\r\nX-Slow: ")
        started = time.monotonic()
        for _ in range(20):
            assert httpx.get(f"{process.url}/bot{TOKEN}/getMe").json()["ok"]
        assert time.monotonic() - started < HEAD_SECONDS, "not only once the strangers were gone"


@pytest.mark.parametrize(
    ("paths", "phases", "examples"),
    # The campaigns have many operations, which share their errors: the coverage phase would take a minute.
    [("/jobs", "examples,coverage,fuzzing", 8), ("/campaigns|/unsubscribed", "examples,fuzzing", 2)],
    ids=["jobs", "campaigns"],
)
def test_schemathesis_finds_nothing_wrong_with_an_api(gate: Gate, paths: str, phases: str, examples: int) -> None:
    program = str(Path(clients_python()).with_name("schemathesis"))
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = [
        f"--include-path-regex={paths}",
        f"--max-examples={examples}",
        f"--checks={checks}",
        f"--phases={phases}",
        "--seed=1",
        "--no-color",
    ]
    header = ["--header", f"Authorization: Bearer {TOKEN}"]
    done = run_command([program, "run", f"{gate.url}/openapi.json", *options, *header], gate.stage.home)
    assert done.returncode == 0, done.stdout[-6000:]


def waiting(gate: Gate) -> int:
    """Callers that wait for a result."""
    count: int = httpx.get(f"{gate.url}/ready", timeout=30).json()["waiting"]
    return count


def raw(gate: Gate, headers: str) -> socket.socket:
    """A connection on which the head of a request has been sent."""
    connection = socket.create_connection(address(gate), timeout=20)
    connection.sendall(f"POST /bot{TOKEN}/sendMessage HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())
    return connection


def address(gate: Gate) -> tuple[str, int]:
    host, _, port = gate.url.removeprefix("http://").partition(":")
    return host, int(port)


def resident_bytes(gate: Gate) -> int:
    pages = int(Path(f"/proc/{gate.process.running.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
