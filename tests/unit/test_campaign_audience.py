"""How an audience is read, and which rows are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.audience import Candidate, RefusedRow, read_file, read_rows


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
        ("chat_id,name\n1,caf\xe9\n".encode("latin-1"), "is not UTF-8 text"),
        ('chat_id,name\n1,"open\n2,x\n', "is not valid CSV from line"),
    ],
)
def test_a_file_that_cannot_be_read_further_is_refused_in_a_sentence(
    tmp_path: Path, content: str | bytes, why: str
) -> None:
    with pytest.raises(CampaignError, match=why):
        read(tmp_path, content)


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
    assert row == RefusedRow(1, "a field is not valid Unicode text", "{'chat_id': 1, 'n': '\\ud83d \\x00'}")
    [row] = read(tmp_path, '{"chat_id": "\\ud83d", "n": 1}\n', "a.jsonl")
    assert isinstance(row, RefusedRow)
    row.sample.encode()


def test_reading_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("chat_id\n" + "".join(f"{n}\n" for n in range(1, 5001)))
    rows = read_file(path)
    assert next(rows) == Candidate(2, "1", None)
    assert sum(1 for _ in rows) == 4999
