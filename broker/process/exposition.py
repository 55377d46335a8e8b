"""Serves a process's metrics in Prometheus' text format, at ``FLOODGATE_METRICS_ADDRESS``.

Imported only where metrics are served: it needs prometheus-client, which comes with the extras of the processes.

The server runs on the process's event loop and does no work there but copying bytes: the text is made on a thread of
its own. It serves :data:`MOST_CONNECTIONS` at once and closes each within :data:`SCRAPE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as MetricFamily,
)

from floodgate.broker.errors import SettingsError
from floodgate.broker.process.metrics import Distribution, Metric, MetricKind, Metrics
from floodgate.broker.settings.listen_address import ListenAddress

logger = logging.getLogger("floodgate.metrics")

SETTING: Final = "FLOODGATE_METRICS_ADDRESS"
MOST_CONNECTIONS: Final = 16
SCRAPE_SECONDS: Final = 10.0
STOP_SECONDS: Final = 1.0
MOST_HEAD_BYTES: Final = 16 * 1024
_GET: Final = re.compile(rb"(?:GET|HEAD) (/[^ ?]*)")


class Collector:
    """Hands a registry's metrics to prometheus-client, with those of the process itself (CPU, memory, files)."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[MetricFamily]:
        """Yield the metrics that have a series."""
        return (_family(metric, self._metrics) for metric in self._metrics.present())


def _family(metric: Metric, metrics: Metrics) -> MetricFamily:
    names = tuple(metric.labels)
    if metric.kind is MetricKind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=names)
        for labels, found in metrics.distributions(metric).items():
            histogram.add_metric(labels, _cumulated(metric, found), found.sum)
        return histogram
    form = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = form(metric.name, metric.help, labels=names)
    for labels, value in metrics.values(metric).items():
        family.add_metric(labels, value)
    return family


def _cumulated(metric: Metric, found: Distribution) -> list[tuple[str, float]]:
    """Return the buckets as Prometheus counts them: each with everything below its bound."""
    buckets, total = [], 0
    for bound, count in zip((*metric.buckets, math.inf), found.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == math.inf else str(bound), float(total)))
    return buckets


def render(metrics: Metrics) -> bytes:
    """Return the metrics as Prometheus' text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(metrics))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class MetricsServer:
    """Answers ``GET /metrics``. Belongs to the event loop; ``stop`` is safe to call twice, and unstarted.

    Args:
        make: returns the body, which may take a while. One call at a time, on a thread of its own.
    """

    def __init__(self, address: ListenAddress, make: Callable[[], bytes]) -> None:
        self._address = address
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="floodgate-metrics")  # starts at the first scrape
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def bind(self) -> None:
        """Take the port.

        Raises:
            SettingsError: the address is in use, or is not one of this machine's.
        """
        host, port = self._address.host, self._address.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise SettingsError(f"Cannot serve metrics on {host}:{port}: {why}. Change {SETTING}.") from None

    async def start(self) -> str:
        """Serve, and return the URL of the metrics. Raises as :meth:`bind` does."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=MOST_HEAD_BYTES)
        return ListenAddress(self._address.host, self._socket.getsockname()[1]).url("/metrics")

    async def stop(self) -> None:
        """Stop listening, and cut off the scrapes under way."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._socket is not None:
            self._socket.close()
        for writer in self._open.values():
            writer.transport.abort()
        if self._open:
            await asyncio.wait(set(self._open), timeout=STOP_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= MOST_CONNECTIONS:
            writer.close()
            return
        self._open[task] = writer
        try:
            with suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(SCRAPE_SECONDS):
                    writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        finally:
            del self._open[task]
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        asked = _GET.match(head)
        if asked is None:
            return _response("405 Method Not Allowed", b"Use GET.\n")
        if asked[1] != b"/metrics":
            return _response("404 Not Found", b"The metrics are at /metrics.\n")
        body = await asyncio.get_running_loop().run_in_executor(self._thread, self._make)
        return _response("200 OK", b"" if head.startswith(b"HEAD") else body, CONTENT_TYPE_PLAIN_0_0_4)


def _response(status: str, body: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
