"""Parses formatted text into plain text and entities, with Telegram's errors for invalid markup, and checks entities.

Offsets and lengths of entities count UTF-16 units; the byte offsets in errors count UTF-8 bytes. HTML has
Telegram's tags, MarkdownV2 its markers and its reserved characters, legacy Markdown its four markers; nesting rules
beyond balance are not checked in markup.

Entities that a call brings along must lie within the text, between whole characters, as Telegram demands. They must
also keep the rules for nesting in its documentation. (Telegram itself repairs entities that break these, and drops what
it cannot repair; a program whose formatting is not what it meant had better fail its tests.)
"""

from __future__ import annotations

import html
import re
from typing import Any, Final

from floodgate.fake_telegram.errors import ApiError, bad_request

Entity = dict[str, Any]

_HTML_TYPES: Final = {
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
    "a": "text_link",
    "blockquote": "blockquote",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
    "tg-emoji": "custom_emoji",
    "tg-time": "date_time",
}
_NESTING: Final = frozenset({"bold", "italic", "underline", "strikethrough", "spoiler"})
_QUOTES: Final = frozenset({"blockquote", "expandable_blockquote"})
_CODE: Final = frozenset({"code", "pre"})
_HTML_TAG: Final = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)([^<>]*)>")
_ATTRIBUTE: Final = re.compile(r'(href|emoji-id)\s*=\s*"([^"]*)"')
_LANGUAGE: Final = re.compile(r'class\s*=\s*"language-([^"]*)"')
_V2_RESERVED: Final = frozenset("_*[]()~`>#+-=|{}.!")
_V2_MARKERS: Final = {
    "__": "underline",
    "||": "spoiler",
    "*": "bold",
    "_": "italic",
    "~": "strikethrough",
}
_LEGACY_MARKERS: Final = {"*": "bold", "_": "italic"}


def parse(text: str, parse_mode: str) -> tuple[str, list[Entity]]:
    """Return the plain text and its entities.

    Raises:
        ApiError: The markup is not balanced, or the mode is unknown.
    """
    mode = parse_mode.lower()
    if mode in ("", "none"):
        return text, []
    if mode == "html":
        return _parse_html(text)
    if mode == "markdownv2":
        return _Markdown(text, _V2_MARKERS, _V2_RESERVED).parse()
    if mode == "markdown":
        return _Markdown(text, _LEGACY_MARKERS, frozenset()).parse()
    raise bad_request("unsupported parse_mode")


def checked(text: str, given: list[Any]) -> list[Entity]:
    """Return the entities of a call in order.

    Raises:
        ApiError: One is malformed, leaves the text, cuts a character in two, or is nested in what may not contain it.
    """
    found = sorted((_well_formed(entity) for entity in given), key=lambda e: (e["offset"], -e["length"]))
    bounds = _character_bounds(text)
    around: list[Entity] = []
    for entity in found:
        _check_position(entity, bounds, text)
        around = [other for other in around if _end(other) > entity["offset"]]
        _check_nesting(entity, around)
        around.append(entity)
    return found


def _end(entity: Entity) -> int:
    end: int = entity["offset"] + entity["length"]
    return end


def _well_formed(entity: Any) -> Entity:
    if not isinstance(entity, dict):
        raise bad_request("can't parse MessageEntity: expected an Object")
    for name, kind in (("type", str), ("offset", int), ("length", int)):
        if not isinstance(entity.get(name), kind):
            raise bad_request(f"can't parse MessageEntity: Can't find field \"{name}\"")
    if entity["offset"] < 0 or entity["length"] <= 0:
        raise bad_request("ENTITY_BOUNDS_INVALID")
    return entity


def _character_bounds(text: str) -> dict[int, int]:
    """Return the byte offset of each character, and of the end, by its UTF-16 offset."""
    bounds: dict[int, int] = {}
    wide = narrow = 0
    for character in text:
        bounds[wide] = narrow
        wide, narrow = wide + units(character), narrow + len(character.encode())
    bounds[wide] = narrow
    return bounds


