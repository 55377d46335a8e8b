"""The spans of processes: what is in them and what never is, what is sampled, and when a process makes them."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from floodgate.actors.outcomes import (
    BotRefused,
    FailureReason,
    Migrated,
    NothingToDo,
    Outcome,
    Paused,
    Retry,
    Uncertain,
    dead,
    failure_in,
    name_of,
)
from floodgate.broker.admission.contract import Sent
from floodgate.broker.messages.job import Job, new_job
from floodgate.broker.process import spans
from floodgate.broker.process.job_trace import NOT_TRACED
from floodgate.broker.process.spans import FirstOfEachSecond, FollowCallers, Tracing, shown
from floodgate.broker.process.tracing import is_wanted, start_tracing

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"
QUEUE = "send.news.bulk.07"
JOB = new_job("sendMessage", {"chat_id": 4711, "text": "secret"}, bot="news", priority="bulk")


@dataclass
class Recording:
    tracing: Tracing
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def recording() -> Callable[..., Recording]:
    def make(sampler: Sampler = ALWAYS_ON, budget: FirstOfEachSecond | None = None) -> Recording:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(FollowCallers(sampler), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return Recording(Tracing(provider, budget), exporter)

    return make


Record = Callable[..., Recording]


def test_a_delivery_is_linked_to_its_caller_and_not_its_child(recording: Record) -> None:
    made = recording()
    made.tracing.job(JOB, QUEUE, {"traceparent": SAMPLED}).end()
    (span,) = made.spans
    (link,) = span.links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" in SAMPLED
    assert span.parent is None and span.context.trace_id != link.context.trace_id
    assert (span.name, span.kind) == ("process send.news.bulk", SpanKind.CONSUMER)


def test_a_delivery_has_the_attributes_of_the_conventions_and_no_content(recording: Record) -> None:
    made = recording()
    made.tracing.job(JOB, QUEUE, {}).end()
    attributes = dict(made.spans[0].attributes or {})
    age = attributes.pop("floodgate.age_seconds")
    assert isinstance(age, float) and 0 <= age < 600
    assert attributes == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": QUEUE,
        "messaging.message.id": JOB.id,
        "floodgate.bot": "news",
        "floodgate.method": "sendMessage",
        "floodgate.priority": "bulk",
        "floodgate.attempts": 0,
        "floodgate.outcome": "deferred",
    }


def test_waits_are_events_with_their_cause(recording: Record) -> None:
    made = recording()
    trace = made.tracing.job(JOB, QUEUE, {})
    trace.wait("rate", 0.5, "bot")
    trace.event("call")
    trace.outcome("sent")
    trace.end()
    (span,) = made.spans
    assert [event.name for event in span.events] == ["wait", "call"]
    expected = {"floodgate.wait.cause": "rate", "floodgate.wait.scope": "bot", "floodgate.wait.seconds": 0.5}
    assert dict(span.events[0].attributes or {}) == expected
    assert span.status.status_code is StatusCode.UNSET


def test_the_last_outcome_and_telegrams_error_are_the_spans_own(recording: Record) -> None:
    made = recording()
    trace = made.tracing.job(JOB, QUEUE, {})
    trace.outcome("retry", ("retry", "502: Bad Gateway"))
    trace.outcome("dead", ("chat-unreachable", "Forbidden: bot was blocked by the user"))
    trace.end()
    (span,) = made.spans
    assert span.attributes is not None
    assert (span.attributes["floodgate.outcome"], span.attributes["error.type"]) == ("dead", "chat-unreachable")
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        "Forbidden: bot was blocked by the user",
    )


@pytest.mark.parametrize(
    ("description", "remains"),
    [
        ("Forbidden: bot was blocked by the user", "Forbidden: bot was blocked by the user"),
        ('Bad Request: can\'t parse entities: Unsupported start tag "secret" at byte offset 5', None),
        ("Bad Request: inline keyboard button URL 'https://example.org/secret' is invalid", None),
        ("Bad Request: wrong HTTP URL https://example.org/secret", None),
        ("Bad Request: no such user @secret", None),
        ('failed to send message #2 with the error message "secret"', None),
        ("cut off: http://api/bot123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/sendMessage secret", None),
        ("refused 123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "refused 123456789:[redacted]"),
        ("x" * 1000, "x" * 200),
    ],
)
def test_an_error_shows_no_text_no_url_and_no_token(description: str, remains: str | None) -> None:
    text = shown(description)
    assert "secret" not in text and "AAAA" not in text and "://" not in text
    assert text == remains if remains is not None else text.endswith("…")


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (Sent(True), None),
        (NothingToDo("message is not modified"), None),
        (Migrated("-1001"), None),
        (Retry("502", surely_not_sent=False), ("retry", "502")),
        (Uncertain("cut off"), ("uncertain", "cut off")),
        (Paused(timedelta(seconds=3), "Too Many"), ("paused", "Too Many")),
        (BotRefused("Unauthorized"), ("bot-refused", "Unauthorized")),
        (dead(FailureReason.CONTENT, "message is too long", 400), ("content", "message is too long")),
    ],
    ids=lambda value: name_of(value) if not isinstance(value, tuple | None) else None,
)
def test_what_failed_is_in_the_outcome(outcome: Outcome, failure: tuple[str, str] | None) -> None:
    assert failure_in(outcome) == failure


def test_a_job_whose_caller_is_not_sampled_is_not_traced(recording: Record) -> None:
    assert recording().tracing.job(JOB, QUEUE, {"traceparent": UNSAMPLED}) is NOT_TRACED


def test_a_job_whose_caller_is_sampled_is_traced_whatever_the_sampler(recording: Record) -> None:
    made = recording(ALWAYS_OFF)
    made.tracing.job(JOB, QUEUE, {"traceparent": SAMPLED}).end()
    assert len(made.spans) == 1


def test_the_sampler_decides_on_jobs_without_a_trace(recording: Record) -> None:
    assert recording(ALWAYS_OFF).tracing.job(JOB, QUEUE, {}) is NOT_TRACED
    assert recording(ALWAYS_ON).tracing.job(JOB, QUEUE, {}) is not NOT_TRACED


def test_without_a_sampler_so_many_jobs_a_second_are_traced_and_no_span_is_begun_for_others(recording: Record) -> None:
    now = 100.0
    budget = CountingSampler(3, lambda: now)
    tracing = recording(ParentBased(budget), budget).tracing

    def traced(jobs: int) -> int:
        return sum(tracing.job(JOB, QUEUE, {}) is not NOT_TRACED for _ in range(jobs))

    assert traced(5) == 3
    assert budget.asked == 3
    assert tracing.job(JOB, QUEUE, {"traceparent": SAMPLED}) is not NOT_TRACED
    now += 1
    assert traced(5) == 3


class CountingSampler(FirstOfEachSecond):
    """Counts how often it is asked."""

    asked = 0

    def should_sample(self, *given: Any, **more: Any) -> SamplingResult:
        self.asked += 1
        return super().should_sample(*given, **more)


def test_a_request_is_a_child_of_its_caller_and_carries_its_status(recording: Record) -> None:
    made = recording()
    with made.tracing.request("POST", "/bot***/sendMessage", {"traceparent": SAMPLED}) as answered:
        answered(503)
    (span,) = made.spans
    assert span.parent is not None and f"{span.parent.span_id:016x}" in SAMPLED
    assert span.attributes is not None and span.attributes["http.response.status_code"] == 503
    assert (span.name, span.status.status_code) == ("POST /bot***/sendMessage", StatusCode.ERROR)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_the_standard_variables_turn_traces_on(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) is wanted


def test_without_the_extra_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, spans.__name__)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert start_tracing("worker", {"OTEL_TRACES_EXPORTER": "otlp"}) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "no traces: opentelemetry is not installed: pip install 'telegram-floodgate[tracing]', or unset OTEL_*."
    )


def test_an_exporter_that_is_not_installed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    asked = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert start_tracing("worker", asked) is None
    assert "otlp_proto_grpc is not installed" in caplog.text


def test_a_collector_that_hangs_does_not_keep_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "CLOSE_SECONDS", 0.01)
    asked, answers = threading.Event(), threading.Event()

    class Hanging(TracerProvider):
        def shutdown(self) -> None:
            asked.set()
            answers.wait(30)

    tracing = Tracing(Hanging(shutdown_on_exit=False))
    tracing.close()
    tracing.close()
    assert asked.wait(30)
    answers.set()


async def count(jobs: Iterable[Job]) -> int:
    return len(list(jobs))


@pytest.mark.parametrize(("jobs", "expected"), [([], 0), ([JOB, JOB], 1)])
def test_a_release_with_jobs_is_a_span(recording: Record, jobs: list[Job], expected: int) -> None:
    made = recording()
    assert asyncio.run(made.tracing.publishing(count)(jobs)) == len(jobs)
    assert len(made.spans) == expected
