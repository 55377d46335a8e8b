"""Whoever enqueues a message puts its trace into the headers; everybody else only carries it on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, TraceFlags, TraceState, use_span
from opentelemetry.trace.span import NonRecordingSpan

from floodgate.broker.messages.dead_letters import dead_job
from floodgate.broker.messages.job import new_job
from floodgate.broker.messages.trace_context import active_trace, carried, is_sampled, received
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import Composer
from tests.processes import run_python

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# As a program without OpenTelemetry: the interpreter has no such package.
WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from floodgate import Client
from floodgate.broker.settings.model import Settings
client = Client(Settings(_env_file=None))
job = client.job("sendMessage", chat_id=1, text="x")
print(client._composer.publication(job).headers, [name for name in sys.modules if name.startswith("opentelemetry.")])
"""


@pytest.fixture
def composer() -> Composer:
    return Composer(Settings(_env_file=None))


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def test_a_job_that_is_enqueued_in_a_span_has_the_span_in_its_headers(
    composer: Composer, provider: TracerProvider
) -> None:
    job = composer.job("sendMessage", {"chat_id": 1, "text": "x"})
    with provider.get_tracer("test").start_as_current_span("caller") as span:
        headers = composer.publication(job).headers
    context = span.get_span_context()
    flags = context.trace_flags
    assert flags.sampled
    assert headers == {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"}


def test_a_scheduled_job_has_them_too(composer: Composer, provider: TracerProvider) -> None:
    job = composer.job("sendMessage", {"chat_id": 1, "text": "x", "delay": 60})
    with provider.get_tracer("test").start_as_current_span("caller"):
        assert carried(composer.publication(job).headers)


def test_a_job_that_is_enqueued_outside_of_a_span_has_no_headers(composer: Composer) -> None:
    assert "opentelemetry.trace" in sys.modules
    assert composer.publication(composer.job("sendMessage", {"chat_id": 1, "text": "x"})).headers is None


def test_the_callers_decision_not_to_sample_travels_on() -> None:
    with TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test").start_as_current_span("caller"):
        headers = active_trace()
    assert headers is not None and not is_sampled(headers)


def test_a_trace_state_travels_on() -> None:
    state = TraceState([("vendor", "opaque")])
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1), trace_state=state)
    with use_span(NonRecordingSpan(context)):
        headers = active_trace()
    assert headers is not None and headers["tracestate"] == "vendor=opaque"


def test_without_a_span_the_trace_of_the_http_request_is_used() -> None:
    token = received.set({"traceparent": VALID})
    try:
        assert active_trace() == {"traceparent": VALID}
    finally:
        received.reset(token)


def test_a_client_needs_no_opentelemetry(tmp_path: Path) -> None:
    ended = run_python("-c", WITHOUT, env={}, home=tmp_path)
    assert ended.stdout.strip() == "None []", ended.stderr


@pytest.mark.parametrize(
    "traceparent",
    [
        *("", "x", VALID.upper(), VALID + "-01", VALID[:-1], "ff" + VALID[2:], VALID + "\n", 7, b"x", None, ["x"]),
        re.sub("-[0-9a-f]{32}-", f"-{'0' * 32}-", VALID),
        re.sub("-[0-9a-f]{16}-", f"-{'0' * 16}-", VALID),
    ],
)
def test_an_invalid_trace_is_dropped(traceparent: object) -> None:
    assert carried({"traceparent": traceparent}) is None


@pytest.mark.parametrize("tracestate", ["", "a=" + "b" * 511, "a=\n", "a=é", 7, None])
def test_an_invalid_trace_state_is_dropped_alone(tracestate: object) -> None:
    assert carried({"traceparent": VALID, "tracestate": tracestate}) == {"traceparent": VALID}


def test_nothing_but_the_trace_is_carried() -> None:
    headers = {"traceparent": VALID, "tracestate": "a=b", "x-death": [], "x-delivery-count": 3}
    assert carried(headers) == {"traceparent": VALID, "tracestate": "a=b"}
    assert carried(None) is None


def test_a_dead_letter_stays_in_the_trace_of_its_job() -> None:
    job = new_job("sendMessage", {"chat_id": 1, "text": "x"})
    assert carried(dead_job(job, b"", "q", "content", "", {"traceparent": VALID}).headers) == {"traceparent": VALID}
