"""The files that Telegram knows: uploaded, fetched from a URL, or sent by users.

A ``file_id`` is valid only for the bot that it was issued to. Up to ``CONTENT_BYTES`` of contents are kept for
download, and the oldest are dropped first; a file whose content was dropped can still be sent by its id. Used by the
event loop only.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

CONTENT_BYTES: Final = 64 * 1024 * 1024
FILES: Final = 100_000
DOWNLOAD_BYTES: Final = 20 * 1024 * 1024  # getFile serves no larger file


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as one bot knows it. ``kind`` is Telegram's name for its type: Photo, Document, …"""

    file_id: str
    unique_id: str
    bot_id: int
    kind: str
    size: int
    name: str
    mime_type: str

    @property
    def path(self) -> str:
        """The path for a download from ``/file/bot<token>/<path>``."""
        return f"{self.kind.lower()}s/{self.unique_id}_{self.name}"

    def as_json(self) -> dict[str, Any]:
        """Return the fields that every file object of the Bot API has."""
        return {"file_id": self.file_id, "file_unique_id": self.unique_id, "file_size": self.size}


class Files:
    """The files by id, and their contents by path."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, StoredFile] = OrderedDict()
        self._contents: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._content_bytes = 0
        self._count = 0

    def add(
        self,
        bot_id: int,
        kind: str,
        *,
        size: int,
        name: str = "file.bin",
        mime_type: str = "application/octet-stream",
        content: bytes | None = None,
    ) -> StoredFile:
        """Store a new file for a bot."""
        self._count += 1
        stored = StoredFile(
            file_id=_code("AgAC", bot_id, self._count, kind),
            unique_id=_code("AQAD", self._count),
            bot_id=bot_id,
            kind=kind,
            size=size,
            name=name,
            mime_type=mime_type,
        )
        self._by_id[stored.file_id] = stored
        if len(self._by_id) > FILES:
            self._by_id.popitem(last=False)
        if content is not None:
            self._keep_content(stored, content)
        return stored

    def find(self, bot_id: int, file_id: str) -> StoredFile | None:
        """Return the bot's file with that id; None if there is none."""
        stored = self._by_id.get(file_id)
        return stored if stored is not None and stored.bot_id == bot_id else None

    def content(self, bot_id: int, path: str) -> bytes | None:
        """Return the content at a path; None if it is not kept."""
        return self._contents.get((bot_id, path))

    def _keep_content(self, stored: StoredFile, content: bytes) -> None:
        self._contents[(stored.bot_id, stored.path)] = content
        self._content_bytes += len(content)
        while self._content_bytes > CONTENT_BYTES:
            self._content_bytes -= len(self._contents.popitem(last=False)[1])


def _code(prefix: str, *parts: object) -> str:
    text = ":".join(str(part) for part in parts)
    return prefix + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
