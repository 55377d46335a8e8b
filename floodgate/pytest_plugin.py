"""The pytest fixture that comes with Floodgate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from floodgate.testing import RecordingClient


@pytest.fixture
def floodgate_client() -> Iterator[RecordingClient]:
    """A client that keeps its jobs in ``.jobs`` instead of publishing them; a fresh one for each test."""
    from floodgate.testing import RecordingClient

    with RecordingClient() as client:
        yield client