def _check_position(entity: Entity, bounds: dict[int, int], text: str) -> None:
    start, end, length = entity["offset"], _end(entity), units(text)
    if start >= length:
        raise bad_request(f"entity begins after the end of the text at UTF-16 offset {start}")
    if end > length:
        raise bad_request(
            f"entity beginning at UTF-16 offset {start} ends after the end of the text at UTF-16 offset {end}"
        )
    if start not in bounds:
        raise bad_request(f"entity begins in a middle of a UTF-16 symbol at byte offset {bounds[start + 1]}")
    if end not in bounds:
        at = bounds[end + 1]
        raise bad_request(
            f"entity beginning at UTF-16 offset {start} ends in a middle of a UTF-16 symbol at byte offset {at}"
        )


def _check_nesting(entity: Entity, around: list[Entity]) -> None:
    for other in around:
        pair = f"{entity['type']} at UTF-16 offset {entity['offset']} and {other['type']} at {other['offset']}"
        if _end(entity) > _end(other):
            raise bad_request(f"entities overlap: {pair}")
        if not _may_contain(other["type"], entity["type"]):
            raise bad_request(f"entities may not contain each other: {pair}")


def _may_contain(outer: str, inner: str) -> bool:
    kinds = {outer, inner}
    if kinds & _CODE or kinds <= _QUOTES:
        return outer in _QUOTES and inner not in _QUOTES
    return outer != inner and (outer in _QUOTES or bool(kinds & _NESTING))


def units(text: str) -> int:
    """Return the length of a text in UTF-16 units, as entities count it."""
    return len(text.encode("utf-16-le")) // 2


def _cannot_parse(reason: str) -> ApiError:
    return bad_request(f"can't parse entities: {reason}")


def _byte_offset(text: str, position: int) -> int:
    return len(text[:position].encode())


def _parse_html(text: str) -> tuple[str, list[Entity]]:
    plain: list[str] = []
    open_tags: list[tuple[str, Entity]] = []
    entities: list[Entity] = []
    length = position = 0
    while position < len(text):
        start = text.find("<", position)
        chunk = html.unescape(text[position : start if start >= 0 else len(text)])
        plain.append(chunk)
        length += units(chunk)
        if start < 0:
            break
        tag = _HTML_TAG.match(text, start)
        if tag is None:
            raise _cannot_parse(f'unsupported start tag "" at byte offset {_byte_offset(text, start)}')
        if tag[1]:
            entities.append(_closed(open_tags, tag[2].lower(), length, _byte_offset(text, start)))
        else:
            opened = _opened(tag, length, _byte_offset(text, start))
            if open_tags and (open_tags[-1][0], tag[2].lower()) == ("pre", "code"):
                open_tags[-1][1].update({"language": name[1]} if (name := _LANGUAGE.search(tag[3])) else {})
                opened["type"] = ""  # the two tags are one entity
            open_tags.append((tag[2].lower(), opened))
        position = tag.end()
    if open_tags:
        raise _cannot_parse(f'can\'t find end tag corresponding to start tag "{open_tags[-1][0]}"')
    return "".join(plain), _in_order(entities)


def _opened(tag: re.Match[str], offset: int, at: int) -> Entity:
    kind = _HTML_TYPES.get(tag[2].lower())
    if kind is None:
        raise _cannot_parse(f'unsupported start tag "{tag[2].lower()}" at byte offset {at}')
    entity: Entity = {"type": kind, "offset": offset}
    for name, value in _ATTRIBUTE.findall(tag[3]):
        entity["url" if name == "href" else "custom_emoji_id"] = html.unescape(value)
    if kind == "blockquote" and "expandable" in tag[3]:
        entity["type"] = "expandable_blockquote"
    return entity


def _closed(open_tags: list[tuple[str, Entity]], name: str, end: int, at: int) -> Entity:
    if not open_tags:
        raise _cannot_parse(f"unexpected end tag at byte offset {at}")
    expected, entity = open_tags.pop()
    if name != expected:
        raise _cannot_parse(f'unmatched end tag at byte offset {at}, expected "</{expected}>", found "</{name}>"')
    entity["length"] = end - entity["offset"]
    return entity


def _in_order(entities: list[Entity]) -> list[Entity]:
    shown = (e for e in entities if e["length"] > 0 and e["type"])
    return sorted(shown, key=lambda e: (e["offset"], -e["length"]))


