"""What a growing text shows: its markups, its partial states, and where it is cut."""

from __future__ import annotations

import subprocess
import sys

import pytest

from floodgate.broker.errors import InvalidParamsError
from floodgate.fake_telegram import entities
from floodgate.producer.streaming.text import Formatting, GrowingText, TextPart


def styled(part: TextPart) -> list[str]:
    """The entities of a part, each as its type and its text."""
    wide = part.text.encode("utf-16-le")
    found = []
    for entity in part.entities:
        start, end = 2 * entity["offset"], 2 * (entity["offset"] + entity["length"])
        found.append(f"{entity['type']}: {wide[start:end].decode('utf-16-le')}")
    return found


def whole(text: str, formatting: Formatting = "markdown", limit: int = 4096) -> list[TextPart]:
    growing = GrowingText(formatting, limit)
    growing.append(text)
    return list(growing.finish())


def so_far(text: str, formatting: Formatting = "markdown") -> TextPart:
    growing = GrowingText(formatting)
    growing.append(text)
    (part,) = growing.parts
    assert not part.complete
    return part


@pytest.mark.parametrize(
    ("source", "text", "styles"),
    [
        ("**b** *i* ~~s~~ `c` __b__", "b i s c b", ["bold: b", "italic: i", "strikethrough: s", "code: c", "bold: b"]),
        ("😀 **b *both***", "😀 b both", ["bold: b both", "italic: both"]),
        ("**bold `code` bold**", "bold code bold", ["bold: bold ", "code: code", "bold:  bold"]),
        ("# A *title*", "A title", ["bold: A title", "italic: title"]),
        ("[label](https://x.y/z) [home](/here)", "label home", ["text_link: label"]),
        ("![a cat](https://x.y/cat.png)", "a cat", ["text_link: a cat"]),
        ("<https://x.y> a<br>b &amp; \\*", "https://x.y a\nb & *", []),
        ("- a\n- b\n  1. c\n  2. d", "• a\n• b\n  1. c\n  2. d", []),
        ("7. a\n\n8. b", "7. a\n\n8. b", []),
        ("> a\n> > b", "a\nb", ["blockquote: a\nb"]),
        ("| A | B |\n|---|--:|\n| `1` | 2 |", "A | B\n1 | 2", ["bold: A | B", "code: 1"]),
        ("a\n\n---\nb", "a\n\n———\nb", []),
        ("- a\n  ```\n  x = 1\n  ```", "• a\nx = 1", ["pre: x = 1"]),
        ("a [1]\n\n[1]: https://x.y", "a [1]\n\n[1]: https://x.y", []),
        ("[1]: https://x.y\n\na [b][1], [1][]", "[1]: https://x.y\n\na [b][1], [1][]", []),
        ("2 * 3 = 6, snake_case, 5 < 6", "2 * 3 = 6, snake_case, 5 < 6", []),
    ],
)
def test_markdown_is_shown_with_entities_or_a_readable_substitute(source: str, text: str, styles: list[str]) -> None:
    (part,) = whole(source)
    assert (part.text, styled(part)) == (text, styles)


def test_a_code_block_keeps_its_language() -> None:
    (part,) = whole("```python\nx = 1\n```")
    assert part.entities == [{"type": "pre", "offset": 0, "length": 5, "language": "python"}]


@pytest.mark.parametrize(
    ("source", "text", "styles"),
    [
        ("so **bo", "so bo", ["bold: bo"]),
        ("so **bold*", "so bold", ["bold: bold"]),
        ("so *i **b", "so i b", ["italic: i b", "bold: b"]),
        ("so **", "so", []),
        ("so `x = *1", "so x = *1", ["code: x = *1"]),
        ("see [the lab", "see the lab", []),
        ("see [the label](https://x", "see the label", []),
        ("a\n-", "a", []),
        ("a\n\n``", "a", []),
        ("a\n\n```pyth", "a", []),
        ("```\nx\n``", "x", ["pre: x"]),
        ("a\n\n| b |\n|--", "a\n\n| b |", []),
        ("a \\", "a", []),
        ("2*3 is", "2*3 is", []),
    ],
)
def test_markdown_that_is_begun_is_closed_and_what_is_undecided_waits(
    source: str, text: str, styles: list[str]
) -> None:
    part = so_far(source)
    assert (part.text, styled(part)) == (text, styles)


