"""The control API through its client, and starting and stopping the fake."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from floodgate.fake_telegram import ControlClient, ControlRefusedError, FakeTelegram, FakeTelegramThread, running_fake
from tests.waiting import until

TOKEN = "123456:" + "A" * 35
BOT_ID = 123456


@pytest.fixture
def fake() -> Iterator[FakeTelegramThread]:
    with running_fake() as thread:
        yield thread


def send(url: str, chat_id: int, text: str = "x") -> int:
    """The status of one sendMessage."""
    body = json.dumps({"chat_id": chat_id, "text": text}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/bot{TOKEN}/sendMessage", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def send_in_vain(url: str, chat_id: int) -> None:
    with pytest.raises(OSError, match=r"closed|reset"):
        send(url, chat_id)


def test_the_record_lists_arrivals_in_order(fake: FakeTelegramThread) -> None:
    for chat in (5, 6, 5):
        send(fake.url, chat, f"to {chat}")
    arrivals = fake.control.arrivals()
    assert [(a.seq, a.chat_id, a.params["text"], a.code, a.verdict) for a in arrivals] == [
        (1, 5, "to 5", 200, "ok"),
        (2, 6, "to 6", 200, "ok"),
        (3, 5, "to 5", 429, "chat"),
    ]
    assert arrivals[0].at <= arrivals[1].at <= arrivals[2].at
    assert [(a.acted, a.message_id) for a in arrivals] == [(True, 1), (True, 1), (False, None)]


def test_the_record_can_be_read_in_pages(fake: FakeTelegramThread) -> None:
    for chat in range(1, 8):
        send(fake.url, chat)
    assert [a.seq for a in fake.control.arrivals(after=3, limit=2)] == [4, 5]
    assert len(fake.control.arrivals(after=5)) == 2


def test_a_summary_adds_up(fake: FakeTelegramThread) -> None:
    fake.control.limits(enabled=False)
    for text in ("a", "a", "b"):
        send(fake.url, 5, text)
    totals = fake.control.summary()
    assert (totals.arrived, totals.acted, totals.answers_429, totals.by_code) == (3, 3, 0, {200: 3})
    assert (totals.bot_in_1s, totals.chat_in_1s, totals.duplicated) == (3, 3, 1)
    assert (totals.duplicates[0].text, totals.duplicates[0].times) == ("a", 2)
    live = fake.control.stats()
    assert (live.arrived, live.acted, live.unanswered) == (3, 3, 0)


def test_limits_can_be_changed_at_run_time(fake: FakeTelegramThread) -> None:
    in_force = fake.control.limits(chat=None, bot=(2, 60))
    assert (in_force["chat"], in_force["bot"], in_force["group"]) == (None, [2, 60.0], [20, 60.0])
    assert [send(fake.url, 5) for _ in range(3)] == [200, 200, 429]


def test_a_pause_of_the_bot_refuses_all_chats(fake: FakeTelegramThread) -> None:
    fake.control.pause(BOT_ID, 30)
    assert [send(fake.url, 5), send(fake.url, 6)] == [429, 429]
    assert fake.control.arrivals()[-1].verdict == "wait"


def test_a_pause_of_a_chat_does_not_affect_other_chats(fake: FakeTelegramThread) -> None:
    fake.control.pause(BOT_ID, 30, chat_id=5)
    assert [send(fake.url, 5), send(fake.url, 6)] == [429, 200]


def test_chat_faults_are_set_and_cleared(fake: FakeTelegramThread) -> None:
    fake.control.limits(enabled=False)
    fake.control.set_chat(5, 6, trouble="blocked")
    assert [send(fake.url, 5), send(fake.url, 6), send(fake.url, 7)] == [403, 403, 200]
    fake.control.clear_chats(5)
    assert [send(fake.url, 5), send(fake.url, 6)] == [200, 403]
    fake.control.clear_chats()
    assert send(fake.url, 6) == 200


def test_a_reset_forgets_everything(fake: FakeTelegramThread) -> None:
    fake.control.limits(bot=(1, 60))
    fake.control.set_chat(5, trouble="blocked")
    fake.control.inject_crowd(BOT_ID, users=3)
    send(fake.url, 5)
    fake.control.reset()
    assert fake.control.arrivals() == []
    assert fake.control.stats().pending_updates == 0
    assert [send(fake.url, 5), send(fake.url, 6)] == [200, 200]
    assert [a.message_id for a in fake.control.arrivals()] == [1, 1]


def test_a_call_overtaken_by_a_reset_is_not_recorded(fake: FakeTelegramThread) -> None:
    fake.control.set_chat(5, trouble="slow_mode", seconds=0.5)
    held = threading.Thread(target=send, args=(fake.url, 5))
    held.start()
    until(lambda: fake.control.stats().unanswered == 1)
    fake.control.reset()
    held.join(10)
    live = fake.control.stats()
    assert (live.arrived, live.unanswered, live.by_code) == (0, 0, {})


def test_a_crowd_is_thousands_of_users_taking_turns(fake: FakeTelegramThread) -> None:
    ids = fake.control.inject_crowd(BOT_ID, users=2000, per_user=2, text="{user} says {n}")
    assert len(ids) == 4000
    assert ids == sorted(ids)
    with urllib.request.urlopen(f"{fake.url}/bot{TOKEN}/getUpdates?limit=2", timeout=10) as response:
        updates = json.load(response)["result"]
    assert [u["message"]["text"] for u in updates] == ["1000 says 1", "1001 says 1"]


@pytest.mark.parametrize(
    ("path", "values", "sentence"),
    [
        ("chat", {"chats": [5], "trouble": "gone"}, "is unknown; use one of: blocked"),
        ("chat", {"trouble": "blocked"}, "chats must be a list"),
        ("chat", {"chats": ["nobody here"], "trouble": "blocked"}, "chat not found"),
        ("server", {"fault": []}, "use faults"),
        ("server", {"latency_ms": [5, 1]}, "latency_ms is"),
        ("server", {"faults": [{"kind": "error", "tims": 3}]}, "Unknown fault 'tims'"),
        ("limits", {"bots": 3}, "Unknown limit 'bots'"),
        ("pause", {"bot_id": 1}, "A pause needs"),
        ("updates", {"bot_id": 1, "updates": [{"text": "x"}]}, "needs the user's id"),
        ("updates", {"bot_id": 1, "crowd": {"users": 10**9}}, "at most"),
        ("updates", {"bot_id": 1, "crowd": {"people": 3}}, "wrong type"),
        ("nothing", {}, "No control path"),
    ],
)
def test_an_invalid_request_is_reported_in_one_sentence(
    fake: FakeTelegramThread, path: str, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ControlRefusedError, match=sentence):
        fake.control._ask(path, values)


def test_it_can_be_stopped_unstarted_or_twice_and_started_again() -> None:
    others = set(threading.enumerate())  # including fakes of other tests' fixtures
    thread = FakeTelegramThread()
    thread.stop()
    thread.start()
    thread.start()
    assert send(thread.url, 5) == 200
    thread.stop()
    thread.stop()
    assert "fake-telegram" not in {t.name for t in set(threading.enumerate()) - others}
    thread.start()
    assert send(thread.url, 5) == 200
    thread.stop()

    async def in_a_loop() -> None:
        fake = FakeTelegram()
        await fake.stop()
        await fake.start()
        await fake.start()
        await fake.stop()
        await fake.stop()

    asyncio.run(in_a_loop())


def test_its_url_is_unknown_before_it_starts() -> None:
    with pytest.raises(RuntimeError, match="call start"):
        _ = FakeTelegram().url
    with pytest.raises(RuntimeError, match="call start"):
        _ = FakeTelegramThread().url


def test_starting_on_a_port_in_use_raises(fake: FakeTelegramThread) -> None:
    port = int(fake.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        FakeTelegramThread(port=port).start()


def test_stopping_ends_stalls_and_long_polls() -> None:
    thread = FakeTelegramThread()
    thread.start()
    thread.control.set_server(faults=[{"kind": "stall", "methods": ["sendMessage"]}])
    stalled = threading.Thread(target=send_in_vain, args=(thread.url, 5))
    poll_url = f"{thread.url}/bot{TOKEN}/getUpdates?timeout=50"
    polls = threading.Thread(target=lambda: urllib.request.urlopen(poll_url, timeout=30).close())
    for client in (stalled, polls):
        client.start()
    until(lambda: thread.control.stats().unanswered == 2)
    thread.stop()
    for client in (stalled, polls):
        client.join(5)
        assert not client.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_prints_its_url_and_exits_with_0(number: signal.Signals) -> None:
    process = start_process("--port", "0", "--no-limits")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert [send(url, 5) for _ in range(3)] == [200] * 3
        assert ControlClient(url).stats().acted == 3
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_the_process_reports_a_port_in_use_in_one_sentence(fake: FakeTelegramThread) -> None:
    process = start_process("--port", fake.url.rsplit(":", 1)[1])
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert errors.count("\n") == 1
    assert "Choose another --port" in errors


def start_process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "floodgate.fake_telegram", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
