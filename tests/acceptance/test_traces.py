"""A message is followed from a FastAPI request to Telegram's answer, through retries and dead letters."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ExportedSpan
from pydantic import SecretStr

from floodgate.producer.client import Client
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.stage import TOKEN, Stage
from tests.acceptance.traced_run import AGAIN, AT_ONCE, BLOCKED, BUSY, FINE, GATEWAY_TRACE
from tests.processes import FloodgateProcess, run_python
from tests.waiting import until

Span = Mapping[str, Any]


def run_traced(stage: Stage) -> tuple[list[Span], str]:
    env = {**stage.env, "OTEL_TRACES_EXPORTER": "console"}
    ended = run_python("-m", "tests.acceptance.traced_run", stage.telegram_url, env=env, home=stage.home)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()], ended.stdout


def test_a_message_is_followed_from_a_request_to_telegrams_answer(stage: Stage) -> None:
    spans, text = run_traced(stage)
    deliveries = [span for span in spans if span["name"] == "process send.default.interactive"]
    callers = {span["attributes"]["url.path"]: span["trace"] for span in spans if "url.path" in span["attributes"]}

    def linked_to(caller: str) -> list[Span]:
        return [span for span in deliveries if span["links"] == [caller] and not span["is_child"]]

    (sent,) = linked_to(callers[f"/orders/{FINE}"])
    assert sent["attributes"]["floodgate.outcome"] == "sent" and sent["status"] == ["UNSET", None]
    assert [name for name, _ in sent["events"]][-2:] == ["call", "answer"]
    assert sent["trace"] not in callers.values()

    (refused,) = linked_to(callers[f"/orders/{BLOCKED}"])
    assert refused["attributes"]["floodgate.outcome"] == "dead"
    assert refused["attributes"]["error.type"] == "chat-unreachable"
    assert refused["status"] == ["ERROR", "Forbidden: bot was blocked by the user"]

    failed, *_, sent_later = linked_to(callers[f"/orders/{AGAIN}"])
    assert failed["attributes"]["floodgate.outcome"] == "uncertain" and failed["status"][0] == "ERROR"
    assert failed["events"][-1][0] == "wait" and failed["events"][-1][1]["floodgate.wait.cause"] == "retry"
    assert sent_later["attributes"]["floodgate.outcome"] == "sent"
    assert sent_later["attributes"]["messaging.message.id"] == failed["attributes"]["messaging.message.id"]

    busy = [span["trace"] for span in spans if span["attributes"].get("url.path") == f"/orders/{BUSY}"]
    assert [linked_to(caller)[-1]["attributes"]["floodgate.outcome"] for caller in busy] == ["sent"] * AT_ONCE
    waited = [span for caller in busy for span in linked_to(caller)[:-1]]
    assert {span["attributes"]["floodgate.outcome"] for span in waited} == {"deferred"}
    assert {(span["events"][-1][0], span["events"][-1][1]["floodgate.wait.scope"]) for span in waited} == {
        ("wait", "chat")
    }

    (by_gateway,) = linked_to(GATEWAY_TRACE.split("-")[1])
    assert by_gateway["attributes"]["floodgate.outcome"] == "sent"

    assert TOKEN not in text and TOKEN.partition(":")[2] not in text
    assert "secret" not in text and str(FINE) not in json.dumps(deliveries)


class Collector:
    """A collector of OpenTelemetry's, on a port of its own. Keeps what is exported to it."""

    def __init__(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the standard library's
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.bodies: list[bytes] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector")

    @property
    def env(self) -> dict[str, str]:
        """What turns traces on, and exports them soon."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def spans(self) -> list[tuple[str, ExportedSpan]]:
        """The spans so far, each with its service."""
        exported = [
            each for body in list(self.bodies) for each in ExportTraceServiceRequest.FromString(body).resource_spans
        ]
        return [
            (next(a.value.string_value for a in each.resource.attributes if a.key == "service.name"), span)
            for each in exported
            for scope in each.scope_spans
            for span in scope.spans
        ]

    def named(self, service: str, name: str) -> list[ExportedSpan]:
        return [span for of, span in self.spans() if (of, span.name) == (f"floodgate-{service}", name)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def start_campaign(stage: Stage) -> None:
    url = SecretStr(stage.env["FLOODGATE_CAMPAIGNS_URL"])
    with Client(stage.settings.model_copy(update={"campaigns_url": url})) as client:
        audience = [{"chat_id": 2001}, {"chat_id": 2002}]
        client.campaigns.create({"name": "spring", "content": {"text": "a secret text"}}, audience)
        client.campaigns.start("spring")


def test_processes_export_their_spans_as_the_standard_variables_say(stage: Stage) -> None:
    with Collector() as collector:
        stage.extra |= collector.env
        worker = stage.worker()
        running = FloodgateProcess("campaigns", "run", env=stage.env, home=stage.home, name="campaigns")
        stage.keep(running).start("campaigns ready")
        start_campaign(stage)
        (release,) = until(lambda: collector.named("campaigns", "publish send"))
        released = until(lambda: collector.named("worker", "process send.default.bulk"))
        assert {link.span_id for span in released for link in span.links} == {release.span_id}
        with GatewayProcess({**stage.env, "FLOODGATE_GATEWAY__PORT": "0"}, stage.home) as gateway:
            headers = {"traceparent": GATEWAY_TRACE}
            body = {"chat_id": FINE, "text": "a secret text"}
            httpx.post(f"{gateway.url}/bot{TOKEN}/sendMessage", json=body, headers=headers).raise_for_status()
            (request,) = until(lambda: collector.named("gateway", "POST /bot***/sendMessage"))
        assert request.parent_span_id.hex() == GATEWAY_TRACE.split("-")[2]
        (delivery,) = until(lambda: collector.named("worker", "process send.default.interactive"))
        assert [link.span_id for link in delivery.links] == [request.span_id]
        assert worker.stop() == 0
    assert not [body for body in collector.bodies if b"secret" in body or TOKEN.encode() in body]
