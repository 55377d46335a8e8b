"""Validates a call's parameters without asking Telegram.

``checked`` is a pure function over two tables: the parameters a method requires
(:mod:`floodgate.broker.messages.method_table`) and, below, the form a parameter must have wherever it occurs. When in
doubt, and for a method that is newer than the table, it lets a call through: Telegram has the last word, and a job that
Telegram refuses becomes a dead letter with Telegram's reason. So lengths are counted in code points, which is never
more than Telegram counts, and without the white space that Telegram strips. With a ``parse_mode`` they are not checked
at all, since only the text that remains after parsing counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.method_table import METHODS
from floodgate.producer.parameters import missing
from floodgate.producer.uploads import Attached, is_file

MAX_TEXT: Final = 4096
MAX_CAPTION: Final = 1024
MAX_BULK_IDS: Final = 100
# Far deeper than any Bot API object; a structure that contains itself ends here.
MAX_DEPTH: Final = 32

_PARSE_MODES: Final = frozenset({"html", "markdown", "markdownv2", "none"})
# Telegram trims these. Whatever else it trims is undocumented, so it counts here.
_BLANKS: Final = " \t\r\n"

# Minimum and maximum length of `text`, by method.
_TEXT: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "sendMessage": (1, MAX_TEXT),
        "editMessageText": (1, MAX_TEXT),
        "sendMessageDraft": (0, MAX_TEXT),
        "answerCallbackQuery": (0, 200),
    }
)

# Minimum and maximum number of items in `media`, by method.
_MEDIA: Final[Mapping[str, tuple[int, int]]] = MappingProxyType({"sendMediaGroup": (2, 10), "sendPaidMedia": (1, 10)})

Params = Mapping[str, Any]


def checked(method: str, params: Params) -> dict[str, Any]:
    """Validate a call's parameters and return them as a job carries them: without None, and with JSON text decoded
    where the Bot API expects an object.

    Args:
        method: the method's name in the Bot API's spelling.

    Raises:
        InvalidParamsError: names the parameter and says what to give instead.
    """
    given = {name: value for name, value in params.items() if value is not None}
    if method not in METHODS:  # newer: only what JSON cannot carry is certainly wrong
        _check_all_carried(given)
        return given
    given = {name: _decoded(name, value) for name, value in given.items()}
    if lacking := missing(method, given):
        raise InvalidParamsError(f"{method} needs {lacking}.")
    _check_all_carried(given)
    for name in given.keys() & _CHECKS.keys():
        _CHECKS[name](method, given)
    return given


def _decoded(name: str, value: Any) -> Any:
    """Decode a list or an object given as JSON text, which Telegram accepts too: an album's items must be counted."""
    if name not in _OBJECTS or not isinstance(value, str) or isinstance(value, Attached):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise InvalidParamsError(f"{name} is a string but not valid JSON: pass the list or dict itself.") from None


def _check_all_carried(params: Params) -> None:
    for name, value in params.items():
        _check_carried(name, value, MAX_DEPTH)


def _check_carried(name: str, value: Any, depth: int) -> None:
    """Reject what JSON cannot carry: it knows strings, numbers, lists and dicts with string keys."""
    match value:
        case bool() | int() | None:
            return
        case str():
            _check_text_carried(name, value)
        case float():
            if not isfinite(value):
                raise InvalidParamsError(f"{name} is {value}, which JSON cannot carry.")
        case list() | tuple() | dict():
            _check_children(name, value, depth)
        case _:
            raise InvalidParamsError(f"{name} {_instead(value)}")


