"""How an audience is read, and which rows are refused."""

from __future__ import annotations

import tracemalloc
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.audience.rows import AudienceFile, Candidate, RefusedRow, read_file, read_rows


def read(tmp_path: Path, content: str | bytes, name: str = "a.csv") -> list[Candidate | RefusedRow]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_file(path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_csv_is_read_with_the_delimiter_of_its_header(tmp_path: Path, delimiter: str, start: str) -> None:
    text = f'{start}chat_id,name\n42,Ann\n@Channel,"B, ""x"""\n'.replace(",", delimiter)
    assert read(tmp_path, text) == [
        Candidate(2, "42", '{"name":"Ann"}'),
        Candidate(3, "@channel", '{"name":"B' + delimiter.replace("\t", "\\t") + ' \\"x\\""}'),
    ]


def test_refused_rows_have_their_line_and_the_others_are_taken(tmp_path: Path) -> None:
    found = read(tmp_path, "chat_id,name\n42,Ann\nbob,x\n,y\n1,2,3\n\n43,Bea\n")
    assert [(row.line, getattr(row, "why", "taken")) for row in found] == [
        (2, "taken"),
        (3, "chat_id is neither a chat's id nor an @name"),
        (4, "chat_id is empty"),
        (5, "it has 3 columns instead of 2"),
        (7, "taken"),
    ]


def test_a_field_may_span_lines(tmp_path: Path) -> None:
    first, second = read(tmp_path, 'chat_id,text\n1,"a\nb"\n2,c\n')
    assert (first, second.line) == (Candidate(2, "1", '{"text":"a\\nb"}'), 4)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is empty"),
        ("id,name\n1,x\n", "has no column 'chat_id': its columns are 'id', 'name'"),
        ("chat_id,name\n1,x\n1,caf\xe9\n".encode("latin-1"), "is not UTF-8 text in line 3"),
        ("chat_id,name\n1,x\n".encode("utf-16"), "is not UTF-8 text in line 1"),
        ("chat_id,name,name\n1,x,y\n", "has two columns named 'name'"),
        ('chat_id,"name\n1,x\n', "is not valid CSV up to line 1"),
        ('chat_id,name\n1,"open\n2,x\n', "is not valid CSV from line 2 on"),
        ('chat_id,name\n1,x\n2,"a"b"\n3,y\n', "is not valid CSV from line 3 on"),
        ('chat_id,name\n1,"' + "2,x\n" * 100_000, "is not valid CSV from line 2 on"),
        ("chat_id,name\n1" + ',"\n"' * 300_000, "is not valid CSV up to line .*: a quote is not closed"),
        ('chat_id,name\n1,"' + "x" * 10_000_000 + "\n2,Ann\n", "is not valid CSV up to line 2: a quote is not closed"),
    ],
)
def test_a_file_that_cannot_be_read_further_is_refused_in_a_sentence(
    tmp_path: Path, content: str | bytes, why: str
) -> None:
    with pytest.raises(CampaignError, match=why):
        read(tmp_path, content)


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_row_with_a_field_of_ten_megabytes_is_refused_and_the_others_are_read(tmp_path: Path, quote: str) -> None:
    huge = quote + "x" * 10_000_000 + quote
    first, refused, last = read(tmp_path, f"chat_id,name\n1,Ann\n2,{huge}\n3,Bea\n")
    assert (first, last) == (Candidate(2, "1", '{"name":"Ann"}'), Candidate(4, "3", '{"name":"Bea"}'))
    assert isinstance(refused, RefusedRow)
    assert (refused.line, refused.why) == (3, "it has more than 131072 characters")


def test_a_line_of_json_of_ten_megabytes_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    text = '{"chat_id": 1}\n{"chat_id": 2, "n": "' + "x" * 10_000_000 + '\n{"chat_id": 3}\n'
    assert [(row.line, type(row)) for row in read(tmp_path, text, "a.jsonl")] == [
        (1, Candidate),
        (2, RefusedRow),
        (3, Candidate),
    ]


def test_a_long_line_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("chat_id,name\n1,")
        for _ in range(50):
            file.write("x" * 1_000_000)
    tracemalloc.start()
    try:
        assert [row.line for row in read_file(path)] == [2]
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_header_alone_is_no_error_and_no_row(tmp_path: Path) -> None:
    assert read(tmp_path, "chat_id,name\n") == []


def test_a_file_says_how_much_of_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("chat_id\n" + "1000000\n" * 10_000)
    file = AudienceFile(path)
    assert (file.size, file.position) == (path.stat().st_size, 0)
    positions = [file.position for _ in file.rows()]
    assert positions == sorted(positions)
    assert 0 < positions[0] < positions[-1] == file.size
    assert file.position == 0, "it is closed"
    assert AudienceFile(tmp_path / "none.csv").size is None


def test_rows_that_are_no_mappings_are_refused_by_their_ordinal() -> None:
    given: list[Any] = [{"chat_id": 1}, None, 5, "chat_id", {"chat_id": True}, UserDict(chat_id="-7", n=1)]
    assert [(row.line, getattr(row, "why", row)) for row in read_rows(given)] == [
        (1, Candidate(1, "1", None)),
        (2, "it is not an object"),
        (3, "it is not an object"),
        (4, "it is not an object"),
        (5, "chat_id is neither a chat's id nor an @name"),
        (6, Candidate(6, "-7", '{"n":1}')),
    ]


def test_a_file_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="No such file"):
        list(read_file(tmp_path / "gone.csv"))


def test_json_lines_are_read_and_refused_line_by_line(tmp_path: Path) -> None:
    found = read(tmp_path, '{"chat_id": 1, "n": [1]}\n\n{"chat_id": tr\n[1]\n{"n": 1}\n', "a.jsonl")
    assert [(row.line, getattr(row, "why", "taken")) for row in found] == [
        (1, "taken"),
        (3, "it is not JSON"),
        (4, "it is not an object"),
        (5, "chat_id is empty"),
    ]


def test_a_row_is_bounded_and_holds_json_only() -> None:
    found = list(read_rows([{"chat_id": 1, "x": "y" * 20_000}, {"chat_id": 1, "x": object()}, {"chat_id": 0}]))
    assert [row.why for row in found if isinstance(row, RefusedRow)] == [
        "it has more than 16384 bytes",
        "a field is neither text, a number, a list nor an object",
        "chat_id is neither a chat's id nor an @name",
    ]


def test_a_row_with_text_that_cannot_be_encoded_is_refused(tmp_path: Path) -> None:
    [row] = read(tmp_path, '{"chat_id": 1, "n": "\\ud83d \\u0000"}\n', "a.jsonl")
    assert row == RefusedRow(1, "a text is not valid Unicode", "{'chat_id': 1, 'n': '\\ud83d \\x00'}")
    [row] = read(tmp_path, '{"chat_id": "\\ud83d", "n": 1}\n', "a.jsonl")
    assert isinstance(row, RefusedRow)
    row.sample.encode()


def test_reading_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("chat_id\n" + "".join(f"{n}\n" for n in range(1, 5001)))
    rows = read_file(path)
    assert next(rows) == Candidate(2, "1", None)
    assert sum(1 for _ in rows) == 4999
