"""Reads Telegram's MarkdownV2 that arrives in pieces.

An incomplete marker, escape or link at the end waits for the rest. A block quotation is provisional until its end says
whether it is expandable, and the label of a link until its address has come. What Telegram would refuse, such as a
reserved character that is not escaped, is shown as it is. Source: the Bot API's "MarkdownV2 style".
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

from floodgate.producer.streaming.text.formatted import FormattedText, TextStyle
from floodgate.producer.streaming.text.markup import MarkedText

LONGEST_CONSTRUCT: Final = 8192  # characters; a longer quotation or label settles as what it seems to be

_MARKERS: Final = {
    "*": TextStyle("bold"),
    "_": TextStyle("italic"),
    "__": TextStyle("underline"),
    "~": TextStyle("strikethrough"),
    "||": TextStyle("spoiler"),
    "`": TextStyle("code"),
}
_CODE, _PRE, _LINK, _QUOTE = "`", "```", "[", ">"
_EXPANDABLE: Final = TextStyle("expandable_blockquote")
_ESCAPE: Final = r"\\[\x01-\x7e]?"
_OUTSIDE: Final = re.compile(
    rf"{_ESCAPE}|```(?:[^\s`]+(?=\s))?\n?|`|__?|\*|~|\|\|?|!\[?|\[|\]\((?:\\.|[^\\)\n])*\)|\]|\n|>"
)
_IN_CODE: Final = re.compile(rf"{_ESCAPE}|`")
_IN_PRE: Final = re.compile(rf"{_ESCAPE}|`{{1,3}}")
_INCOMPLETE: Final = re.compile(r"(?:\\|_|\||!|\](?:\((?:\\.|[^\\)\n])*\\?)?|```[^\s`]*|``?)$")
_INCOMPLETE_IN_PRE: Final = re.compile(r"(?:\\|``?)$")
_WHOLE_LINK: Final = re.compile(r"!?\[(?:\\.|[^\\\[\]])*\]\(((?:\\.|[^\\)\n])*)\)", re.DOTALL)
_BEGUN_LINK: Final = re.compile(r"!?\[(?:\\.|[^\\\[\]])*(?:\\|\](?:\((?:\\.|[^\\)\n])*\\?)?)?$", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\([\x01-\x7e])")


class MarkdownV2Reader:
    """Reads Telegram's MarkdownV2."""

    def __init__(self) -> None:
        self._source = ""  # what has not settled
        self._marked = MarkedText()

    def feed(self, piece: str) -> None:
        """Accept the next piece."""
        self._source += piece

    def read(self, *, final: bool) -> tuple[FormattedText, FormattedText]:
        """Return what has settled since the last call, and what is provisional."""
        scan = _Scan(self._marked.copy(), self._source, final=final)
        scan.run()
        whole = scan.marked.take()
        if final or scan.position - scan.safe > LONGEST_CONSTRUCT:
            self._marked, settled = scan.marked, whole
            self._source = self._source[scan.position :]
        else:
            again = _Scan(self._marked, self._source, final=final)
            again.run(scan.safe)
            settled = self._marked.take()
            self._source = self._source[scan.safe :]
        return settled, whole.cut(len(settled.text))


class _Scan:
    """Reads a source up to an incomplete construct at its end."""

    def __init__(self, marked: MarkedText, source: str, *, final: bool) -> None:
        self.marked = marked
        self.position = 0
        self.safe = 0  # up to here, nothing changes any more
        self._source = source
        self._final = final

    def run(self, stop: int | None = None) -> None:
        """Read the source, or a part of it that is known to be complete."""
        stop = len(self._source) if stop is None else stop
        while self.position < stop:
            token = self._pattern().search(self._source, self.position)
            if token is None or token.start() >= stop:
                self.marked.add(self._source[self.position : stop].replace("\r", ""))
                self.position = stop
            else:
                self.marked.add(self._source[self.position : token.start()].replace("\r", ""))
                self.position = token.start()
                if self._is_incomplete(token):
                    break
                self._accept(token)
            self._note_safety()

    def _note_safety(self) -> None:
        if not self.marked.is_open(_QUOTE) and not self.marked.is_open(_LINK):
            self.safe = self.position

    def _pattern(self) -> re.Pattern[str]:
        if self.marked.is_open(_PRE):
            return _IN_PRE
        return _IN_CODE if self.marked.is_open(_CODE) else _OUTSIDE

    def _is_incomplete(self, token: re.Match[str]) -> bool:
        if self._final:
            return False
        if token.re is _OUTSIDE:
            at_end_of_quote = token[0] in ("\n", "||") and self.marked.is_open(_QUOTE)
            return _INCOMPLETE.match(self._source, token.start()) is not None or (
                at_end_of_quote and token.end() == len(self._source)
            )
        pattern = _INCOMPLETE_IN_PRE if token.re is _IN_PRE else re.compile(r"\\$")
        return pattern.match(self._source, token.start()) is not None

    def _accept(self, token: re.Match[str]) -> None:
        mark = token[0]
        self.position = token.end()
        if mark.startswith("\\"):
            self.marked.add(mark[1:] or mark)
        elif token.re is not _OUTSIDE:
            self._end_code(mark)
        elif mark.startswith("```"):
            language = mark.removeprefix("```").strip()
            self.marked.open(_PRE, TextStyle("pre", (("language", language),) if language else ()))
        elif mark == "\n":
            self._end_line()
        elif mark == ">" and self.marked.at_line_start and not self.marked.is_open(_QUOTE):
            self.marked.open(_QUOTE, TextStyle("blockquote"))
        elif mark == "||" and self._at_end_of_quote():
            self.marked.restyle(_QUOTE, _EXPANDABLE)
        elif mark in _MARKERS:
            if not self.marked.close(mark):
                self.marked.open(mark, _MARKERS[mark])
        elif mark in ("[", "!["):
            self._begin_link(token)
        elif not (mark.startswith("](") and self.marked.close(_LINK)):
            self.marked.add(mark)

    def _end_code(self, mark: str) -> None:
        name = _PRE if self.marked.is_open(_PRE) else _CODE
        if mark != name or not self.marked.close(name):
            self.marked.add(mark)

    def _end_line(self) -> None:
        if self._source.startswith(">", self.position) and self.marked.is_open(_QUOTE):
            self.position += 1
        else:
            self.marked.close(_QUOTE)
        self.marked.add("\n")

    def _at_end_of_quote(self) -> bool:
        following = self._source[self.position : self.position + 2]
        ends = not following or (following.startswith("\n") and following != "\n>")
        return ends and self.marked.is_open(_QUOTE) and not self.marked.is_open("||")

    def _begin_link(self, token: re.Match[str]) -> None:
        if self.marked.is_open(_LINK):
            self.marked.add(token[0])
        elif whole := _WHOLE_LINK.match(self._source, token.start()):
            self.marked.open(_LINK, _link_style(_ESCAPED.sub(r"\1", whole[1])))
        elif not self._final and _BEGUN_LINK.match(self._source, token.start()):
            self.marked.open(_LINK, None)
        else:
            self.marked.add(token[0])


def _link_style(url: str) -> TextStyle:
    address = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(address.query).items()}
    match address.scheme, address.netloc:
        case "tg", "emoji" if "id" in query:
            return TextStyle("custom_emoji", (("custom_emoji_id", query["id"]),))
        case "tg", "time" if query.get("unix", "").isdecimal():
            form = query.get("format")
            details = (("date_time_format", form),) if form else ()
            return TextStyle("date_time", (("unix_time", int(query["unix"])), *details))
        case _:
            return TextStyle("text_link", (("url", url),))
