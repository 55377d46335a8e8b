"""A nearly full store is logged in time and once per occurrence."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from floodgate.broker.settings.model import Settings
from floodgate.broker.state import capacity
from floodgate.broker.state.capacity import CapacityWatch, shortage_of
from tests.services import RedisServer

GB = 1024**3


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def settings(url: str) -> Settings:
    return Settings(_env_file=None, state_url=url)  # type: ignore[call-arg, arg-type]


def test_a_nearly_full_disk_is_logged_once_when_it_begins_and_once_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = 5 * GB
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100 * GB, 0, free))
    watch = CapacityWatch(settings(f"sqlite:///{tmp_path}/state.db"))
    with caplog.at_level(logging.INFO, "floodgate.admission"):
        watch.look()
        free = GB // 2
        watch.look()
        watch.look()
        free = 5 * GB
        watch.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "has 512 MB left" in caplog.text


def test_a_small_disk_is_short_only_below_a_tenth_of_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(2 * GB, 0, GB // 2))
    assert capacity.disk_shortage(path) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(2 * GB, 0, GB // 10))
    assert capacity.disk_shortage(path) is not None


def test_a_nearly_full_redis_is_logged(new_redis: Callable[[], RedisServer]) -> None:
    server = new_redis().start()
    client = redis.Redis.from_url(server.url, decode_responses=True)
    assert shortage_of(settings(server.url)) is None
    client.config_set("maxmemory", str(int(client.info("memory")["used_memory"] * 1.05)))  # type: ignore[index]
    assert "when its memory is full, sending stops" in str(shortage_of(settings(server.url)))
    client.close()
    server.kill()
    assert shortage_of(settings(server.url)) is None
