"""The gateway's campaign API, over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from floodgate.producer.gateway.campaigns import MOST_STREAMS
from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.processes import ROOT, FloodgateProcess, run_python
from tests.waiting import until

OTHER_KEY = "100200300:a-key-of-the-other-bot"
NDJSON = "application/x-ndjson"


class CampaignCaller:
    """A caller of the campaign API."""

    def __init__(self, url: str, secret: str = TOKEN) -> None:
        headers = {"Authorization": f"Bearer {secret}"}
        self.http = httpx.Client(base_url=f"{url}/floodgate/v1/", headers=headers, timeout=60)

    def __call__(self, method: str, path: str, code: int = 200, **given: Any) -> Any:
        answer = self.http.request(method, path, **given)
        assert answer.status_code == code, answer.text
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, code: int, **given: Any) -> str:
        """Makes a request that is refused; returns why."""
        answer = self(method, path, code, **given)
        assert (answer["ok"], answer["error_code"]) == (False, code)
        why: str = answer["description"]
        return why

    def create(self, name: str, audience: list[dict[str, Any]] | None, **fields: Any) -> Any:
        definition = {"name": name, "content": {"text": "Hello {{ first_name }}!"}} | fields
        return self("POST", "campaigns", 201, json={"definition": definition, "audience": audience})


@pytest.fixture
def caller(gate: Gate) -> Iterator[CampaignCaller]:
    caller = CampaignCaller(gate.url)
    yield caller
    caller.http.close()


@pytest.fixture(scope="module")
def leader(shared_gate: Gate) -> Iterator[None]:
    """A process that sends campaigns."""
    stage = shared_gate.stage
    with FloodgateProcess("campaigns", "run", env=stage.env, home=stage.home, name="campaigns") as process:
        process.start("campaigns ready")
        yield


def people(first: int, number: int = 5) -> list[dict[str, Any]]:
    return [{"chat_id": chat, "first_name": f"N{chat}"} for chat in range(first, first + number)]


@pytest.mark.usefixtures("leader")
def test_a_campaign_is_created_checked_started_followed_and_accounted_for(caller: CampaignCaller) -> None:
    created = caller.create("spring", [*people(7_100_000), {"chat_id": "nobody"}])
    assert (created["state"], created["recipients"], created["bot"]) == ("ready", 5, BOT)
    assert caller("GET", "campaigns/spring/refused")[0]["number"] == 1
    assert caller("POST", "campaigns/spring/check")["findings"] == []
    assert caller("POST", "campaigns/spring/start")["state"] == "running"
    with caller.http.stream("GET", "campaigns/spring/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        *told, last, end = "\n".join(events.iter_lines()).strip().split("\n\n")
    assert all(each.startswith("event: progress\ndata: ") for each in [*told, last])
    assert end == "event: end\ndata: {}"
    ended = json.loads(last.partition("data: ")[2])
    assert (ended["state"], ended["left"], ended["counts"]["sent"]) == ("done", 0, 5)
    with caller.http.stream("GET", "campaigns/spring/recipients") as answer:
        rows = [json.loads(line) for line in answer.iter_lines()]
    assert [(row["chat"], row["state"]) for row in rows] == [(str(7_100_000 + n), "sent") for n in range(5)]
    assert all(row["message_id"] for row in rows)
    assert caller("GET", "campaigns/spring/results")["variants"][0]["sent"] == 5

    edits = caller("POST", "campaigns/spring/edit-sent", 201, json={"text": "Goodbye {{ first_name }}!"})
    assert (edits["name"], edits["recipients"], edits["bot"]) == ("spring.edit-1", 5, BOT)
    assert "nothing of a message would change" in caller.refused("POST", "campaigns/spring/edit-sent", 409, json={})
    assert caller("POST", "campaigns/spring/delete-sent", 201)["name"] == "spring.delete-1"


@pytest.mark.usefixtures("leader")
def test_the_example_sends_to_each_customer_and_says_who_did_not_get_it(gate: Gate, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE customers (chat_id INTEGER, first_name TEXT)")
        shop.executemany("INSERT INTO customers VALUES (?, ?)", [(7_800_001, "Ann"), (7_800_002, None)])
    gate.stage.control.set_chat(7_800_002, trouble="blocked")
    ended = run_python(str(ROOT / "examples" / "campaign.py"), "shop.db", "example", env=gate.stage.env, home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "7800002: unreachable" in ended.stdout
    assert ended.stdout.endswith("example is done: 1 got it\n")
    assert "Hello Ann! Our spring sale begins." in gate.stage.sent()


def test_a_campaign_is_paused_resumed_and_cancelled(caller: CampaignCaller) -> None:
    caller.create("steered", people(7_200_000), schedule={"at": "2099-01-01T00:00:00Z"})
    assert "is ready, not paused" in caller.refused("POST", "campaigns/steered/resume", 409)
    for verb, state in (("start", "running"), ("pause", "paused"), ("resume", "running")):
        assert caller("POST", f"campaigns/steered/{verb}")["state"] == state
    assert caller("DELETE", "campaigns/steered")["state"] == "cancelled"
    assert caller("GET", "campaigns/steered")["counts"]["sent"] == 0
    assert "steered" in [each["name"] for each in caller("GET", "campaigns")]
    assert "cannot become running" in caller.refused("POST", "campaigns/steered/start", 409)


def test_a_campaign_is_tested_edited_and_retried(gate: Gate, caller: CampaignCaller) -> None:
    caller.create("corrected", people(7_700_000))
    job = caller("POST", "campaigns/corrected/test", 202, json={"to": 7_790_000, "recipient": 7_700_002})["job_id"]
    assert caller("GET", f"jobs/{job}/result")["result"]["text"] == "Hello N7700002!"
    caller.refused("POST", "campaigns/corrected/test", 400, json={"to": "nobody"})
    changed = {"name": "corrected", "content": {"text": "Goodbye {{ first_name }}!"}}
    assert caller("PUT", "campaigns/corrected/definition", json=changed)["version"] == 2
    changed["chat_field"] = "id"
    assert "chat_field" in caller.refused("PUT", "campaigns/corrected/definition", 409, json=changed)
    assert caller("POST", "campaigns/corrected/retry", json={"reason": "(a+)+$"}) == {"retried": 0}
    assert "give a state or a reason" in caller.refused("POST", "campaigns/corrected/retry", 409, json={})


@pytest.mark.parametrize(
    ("kind", "audience"),
    [("text/csv; charset=utf-8", "chat_id,first_name\n1,Ann\n2,Bea\n"), (NDJSON, '{"chat_id": 1}\n{"chat_id": 2}\n')],
    ids=["csv", "ndjson"],
)
def test_an_audience_is_uploaded_to_a_draft_once(caller: CampaignCaller, kind: str, audience: str) -> None:
    name, headers = f"up-{len(audience)}", {"Content-Type": kind}
    assert caller.create(name, None)["state"] == "draft"
    path = f"campaigns/{name}/audience"
    assert "neither" not in caller.refused("PUT", path, 415, json=[])
    pieces = (audience[n : n + 7].encode() for n in range(0, len(audience), 7))
    uploaded = caller("PUT", path, content=pieces, headers=headers)
    assert (uploaded["state"], uploaded["recipients"]) == ("ready", 2)
    assert "its audience is frozen" in caller.refused("PUT", path, 409, content=audience, headers=headers)


def test_an_audience_that_cannot_be_read_is_refused_and_the_draft_remains(gate: Gate, caller: CampaignCaller) -> None:
    caller.create("broken", None)
    headers = {"Content-Type": "text/csv"}
    why = caller.refused("PUT", "campaigns/broken/audience", 400, content="id,name\n1,Ann\n", headers=headers)
    assert why.startswith("Bad Request: the audience has no column 'chat_id'")
    connection = HTTPConnection(gate.url.removeprefix("http://"), timeout=60)
    connection.putrequest("PUT", "/floodgate/v1/campaigns/broken/audience")
    size = {"Content-Length": str(gate.stage.settings.gateway.max_body_bytes + 1)}
    for name, value in ({"Authorization": f"Bearer {TOKEN}"} | headers | size).items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert caller("GET", "campaigns/broken")["state"] == "draft"


def test_a_message_that_telegram_would_refuse_is_reported_and_does_not_start(caller: CampaignCaller) -> None:
    caller.create("nameless", [*people(7_300_000), {"chat_id": 7_300_009}])
    found = caller("POST", "campaigns/nameless/check")["findings"]
    assert found == [
        {"why": "The field 'first_name' is missing and has no fallback.", "recipients": 1, "first": "7300009"}
    ]
    assert "nameless does not start: The field 'first_name'" in caller.refused("POST", "campaigns/nameless/start", 409)


def test_a_wrong_definition_and_a_name_that_is_taken_are_refused(caller: CampaignCaller) -> None:
    new = {"definition": {"name": "Bad Name", "content": {"text": "x"}}}
    assert "definition.name" in caller.refused("POST", "campaigns", 422, json=new)
    new = {"definition": {"name": "odd", "content": {"text": "x"}}, "exclude": ["nobody"]}
    assert "exclude" in caller.refused("POST", "campaigns", 400, json=new)
    caller.create("taken", people(7_400_000))
    new = {"definition": {"name": "taken", "content": {"text": "x"}}}
    assert "There is a campaign named 'taken'" in caller.refused("POST", "campaigns", 409, json=new)


def test_a_chat_that_unsubscribes_is_in_no_later_audience(caller: CampaignCaller) -> None:
    caller("PUT", "unsubscribed/7500001", 204)
    assert "chat_id" in caller.refused("PUT", "unsubscribed/nobody", 400)
    assert caller.create("without", people(7_500_000))["recipients"] == 4


def test_a_caller_without_a_valid_secret_is_refused(gate: Gate) -> None:
    stranger = CampaignCaller(gate.url, "1:x")
    for method, path in (("GET", "campaigns"), ("POST", "campaigns"), ("GET", "campaigns/spring/events")):
        assert stranger.refused(method, path, 401) == "Unauthorized"
    stranger.http.close()


def test_a_gateway_has_a_bounded_number_of_streams_which_disconnected_followers_free(
    gate: Gate, caller: CampaignCaller
) -> None:
    caller.create("followed", people(7_600_000))

    def opened() -> int:
        count: int = httpx.get(f"{gate.url}/ready", timeout=30).json()["streams"]
        return count

    host, _, port = gate.url.removeprefix("http://").partition(":")
    request = (
        f"GET /floodgate/v1/campaigns/followed/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )
    with ExitStack() as followers:
        for _ in range(MOST_STREAMS):
            follower = followers.enter_context(socket.create_connection((host, int(port))))
            follower.sendall(request.encode())
        until(lambda: opened() == MOST_STREAMS, 30)
        assert "streams are open" in caller.refused("GET", "campaigns/followed/events", 429)
    until(lambda: opened() == 0, 30)


def test_a_locked_database_makes_nobody_else_wait(gate: Gate, caller: CampaignCaller) -> None:
    caller.create("locked", people(7_900_000))
    with closing(sqlite3.connect(gate.stage.home / "campaigns.db")) as other, ThreadPoolExecutor() as threads:
        other.execute("BEGIN IMMEDIATE")
        cancelling = threads.submit(caller, "DELETE", "campaigns/locked")
        for _ in range(10):
            assert httpx.get(f"{gate.url}/health", timeout=30).status_code == 200
        assert not cancelling.done()
        other.rollback()
        assert cancelling.result()["state"] == "cancelled"


def test_a_key_sees_the_campaigns_of_its_own_bots_only(stage: Stage, tmp_path: Path) -> None:
    env = stage.env | {
        "FLOODGATE_GATEWAY__PORT": "0",
        "FLOODGATE_BOTS": json.dumps({BOT: TOKEN, "other": "2" + TOKEN}),
        "FLOODGATE_GATEWAY__KEYS": json.dumps({"other": [OTHER_KEY]}),
    }
    with GatewayProcess(env, tmp_path) as process:
        mine, other = CampaignCaller(process.url), CampaignCaller(process.url, OTHER_KEY)
        mine.create("mine", people(1))
        assert other("GET", "campaigns") == []
        assert other.create("theirs", people(1))["bot"] == "other"
        assert [each["name"] for each in mine("GET", "campaigns")] == ["mine"]
        assert "the bot 'other' has no campaign named 'mine'" in other.refused("GET", "campaigns/mine", 404)
        for method, path in (("DELETE", ""), ("POST", "/start"), ("GET", "/recipients"), ("GET", "/events")):
            other.refused(method, f"campaigns/mine{path}", 404)
        new = {"definition": {"name": "forged", "bot": BOT, "content": {"text": "x"}}}
        assert "names the bot 'default'" in other.refused("POST", "campaigns", 403, json=new)
        for caller in (mine, other):
            caller.http.close()


def test_a_gateway_that_stops_ends_its_streams_first(stage: Stage, tmp_path: Path) -> None:
    with GatewayProcess(stage.env | {"FLOODGATE_GATEWAY__PORT": "0"}, tmp_path) as process:
        caller = CampaignCaller(process.url)
        caller.create("followed", people(1))
        with caller.http.stream("GET", "campaigns/followed/events") as events:
            lines = events.iter_lines()
            next(lines)
            process.running.signal(signal.SIGTERM)
            assert "event: end" not in list(lines)
        assert process.running.wait(30) == 0
        caller.http.close()
