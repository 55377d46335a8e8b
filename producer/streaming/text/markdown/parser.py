"""The Markdown parser and what it is set to."""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_inline.balance_pairs import link_pairs
from markdown_it.rules_inline.state_inline import StateInline
from markdown_it.token import Token


@cache
def _markdown_it() -> MarkdownIt:
    """The parser, which has no state of its own.

    HTML is text. So are link reference definitions, for they would change what was shown long before.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return parser.disable(["reference", "html_block", "html_inline"])


def parse_blocks(source: str) -> list[Token]:
    """Return the blocks of a text. The content of their ``inline`` tokens is not parsed."""
    tokens: list[Token] = []
    _markdown_it().block.parse(source, _markdown_it(), {}, tokens)
    return tokens


def parse_inline(content: str) -> list[Token]:
    """Return the tokens of a paragraph's content."""
    tokens: list[Token] = []
    _markdown_it().inline.parse(content, _markdown_it(), {}, tokens)
    return tokens


def closers(content: str) -> str:
    """Return what closes the emphasis and strikethrough that is open at the end of a paragraph's content.

    A marker within a word, as in ``2*3``, is taken for a character until its counterpart has come.
    """
    state = StateInline(content, _markdown_it(), {}, [])
    _markdown_it().inline.tokenize(state)
    link_pairs(state)
    opened = [d for d in state.delimiters if d.open and d.end < 0 and not _within_word(state.tokens, d.token)]
    return "".join("~~" if d.marker == ord("~") else chr(d.marker) for d in reversed(opened))


def _within_word(tokens: list[Token], marker: int) -> bool:
    while marker and tokens[marker - 1].content == tokens[marker].content:
        marker -= 1
    return marker > 0 and tokens[marker - 1].content[-1:].isalnum()
