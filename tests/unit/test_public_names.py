"""The names that ``import floodgate`` offers."""

from __future__ import annotations

from importlib import metadata

import floodgate


def test_the_public_names_are_shown_and_can_be_had() -> None:
    assert {"AsyncClient", "Client", "Job", "Settings", "on_update", "__version__"} <= set(dir(floodgate))
    assert set(floodgate.__all__) < set(dir(floodgate))
    assert all(getattr(floodgate, name) for name in dir(floodgate))


def test_the_version_is_that_of_the_distribution() -> None:
    assert floodgate.__version__ == metadata.version("telegram-floodgate")