@pytest.mark.parametrize(
    ("formatting", "source", "text", "styles"),
    [
        ("HTML", "a <b>b <i>c", "a b c", ["bold: b c", "italic: c"]),
        ("HTML", "a <b>b</", "a b", ["bold: b"]),
        ("HTML", "a &am", "a", []),
        ("HTML", '<a href="https://x.y/', "", []),
        ("HTML", "1 < 2 <foo> & c", "1 < 2 <foo> & c", []),
        ("MarkdownV2", "a *b _c", "a b c", ["bold: b c", "italic: c"]),
        ("MarkdownV2", "a *b*\\", "a b", ["bold: b"]),
        ("MarkdownV2", "a __b_", "a b", ["underline: b"]),
        ("MarkdownV2", "[lab", "lab", []),
        ("MarkdownV2", "[label](https://x.", "label", []),
        ("MarkdownV2", ">quote\n", "quote", ["blockquote: quote"]),
        ("MarkdownV2", "a. b!c", "a. b!c", []),
    ],
)
def test_telegrams_markup_is_closed_and_incomplete_markup_waits(
    formatting: Formatting, source: str, text: str, styles: list[str]
) -> None:
    growing = GrowingText(formatting)
    growing.append(source)
    shown = [(part.text, styled(part)) for part in growing.parts]
    assert shown == ([(text, styles)] if text else [])


@pytest.mark.parametrize(
    ("formatting", "source"),
    [
        ("HTML", '<b>b <i>&lt;</i></b> <a href="https://x.y/?a=1&amp;b=2">l</a> <blockquote expandable>q</blockquote>'),
        ("HTML", '<pre><code class="language-py">x &amp; y</code></pre> <u>u</u> <tg-emoji emoji-id="5">😀</tg-emoji>'),
        ("MarkdownV2", "*b _i_* __u__ ~s~ ||p|| `c\\`` 1\\. [l](https://x.y/z)\n>q\n>r\nend"),
        ("MarkdownV2", "```py\nx \\\\ y\n``` 😀 _i_"),
    ],
)  # fmt: skip
def test_telegrams_markup_is_understood_as_telegram_does(formatting: Formatting, source: str) -> None:
    text, found = entities.parse(source, formatting)
    (part,) = whole(source, formatting)
    assert (part.text, part.entities) == (text, found)


def test_custom_emoji_and_times_of_markdown_v2() -> None:
    (part,) = whole("![😀](tg://emoji?id=5) ![now](tg://time?unix=7&format=r) >x\n>y||", "MarkdownV2")
    assert part.entities == [
        {"type": "custom_emoji", "offset": 0, "length": 2, "custom_emoji_id": "5"},
        {"type": "date_time", "offset": 3, "length": 3, "unix_time": 7, "date_time_format": "r"},
        {"type": "expandable_blockquote", "offset": 10, "length": 1},
    ]


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("One sentence here. Another one follows it.", ["One sentence here.", "Another one follows it."]),
        ("A paragraph of text.\n\nAnother. With more.", ["A paragraph of text.", "Another. With more."]),
        ("words without any end to be found in them", ["words without any end to be", "found in them"]),
        ("x" * 40, ["x" * 32, "x" * 8]),
        ("😀" * 20, ["😀" * 16, "😀" * 4]),
        ("x" * 31 + "e\u0301" + "y" * 5, ["x" * 31, "e\u0301yyyyy"]),
        (" " * 50 + "\n" * 50 + "x", ["x"]),
    ],
)
def test_a_long_text_is_cut_at_the_best_bound(source: str, texts: list[str]) -> None:
    assert [part.text for part in whole(source, "plain", limit=32)] == texts


def test_code_is_cut_between_lines_and_goes_on_as_code_of_its_language() -> None:
    parts = whole("```py\n" + "\n".join(f"line_{n} = {n}" for n in range(6)) + "\n```", limit=32)
    assert [part.text for part in parts] == [
        "line_0 = 0\nline_1 = 1",
        "line_2 = 2\nline_3 = 3",
        "line_4 = 4\nline_5 = 5",
    ]
    assert all(part.entities == [{"type": "pre", "offset": 0, "length": 21, "language": "py"}] for part in parts)


def test_bold_text_goes_on_in_the_next_message() -> None:
    parts = whole("**" + "bold words here. " * 3 + "end**", limit=40)
    assert [styled(part) for part in parts] == [
        ["bold: bold words here. bold words here."],
        ["bold: bold words here. end"],
    ]


def test_a_message_is_complete_once_the_text_has_outgrown_it() -> None:
    growing = GrowingText(limit=32)
    growing.append("One sentence here. Another")
    assert [part.complete for part in growing.parts] == [False]
    growing.append(" one follows it.")
    assert [(part.text, part.complete) for part in growing.parts] == [
        ("One sentence here.", True),
        ("Another one follows it.", False),
    ]
    assert [part.complete for part in growing.finish()] == [True, True]
    assert growing.finish() == growing.parts
    with pytest.raises(ValueError, match="finished"):
        growing.append("more")


def shown_before(source: str, more: str, formatting: Formatting = "markdown") -> GrowingText:
    """A text of which a chat shows the first part, and which has grown since."""
    growing = GrowingText(formatting, limit=64)
    growing.append(source)
    growing.note_shown(growing.parts[0])
    growing.append(more)
    assert [part.complete for part in growing.parts] == [False]
    return growing


