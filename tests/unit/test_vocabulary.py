"""One word has one meaning: no public class name is defined twice, and retired words do not return."""

from __future__ import annotations

import ast
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.checkout
ROOT: Final = Path(__file__).parents[2]
PRODUCT: Final = ("broker", "actors", "producer", "floodgate", "fake_telegram", "rabbitmq_node")
TREE: Final = (*PRODUCT, "benchmarks", "tests")
# Identifiers that had a second meaning, or none in this field, and their replacements: see docs/glossary.md.
RETIRED: Final = {
    "Books": "UnitOfWork",
    "Ear": "ReachabilityTap",
    "Endings": "ResultFeed",
    "Flight": "EnqueueBatch",
    "Getter": "AsyncQueueReader",
    "Hearing": "ReachabilityTap",
    "Keeping": "PersistenceFlusher",
    "Leash": "ChildGuard",
    "Link": "Connection",
    "LinkOptions": "ConnectionOptions",
    "LinkState": "ConnectionState",
    "Outlet": "QueueDeclarer",
    "Passing": "Proxy",
    "Sight": "UpdateStatus",
    "Stowage": "UploadStore",
    "Stroke": "Fault",
    "Terms": "RequestOptions",
    "Timetable": "BatchTimer",
    "Treatment": "Route",
    "Troubles": "OutageBackoff",
    "Visit": "QueueReader",
}
# Words that may not be part of an identifier. "In flight" is the standard term.
RETIRED_WORDS: Final = {
    "books",
    "endings",
    "flight",
    "getter",
    "leash",
    "outlet",
    "sight",
    "stow",
    "stowage",
    "stroke",
    "strokes",
    "visit",
    "visits",
}
# Names of libraries, in the only module that uses them: there the word has its library's meaning.
OF_LIBRARIES: Final = {("broker/process/spans.py", "Link")}
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def modules(*folders: str) -> Iterator[Path]:
    """The Python files of folders; the links in ``floodgate/`` lead to folders that are listed themselves."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents):
                yield path


def definitions(path: Path) -> Iterator[str]:
    """Public classes and type aliases of a module."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) if re.match("[A-Z][a-z]", name):
                yield name


def words(identifier: str) -> set[str]:
    return {part.lower() for part in _PART.findall(identifier.replace("in_flight", "").replace("IN_FLIGHT", ""))}


def identifiers(path: Path) -> set[str]:
    with tokenize.open(path) as file:
        return {each.string for each in tokenize.generate_tokens(file.readline) if each.type == tokenize.NAME}


def test_no_public_class_or_type_is_defined_twice() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in modules(*PRODUCT):
        for name in definitions(path):
            if not name.startswith("_"):
                places[name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("folder", TREE)
def test_no_identifier_is_a_retired_word(folder: str) -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in modules(folder)
        if path != Path(__file__)
        for name in identifiers(path)
        if name in RETIRED or words(name) & RETIRED_WORDS
    }
    assert found - OF_LIBRARIES == set()


def test_the_glossary_contains_the_replacements_of_retired_words() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text()
    assert [new for new in RETIRED.values() if f"`{new}`" not in page] == []
