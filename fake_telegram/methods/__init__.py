"""The methods of the Bot API: their limits and their handlers.

``METHODS`` is the table of all methods. A handler is a function of the world and a call; it returns Telegram's
``result`` or raises ``ApiError``. Receiving methods may wait and are in ``methods.receiving``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from floodgate.fake_telegram.methods import copying, editing, plain, queries, reads, sending
from floodgate.fake_telegram.methods.table import Method

METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        method.name.lower(): method
        for methods in (
            sending.METHODS,
            copying.METHODS,
            editing.METHODS,
            queries.METHODS,
            reads.METHODS,
            plain.METHODS,
        )
        for method in methods
    }
)
