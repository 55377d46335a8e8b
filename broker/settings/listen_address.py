"""Addresses at which a process listens, as ``host:port`` or, for the loopback, a port alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
_FORM: Final = re.compile(r"(?:(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):)?(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host and a port. Port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``127.0.0.1:9100``, ``[::1]:9100``, ``name:9100`` or ``9100``, which is on the loopback.

        Raises:
            ValueError: the text has another form.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None or int(match["port"]) > 65_535:
            raise ValueError(
                "is not an address; write host:port, such as 127.0.0.1:9100 for this machine only or 0.0.0.0:9100 for "
                "all networks"
            )
        return cls(match["v6"] or match["host"] or LOOPBACK, int(match["port"]))

    def url(self, path: str) -> str:
        """Return the HTTP URL of a path at this address."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}{path}"
