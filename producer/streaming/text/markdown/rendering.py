"""Renders Markdown as formatted text, with a readable substitute for whatever Telegram cannot show.

A heading becomes a bold line, a list has bullets or its numbers and is indented by its depth, a row of a table becomes
a line, an image a link, a rule a line of dashes. Blocks are apart by a blank line where they are in the source. How a
block is rendered never depends on what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from markdown_it.token import Token

from floodgate.producer.streaming.text.formatted import FormattedText, StyledSpan, TextStyle, joined
from floodgate.producer.streaming.text.markdown.parser import parse_inline

_RULE: Final = "———"
_BULLET: Final = "•"
_INDENT: Final = "  "
_BETWEEN_CELLS: Final = " | "
_BOLD: Final = TextStyle("bold")
_QUOTE: Final = TextStyle("blockquote")
_STYLES: Final = {"strong": _BOLD, "em": TextStyle("italic"), "s": TextStyle("strikethrough")}
_CODE: Final = TextStyle("code")
_LINKED: Final = re.compile(r"(?:https?|tg|ton|mailto|tel):", re.IGNORECASE)  # what Telegram accepts as a link
_LINE_BREAK_TAG: Final = re.compile(r"<br ?/?>", re.IGNORECASE)
_LANGUAGE: Final = re.compile(r"[\w+#.-]+")

Inline = Callable[[Token], FormattedText]
"""Renders the content of an ``inline`` token."""


def code_style(info: str) -> TextStyle:
    """Return the style of a code block. ``info`` is what stands after the opening fence."""
    language = _LANGUAGE.search(info)
    return TextStyle("pre", (("language", language[0]),) if language else ())


def render_inline(content: str) -> FormattedText:
    """Render a paragraph's content."""
    return _inline(parse_inline(content))


def _inline(tokens: list[Token]) -> FormattedText:
    pieces: list[str] = []
    spans: list[StyledSpan] = []
    opened: list[tuple[int, TextStyle | None]] = []
    length = 0
    for token in tokens:
        if token.nesting > 0:
            opened.append((length, _style(token)))
        elif token.nesting < 0:
            start, style = opened.pop()
            if style:
                spans.append(StyledSpan(start, length, style))
        else:
            leaf = _leaf(token)
            spans.extend(StyledSpan(start + length, end + length, style) for start, end, style in leaf.spans)
            pieces.append(leaf.text)
            length += len(leaf.text)
    return FormattedText("".join(pieces), tuple(spans))


def _leaf(token: Token) -> FormattedText:
    match token.type:
        case "softbreak" | "hardbreak":
            return FormattedText("\n")
        case "code_inline":
            return FormattedText(token.content).styled(_CODE)
        case "image":
            source = str(token.attrs.get("src", ""))
            alt = _inline(token.children or [])
            return _linked(alt if alt.text.strip() else FormattedText(source), source)
        case _:
            return FormattedText(_LINE_BREAK_TAG.sub("\n", token.content))


def _style(token: Token) -> TextStyle | None:
    if token.type == "link_open":
        url = str(token.attrs.get("href", ""))
        return _link_style(url) if token.markup != "autolink" else None  # Telegram finds bare links itself
    return _STYLES.get(token.tag)


def _link_style(url: str) -> TextStyle | None:
    return TextStyle("text_link", (("url", url),)) if _LINKED.match(url) else None


def _linked(text: FormattedText, url: str) -> FormattedText:
    style = _link_style(url)
    return text.styled(style) if style else text


class BlockRenderer:
    """Renders the tokens of blocks."""

    def __init__(self, lines: list[str], inline: Inline) -> None:
        """Create a renderer of blocks whose tokens refer to ``lines``."""
        self._lines = lines
        self._inline = inline

    def render(self, tokens: list[Token]) -> FormattedText:
        """Render blocks, one below the other."""
        return self._blocks(tokens, lists=0, quotes=0)

    def separator(self, line: int) -> str:
        """Return what separates the block that starts at a line from the one before it."""
        return "\n" if line == 0 or self._lines[line - 1].strip(" \t>") else "\n\n"

    def _blocks(self, tokens: list[Token], *, lists: int, quotes: int) -> FormattedText:
        pieces: list[FormattedText] = []
        for block in blocks(tokens):
            rendered = self._block(block, lists=lists, quotes=quotes)
            if rendered.text:
                if pieces:
                    pieces.append(FormattedText(self.separator(block[0].map[0] if block[0].map else 0)))
                pieces.append(rendered)
        return joined(pieces)

    def _block(self, tokens: list[Token], *, lists: int, quotes: int) -> FormattedText:
        first, inside = tokens[0], tokens[1:-1]
        match first.type:
            case "paragraph_open":
                return self._inline(inside[0])
            case "heading_open":
                return self._inline(inside[0]).styled(_BOLD)
            case "fence" | "code_block":
                return FormattedText(first.content.rstrip("\n")).styled(code_style(first.info))
            case "hr":
                return FormattedText(_RULE)
            case "blockquote_open":
                quoted = self._blocks(inside, lists=lists, quotes=quotes + 1)
                return quoted if quotes else quoted.styled(_QUOTE)
            case "bullet_list_open" | "ordered_list_open":
                return self._blocks(inside, lists=lists + 1, quotes=quotes)
            case "list_item_open":
                return self._item(tokens, lists=lists, quotes=quotes)
            case "table_open":
                return self._table(inside)
            case _:
                return FormattedText(first.content)

    def _item(self, tokens: list[Token], *, lists: int, quotes: int) -> FormattedText:
        content = self._blocks(tokens[1:-1], lists=lists, quotes=quotes)
        if not content.text:
            return content
        marker = f"{tokens[0].info}." if tokens[0].info else _BULLET
        starts_with_text = tokens[1].type == "paragraph_open"
        return joined((FormattedText(_INDENT * (lists - 1) + marker + (" " if starts_with_text else "\n")), content))

    def _table(self, tokens: list[Token]) -> FormattedText:
        rows: list[FormattedText] = []
        cells: list[FormattedText] = []
        for token in tokens:
            if token.type == "inline":
                cells += [FormattedText(_BETWEEN_CELLS), self._inline(token)]
            elif token.type == "tr_close":
                row = joined(cells[1:])
                rows += [FormattedText("\n"), row if rows else row.styled(_BOLD)]
                cells = []
        return joined(rows[1:])


def blocks(tokens: list[Token]) -> Iterator[list[Token]]:
    """Yield the tokens of each block on the highest level."""
    depth = start = 0
    for position, token in enumerate(tokens):
        depth += token.nesting
        if depth == 0:
            yield tokens[start : position + 1]
            start = position + 1
