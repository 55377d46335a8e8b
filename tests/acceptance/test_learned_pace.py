"""A chat that answers 429 to edits gets them at a slower pace, and messages at the same pace as before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise

from floodgate.fake_telegram.control import Arrived
from tests.acceptance.stage import Stage
from tests.waiting import until

CHAT = 42
FULL_SECONDS = 1.05
SLOWED_SECONDS = 2 * FULL_SECONDS


def distances(calls: Iterable[Arrived]) -> list[float]:
    return [later.at - earlier.at for earlier, later in pairwise(calls)]


def test_a_chat_that_earns_429s_on_edits_keeps_the_pace_of_its_messages(stage: Stage) -> None:
    stage.control.limits(edits=(1, 1.9))
    stage.worker()
    client = stage.client()
    shown = client.result(client.send_message(CHAT, "…"), timeout=30)["message_id"]
    edits = [client.edit_message_text(f"edit {n}", chat_id=CHAT, message_id=shown, priority="bulk") for n in range(5)]
    until(lambda: stage.control.stats().by_code.get(429), 30)
    client.result(edits[1], timeout=30)
    for n in range(3):
        client.send_message(CHAT, f"message {n}", priority="interactive")
    [bot] = json.loads(stage.floodgate("status", "--json").stdout)
    assert [(slowed["chat"], slowed["family"]) for slowed in bot["slowed"]] == [(str(CHAT), "edits")]
    assert bot["slowed_chats"] == {"edits": 1}
    assert bot["slowed"][0]["interval_seconds"] > 0.9 * SLOWED_SECONDS
    client.result(edits[-1], timeout=60)
    calls = stage.control.arrivals()
    edited = [call for call in calls if call.method == "editMessageText" and call.acted]
    assert [call.params["text"] for call in edited] == [f"edit {n}" for n in range(5)]
    totals = stage.control.summary()
    assert totals.answers_429 <= 2, "at the old pace, each edit but the first would earn one"
    assert "wait" not in totals.refused_by, "nobody calls while the chat is told to wait"
    # On a busy machine calls can arrive late, but not all of them.
    assert min(distances(call for call in calls if call.method == "sendMessage")[1:]) < 0.75 * SLOWED_SECONDS
