"""Pytest fixtures: put ``pytest_plugins = ["floodgate.testing.fixtures"]`` into your top-level conftest.py."""

from __future__ import annotations

import pytest

from floodgate.testing import AsyncRecordingClient, RecordingClient


@pytest.fixture
def floodgate_client(monkeypatch: pytest.MonkeyPatch) -> RecordingClient:
    """A recording client, which ``floodgate.Client(…)`` also returns during the test."""
    import floodgate

    client = RecordingClient()
    monkeypatch.setattr(floodgate, "Client", lambda *_settings, **_options: client, raising=False)
    return client


@pytest.fixture
def async_floodgate_client(monkeypatch: pytest.MonkeyPatch) -> AsyncRecordingClient:
    """The same for ``floodgate.AsyncClient``."""
    import floodgate

    client = AsyncRecordingClient()
    monkeypatch.setattr(floodgate, "AsyncClient", lambda *_settings, **_options: client, raising=False)
    return client
