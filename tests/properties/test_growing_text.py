"""A growing text is valid for Telegram in each state, loses nothing, and never changes what is complete."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodgate.fake_telegram import entities
from floodgate.producer.streaming.text import Formatting, GrowingText, TextPart

LIMIT = 60
UNHURRIED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FORMATTINGS: tuple[Formatting, ...] = ("plain", "markdown", "HTML", "MarkdownV2")
# What markups are made of, and characters of one and two UTF-16 units, combining ones and lone surrogates.
FRAGMENTS = {
    "plain": [
        "word ",
        "Sentence. ",
        "\n",
        "\n\n",
        " ",
        "😀",
        "👩‍👩‍👧",
        "e\u0301",
        "\ud83d",
        "\ude00",
        "\x00",
        "\r\n",
        "\u200b",
    ],
    "markdown": [
        *(
            "*",
            "**",
            "_",
            "__",
            "~~",
            "`",
            "``",
            "```",
            "```python\n",
            "~~~",
            "\n",
            "\n\n",
            "- ",
            "1. ",
            "  - ",
            "    ",
            "> ",
        ),
        *(
            "# ",
            "---",
            "===",
            "| a | b |",
            "|---|---|",
            "[",
            "](",
            ")",
            "](http://x.y/z)",
            "![",
            "<http://x.y>",
            "\\",
            "&amp;",
        ),
        *("<br>", "[1]: http://x.y\n", "- [ ] ", "<b>"),
    ],
    "HTML": [
        *(
            "<b>",
            "</b>",
            "<i>",
            "</i>",
            "<code>",
            "</code>",
            "<pre>",
            '<pre><code class="language-py">',
            "</code></pre>",
            "<",
        ),
        *(
            '<a href="http://x.y/?a=1&amp;b=2">',
            "</a>",
            "<blockquote>",
            "<blockquote expandable>",
            "</blockquote>",
            "&",
        ),
        *(
            "&lt;",
            "&#128512;",
            '<tg-emoji emoji-id="5">',
            "</tg-emoji>",
            "<foo>",
            '<span class="tg-spoiler">',
            "</span>",
            ">",
        ),
        *("</pre>", "</foo>", '<tg-time unix="5" format="r">', "</tg-time>"),
    ],
    "MarkdownV2": [
        *(
            "*",
            "_",
            "__",
            "~",
            "||",
            "`",
            "```",
            "```python\n",
            "[",
            "](http://x.y/z)",
            "](",
            ")",
            "![",
            "](tg://emoji?id=5)",
        ),
        *("\\", "\\.", "\\`", ">", "\n>", "||\n", ".", "!", "**>", "](tg://time?unix=5&format=r)"),
    ],
}


def texts(formatting: Formatting) -> st.SearchStrategy[list[str]]:
    """Pieces of a text, which cut its markup anywhere."""
    whole = st.lists(
        st.sampled_from(FRAGMENTS["plain"] + (FRAGMENTS[formatting] * 2)) | st.text(max_size=8), max_size=40
    )
    return whole.map("".join).flatmap(
        lambda text: st.lists(st.integers(0, len(text)), max_size=12).map(
            lambda cuts: [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]
        )
    )


@st.composite
def written(draw: st.DrawFn) -> tuple[Formatting, list[str]]:
    formatting = draw(st.sampled_from(FORMATTINGS))
    return formatting, draw(texts(formatting))


def check_accepted(parts: tuple[TextPart, ...]) -> None:
    for part in parts:
        assert part.text.strip(), "Telegram sends no empty message"
        assert entities.units(part.text) <= LIMIT
        assert entities.checked(part.text, part.entities) == part.entities
        assert all(not part.text[-1:].isspace() for part in parts)


def shown(formatting: Formatting, pieces: list[str], limit: int) -> tuple[TextPart, ...]:
    text = GrowingText(formatting, limit)
    for piece in pieces:
        text.append(piece)
    return text.finish()


@UNHURRIED
@given(written())
def test_telegram_accepts_each_state_and_complete_parts_never_change(given_: tuple[Formatting, list[str]]) -> None:
    formatting, pieces = given_
    text = GrowingText(formatting, LIMIT)
    complete: list[TextPart] = []
    number = 0
    for piece in [*pieces, None]:
        if piece is not None:
            text.append(piece)
        parts = text.finish() if piece is None else text.parts
        check_accepted(parts)
        assert list(parts[: len(complete)]) == complete
        assert len(parts) >= number, "a message that was sent cannot be taken back"
        assert all(part.complete for part in (parts if piece is None else parts[:-1]))
        complete, number = [part for part in parts if part.complete], len(parts)


@UNHURRIED
@given(written())
def test_asking_for_the_state_changes_nothing_that_is_shown_in_one_message(
    given_: tuple[Formatting, list[str]],
) -> None:
    formatting, pieces = given_
    text = GrowingText(formatting)
    for piece in pieces:
        text.append(piece)
        assert text.parts is not None
    expected = shown(formatting, ["".join(pieces)], 4096)
    # What was shown may turn out to be nothing (`<br` becomes a line break), and then stays.
    assert text.finish() == expected or not expected


@UNHURRIED
@given(written(), st.data())
def test_whatever_a_chat_shows_each_state_is_valid_and_nothing_is_lost_or_doubled(
    given_: tuple[Formatting, list[str]], data: st.DataObject
) -> None:
    formatting, pieces = given_
    growing, whole = GrowingText(formatting, LIMIT), "".join(pieces)
    complete: tuple[TextPart, ...] = ()
    for piece in pieces:
        growing.append(piece)
        parts = growing.parts
        assert parts[: len(complete)] == complete
        complete = tuple(part for part in parts if part.complete)
        if parts and not parts[-1].complete and data.draw(st.booleans()):
            shown_part = growing.prospect or parts[-1]
            assert parts[-1].text.startswith(shown_part.text)
            check_accepted((shown_part,))
            growing.note_shown(shown_part)
    parts = growing.finish()
    check_accepted(parts)
    assert parts[: len(complete)] == complete
    if formatting == "plain":
        expected = shown("plain", [whole], 4096)
        assert "".join("".join(p.text for p in parts).split()) == "".join("".join(p.text for p in expected).split())
        assert len(expected) != 1 or entities.units(expected[0].text) > LIMIT or parts == expected


WORDS = st.lists(
    st.sampled_from(["word", "words,", "sentence.", "2*3", "snake_case", "😀", "fin!"]), min_size=1, max_size=8
).map(" ".join)
INLINES = st.one_of(
    WORDS,
    *(WORDS.map(lambda text, m=m: f"{m}{text}{m}") for m in ("**", "*", "`", "~~")),
    WORDS.map(lambda text: f"[{text}](http://x.y/z)"),
    WORDS.map(lambda text: f"**bold and *{text}***"),
)
PARAGRAPHS = st.lists(INLINES, min_size=1, max_size=5).map(" ".join)
BLOCKS = st.one_of(
    PARAGRAPHS,
    PARAGRAPHS.map(lambda text: f"## {text}"),
    st.lists(PARAGRAPHS, min_size=1, max_size=4).map(lambda items: "\n".join(f"- {item}" for item in items)),
    st.lists(PARAGRAPHS, min_size=1, max_size=4).map(
        lambda items: "\n".join(f"1. {item}\n   - {item}" for item in items)
    ),
    st.lists(WORDS, max_size=6).map(lambda lines: "\n".join(["```python", *lines, "```"])),
    PARAGRAPHS.map(lambda text: f"> {text}"),
    st.lists(WORDS, min_size=2, max_size=2).map(lambda cells: f"| a | b |\n|---|---|\n| {cells[0]} | {cells[1]} |"),
    st.just("---"),
)
DOCUMENTS = st.lists(BLOCKS, min_size=1, max_size=6).map("\n\n".join)


@UNHURRIED
@given(DOCUMENTS, st.integers(1, 40))
def test_the_parts_show_all_that_a_document_shows(document: str, size: int) -> None:
    """In well-formed Markdown, whatever the states in between showed; marks and white space aside."""
    text = GrowingText("markdown", LIMIT)
    for start in range(0, len(document), size):
        text.append(document[start : start + size])
        assert text.parts is not None
    assert letters(text.finish()) == letters(shown("markdown", [document], 4096))


def letters(parts: tuple[TextPart, ...]) -> str:
    return re.sub(r"[\W_]", "", "".join(part.text for part in parts))
