"""Assigns chats to partitions, and partitions to workers.

Both are functions of names alone, so producers and workers need no coordination: a stable hash puts a chat on one
partition, and rendezvous hashing gives each (worker, partition) pair the score that RabbitMQ compares when it picks the
active consumer.
"""

from __future__ import annotations

import hashlib
from typing import Final

MAX_CONSUMER_PRIORITY: Final = 2**31 - 1


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def partition_of(chat_key: str, partitions: int) -> int:
    """Return the partition of a chat, 0 ≤ p < ``partitions``. Changing ``partitions`` moves chats: drain first."""
    return _hash64(chat_key) % partitions


def rendezvous_score(worker_id: str, queue: str) -> int:
    """Return a worker's consumer ``x-priority`` (0 … 2³¹-1) for a queue. RabbitMQ serves the highest."""
    return _hash64(f"{worker_id}\x00{queue}") % (MAX_CONSUMER_PRIORITY + 1)
