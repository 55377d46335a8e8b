"""Reads Telegram's HTML that arrives in pieces.

An incomplete tag or character reference at the end waits for the rest. What Telegram would refuse, such as a tag that
it does not know or a ``<`` that is not escaped, is shown as it is. Source: the Bot API's "HTML style".
"""

from __future__ import annotations

import html
import re
from typing import Final

from floodgate.producer.streaming.text.formatted import FormattedText, TextStyle
from floodgate.producer.streaming.text.markup import MarkedText

_STYLES: Final = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
    "a": "text_link",
    "tg-emoji": "custom_emoji",
    "tg-time": "date_time",
}
_LONGEST_TAG: Final = 4096  # characters; a longer one is text
_TOKEN: Final = re.compile(
    r"<(?P<end>/?)(?P<name>[a-z][a-z0-9-]*)(?P<attributes>(?:\s[^<>]*)?)>|&(?:\#\d{1,7}|\#x[\da-f]{1,6}|lt|gt|amp|quot);",
    re.IGNORECASE,
)
_INCOMPLETE: Final = re.compile(r"<(?:/?(?:[a-z][a-z0-9-]*(?:\s[^<>]*)?)?)?$|&[#\w]{0,8}$", re.IGNORECASE)
_ATTRIBUTE: Final = re.compile(r"""([a-z-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""", re.IGNORECASE)
_LANGUAGE: Final = "language-"


class HtmlReader:
    """Reads Telegram's HTML."""

    def __init__(self) -> None:
        self._source = ""
        self._marked = MarkedText()

    def feed(self, piece: str) -> None:
        """Accept the next piece."""
        self._source += piece.replace("\r", "")

    def read(self, *, final: bool) -> tuple[FormattedText, FormattedText]:
        """Return what has settled since the last call, which is all except an incomplete tag at the end."""
        source = self._source
        incomplete = None if final else _INCOMPLETE.search(source, max(len(source) - _LONGEST_TAG, 0))
        end = incomplete.start() if incomplete else len(source)
        self._source = source[end:]
        position = 0
        for token in _TOKEN.finditer(source, 0, end):
            self._marked.add(source[position : token.start()])
            self._accept(token)
            position = token.end()
        self._marked.add(source[position:end])
        return self._marked.take(), FormattedText()

    def _accept(self, token: re.Match[str]) -> None:
        name = (token["name"] or "").lower()
        if not name:
            self._marked.add(html.unescape(token[0]))
        elif name not in _STYLES or (token["end"] and not self._marked.close(name)):
            self._marked.add(token[0])
        elif not token["end"]:
            self._open(name, _attributes(token["attributes"]))

    def _open(self, name: str, attributes: dict[str, str]) -> None:
        language = attributes.get("class", "")
        if name == "code" and self._marked.just_opened("pre"):
            if language.startswith(_LANGUAGE):
                self._marked.restyle("pre", TextStyle("pre", (("language", language.removeprefix(_LANGUAGE)),)))
            self._marked.open(name, None)
        else:
            self._marked.open(name, _style(name, attributes))


def _attributes(text: str) -> dict[str, str]:
    found = _ATTRIBUTE.findall(text)
    return {name.lower(): html.unescape(double or single or bare) for name, double, single, bare in found}


def _style(name: str, attributes: dict[str, str]) -> TextStyle | None:
    """Return what a tag stands for; None if it lacks what it needs."""
    match name:
        case "a":
            return TextStyle("text_link", (("url", attributes["href"]),)) if attributes.get("href") else None
        case "tg-emoji":
            emoji = attributes.get("emoji-id")
            return TextStyle("custom_emoji", (("custom_emoji_id", emoji),)) if emoji else None
        case "tg-time":
            return _time_style(attributes)
        case "span":
            return TextStyle("spoiler") if attributes.get("class") == "tg-spoiler" else None
        case "blockquote" if "expandable" in attributes:
            return TextStyle("expandable_blockquote")
        case _:
            return TextStyle(_STYLES[name])


def _time_style(attributes: dict[str, str]) -> TextStyle | None:
    moment, form = attributes.get("unix", ""), attributes.get("format")
    if not moment.isdecimal():
        return None
    return TextStyle("date_time", (("unix_time", int(moment)), *((("date_time_format", form),) if form else ())))
