"""The tables of ``docs/fake-telegram.md`` are complete. (Its snippets run in ``test_snippets``.)"""

from __future__ import annotations

import re
from pathlib import Path

from floodgate.fake_telegram.scenarios import ChatTrouble, FaultKind

PAGE = (Path(__file__).parents[2] / "docs" / "fake-telegram.md").read_text()


def test_every_chat_trouble_and_every_fault_is_documented() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))
    assert {*ChatTrouble, *FaultKind} <= named
