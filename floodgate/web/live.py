"""Live parts of pages as server-sent events. Each part is read and rendered once for all who watch it, and not at all
while nobody does.

Bounds: :data:`MOST_STREAMS` streams are open at once. A silent stream has a comment every :data:`HEARTBEAT_SECONDS`. A
stream ends when its client leaves or the process stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

logger = logging.getLogger("floodgate.web")

MOST_STREAMS: Final = 200
HEARTBEAT_SECONDS: Final = 15.0
_FAILED: Final = "<p>This part cannot be shown; the process's log says why.</p>"

RenderPart = Callable[[], Awaitable[str]]


class LivePart:
    """A part of a page that is rendered anew every few seconds while somebody watches. Belongs to the event loop."""

    def __init__(self, name: str, render: RenderPart, every_seconds: float) -> None:
        self._name = name
        self._render = render
        self._every_seconds = every_seconds
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._html = ""
        self._changed = asyncio.Event()  # replaced at each change

    async def watch(self, stopped: asyncio.Event) -> AsyncGenerator[str, None]:
        """Yield server-sent events until the process stops: the HTML whenever it has changed."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._read(), name=f"live {self._name}")
        try:
            shown = ""
            while not stopped.is_set():
                if self._html != shown:
                    shown = self._html
                    yield event(shown)
                elif not await _either(self._changed, stopped, HEARTBEAT_SECONDS):
                    yield ": still here\n\n"
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._task.cancel()
                self._task = None

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches."""
        return self._watchers > 0

    async def _read(self) -> None:
        while True:
            try:
                html = await self._render()
            except Exception:  # a fault of one part must not end the streams
                if self._html != _FAILED:  # once, not every few seconds
                    logger.exception("could not render the live part %s", self._name)
                html = _FAILED
            if html != self._html:
                self._html = html
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(self._every_seconds)


class LiveParts:
    """The live parts that are watched, by name."""

    def __init__(self) -> None:
        self._parts: dict[str, LivePart] = {}
        self.streams = 0
        """How many are open."""
        self._stopped = asyncio.Event()

    def stream(self, name: str, render: RenderPart, every_seconds: float) -> StreamingResponse:
        """Return a stream of a part. Who watches the same name gets what is rendered for the first who did.

        Raises:
            HTTPException: 503, because too many streams are open.
        """
        if self.streams >= MOST_STREAMS:
            raise HTTPException(503, f"{MOST_STREAMS} live pages are open already.", {"Retry-After": "10"})
        return _EventStream(self, name, render, every_seconds)

    def stop(self) -> None:
        """End all streams. Safe to call twice."""
        self._stopped.set()

    async def _watch(self, name: str, render: RenderPart, every_seconds: float) -> AsyncGenerator[str, None]:
        part = self._parts.setdefault(name, LivePart(name, render, every_seconds))
        self.streams += 1
        events = part.watch(self._stopped)
        try:
            async for each in events:
                yield each
        finally:
            await events.aclose()
            self.streams -= 1
            if not part.is_watched:
                self._parts.pop(name, None)


class _EventStream(StreamingResponse):
    """A stream of events. Closes its generator at once when the client has left, not when it is collected."""

    def __init__(self, parts: LiveParts, name: str, render: RenderPart, every_seconds: float) -> None:
        self._events = parts._watch(name, render, every_seconds)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._events, media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


def event(html: str) -> str:
    """Return a server-sent event with this data."""
    return "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"


async def _either(first: asyncio.Event, second: asyncio.Event, seconds: float) -> bool:
    """Wait until one of two events is set; return whether that happened in time."""
    waits = {asyncio.create_task(each.wait()) for each in (first, second)}
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for each in waits:
            each.cancel()
