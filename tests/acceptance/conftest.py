"""Fixtures of the tests on real processes.

stage        RabbitMQ, a fake Telegram and a state file for one test, and the commands that run on them
new_stage    the same on another RabbitMQ: new_stage(node.url, partitions=4)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from floodgate.fake_telegram.server import running_fake
from tests.acceptance.stage import Stage
from tests.services import Vhost

MakeStage = Callable[..., Stage]


@pytest.fixture
def new_stage(tmp_path: Path) -> Iterator[MakeStage]:
    with contextlib.ExitStack() as stack:

        def make(rabbitmq_url: str, *, telegram_url: str | None = None, **options: Any) -> Stage:
            telegram_url = telegram_url or stack.enter_context(running_fake()).url
            stage = Stage(rabbitmq_url, telegram_url, tmp_path, **options)
            stack.callback(stage.close)
            stage.vouch_idle()
            return stage

        yield make


@pytest.fixture
def stage(new_stage: MakeStage, vhost: Vhost) -> Stage:
    return new_stage(vhost.url)
