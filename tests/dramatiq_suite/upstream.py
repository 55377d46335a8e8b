"""Dramatiq's own test modules, as scripts/setup fetched them, for the modules beside this one to take over.

The archive holds the modules and neither their ``conftest.py`` nor their ``common.py``: those two are ours, and make
``rabbitmq_broker`` and ``stub_broker`` alike a Floodgate broker on a real RabbitMQ.
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
    """What was fetched."""
    return {path.stem for path in FOLDER.glob("test_*.py")}


def taken_from(name: str, *, does_not_apply: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The contents of a module, without the tests that do not apply, each of which has its reason."""
    contents = dict(vars(_load(name)))
    for test in does_not_apply or {}:
        del contents[test]  # KeyError: there is no such test, and its reason can go
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
