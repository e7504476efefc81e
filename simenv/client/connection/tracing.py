"""Spans of tasks for OpenTelemetry, by W3C Trace Context.

`simenv.submit` continues the span of the caller: the one that `trace=` names, else the ambient
one. Its context is sent in the tasks. Below it, each task that has ended has `simenv.queue` (in
the service), `simenv.run` (in the worker) and `simenv.deliver` (back to the client). They are made
here, from the times that come with the result: service and worker load nothing, and no clock of
another machine is compared. Whether a trace is sampled is the caller's or the provider's decision.

Invariant: nothing of OpenTelemetry is imported before the application imports it or names a trace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

import msgspec

from simenv._version import __version__
from simenv.model import TaskOptions, TaskState

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from simenv.client.connection.task_handle import Submission, TaskHandle

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
API = "opentelemetry.trace"  # the module that an application which makes spans has loaded


def configure(service_name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send the spans of this process by OTLP, if the environment names an endpoint and the process
    has no provider. For processes of simenv; an application configures its own provider. Returns
    whether spans are sent; False also without the extra `otel`."""
    if not any(environ.get(name) for name in ENDPOINTS):
        return False
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return False
    resource = Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME", service_name)})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True


def begin(terms: TaskOptions, count: int) -> tuple[TaskOptions, Span | None]:
    """Begin the span of a submission of `count` tasks. Returns the options with its context, and
    the span if it is sampled. For options with a trace, or where the API is loaded."""
    try:
        from opentelemetry import trace
        from opentelemetry.trace.propagation import tracecontext
    except ImportError:
        return terms, None
    propagator = tracecontext.TraceContextTextMapPropagator()
    parent = propagator.extract({"traceparent": terms.trace}) if terms.trace else None
    attributes: dict[str, Any] = {"simenv.tasks": count}
    if terms.device:
        attributes["simenv.device"] = terms.device
    tracer = trace.get_tracer("simenv.client", __version__)
    span = tracer.start_span("simenv.submit", parent, trace.SpanKind.CLIENT, attributes)
    carrier: dict[str, str] = {}
    propagator.inject(carrier, trace.set_span_in_context(span))
    context = carrier.get("traceparent", terms.trace)
    if context != terms.trace:
        terms = msgspec.structs.replace(terms, trace=context)
    return terms, span if span.is_recording() else None


def accepted(handles: Iterable[TaskHandle], submission: Submission) -> None:
    """End the span of a submission; the spans of its tasks follow at their ends."""
    span = submission.span
    if span is None:
        return
    from opentelemetry import trace

    submission.span = None
    span.end()
    begun_ns = time_ns() - round(1e9 * (perf_counter() - submission.sent_s))
    at_ns = begun_ns + round(1e9 * submission.accepted_s)
    context = trace.set_span_in_context(span)
    for handle in handles:
        handle.on_end(partial(_task_spans, handle, context, at_ns))


def refused(submission: Submission, code: str) -> None:
    """End the span of a submission that was refused or given up. `code`: of the error."""
    span, submission.span = submission.span, None
    if span is not None:
        from opentelemetry.trace import StatusCode

        span.set_status(StatusCode.ERROR, code)
        span.end()


def _task_spans(handle: TaskHandle, context: Context, accepted_ns: int) -> None:
    """Make the spans of a task that has ended."""
    from opentelemetry.trace import SpanKind, StatusCode, get_tracer

    completion, ending = handle.completion, handle.ending
    if completion is None or ending is None:  # the service is lost
        return
    timing, origin = completion.timing, ending.origin
    task = {"simenv.task": handle.id}
    state = handle.final_state
    queued_ns = accepted_ns + 1000 * timing.queued_us
    begun_ns = queued_ns + 1000 * timing.sent_us
    ended_ns = begun_ns + 1000 * (timing.compile_us + timing.run_us)
    run = {
        **task,
        "simenv.state": state.value,
        "simenv.engine": ending.engine,
        "simenv.worker": origin.worker,
        "simenv.node": origin.node,
        "simenv.slots": completion.slots,
        "simenv.attempts": completion.attempts,
    }
    stages: list[tuple[str, str, SpanKind, int, int, dict[str, Any]]] = [
        ("service", "queue", SpanKind.INTERNAL, accepted_ns, queued_ns, task),
        ("worker", "run", SpanKind.CONSUMER, begun_ns, ended_ns, run),
        ("client", "deliver", SpanKind.INTERNAL, ended_ns, max(ended_ns, time_ns()), task),
    ]
    for place, name, kind, begin_ns, end_ns, attributes in stages:
        tracer = get_tracer(f"simenv.{place}", __version__)
        span = tracer.start_span(f"simenv.{name}", context, kind, attributes, start_time=begin_ns)
        if name == "run" and state is not TaskState.DONE:
            span.set_status(StatusCode.ERROR, state.value)
        span.end(end_ns)