@pytest.mark.parametrize(
    ("source", "more", "text", "rest"),
    [
        ("A first sentence. And", " a second one. And a", "A first sentence. And a second one.", " third. " * 9),
        ("A first sentence. And", " a second one.\n\nA. And", "A first sentence. And a second one.", "\n\na b" * 20),
        ("Only words, and words", " and words, and ever m", "Only words, and words and words, and ever", "ore a" * 20),
        ("```\nline 1 ........\nline", " 2 ..............\nli", "line 1 ........\nline 2 ..............", "\nl" * 20),
        ("```\nline 1 ........\nli", "ne 2 ............\n```\nAnd", "line 1 ........\nline 2 ............", ". a" * 20),
        ("A **bold sentence. And", " a second one. And a", "A bold sentence. And a second one.", " third. " * 9),
    ],
)  # fmt: skip
def test_a_text_that_will_outgrow_its_message_is_shown_up_to_a_bound_and_then_goes_on_in_the_next(
    source: str, more: str, text: str, rest: str
) -> None:
    growing = shown_before(source, more)
    prospect = growing.prospect
    assert prospect is not None
    assert prospect.text == text
    growing.note_shown(prospect)
    growing.append(rest)
    assert (growing.parts[0].text, growing.parts[0].entities) == (prospect.text, prospect.entities)
    assert growing.parts[0].complete


@pytest.mark.parametrize(
    ("source", "more"),
    [
        ("A short one. ", "And more"),  # there is room for as much again
        ("A first sentence, which is not even at its", " end yet"),
        ("A sentence with its end in the second half. And", " another"),  # that end is shown already
        ("One two three four five six seven.\n```\nlong", "_line = 1 + 2\nli"),  # beside code is better than within
    ],
)
def test_a_text_is_shown_whole_while_it_has_room_or_where_it_may_not_end(source: str, more: str) -> None:
    assert shown_before(source, more).prospect is None


def test_a_text_that_ends_before_it_outgrows_its_message_stays_in_one() -> None:
    growing = shown_before("A first sentence. And", " a second one. And a")
    assert growing.prospect is not None
    growing.note_shown(growing.prospect)
    growing.append(" third.")
    assert [part.text for part in growing.finish()] == ["A first sentence. And a second one. And a third."]


def test_a_message_that_may_not_end_where_the_chat_shows_it_changes_once_more() -> None:
    growing = GrowingText(limit=64)
    growing.append("A first sentence. And a second one, which")
    growing.note_shown(growing.parts[0])
    growing.append(" is long. And a third one.")
    assert [part.text for part in growing.parts] == [
        "A first sentence. And a second one, which is long.",
        "And a third one.",
    ]


def test_nothing_that_is_blank_is_sent() -> None:
    for source in ("", " \n\t", "\u200b\u2060", "\x00\x01", "```py\n```", "**"):
        growing = GrowingText("markdown")
        growing.append(source)
        assert growing.parts == ()
    assert whole(" \n", "plain") == []


def test_an_emoji_that_was_cut_in_two_is_joined() -> None:
    growing = GrowingText()
    growing.append("a\ud83d")
    assert growing.parts[0].text == "a"
    growing.append("\ude00b\ud83d")
    growing.append("c")
    assert growing.parts[0].text == "a😀b\ufffdc"


def test_a_line_that_is_being_written_may_turn_into_a_part_of_the_block_before_it() -> None:
    growing = GrowingText("markdown")
    growing.append("*one\n```two")
    assert growing.parts
    growing.append("`*")
    assert growing.finish() == tuple(whole("*one\n```two`*"))
    assert styled(growing.parts[0]) == ["italic: one\n```two`"]


def test_a_block_of_any_length_is_read_in_bounded_pieces() -> None:
    growing = GrowingText("markdown")
    growing.append("```py\n")
    for number in range(3000):
        growing.append(f"line {number}\n")
        if number % 100 == 0:
            assert growing.parts
    assert len(growing._reader._source) < 9000  # type: ignore[attr-defined]
    code = [part.text for part in growing.finish()]
    assert "\n".join(code).split("\n") == [f"line {number}" for number in range(3000)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"formatting": "Markdown"}, "formatting 'Markdown' is unknown: use one of plain, markdown, HTML, MarkdownV2."),
        ({"limit": 5000}, "limit is 5000: use 16 to 4096."),
    ],
)
def test_a_wrong_option_is_refused_in_a_sentence(options: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidParamsError) as caught:
        GrowingText(**options)  # type: ignore[arg-type]
    assert str(caught.value) == reason


def test_markdown_names_the_extra_that_it_needs_and_nothing_else_needs_it() -> None:
    program = """
import sys
sys.modules["markdown_it"] = None
from floodgate.producer.streaming.text import GrowingText
for formatting in ("plain", "HTML", "MarkdownV2"):
    GrowingText(formatting)
try:
    GrowingText("markdown")
except Exception as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "install telegram-floodgate[markdown]" in said
