"""The reader of pages detects errors on a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import Block, Command, _blocks, commands
from tests.docs.test_snippets import Reader

PAGE = """\
# Title
```python file=a.py
x = 1
```
- in a list:
  ```console
  $ echo one \\
      two      # a remark
  one two
  $ true
  ```
"""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Reader({}, tmp_path) as made:
        yield made


def block(language: str, text: str, *words: str) -> Block:
    return Block("page.md", 7, language, words, text)


def test_blocks_have_their_language_arguments_and_first_line() -> None:
    python, console = _blocks("page.md", PAGE)
    assert python == Block("page.md", 3, "python", ("file=a.py",), "x = 1")
    assert (console.line, console.language) == (7, "console")
    assert commands(console.text) == [
        Command("echo one \\\n    two      # a remark", "one two"),
        Command("true", ""),
    ]


def test_an_unclosed_fence_is_reported() -> None:
    with pytest.raises(ValueError, match=r"page\.md:1: this fence is not closed"):
        list(_blocks("page.md", "```python\nx = 1\n"))


def test_blocks_of_a_page_share_one_interpreter_and_one_folder(reader: Reader) -> None:
    reader.read(block("python", "x = 6 * 7"))
    reader.read(block("python", "y = 1", "file=a.py"))
    reader.read(block("python", "import a\nassert (x, a.y) == (42, 1)"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (block("python", "1 / 0"), r'page\.md", line 7'),
        (block("console", "$ false"), "ended with 1"),
        (block("console", "$ echo one\ntwo"), r"shall print:\s+two\s+and prints:\s+one"),
        (block("console", "$ floodgate no-such-command"), "No such command"),
        (block("console", "$ ./scripts/demo-of-yesterday"), "ended with 127"),
        (block("console", "$ export NO_SUCH_NAME=…"), "we have none"),
        (block("console", "$ floodgate worker"), "ended:\n.*No bot token is set"),
    ],
)
def test_a_failing_block_is_reported(reader: Reader, wrong: Block, told: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){told}"):
        reader.read(wrong)


@pytest.mark.parametrize(("wrong", "error"), [("not json", ValueError), ("{'a': 1}", ValueError)])
def test_json_must_parse(reader: Reader, wrong: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        reader.read(block("json", wrong))


def test_a_fragment_must_compile(reader: Reader) -> None:
    reader.read(block("python", "update.message.reply_text('hi')", "fragment"))
    with pytest.raises(SyntaxError):
        reader.read(block("python", "def f(:", "fragment"))
