"""Spans of OpenTelemetry. Needs the extra ``tracing``; :mod:`floodgate.broker.process.tracing` imports this if traces
are asked for.

    worker      process send.<bot>.<priority>   one span a delivery of a job, linked to the span that enqueued it: a job
                                                may wait for hours, and a child would keep its parent's trace open
    gateway     POST /bot***/<method>           a child of the caller's span
    campaigns   publish send                    the release of a campaign's jobs

A delivery has one span without children, because a span costs a tenth of a send; what happens in it are its events
``wait``, ``call`` and ``answer``, of which a span keeps 128 (``OTEL_SPAN_EVENT_COUNT_LIMIT``). Whoever enqueued a job
decides whether its deliveries are sampled. For jobs without a trace, the sampler of ``OTEL_TRACES_SAMPLER`` decides;
without one, a process samples :data:`MOST_PER_SECOND` of them.

No attribute holds a token, a URL of the Bot API, a chat, a parameter or a result. Telegram's descriptions may quote a
message, so they end before a quotation, a URL or a name: see :func:`shown`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import entry_points, version
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

from floodgate.broker.messages.job import Job, unix_ms
from floodgate.broker.messages.trace_context import carried, is_sampled
from floodgate.broker.process.job_trace import NOT_TRACED, JobTrace
from floodgate.broker.process.logs import redact

# The time for the last spans to be exported when a process ends.
CLOSE_SECONDS: Final = 5.0
# All messages of a bot at Telegram's limit, and more; less than 1 % of the time of a worker that sends without limits.
MOST_PER_SECOND: Final = 50
MAX_DESCRIPTION: Final = 200
# An apostrophe inside a word ("can't parse entities") begins no quotation.
_QUOTATION: Final = re.compile(r"""["“«`].*|(?<!\w)'.*|\w+://.*|@.*""", re.DOTALL)
_PARTITION: Final = re.compile(r"\.\d+$")
_PROPAGATOR: Final = TraceContextTextMapPropagator()


Publish = Callable[[Iterable[Job]], Awaitable[int]]


class Tracing:
    """Makes the spans of one process. May be used from any thread; ``close`` is safe to call twice.

    Args:
        provider: makes and exports the spans.
        budget: what its sampler lets jobs without a trace spend; None if another sampler decides on them. It is asked
            first, because a span that is not sampled costs ten times as much as no span.
    """

    def __init__(self, provider: TracerProvider, budget: FirstOfEachSecond | None = None) -> None:
        self._provider = provider
        self._budget = budget
        self._tracer = provider.get_tracer("floodgate")
        self._closing: threading.Thread | None = None

    @classmethod
    def from_environment(cls, process: str, environment: Mapping[str, str]) -> Tracing:
        """Set up OpenTelemetry as ``OTEL_*`` say, for the whole process, unless this has been done.

        Raises:
            ValueError: a variable is wrong, or names an exporter that is not installed.
        """
        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider):
            return cls(provider)
        chosen = environment.get("OTEL_TRACES_SAMPLER", "").strip()
        budget = None if chosen else FirstOfEachSecond(MOST_PER_SECOND)
        provider = _provider(process, environment, budget)
        trace.set_tracer_provider(provider)
        return cls(provider, budget)

    def job(self, job: Job, queue: str, headers: Mapping[str, Any]) -> JobTrace:
        """Begin the trace of a delivery of a job."""
        origin = carried(headers)
        if not self._may_sample(origin):
            return NOT_TRACED
        links = () if origin is None else (Link(trace.get_current_span(_remote(origin)).get_span_context()),)
        family = _PARTITION.sub("", queue)
        span = self._tracer.start_span(f"process {family}", Context(), SpanKind.CONSUMER, links=links)
        if not span.is_recording():
            return NOT_TRACED
        span.set_attributes(_delivery(job, queue))
        return JobSpan(span)

    def _may_sample(self, origin: Mapping[str, str] | None) -> bool:
        if origin is not None:
            return is_sampled(origin)
        return self._budget is None or not self._budget.is_spent

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[Callable[[int], None]]:
        """Serve an HTTP request in a span, a child of the caller's. ``path`` must hold no secret. Yields what is to be
        called with the status of the answer."""
        attributes = {"http.request.method": method, "url.path": path}
        with self._tracer.start_as_current_span(
            f"{method} {path}",
            _remote(carried(headers)),
            SpanKind.SERVER,
            attributes,
            record_exception=False,  # its text may quote what the caller sent
            set_status_on_exception=False,
        ) as span:
            yield partial(_answer, span)

    def publishing(self, publish: Publish) -> Publish:
        """Return ``publish`` with a span around each call that has jobs."""

        async def publish_traced(jobs: Iterable[Job]) -> int:
            batch = list(jobs)
            if not batch:
                return await publish(batch)
            with self._tracer.start_as_current_span(
                "publish send",
                Context(),
                SpanKind.PRODUCER,
                _release(batch),
                record_exception=False,  # its text may name the server
                set_status_on_exception=False,
            ):
                return await publish(batch)

        return publish_traced

    def close(self) -> None:
        """Export what is left, for at most :data:`CLOSE_SECONDS`."""
        if self._closing is None:
            self._closing = threading.Thread(target=self._provider.shutdown, name="floodgate-traces", daemon=True)
            self._closing.start()
        self._closing.join(CLOSE_SECONDS)


