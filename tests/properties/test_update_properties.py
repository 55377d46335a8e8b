"""For any JSON as an update, nothing is lost, each chat's order is kept, and no shape causes an error."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from floodgate.broker.messages.partitions import partition_of
from floodgate.broker.messages.update import decode_update, partition_key, publication, read_update
from floodgate.producer.updates.intake import sort_out

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
NAMES = st.sampled_from(["chat", "from", "user", "message", "voter_chat", "id", "poll", "text", "update_id", "other"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES | st.text(max_size=3), JSON, max_size=5)
BATCHES = st.lists(
    st.builds(
        lambda number, chat: {"update_id": number, "message": {"chat": {"id": chat}}},
        st.integers(1, 10**9),
        st.integers(1, 4),
    )
    | JSON,
    max_size=30,
)


@given(OBJECTS)
def test_every_object_has_a_partition(body: dict[str, Any]) -> None:
    assert 0 <= partition_of(partition_key(body), 16) < 16


@given(OBJECTS, st.integers(0, 2**63 - 1))
def test_every_update_is_decoded_as_it_was_encoded(body: dict[str, Any], update_id: int) -> None:
    update = read_update("b", {**body, "update_id": update_id})
    assert decode_update(publication(update, 16).body) == update


@given(BATCHES)
def test_a_batch_loses_nothing_and_keeps_every_chats_order(batch: list[Any]) -> None:
    found = sort_out("b", batch, 16)
    expected: defaultdict[str, list[int]] = defaultdict(list)
    ids = []
    for each in batch:
        if isinstance(each, dict) and _is_id(each.get("update_id")):
            expected[partition_key(each)].append(each["update_id"])
            ids.append(each["update_id"])
    came: defaultdict[str, list[int]] = defaultdict(list)
    for wave in found.waves:
        updates = [decode_update(sent.body) for sent in wave]
        keys = [partition_key(update.body) for update in updates]
        assert len(set(keys)) == len(keys), "one of a chat at most in a wave"
        for key, update in zip(keys, updates, strict=True):
            came[key].append(update.update_id)
    assert came == expected
    assert found.last_id == max(ids, default=None)
    assert len(found.malformed) == len(batch) - len(ids)
    assert all(json.loads(letter.body) in batch for letter in found.malformed)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
