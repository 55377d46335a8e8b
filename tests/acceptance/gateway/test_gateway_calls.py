"""The gateway's behaviour towards its callers, call by call."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from floodgate.broker.state.stores import open_store
from floodgate.broker.uploads.spool import Spool
from tests.acceptance.gateway.conftest import KEY, Gate
from tests.acceptance.stage import BOT, TOKEN
from tests.waiting import until

_chats = itertools.count(5_000_000)


def auth(secret: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def texts(gate: Gate) -> list[object]:
    return [
        call.params.get("text") for call in gate.stage.control.arrivals() if call.acted and call.method == "sendMessage"
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"chat_id": 1, "text": "ünï"}},
        {"data": {"chat_id": "1", "text": "ünï"}},
        {"files": {"chat_id": (None, "1"), "text": (None, "ünï")}},
        {"params": {"chat_id": "1", "text": "ünï"}},
        {"content": ' {"chat_id": 1, "text": "ünï"}'.encode()},
        {"content": b"chat_id=1&text=%C3%BCn%C3%AF"},
    ],
    ids=["json", "form", "multipart", "query", "json without a type", "form without a type"],
)
def test_parameters_are_accepted_in_every_form_telegram_accepts(gate: Gate, body: dict[str, object]) -> None:
    answer = httpx.post(f"{gate.url}/bot{TOKEN}/SENDmessage", timeout=30, **body).json()  # type: ignore[arg-type]
    assert answer["ok"]
    assert answer["result"]["text"] == "ünï"


def test_a_get_request_also_sends(gate: Gate) -> None:
    assert (
        httpx.get(f"{gate.url}/bot{TOKEN}/sendMessage?chat_id=1&text=hi", timeout=30).json()["result"]["text"] == "hi"
    )


def test_a_gateway_key_replaces_the_token(gate: Gate) -> None:
    assert gate.call("sendMessage", KEY, chat_id=next(_chats), text="by key").json()["ok"]
    assert gate.call("getMe", KEY).json()["result"]["is_bot"]


@pytest.mark.parametrize("secret", ["1:x", TOKEN + "A", TOKEN[:-1], "x" * 5000, "%00"])
def test_callers_without_a_valid_secret_are_refused(gate: Gate, secret: str) -> None:
    answer = gate.call("sendMessage", secret, chat_id=1, text="no")
    assert answer.status_code == 401
    assert answer.json() == {"ok": False, "error_code": 401, "description": "Unauthorized"}


def test_a_key_of_one_bot_is_refused_for_another(gate: Gate) -> None:
    answer = gate.call("sendMessage", KEY, {"X-Floodgate-Bot": "other"}, chat_id=1, text="no")
    assert answer.status_code == 403


def test_tokens_and_keys_never_appear_in_logs(gate: Gate) -> None:
    gate.call("sendMessage", KEY, chat_id=next(_chats), text="x")
    gate.call("getMe")
    gate.call("nonsense")
    for path in (f"//bot{KEY}/getMe", f"/prefix/bot{KEY}/getMe", f"/bot/{KEY}/getMe", f"/%2562ot{KEY}/getMe"):
        assert httpx.get(gate.url + path).status_code in (401, 404)
    assert "/bot***/getMe" in gate.process.log
    assert TOKEN.partition(":")[2] not in gate.process.log
    assert KEY.partition(":")[2] not in gate.process.log


def test_an_unknown_method_is_not_found_as_with_telegram(gate: Gate) -> None:
    assert gate.call("sendNonsense").json() == {"ok": False, "error_code": 404, "description": "Not Found"}
    assert gate.call("logOut").status_code == 403


def test_telegrams_refusal_is_returned_with_its_code_and_description(gate: Gate) -> None:
    chat = next(_chats)
    gate.stage.control.set_chat(chat, trouble="answer", code=403, description="Forbidden: user is deactivated")
    answer = gate.call("sendMessage", chat_id=chat, text="x")
    assert answer.status_code == 403
    assert answer.json() == {"ok": False, "error_code": 403, "description": "Forbidden: user is deactivated"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"chat_id": "", "text": "x"}, "chat_id is empty"),
        ({"chat_id": "no chat", "text": "x"}, "chat not found"),
        ({"chat_id": 1, "media": "[1"}, "can't parse media JSON object"),
        ({"chat_id": 1, "text": "x", "floodgate_priority": "urgent"}, "invalid value for floodgate_priority: 'urgent'"),
        ({"chat_id": 1, "text": "x", "floodgate_colour": "red"}, "unknown option floodgate_colour: the options are"),
        ({"chat_id": 1, "text": "x", "floodgate_prioritty": "bulk"}, "did you mean floodgate_priority?"),
        ({"chat_id": 1, "text": "x", "Floodgate-Wait": 1}, "did you mean floodgate_wait_seconds?"),
        ({"chat_id": 1, "text": "x", "floodgate_at": "tomorrow"}, "invalid value for floodgate_at: 'tomorrow'"),
        ({"chat_id": 1, "text": "x", "floodgate_delay_seconds": "1e11"}, "388 days"),
        ({"chat_id": 1, "text": "\ud800"}, "JSON cannot carry"),
        ({"chat_id": 1, "text": "x" * 600_000}, "the limit is"),
    ],
)
def test_errors_are_reported_before_anything_is_queued(gate: Gate, given: dict[str, object], said: str) -> None:
    answer = httpx.post(
        f"{gate.url}/bot{TOKEN}/sendMessage", content=json.dumps(given), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert said in answer.json()["description"]
    assert gate.stage.control.arrivals() == []


@pytest.mark.parametrize("body", ["json", "data", "params"])
def test_an_option_of_the_gateway_never_reaches_telegram(gate: Gate, body: str) -> None:
    for method, given in (("sendMessage", {"chat_id": next(_chats), "text": "x"}), ("getChat", {"chat_id": 1})):
        asked: dict[str, object] = {body: {**given, "floodgate_priority": "bulk"}}
        answer = httpx.post(f"{gate.url}/bot{TOKEN}/{method}", timeout=30, **asked)  # type: ignore[arg-type]
        assert answer.json()["ok"]
    refused = gate.call("getChat", chat_id=1, floodgate_prioritty="bulk")
    assert (refused.status_code, "floodgate_priority" in refused.json()["description"]) == (400, True)
    arrived = gate.stage.control.arrivals()
    assert [call.method for call in arrived] == ["sendMessage", "getChat"]
    assert [name for call in arrived for name in call.params if "floodgate" in name] == []


def test_an_option_among_the_parameters_of_a_new_job_is_refused(gate: Gate) -> None:
    job = {"method": "sendMessage", "params": {"chat_id": 1, "text": "x", "floodgate_priority": "bulk"}}
    answer = httpx.post(f"{gate.url}/floodgate/v1/jobs", json=job, headers=auth())
    assert answer.status_code == 400
    assert "floodgate_priority" in answer.json()["description"]


@pytest.mark.parametrize("verb", ["PUT", "OPTIONS", "DELETE", "PATCH"])
def test_another_http_method_is_refused_with_those_that_are_allowed(gate: Gate, verb: str) -> None:
    for path, allowed in ((f"bot{TOKEN}/sendMessage", "GET, HEAD, POST"), (f"file/bot{TOKEN}/a", "GET, HEAD")):
        answer = httpx.request(verb, f"{gate.url}/{path}")
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


def test_after_the_wait_the_job_is_safe_and_can_be_looked_up(gate: Gate) -> None:
    chat = next(_chats)
    gate.call("sendMessage", chat_id=chat, text="first")
    answer = gate.call("sendMessage", headers={"X-Floodgate-Wait-Seconds": "0.05"}, chat_id=chat, text="second")
    assert answer.status_code == 408
    job_id = answer.json()["parameters"]["floodgate_job_id"]
    assert job_id in answer.json()["description"]
    result = httpx.get(f"{gate.url}/floodgate/v1/jobs/{job_id}/result", headers=auth(), timeout=40).json()
    assert result["result"]["text"] == "second"
    status = httpx.get(f"{gate.url}/floodgate/v1/jobs/{job_id}", headers=auth()).json()
    assert status["status"] == "sent"
    assert status["result"]["text"] == "second"


def test_a_caller_that_does_not_wait_gets_202_and_the_job(gate: Gate) -> None:
    answer = gate.call("sendMessage", headers={"X-Floodgate-Wait-Seconds": "0"}, chat_id=next(_chats), text="later")
    assert answer.status_code == 202
    job_id = answer.headers["X-Floodgate-Job-Id"]
    assert answer.json()["floodgate_job_id"] == answer.json()["result"]["floodgate_job_id"] == job_id
    until(lambda: "later" in texts(gate))


def test_repeats_with_one_idempotency_key_are_one_message(gate: Gate) -> None:
    chat, headers = next(_chats), {"Idempotency-Key": f"order-{time.time_ns()}"}

    def repeat(_: int) -> httpx.Response:
        return gate.call("sendMessage", headers=headers, chat_id=chat, text="once")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(repeat, range(16)))
    answers.append(repeat(0))
    assert {answer.json()["result"]["message_id"] for answer in answers} == {1}
    assert texts(gate) == ["once"]


def test_an_idempotency_key_in_use_is_refused_for_another_message(gate: Gate) -> None:
    """No worker has seen the first one yet: it is on the delay ladder."""
    chat, key = next(_chats), {"Idempotency-Key": f"order-{time.time_ns()}"}

    def waiting() -> int:
        return int(httpx.get(f"{gate.url}/ready").json()["waiting"])

    with ThreadPoolExecutor(1) as threads:
        headers = {**key, "X-Floodgate-Delay-Seconds": "2"}
        first = threads.submit(gate.call, "sendMessage", headers=headers, chat_id=chat, text="the order")
        until(lambda: waiting() == 1)
        other = gate.call("sendMessage", headers=key, chat_id=chat, text="another order")
        assert (other.status_code, "already used" in other.json()["description"]) == (409, True)
        assert first.result().json()["result"]["text"] == "the order"
    assert texts(gate) == ["the order"]


def test_a_job_with_the_key_of_a_dead_one_gets_the_reason(gate: Gate) -> None:
    chat = next(_chats)
    gate.stage.control.set_chat(chat, trouble="answer", code=403, description="Forbidden: user is deactivated")
    job = {"method": "sendMessage", "params": {"chat_id": chat, "text": "x"}, "dedupe_key": f"dies-{time.time_ns()}"}
    first = httpx.post(f"{gate.url}/floodgate/v1/jobs", json=job, headers=auth()).json()
    assert first["status"] == "accepted"
    httpx.get(f"{gate.url}/floodgate/v1/jobs/{first['job_id']}/result", headers=auth(), timeout=40)
    again = httpx.post(f"{gate.url}/floodgate/v1/jobs", json=job, headers=auth()).json()
    assert (again["job_id"], again["status"], again["reason"]) == (first["job_id"], "dead", "chat-unreachable")


def test_a_caller_that_disconnects_loses_nothing(gate: Gate) -> None:
    chat, headers = next(_chats), {"Idempotency-Key": f"hangs-up-{time.time_ns()}"}
    gate.call("sendMessage", chat_id=chat, text="first")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{gate.url}/bot{TOKEN}/sendMessage", json={"chat_id": chat, "text": "second"}, headers=headers, timeout=0.2
        )
    until(lambda: httpx.get(f"{gate.url}/ready").json()["waiting"] == 0)
    assert gate.call("sendMessage", headers=headers, chat_id=chat, text="second").json()["result"]["text"] == "second"
    assert texts(gate) == ["first", "second"]


def test_a_scheduled_call_is_accepted_at_once_and_can_be_cancelled(gate: Gate) -> None:
    answer = gate.call("sendMessage", headers={"X-Floodgate-Delay-Seconds": "300"}, chat_id=next(_chats), text="never")
    assert answer.status_code == 202
    url = gate.url + answer.json()["status_url"]
    assert httpx.get(url, headers=auth()).json()["status"] == "accepted"
    cancelled = httpx.delete(url, headers=auth()).json()
    assert (cancelled["status"], cancelled["reason"]) == ("dead", "cancelled")
    assert httpx.get(f"{url}/result", headers=auth()).status_code == 409
    sent = gate.call("sendMessage", chat_id=next(_chats), text="sent")
    assert (
        httpx.delete(f"{gate.url}/floodgate/v1/jobs/{sent.headers['X-Floodgate-Job-Id']}", headers=auth()).status_code
        == 409
    )


@pytest.mark.parametrize("job_id", ["%2e%2e", "%2e", "-x", "_x", "%2e%2e%2fother%2fjob-1"])
def test_job_ids_do_not_give_access_to_the_uploads_of_others(gate: Gate, spool: Path, job_id: str) -> None:
    uploads = Spool(str(spool))
    kept = uploads.put("other", "job-1", 0, "photo", "cat.png", io.BytesIO(b"cat"))
    answer = httpx.request("DELETE", f"{gate.url}/floodgate/v1/jobs/{job_id}", headers=auth())
    assert answer.status_code in (404, 422)
    assert (spool / kept.key).exists()
    uploads.remove("other", "job-1")


def test_jobs_can_be_enqueued_and_looked_up(gate: Gate) -> None:
    job = {"method": "sendMessage", "params": {"chat_id": next(_chats), "text": "a job"}, "priority": "bulk"}
    answer = httpx.post(f"{gate.url}/floodgate/v1/jobs", json=job, headers=auth())
    assert answer.status_code == 202
    result = httpx.get(f"{gate.url}/floodgate/v1/jobs/{answer.json()['job_id']}/result", headers=auth(), timeout=40)
    assert result.json()["result"]["text"] == "a job"
    assert httpx.post(f"{gate.url}/floodgate/v1/jobs", json={"method": "getMe"}, headers=auth()).status_code == 400
    assert httpx.post(f"{gate.url}/floodgate/v1/jobs", json=job).status_code == 401


def test_an_edit_that_changes_nothing_gets_telegrams_error_and_no_dead_letter(gate: Gate) -> None:
    chat = next(_chats)
    sent = gate.call("sendMessage", chat_id=chat, text="the same").json()["result"]
    edit = gate.call("editMessageText", chat_id=chat, message_id=sent["message_id"], text="the same")
    assert (edit.status_code, edit.json()["error_code"]) == (400, 400)
    assert edit.json()["description"].startswith("Bad Request: message is not modified")
    job_id = edit.headers["X-Floodgate-Job-Id"]
    assert httpx.get(f"{gate.url}/floodgate/v1/jobs/{job_id}", headers=auth()).json()["status"] == "sent"


def test_a_waiting_job_is_shown_with_its_expected_time(gate: Gate) -> None:
    chat = next(_chats)
    with contextlib.closing(open_store(gate.stage.settings)) as store:
        store.pause(BOT, str(chat), timedelta(minutes=5), "test")
    answer = gate.call("sendMessage", headers={"X-Floodgate-Wait-Seconds": "0"}, chat_id=chat, text="never")
    url = gate.url + answer.json()["status_url"]
    job = until(lambda: waiting if (waiting := httpx.get(url, headers=auth()).json())["status"] == "waiting" else None)
    assert 240 < job["due_seconds"] <= 300
    assert httpx.delete(url, headers=auth()).json()["due_seconds"] is None


def test_an_update_that_passes_through_makes_its_chat_reachable(gate: Gate) -> None:
    chat = next(_chats)
    message = {"message_id": 1, "date": 1, "chat": {"id": chat, "type": "private"}, "text": "I am back"}
    gate.stage.control.set_chat(chat, trouble="blocked")
    assert gate.call("sendMessage", chat_id=chat, text="blocked").status_code == 403
    gate.stage.control.clear_chats(chat)
    assert gate.call("sendMessage", chat_id=chat, text="remembered as blocked").status_code == 403
    gate.stage.control.inject_updates(int(TOKEN.partition(":")[0]), [{"message": message}])
    (update,) = gate.call("getUpdates").json()["result"]
    assert update["message"]["text"] == "I am back"
    until(lambda: gate.call("sendMessage", chat_id=chat, text="welcome").json()["ok"])


def test_reads_and_their_errors_pass_through_unchanged(gate: Gate) -> None:
    chat = next(_chats)
    assert gate.call("getChat", chat_id=chat).json()["result"]["id"] == chat
    gate.stage.control.set_chat(chat, trouble="not_found")
    assert gate.call("getChat", chat_id=chat).json() == {
        "ok": False,
        "error_code": 400,
        "description": "Bad Request: chat not found",
    }


def test_one_file_for_many_chats_is_uploaded_once_and_removed(gate: Gate, spool: Path) -> None:
    content = time.time_ns().to_bytes(16) * 4096

    def send(chat: int) -> httpx.Response:
        return httpx.post(
            f"{gate.url}/bot{TOKEN}/sendDocument",
            data={"chat_id": str(chat), "caption": "all the same"},
            files={"document": ("report.pdf", content)},
            timeout=60,
        )

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(send, [next(_chats) for _ in range(12)]))
    assert all(answer.json()["result"]["document"]["file_name"] == "report.pdf" for answer in answers)
    uploads = [isinstance(call.params["document"], dict) for call in gate.stage.control.arrivals()]
    assert sorted(uploads) == [False] * 11 + [True]
    until(lambda: [path for path in (spool / "jobs").rglob("*") if path.is_file()] == [])


def test_an_unavailable_spool_refuses_only_uploads(gate: Gate, spool: Path) -> None:
    away = spool.rename(spool.with_name("away"))
    try:
        answer = httpx.post(
            f"{gate.url}/bot{TOKEN}/sendDocument",
            data={"chat_id": "7"},
            files={"document": ("a", b"x" * 100)},
            timeout=30,
        )
        assert answer.status_code == 507
        assert "nothing was accepted" in answer.json()["description"]
        assert gate.stage.control.arrivals() == []
        assert gate.call("sendMessage", chat_id=next(_chats), text="text goes").json()["ok"]
    finally:
        away.rename(spool)


def test_health_readiness_and_the_api_description_are_served(gate: Gate) -> None:
    assert httpx.get(f"{gate.url}/health").json() == {"status": "alive"}
    assert httpx.get(f"{gate.url}/ready").json()["status"] == "ready"
    assert httpx.get(f"{gate.url}/docs").status_code == 200
    paths = httpx.get(f"{gate.url}/openapi.json").json()["paths"]
    jobs = {"/floodgate/v1/jobs", "/floodgate/v1/jobs/{job_id}", "/floodgate/v1/jobs/{job_id}/result"}
    assert {path for path in paths if "/jobs" in path} == jobs
    assert "/floodgate/v1/campaigns/{name}/events" in paths
