"""Parameters that name a file on the Bot API server's own disk.

A local Bot API server (``--local``) reads ``file:/…`` in any parameter that takes a file, and sends what it finds: its
own database, its environment, other bots' tokens. Callers have no business there; they give the file itself, a
``file_id`` or a URL. The server matches the lower-case scheme at the very start; this is stricter, and also refuses
plain paths, which no server would find.

Pure. Parameters come as values or as the JSON text of values, at any depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

FILE_FIELDS: Final = frozenset(
    {
        *("photo", "audio", "document", "video", "animation", "voice", "video_note", "live_photo", "sticker"),
        *("thumbnail", "cover", "certificate", "media"),
    }
)
"""The parameters, and the fields of objects in them, that take a file. A test asks python-telegram-bot."""

# Names that the server still knows from earlier Bot APIs.
_FILES: Final = FILE_FIELDS | {"thumb", "png_sticker", "tgs_sticker", "webm_sticker"}
# These hold objects with files, and nothing else that starts with a bracket.
_HOLDERS: Final = _FILES | {"stickers", "content"}
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,100}")
_LOCAL: Final = re.compile(r"[\s\0]*(file:|~|\.{0,2}[/\\]|[a-z]:[/\\])", re.IGNORECASE)
_BLANKS: Final = " \t\r\n\v\0"  # the server's JSON reader skips them


class _Pairs(list[tuple[str, Any]]):
    """An object's fields, repeated ones included: the server takes the first, Python the last."""


def check_params(params: Mapping[str, Any]) -> None:
    """Refuse parameters that name a file on the server's disk, and malformed parameter names.

    Raises:
        ValueError: a parameter names such a file, or its name is ambiguous in a form. The message says what to give
            instead.
    """
    for name in params:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not a parameter's name: use letters, digits and '_'")
    if (where := local_file_in(params)) is not None:
        raise ValueError(
            f"{where} must be a file_id, an http(s) URL or valid JSON, or the file itself: "
            "paths on the Bot API server's disk are not passed on"
        )


def local_file_in(params: Mapping[str, Any]) -> str | None:
    """Return where the parameters name a file on the server's disk, as in ``media[0].thumbnail``, or None."""
    left: list[tuple[str, str, Any]] = [(name, name, value) for name, value in params.items()]
    while left:
        field, where, value = left.pop()
        if isinstance(value, str):
            if field in _FILES and _LOCAL.match(value):
                return where
            if value.lstrip(_BLANKS)[:1] in ("[", "{"):
                decoded = _decoded(value)
                if decoded is None and field in _HOLDERS:
                    return where  # the server may read it, and what it reads is not known
                left += _parts(field, where, decoded)
        else:
            left += _parts(field, where, value)
    return None


def _parts(field: str, where: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, dict):
        value = _Pairs(value.items())
    if isinstance(value, _Pairs):
        return ((str(name), f"{where}.{name}", item) for name, item in value)
    if isinstance(value, list | tuple):
        return ((field, f"{where}[{at}]", item) for at, item in enumerate(value))
    return iter(())


def _decoded(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs, strict=False)
    except (ValueError, RecursionError):
        return None