def _check_text_carried(name: str, value: str) -> None:
    if value.startswith("attach://") and not isinstance(value, Attached):
        raise InvalidParamsError(f"{name} refers to an upload: pass the file itself, as a path, bytes or an open file.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidParamsError(f"{name} contains an unpaired surrogate, which is not valid text: remove it.")


def _check_children(name: str, value: list[Any] | tuple[Any, ...] | dict[Any, Any], depth: int) -> None:
    if depth == 0:
        raise InvalidParamsError(f"{name} is nested more than {MAX_DEPTH} levels deep, or contains itself.")
    if not isinstance(value, dict):
        for item in value:
            _check_carried(name, item, depth - 1)
        return
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidParamsError(f"{name} has the key {key!r}: keys must be strings.")
        _check_carried(f"{name}.{key}", item, depth - 1)


def _instead(value: Any) -> str:
    kind = type(value).__name__
    if is_file(value):
        return f"is a file ({kind}): pass files only as file parameters, and not to job(), which accepts none."
    if hasattr(value, "to_dict"):
        return f"is a {kind}: pass its .to_dict()."
    if hasattr(value, "model_dump"):
        return f"is a {kind}: pass its .model_dump(exclude_none=True)."
    return f"is a {kind}, which JSON cannot carry: use strings, numbers, lists and dicts."


def _check_text(method: str, params: Params) -> None:
    text = params["text"]
    if not isinstance(text, str):
        raise InvalidParamsError(f"text must be a str, not {type(text).__name__}.")
    fewest, most = _TEXT.get(method, (0, 0))
    if fewest and not text.strip(_BLANKS):
        raise InvalidParamsError("text is empty: Telegram does not send empty messages.")
    if most:
        _check_length("text", text, most, params)


def _check_caption(_method: str, params: Params) -> None:
    if not isinstance(params["caption"], str):
        raise InvalidParamsError(f"caption must be a str, not {type(params['caption']).__name__}.")
    _check_length("caption", params["caption"], MAX_CAPTION, params)


def _check_length(name: str, text: str, most: int, params: Params) -> None:
    if len(text) <= most or params.get("parse_mode") is not None:
        return
    if (length := len(text.strip(_BLANKS))) > most:
        raise InvalidParamsError(f"{name} has {length} characters and Telegram accepts {most}: split it.")


def _check_parse_mode(_method: str, params: Params) -> None:
    mode = params["parse_mode"]
    if not isinstance(mode, str) or (mode and mode.lower() not in _PARSE_MODES):
        raise InvalidParamsError(f"parse_mode {str(mode)[:40]!r} is unknown: use HTML, MarkdownV2 or Markdown.")


def _check_message_id(_method: str, params: Params) -> None:
    if not _is_id(params["message_id"]):
        raise InvalidParamsError("message_id must be a positive number.")


def _check_message_ids(_method: str, params: Params) -> None:
    ids = params["message_ids"]
    if not isinstance(ids, list | tuple) or not all(_is_id(item) for item in ids):
        raise InvalidParamsError("message_ids must be a list of positive numbers.")
    if not 1 <= len(ids) <= MAX_BULK_IDS:
        raise InvalidParamsError(
            f"message_ids has {len(ids)} ids and Telegram accepts 1 to {MAX_BULK_IDS} in one call."
        )


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and int(value[:20]) > 0
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_media(method: str, params: Params) -> None:
    media = params["media"]
    if method == "editMessageMedia":
        _check_item("media", media)
    if method not in _MEDIA:
        return
    fewest, most = _MEDIA[method]
    if not isinstance(media, list | tuple):
        raise InvalidParamsError("media must be a list of dicts, one for each photo, video, document or audio.")
    if not fewest <= len(media) <= most:
        raise InvalidParamsError(f"media has {len(media)} items and {method} accepts {fewest} to {most}.")
    for number, item in enumerate(media):
        _check_item(f"media[{number}]", item)


def _check_item(name: str, item: Any) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str) or not isinstance(item.get("media"), str):
        raise InvalidParamsError(f'{name} must be a dict such as {{"type": "photo", "media": "<file_id or URL>"}}.')
    if isinstance(caption := item.get("caption"), str):
        _check_length(f"{name}.caption", caption, MAX_CAPTION, item)


def _check_object(name: str) -> Callable[[str, Params], None]:
    def check(_method: str, params: Params) -> None:
        if not isinstance(params[name], dict):
            raise InvalidParamsError(f"{name} must be a dict as the Bot API describes it.")

    return check


def _check_entities(name: str) -> Callable[[str, Params], None]:
    def check(_method: str, params: Params) -> None:
        entities = params[name]
        if not isinstance(entities, list | tuple) or not all(isinstance(entity, dict) for entity in entities):
            raise InvalidParamsError(f"{name} must be a list of dicts as the Bot API describes MessageEntity.")

    return check


_CHECKS: Final[Mapping[str, Callable[[str, Params], None]]] = MappingProxyType(
    {
        "text": _check_text,
        "caption": _check_caption,
        "parse_mode": _check_parse_mode,
        "message_id": _check_message_id,
        "message_ids": _check_message_ids,
        "media": _check_media,
        "entities": _check_entities("entities"),
        "caption_entities": _check_entities("caption_entities"),
        "reply_markup": _check_object("reply_markup"),
        "reply_parameters": _check_object("reply_parameters"),
        "link_preview_options": _check_object("link_preview_options"),
    }
)

_OBJECTS: Final = frozenset(_CHECKS) - {"text", "caption", "parse_mode", "message_id"}
