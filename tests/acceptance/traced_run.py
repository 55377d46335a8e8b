"""A program that follows messages with OpenTelemetry's in-memory exporter.

A FastAPI application with an AsyncClient, the gateway and a worker run in one process, on one event loop. It prints the
finished spans, one JSON object a line.

Its argument is the URL of the fake Telegram.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from floodgate import AsyncClient
from floodgate.broker.errors import DeadLetteredError
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.fake_telegram.control import ControlClient
from floodgate.producer.gateway.app import Gateway
from floodgate.worker import WorkerProcess
from tests.acceptance.stage import TOKEN

GATEWAY_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FINE, BLOCKED, AGAIN, BUSY = 1001, 1002, 1003, 1004
AT_ONCE = 3  # messages to the busy chat; all but the first have to wait


def application(client: AsyncClient) -> FastAPI:
    """A program as users write it. FastAPI makes the spans of its requests itself."""
    app = FastAPI()

    @app.post("/orders/{chat}")
    async def order(chat: int) -> str:
        return (await client.send_message(chat_id=chat, text="a secret text")).id

    return app


async def order(app: FastAPI, client: AsyncClient, chat: int) -> None:
    """Make a request, and wait until its job has ended."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example") as http:
        job = (await http.post(f"/orders/{chat}")).raise_for_status().json()
    try:
        await client.result(job)
    except DeadLetteredError:
        assert chat == BLOCKED


async def through_gateway(settings: Settings) -> None:
    """Make a request with a trace, and wait for Telegram's answer; the gateway makes no spans. Then one that fails."""
    gateway = Gateway(settings)
    async with gateway.api.router.lifespan_context(gateway.api):
        transport = httpx.ASGITransport(gateway.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example") as http:
            body = {"chat_id": FINE, "text": "a secret text"}
            headers = {"traceparent": GATEWAY_TRACE}
            (await http.post(f"/bot{TOKEN}/sendMessage", json=body, headers=headers)).raise_for_status()
            assert (await http.get(f"/wrong/bot{TOKEN}/getMe")).status_code == 404


async def run(telegram: ControlClient) -> None:
    """Follow one message to each chat, and several at once to the busy one."""
    await asyncio.to_thread(telegram.set_chat, BLOCKED, trouble="blocked")
    answer: dict[str, Any] = {"code": 502, "description": "Bad Gateway", "times": 1}
    await asyncio.to_thread(telegram.set_chat, AGAIN, trouble="answer", **answer)
    settings = load_settings()
    worker = WorkerProcess(settings)
    working = asyncio.create_task(worker.run())
    try:
        async with AsyncClient(settings) as client:
            app = application(client)
            for chat in (FINE, BLOCKED, AGAIN):
                await order(app, client, chat)
            await asyncio.gather(*(order(app, client, BUSY) for _ in range(AT_ONCE)))
        await through_gateway(settings)
    finally:
        worker.stop()
        await working


def described(span: ReadableSpan) -> dict[str, Any]:
    """A span as JSON values."""
    return {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
        "is_child": span.parent is not None,
        "events": [[event.name, dict(event.attributes or {})] for event in span.events],
        "status": [span.status.status_code.name, span.status.description],
        "attributes": dict(span.attributes or {}),
    }


def main() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    asyncio.run(run(ControlClient(sys.argv[1])))
    for span in exporter.get_finished_spans():
        print(json.dumps(described(span)))


if __name__ == "__main__":
    main()
