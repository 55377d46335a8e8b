"""Reads an audience, row by row and in constant memory: CSV, JSON Lines, a SQL query, or any iterable of mappings.

Each row becomes a :class:`Candidate`, or a :class:`RefusedRow` that says why. A file that cannot be read any further
(not UTF-8, an unclosed quote) raises instead, because what follows would be guesswork. A line of any length takes no
more memory than :data:`MAX_LINE_CHARACTERS`.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Final

from floodgate.broker.errors import CampaignError, InvalidParamsError
from floodgate.broker.messages.chats import chat_key

# Of one row, as JSON. Bounds the database and a template's time.
MAX_ROW_BYTES: Final = 16 * 1024
MAX_LINE_CHARACTERS: Final = 128 * 1024
# A quoted field may span lines.
MAX_ROW_CHARACTERS: Final = 1024 * 1024
JSON_LINES: Final = (".jsonl", ".ndjson")
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


class AudienceFile:
    """A CSV file with a header, or JSON Lines if its name ends in ``.jsonl`` or ``.ndjson``. Says how much is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    @property
    def size(self) -> int | None:
        """The file's size in bytes; None if it is unknown."""
        try:
            return self._path.stat().st_size or None
        except OSError:
            return None

    @property
    def position(self) -> int:
        """The number of bytes that have been read; 0 if that is unknown."""
        try:
            return 0 if self._file is None else self._file.tell()
        except OSError:  # it is a pipe
            return 0

    def rows(self, chat_field: str = "chat_id") -> Iterator[AudienceRow]:
        """Read the rows.

        Raises:
            CampaignError: the file cannot be read, or has no column for the chat.
        """
        try:
            with self._path.open("rb") as self._file, _as_text(self._file) as text:
                lines = _Lines(text, self._path)
                if self._path.suffix.lower() in JSON_LINES:
                    yield from _json_lines(lines, chat_field)
                else:
                    yield from _csv_rows(lines, self._path, chat_field)
        except OSError as error:
            raise CampaignError(f"Cannot read {self._path}: {error.strerror}.") from None
        finally:
            self._file = None


def read_file(path: Path, chat_field: str = "chat_id") -> Iterator[AudienceRow]:
    """Read a file: see :class:`AudienceFile`.

    Raises:
        CampaignError: the file cannot be read, or has no column for the chat.
    """
    return AudienceFile(path).rows(chat_field)


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
    try:
        size = len(text.encode()) if text else 0
    except UnicodeEncodeError:
        return RefusedRow(line, "a text is not valid Unicode", _sample(fields))
    if size > MAX_ROW_BYTES:
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


def _as_text(file: BinaryIO) -> TextIOWrapper:
    return TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Lines:
    """The lines of a file, shortened to :data:`MAX_LINE_CHARACTERS`, and to nothing if they are longer.

    Raises:
        CampaignError: the file is not UTF-8 text, or a row has no end within :data:`MAX_ROW_CHARACTERS`.
    """

    def __init__(self, file: TextIOWrapper, path: Path) -> None:
        self._file = file
        self._path = path
        self._characters = 0  # of the row
        self.number = 0
        self.too_long: RefusedRow | None = None

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_LINE_CHARACTERS + 1):
            self.number += 1
            if not line.isascii() and not _is_unicode(line):
                raise CampaignError(
                    f"{self._path} is not UTF-8 text in line {self.number}: save it as UTF-8, then import it again."
                )
            if len(line) > MAX_LINE_CHARACTERS:
                self._skip(line)
                line = "\n"
            self._characters += len(line)
            if self._characters > MAX_ROW_CHARACTERS:
                raise CampaignError(_unclosed(self._path, self.number))
            yield line

    def end_row(self) -> RefusedRow | None:
        """Begin another row. Return the one that ended if a line of it was too long."""
        refused, self.too_long, self._characters = self.too_long, None, 0
        return refused

    def _skip(self, line: str) -> None:
        """Read to the end of a line. A quote that is not closed there would make the next lines part of it."""
        why = f"it has more than {MAX_LINE_CHARACTERS} characters"
        self.too_long, quotes = RefusedRow(self.number, why, _sample(line)), 0
        while line:
            quotes += line.count('"')
            if line.endswith(("\n", "\r")):
                break
            line = self._file.readline(MAX_LINE_CHARACTERS)
        if quotes % 2 and self._path.suffix.lower() not in JSON_LINES:
            raise CampaignError(_unclosed(self._path, self.number))


def _unclosed(path: Path, line: int) -> str:
    return f"{path} is not valid CSV up to line {line}: a quote is not closed, or a row is longer than it may be."


def _json_lines(lines: _Lines, chat_field: str) -> Iterator[AudienceRow]:
    for line in lines:
        if refused := lines.end_row():
            yield refused
        elif line.strip():
            yield _json_row(lines.number, line, chat_field)


def _json_row(number: int, line: str, chat_field: str) -> AudienceRow:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return RefusedRow(number, "it is not JSON", _sample(line))
    return read_row(number, fields, chat_field)


def _csv_rows(lines: _Lines, path: Path, chat_field: str) -> Iterator[AudienceRow]:
    source = iter(lines)
    header = next(source, "")
    if not header.strip():
        raise CampaignError(f"{path} is empty: its first line must name the columns, {chat_field} among them.")
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter, strict=True))]
    except csv.Error:
        raise CampaignError(_unclosed(path, 1)) from None
    read_columns(names, str(path), chat_field)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        lines.end_row()
        line = lines.number + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CampaignError(f"{path} is not valid CSV from line {line} on: {error}.") from None
        if refused := lines.too_long:
            yield refused
        elif values and len(values) != len(names):
            yield RefusedRow(line, f"it has {len(values)} columns instead of {len(names)}", _sample(values))
        elif values:
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
