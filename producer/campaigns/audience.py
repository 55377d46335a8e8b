"""Reads an audience, row by row and in constant memory: CSV, JSON Lines, a SQL query, or any iterable of mappings.

Each row becomes a :class:`Candidate`, or a :class:`RefusedRow` that says why. A file that cannot be read any further
(not UTF-8, an unclosed quote) raises instead, because what follows would be guesswork.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from floodgate.broker.errors import CampaignError, InvalidParamsError
from floodgate.broker.messages.chats import chat_key

# Of one row, as JSON. Bounds the database and a template's time.
MAX_ROW_BYTES: Final = 16 * 1024
MAX_LINE_CHARACTERS: Final = 1024 * 1024
_DELIMITERS: Final = ",;\t|"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A valid row: the chat's key, and the other fields as JSON text (None if there are none)."""

    line: int
    chat: str
    fields: str | None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that is not taken. ``sample`` is its beginning."""

    line: int
    why: str
    sample: str


AudienceRow = Candidate | RefusedRow


def read_file(path: Path, chat_field: str = "chat_id") -> Iterator[AudienceRow]:
    """Read a CSV file with a header, or JSON Lines if its name ends in ``.jsonl`` or ``.ndjson``.

    Raises:
        CampaignError: the file cannot be read, or has no column for the chat.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix.lower() in (".jsonl", ".ndjson"):
                yield from _json_lines(lines, chat_field)
            else:
                yield from _csv_rows(lines, path, chat_field)
    except OSError as error:
        raise CampaignError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise CampaignError(
            f"{path} is not UTF-8 text at byte {error.start} of a block: save it as UTF-8, then import it again."
        ) from None


def read_rows(rows: Iterable[Mapping[str, Any]], chat_field: str = "chat_id") -> Iterator[AudienceRow]:
    """Read mappings from any iterable. A row's line is its ordinal."""
    for number, fields in enumerate(rows, 1):
        yield read_row(number, fields, chat_field)


def read_row(line: int, fields: object, chat_field: str) -> AudienceRow:
    """Validate a row."""
    if not isinstance(fields, Mapping):
        return RefusedRow(line, "it is not an object", _sample(fields))
    chat = fields.get(chat_field)
    if chat is None or chat == "":
        return RefusedRow(line, f"{chat_field} is empty", _sample(fields))
    try:
        key = chat_key(chat)
    except InvalidParamsError:
        return RefusedRow(line, f"{chat_field} is neither a chat's id nor an @name", _sample(fields))
    others = {name: value for name, value in fields.items() if name != chat_field and value not in (None, "")}
    try:
        text = json.dumps(others, ensure_ascii=False, separators=(",", ":")) if others else None
    except (TypeError, ValueError, RecursionError):
        return RefusedRow(line, "a field is neither text, a number, a list nor an object", _sample(fields))
    if text is not None and not text.isascii() and not _is_unicode(text):
        return RefusedRow(line, "a field is not valid Unicode text", _sample(fields))
    if text is not None and len(text) * 4 > MAX_ROW_BYTES and len(text.encode()) > MAX_ROW_BYTES:
        return RefusedRow(line, f"it has more than {MAX_ROW_BYTES} bytes", _sample(fields))
    return Candidate(line, key, text)


def read_columns(names: Sequence[str], source: str, chat_field: str) -> Sequence[str]:
    """Return the names of an audience's columns.

    Raises:
        CampaignError: there is no column for the chat, or two columns have the same name.
    """
    if chat_field not in names:
        raise CampaignError(
            f"{source} has no column {chat_field!r}: its columns are {', '.join(map(repr, names[:20]))}. "
            "Rename one, or set chat_field in the definition."
        )
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise CampaignError(f"{source} has two columns named {twice[0]!r}: rename one.")
    return names


def _json_lines(lines: Iterable[str], chat_field: str) -> Iterator[AudienceRow]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line) if len(line) <= MAX_LINE_CHARACTERS else None
        except (ValueError, RecursionError):
            yield RefusedRow(number, "it is not JSON", _sample(line))
        else:
            yield read_row(number, fields, chat_field)


def _csv_rows(lines: Iterable[str], path: Path, chat_field: str) -> Iterator[AudienceRow]:
    source = iter(lines)
    header = next(source, "")
    if not header.strip():
        raise CampaignError(f"{path} is empty: its first line must name the columns, {chat_field} among them.")
    delimiter = max(_DELIMITERS, key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter))]
    read_columns(names, str(path), chat_field)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    line = 1
    while True:
        line = 2 + reader.line_num
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CampaignError(f"{path} is not valid CSV from line {line} on: {error}.") from None
        if not values:
            continue
        if len(values) != len(names):
            yield RefusedRow(line, f"it has {len(values)} columns instead of {len(names)}", _sample(values))
        else:
            yield read_row(line, dict(zip(names, values, strict=True)), chat_field)


def _is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: JSON's escapes and a broken encoding can yield halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sample(value: object) -> str:
    """Return the beginning of a row as a database can keep it."""
    return str(value)[:80].encode(errors="replace").decode().replace("\0", "?")
