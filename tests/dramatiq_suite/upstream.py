"""Dramatiq's own test modules, fetched by scripts/setup, for the modules in this folder to include.

The archive contains the modules but neither their ``conftest.py`` nor their ``common.py``: those two are ours, and
make both ``rabbitmq_broker`` and ``stub_broker`` a Floodgate broker on a real RabbitMQ.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.dramatiq_suite import common

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "dramatiq-tests"
PACKAGE = "dramatiq_tests"


def module_names() -> set[str]:
    """The fetched files."""
    return {path.stem for path in FOLDER.glob("test_*.py")}


def taken_from(name: str, *, does_not_apply: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The contents of a module, without the tests that do not apply, each with its reason."""
    contents = dict(vars(_load(name)))
    for test in does_not_apply or {}:
        del contents[test]  # a KeyError means there is no such test, and its reason can be removed
    return {key: value for key, value in contents.items() if not key.startswith("__")}


def _load(name: str) -> ModuleType:
    if not FOLDER.is_dir():
        raise RuntimeError("Dramatiq's tests are not there: scripts/setup --tests fetches them.")
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(FOLDER)]
        pytest.register_assert_rewrite(PACKAGE)
        sys.modules |= {PACKAGE: package, f"{PACKAGE}.common": common}
    return importlib.import_module(f"{PACKAGE}.{name}")
