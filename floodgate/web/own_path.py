"""Where a page may lead back to: only to pages of ours."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

MOST_PATH: Final = 2000


def own_path(path: str) -> str:
    """Return a path of these pages; that of the overview for anything else, such as another site."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/"
    own = path.startswith("/") and not path.startswith("//") and not parts.scheme and not parts.netloc
    return path if own and path.isprintable() and "\\" not in path and len(path) <= MOST_PATH else "/"