class JobSpan(JobTrace):
    """The span of a delivery that is sampled."""

    __slots__ = ("_has_outcome", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._has_outcome = False

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def wait(self, cause: str, seconds: float, scope: str) -> None:
        attributes: Attributes = {
            "floodgate.wait.cause": cause,
            "floodgate.wait.scope": scope,
            "floodgate.wait.seconds": seconds,
        }
        self._span.add_event("wait", attributes)

    def outcome(self, name: str, error: tuple[str, str] | None = None) -> None:
        self._has_outcome = True
        self._span.set_attribute("floodgate.outcome", name)
        if error is not None:
            keyword, description = error
            self._span.set_attribute("error.type", keyword)
            self._span.set_status(Status(StatusCode.ERROR, shown(description)))

    def end(self) -> None:
        if not self._has_outcome:
            self._span.set_attribute("floodgate.outcome", "deferred")
        self._span.end()


class FollowCallers(Sampler):
    """Samples what is linked to a sampled span; ``otherwise`` decides on spans without a link."""

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on a span."""
        if any(link.context.trace_flags.sampled for link in links or ()):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._otherwise.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return the sampler's name, with that of the other."""
        return f"FollowCallers({self._otherwise.get_description()})"


class FirstOfEachSecond(Sampler):
    """Samples the first ``most`` spans of each second. Two threads at once may sample one more."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._second = 0
        self._sampled = 0

    @property
    def is_spent(self) -> bool:
        """Whether no further span of this second is sampled."""
        return self._sampled >= self._most and int(self._clock()) == self._second

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on a span."""
        if (second := int(self._clock())) != self._second:
            self._second, self._sampled = second, 0
        if self._sampled >= self._most:
            return SamplingResult(Decision.DROP)
        self._sampled += 1
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)

    def get_description(self) -> str:
        """Return the sampler's name and bound."""
        return f"FirstOfEachSecond({self._most})"


def shown(description: str) -> str:
    """Return as much of an error's description as a trace may show: Telegram quotes a message's text and its URLs."""
    return _QUOTATION.sub("…", redact(description))[:MAX_DESCRIPTION]


def _provider(process: str, environment: Mapping[str, str], budget: FirstOfEachSecond | None) -> TracerProvider:
    ours = Resource.create({"service.name": f"floodgate-{process}", "service.version": version("telegram-floodgate")})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.sampler = FollowCallers(provider.sampler if budget is None else ParentBased(budget))
    provider.add_span_processor(BatchSpanProcessor(_exporter(environment)))
    return provider


def _exporter(environment: Mapping[str, str]) -> Any:
    """Make the exporter that ``OTEL_TRACES_EXPORTER`` names, or OTLP.

    Raises:
        ValueError: it is not installed.
    """
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "otlp":
        general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
        name = f"otlp_proto_{protocol.strip().partition('/')[0]}"
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        return found.load()()
    raise ValueError(f"the exporter {name} is not installed; the extra `tracing` has OTLP over http/protobuf.")


def _remote(origin: Mapping[str, str] | None) -> Context:
    """Return a context whose current span is the caller's, if there is one."""
    return _PROPAGATOR.extract(origin or {}, Context())


def _answer(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


def _delivery(job: Job, queue: str) -> dict[str, str | int | float]:
    """Return a delivery's attributes: those of OpenTelemetry's conventions for messaging, and Floodgate's own."""
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": queue,
        "messaging.message.id": job.id,
        "floodgate.bot": job.bot,
        "floodgate.method": job.method,
        "floodgate.priority": job.priority.value,
        "floodgate.attempts": job.attempts,
        "floodgate.age_seconds": max(0, unix_ms() - job.created_ms) / 1000,
    }


def _release(batch: Sequence[Job]) -> dict[str, str | int]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.template": f"send.{batch[0].bot}.{batch[0].priority}",
        "messaging.batch.message_count": len(batch),
        "floodgate.bot": batch[0].bot,
        "floodgate.campaign": batch[0].campaign or "",
    }
