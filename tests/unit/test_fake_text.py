"""How the fake reads formatted text and parameters."""

from __future__ import annotations

import pytest

from floodgate.fake_telegram.calls import Call, CallSource, decode_form, decode_json, kept
from floodgate.fake_telegram.entities import checked, parse
from floodgate.fake_telegram.errors import ApiError


def refusal(text: str, mode: str) -> str:
    with pytest.raises(ApiError) as caught:
        parse(text, mode)
    assert caught.value.code == 400
    return caught.value.description


def test_html_becomes_text_with_entities_in_utf16_units() -> None:
    text, found = parse('😀 <b>bold &amp; <i>it</i></b> <a href="https://t.me/?a=1&amp;b">x</a>', "HTML")
    assert text == "😀 bold & it x"
    assert found == [
        {"type": "bold", "offset": 3, "length": 9},
        {"type": "italic", "offset": 10, "length": 2},
        {"type": "text_link", "offset": 13, "length": 1, "url": "https://t.me/?a=1&b"},
    ]


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        ("<b>x", "HTML", 'can\'t find end tag corresponding to start tag "b"'),
        ("é<x>y</x>", "HTML", 'unsupported start tag "x" at byte offset 2'),
        ("x</b>", "HTML", "unexpected end tag at byte offset 1"),
        ("<b>x</i>", "HTML", 'unmatched end tag at byte offset 4, expected "</b>", found "</i>"'),
        ("1 < 2", "HTML", 'unsupported start tag "" at byte offset 2'),
        ("a.", "MarkdownV2", "character '.' is reserved and must be escaped with the preceding '\\'"),
        ("*x", "MarkdownV2", "can't find end of Bold entity at byte offset 0"),
        ("snake_case", "Markdown", "can't find end of the entity starting at byte offset 5"),
    ],
)
def test_unbalanced_markup_is_refused_in_telegrams_words(text: str, mode: str, reason: str) -> None:
    assert refusal(text, mode) == f"Bad Request: can't parse entities: {reason}"


def test_an_unknown_parse_mode_is_refused() -> None:
    assert refusal("x", "RTF") == "Bad Request: unsupported parse_mode"


@pytest.mark.parametrize(
    ("text", "mode", "plain", "kinds"),
    [
        (
            "*b* _i_ __u__ ~s~ ||p|| `c`",
            "MarkdownV2",
            "b i u s p c",
            "bold italic underline strikethrough spoiler code",
        ),
        ("1\\. [x](http://y.z/)", "MarkdownV2", "1. x", "text_link"),
        ("*b* _i_ `c` [x](http://y.z/) a.b!", "Markdown", "b i c x a.b!", "bold italic code text_link"),
        ("```python\ncode```", "MarkdownV2", "code", "pre"),
        (">quoted\n>more\nnot", "MarkdownV2", "quoted\nmore\nnot", "blockquote"),
        ("as *it* is", "", "as *it* is", ""),
    ],
)
def test_markdown_becomes_text_and_entities(text: str, mode: str, plain: str, kinds: str) -> None:
    found_text, found = parse(text, mode)
    assert (found_text, [e["type"] for e in found]) == (plain, kinds.split())


def answer_to(text: str, *given: tuple[str, int, int]) -> str | None:
    """Telegram's answer to entities."""
    entities = [{"type": kind, "offset": offset, "length": length} for kind, offset, length in given]
    try:
        checked(text, entities)
    except ApiError as error:
        return error.description.removeprefix("Bad Request: ")
    return None


@pytest.mark.parametrize(
    ("text", "given", "reason"),
    [
        ("😀 is", [("bold", 0, 2)], None),
        ("😀 is", [("bold", 1, 2)], "entity begins in a middle of a UTF-16 symbol at byte offset 4"),
        (
            "is 😀",
            [("bold", 0, 4)],
            "entity beginning at UTF-16 offset 0 ends in a middle of a UTF-16 symbol at byte offset 7",
        ),
        (
            "is 😀",
            [("bold", 0, 6)],
            "entity beginning at UTF-16 offset 0 ends after the end of the text at UTF-16 offset 6",
        ),
        ("is 😀", [("bold", 5, 1)], "entity begins after the end of the text at UTF-16 offset 5"),
        ("is", [("bold", 0, 0)], "ENTITY_BOUNDS_INVALID"),
        ("within", [("italic", 2, 2), ("bold", 0, 4)], None),
        ("across", [("bold", 0, 4), ("italic", 2, 4)], "entities overlap: italic at UTF-16 offset 2 and bold at 0"),
        ("code", [("blockquote", 0, 4), ("code", 1, 2)], None),
        (
            "code",
            [("bold", 0, 4), ("code", 1, 2)],
            "entities may not contain each other: code at UTF-16 offset 1 and bold at 0",
        ),
    ],
)
def test_entities_lie_within_the_text_between_characters_and_within_each_other(
    text: str, given: list[tuple[str, int, int]], reason: str | None
) -> None:
    assert answer_to(text, *given) == reason


def test_html_code_in_a_code_block_gives_its_language() -> None:
    text, found = parse('<pre><code class="language-python">x</code></pre>', "HTML")
    assert (text, found) == ("x", [{"type": "pre", "offset": 0, "length": 1, "language": "python"}])


def test_parameters_from_a_form_and_from_json_are_equivalent() -> None:
    form = Call(1, "x", decode_form(b"chat_id=-5&flag=True&ids=%5B1%2C2%5D&text=%C3%A9"))
    body = Call(1, "x", decode_json(b'{"chat_id": -5, "flag": true, "ids": [1, 2], "text": "\\u00e9"}'))
    for call in (form, body):
        assert (call.integer("chat_id"), call.flag("flag"), call.text("text")) == (-5, True, "é")
        assert call.array("ids", "ids") == [1, 2]


def test_an_invalid_number_counts_as_zero() -> None:
    assert Call(1, "x", {"n": "many"}).integer("n") == 0


def test_a_parameter_with_invalid_json_is_named() -> None:
    with pytest.raises(ApiError, match="400") as caught:
        Call(1, "x", {"reply_markup": "{"}).structure("reply_markup", "reply keyboard markup")
    assert caught.value.description == "Bad Request: can't parse reply keyboard markup JSON object"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode_json(body)
    assert caught.value.code == 400


def test_a_long_body_is_not_recorded() -> None:
    assert kept(CallSource("form", b"x" * 100_000)).params() == {"too_long_to_keep_bytes": 100_000}
