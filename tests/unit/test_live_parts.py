"""A live part is rendered once for all who watch it, and not at all while nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from floodgate.web import live
from floodgate.web.live import LivePart, event


class Source:
    """Renders a number that grows, once per step of the test."""

    def __init__(self) -> None:
        self.renders = 0
        self.step = asyncio.Event()

    async def render(self) -> str:
        await self.step.wait()
        self.step.clear()
        self.renders += 1
        return f"<p>{self.renders}</p>"


async def first(stream: AsyncGenerator[str, None]) -> str:
    return await asyncio.wait_for(anext(stream), 10)


def test_ten_watchers_cost_one_rendering() -> None:
    async def scenario() -> None:
        source, stopped = Source(), asyncio.Event()
        part = LivePart("overview", source.render, 0.0)
        streams = [part.watch(stopped) for _ in range(10)]
        for number in (1, 2):
            asks = [asyncio.create_task(first(stream)) for stream in streams]
            await asyncio.sleep(0)
            source.step.set()
            assert await asyncio.gather(*asks) == [event(f"<p>{number}</p>")] * 10
        assert source.renders == 2
        for stream in streams:
            await stream.aclose()

    asyncio.run(scenario())


def test_nothing_is_rendered_once_the_last_watcher_has_left() -> None:
    async def scenario() -> None:
        source, stopped = Source(), asyncio.Event()
        part = LivePart("overview", source.render, 0.0)
        source.step.set()
        async with aclosing(part.watch(stopped)) as stream:
            await first(stream)
        assert not part.is_watched
        source.step.set()
        await asyncio.sleep(0.01)
        assert (source.renders, source.step.is_set()) == (1, True)

    asyncio.run(scenario())


def test_a_silent_stream_has_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.0)

    async def scenario() -> None:
        async with aclosing(LivePart("overview", Source().render, 0.0).watch(asyncio.Event())) as stream:
            assert await first(stream) == ": still here\n\n"

    asyncio.run(scenario())


def test_streams_end_when_the_process_stops() -> None:
    async def scenario() -> None:
        stopped = asyncio.Event()
        stream = LivePart("overview", Source().render, 0.0).watch(stopped)
        asked = asyncio.create_task(first(stream))
        await asyncio.sleep(0)
        stopped.set()
        with pytest.raises(StopAsyncIteration):
            await asked

    asyncio.run(scenario())


def test_a_part_that_cannot_be_rendered_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> list[str]:
        source = Source()

        async def render() -> str:
            html = await source.render()
            if source.renders == 1:
                raise LookupError("no such thing")
            return html

        async with aclosing(LivePart("overview", render, 0.0).watch(asyncio.Event())) as stream:
            source.step.set()
            failed = await first(stream)
            source.step.set()
            return [failed, await first(stream)]

    failed, again = asyncio.run(scenario())
    assert ("cannot be shown" in failed, again) == (True, event("<p>2</p>"))
    assert "no such thing" in caplog.text


def test_html_of_many_lines_is_one_event() -> None:
    assert event("<p>\na</p>") == "data: <p>\ndata: a</p>\n\n"
