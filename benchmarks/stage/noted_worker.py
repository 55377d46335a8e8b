"""A worker that notes when it begins each Bot API call: of calls that are refused, nobody else knows.

``python -m benchmarks.stage.noted_worker NOTEBOOK``. A line is a Unix time.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any


def main(notebook: str) -> None:
    """Run what ``floodgate worker`` runs."""
    from floodgate.actors.sessions import BotSessions
    from floodgate.commands.worker import worker

    call = BotSessions.call
    with Path(notebook).open("a", buffering=1) as lines:

        async def noted(self: BotSessions, bot: str, method: str, params: dict[str, Any], timeout: timedelta) -> Any:
            lines.write(f"{time.time():.3f}\n")
            return await call(self, bot, method, params, timeout)

        BotSessions.call = noted  # type: ignore[method-assign]
        worker()


if __name__ == "__main__":
    main(*sys.argv[1:])
