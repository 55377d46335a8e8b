"""The server of metrics, over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from floodgate.broker.errors import SettingsError
from floodgate.broker.process import exposition
from floodgate.broker.process.exposition import MetricsServer
from floodgate.broker.process.measurement import Measurement
from floodgate.broker.process.metrics import LOOP_LAG, ProcessRole
from floodgate.broker.settings.listen_address import ListenAddress
from floodgate.broker.settings.model import Settings, load_settings
from tests.waiting import until

FREE = ListenAddress.parse("0")
TOKEN = "100200300:" + "A" * 35


def asked(url: str, path: str = "/metrics", method: str = "GET") -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def with_server(make: Callable[[], bytes], ask: Callable[[str], object]) -> object:
    server = MetricsServer(FREE, make)
    url = await server.start()
    try:
        return await asyncio.to_thread(ask, url)
    finally:
        await server.stop()
        await server.stop()


def test_only_the_metrics_are_served() -> None:
    def ask(url: str) -> list[tuple[int, bytes]]:
        return [asked(url), asked(url, method="HEAD"), asked(url, "/"), asked(url, method="POST")]

    answers = asyncio.run(with_server(lambda: b"x 1\n", ask))
    assert answers == [
        (200, b"x 1\n"),
        (200, b""),
        (404, b"The metrics are at /metrics.\n"),
        (405, b"Use GET.\n"),
    ]


def test_rendering_leaves_the_event_loop_free() -> None:
    async def scrape() -> bool:
        rendering, done = threading.Event(), threading.Event()

        def make() -> bytes:
            rendering.set()
            return b"freed" if done.wait(10) else b"held up"

        server = MetricsServer(FREE, make)
        scraping = asyncio.create_task(asyncio.to_thread(asked, await server.start()))
        await asyncio.to_thread(rendering.wait, 10)
        done.set()  # on the loop, while the text is being made
        assert await scraping == (200, b"freed")
        await server.stop()
        return True

    assert asyncio.run(scrape())


def test_a_stop_does_not_wait_for_a_client_that_says_nothing() -> None:
    async def hang() -> None:
        server = MetricsServer(FREE, bytes)
        parts = urlsplit(await server.start())
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"GET /metrics HTTP/1.1\r\n")
        await writer.drain()
        async with asyncio.timeout(exposition.STOP_SECONDS + 5):
            await server.stop()
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()

    asyncio.run(hang())


def test_beyond_its_bound_a_connection_is_closed_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "MOST_CONNECTIONS", 1)

    async def crowd() -> None:
        rendering, done = threading.Event(), threading.Event()
        server = MetricsServer(FREE, lambda: b"first" if rendering.set() is None and done.wait(10) else b"")
        url = await server.start()
        first = asyncio.create_task(asyncio.to_thread(asked, url))
        await asyncio.to_thread(rendering.wait, 10)
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(asked, url)
        done.set()
        assert await first == (200, b"first")
        await server.stop()

    asyncio.run(crowd())


def test_a_client_that_is_too_slow_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "SCRAPE_SECONDS", 0.05)

    async def dawdle() -> None:
        server = MetricsServer(FREE, bytes)
        parts = urlsplit(await server.start())
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        await server.stop()

    asyncio.run(dawdle())


def test_a_port_in_use_is_one_sentence_before_anything_starts() -> None:
    async def both() -> str:
        first = MetricsServer(FREE, bytes)
        port = urlsplit(await first.start()).port
        settings = Settings(_env_file=None, bot_token=TOKEN, metrics_address=f"127.0.0.1:{port}")
        try:
            with pytest.raises(SettingsError) as caught:
                Measurement(settings, ProcessRole.WORKER).bind()
            return str(caught.value).replace(str(port), "PORT")
        finally:
            await first.stop()

    assert asyncio.run(both()) == (
        "Cannot serve metrics on 127.0.0.1:PORT: Address already in use. Change FLOODGATE_METRICS_ADDRESS."
    )


def test_a_measurement_observes_the_loop_and_can_be_stopped_unstarted_and_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("floodgate.broker.process.measurement.LOOK_SECONDS", 0.001)

    async def measure() -> Measurement:
        measurement = Measurement(Settings(_env_file=None, bot_token=TOKEN), ProcessRole.WORKER)
        await measurement.stop()
        await measurement.start()
        await asyncio.to_thread(until, lambda: measurement.metrics.distributions(LOOP_LAG))
        await measurement.stop()
        await measurement.stop()
        return measurement

    assert asyncio.run(measure()).metrics.distributions(LOOP_LAG)[()].count


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9100", "127.0.0.1", 9100),
        ("0.0.0.0:9100", "0.0.0.0", 9100),
        ("[::1]:9100", "::1", 9100),
        ("db-1.example.org:0", "db-1.example.org", 0),
    ],
)
def test_an_address_without_a_host_is_on_the_loopback(text: str, host: str, port: int) -> None:
    assert ListenAddress.parse(text) == ListenAddress(host, port)


@pytest.mark.parametrize("text", [":9100", "127.0.0.1", "::1:9100", "host:65536", "http://host:1", "host:1/metrics"])
def test_a_malformed_address_says_how_to_write_one(text: str) -> None:
    with pytest.raises(SettingsError, match=r"FLOODGATE_METRICS_ADDRESS is not an address; write host:port, such as"):
        load_settings(_env_file=None, metrics_address=text)