class _Markdown:
    """A parser of both kinds of Markdown, which differ in markers and reserved characters."""

    def __init__(self, text: str, markers: dict[str, str], reserved: frozenset[str]) -> None:
        self._text = text
        self._markers = markers
        self._reserved = reserved
        self._plain: list[str] = []
        self._length = 0
        self._open: list[tuple[str, Entity, int]] = []
        self._entities: list[Entity] = []
        self._quoted: Entity | None = None

    def parse(self) -> tuple[str, list[Entity]]:
        """Return the plain text and its entities."""
        position = 0
        while position < len(self._text):
            position = self._step(position)
        if self._open:
            raise self._unfinished(*self._open[-1][1:])
        self._end_quote()
        return "".join(self._plain), _in_order(self._entities)

    def _step(self, at: int) -> int:
        text = self._text
        character = text[at]
        if character == "\\" and at + 1 < len(text) and 0 < ord(text[at + 1]) < 127:
            return self._take(text[at + 1], at + 2)
        if character == "`":
            return self._code(at)
        marker = next((m for m in self._markers if text.startswith(m, at)), None)
        if marker is not None:
            return self._toggle(marker, at)
        if character == "[":
            return self._link(at)
        if character == ">" and self._reserved and (at == 0 or text[at - 1] == "\n"):
            return self._quote(at)
        if character == "\n" and self._quoted and not text.startswith(">", at + 1):
            self._end_quote()
        if character in self._reserved:
            raise _cannot_parse(f"character '{character}' is reserved and must be escaped with the preceding '\\'")
        return self._take(character, at + 1)

    def _take(self, characters: str, following: int) -> int:
        self._plain.append(characters)
        self._length += units(characters)
        return following

    def _toggle(self, marker: str, at: int) -> int:
        if self._open and self._open[-1][0] == marker:
            _, entity, _ = self._open.pop()
            entity["length"] = self._length - entity["offset"]
            self._entities.append(entity)
        else:
            self._open.append((marker, {"type": self._markers[marker], "offset": self._length}, at))
        return at + len(marker)

    def _quote(self, at: int) -> int:
        self._quoted = self._quoted or {"type": "blockquote", "offset": self._length}
        return at + 1

    def _end_quote(self) -> None:
        if self._quoted:
            self._entities.append({**self._quoted, "length": self._length - self._quoted["offset"]})
        self._quoted = None

    def _code(self, at: int) -> int:
        fence, kind = ("```", "pre") if self._text.startswith("```", at) else ("`", "code")
        found = re.compile(rf"((?:\\.|(?!{fence})[^\\])*){fence}", re.DOTALL).match(self._text, at + len(fence))
        entity: Entity = {"type": kind, "offset": self._length}
        if found is None:
            raise self._unfinished(entity, at)
        content, end = found[1], found.end(1)
        if kind == "pre":
            language, content = re.compile(r"(?:([^\s`]+)(?=\s))?\n?(.*)", re.DOTALL).fullmatch(content).groups()  # type: ignore[union-attr]
            entity.update({"language": language} if language else {})
        self._take(re.sub(r"\\(.)", r"\1", content, flags=re.DOTALL) if self._reserved else content, end)
        entity["length"] = self._length - entity["offset"]
        self._entities.append(entity)
        return end + len(fence)

    def _link(self, at: int) -> int:
        link = re.compile(r"\[((?:[^\]\\]|\\.)*)\]\(([^)]*)\)").match(self._text, at)
        if link is None:
            if self._reserved:
                raise self._unfinished({"type": "text_link"}, at)
            return self._take("[", at + 1)
        label = re.sub(r"\\(.)", r"\1", link[1])
        entity: Entity = {"type": "text_link", "offset": self._length, "url": link[2]}
        self._take(label, link.end())
        entity["length"] = self._length - entity["offset"]
        self._entities.append(entity)
        return link.end()

    def _unfinished(self, entity: Entity, at: int) -> ApiError:
        kind = {"text_link": "a TextUrl"}.get(entity["type"], f"{entity['type'].capitalize()}")
        named = f"can't find end of {kind} entity" if self._reserved else "can't find end of the entity starting"
        return _cannot_parse(f"{named} at byte offset {_byte_offset(self._text, at)}")
