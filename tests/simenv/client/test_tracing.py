"""Spans of tasks: one trace from the caller's span to the worker, and nothing when it is off."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from qiskit import QuantumCircuit

import simenv
from simenv.client.connection import tracing
from simenv.errors import OptionError, SimenvError
from simenv.model import TaskOptions

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STAGES = ["simenv.submit", "simenv.queue", "simenv.run", "simenv.deliver"]


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """All spans of this process; a process has one provider for its life."""
    result = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(result))
    trace.set_tracer_provider(provider)
    return result


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


@pytest.fixture(scope="module")
def client() -> Iterator[simenv.Client]:
    with simenv.local(workers=1) as client:
        yield client


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_task_continues_the_ambient_span(
    client: simenv.Client, spans: InMemorySpanExporter
) -> None:
    with trace.get_tracer("application").start_as_current_span("step") as step:
        task = client.submit(bell(), shots=10)
        result = task.result()
    found = by_name(spans)
    assert sorted(found) == sorted([*STAGES, "step"])
    submit = found["simenv.submit"]
    assert submit.parent.span_id == step.get_span_context().span_id
    for name in STAGES[1:]:
        assert found[name].parent.span_id == submit.context.span_id
        assert found[name].context.trace_id == step.get_span_context().trace_id
        assert found[name].attributes["simenv.task"] == task.id
    scopes = [found[name].instrumentation_scope.name for name in STAGES]
    assert scopes == ["simenv.client", "simenv.service", "simenv.worker", "simenv.client"]
    run = found["simenv.run"]
    assert run.attributes["simenv.worker"] == result.worker
    times = [found[name].start_time for name in STAGES] + [found["simenv.deliver"].end_time]
    assert times == sorted(times)
    assert run.end_time - run.start_time >= 0.99e9 * result.timing.run_s
    stored = client.history.submitted(task).terms.trace
    assert stored.startswith(f"00-{submit.context.trace_id:032x}-{submit.context.span_id:016x}-")


def test_a_named_trace_is_continued(client: simenv.Client, spans: InMemorySpanExporter) -> None:
    client.submit(bell(), shots=10, trace=SAMPLED).result()
    found = by_name(spans)
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {TRACE}
    assert f"{found['simenv.submit'].parent.span_id:016x}" == PARENT


def test_a_trace_that_is_not_sampled_makes_no_spans(
    client: simenv.Client, spans: InMemorySpanExporter
) -> None:
    task = client.submit(bell(), shots=10, trace=NOT_SAMPLED)
    task.result()
    assert not spans.get_finished_spans()
    assert client.history.submitted(task).terms.trace[3:35] == TRACE


def test_a_sweep_has_one_span_of_its_submission(
    client: simenv.Client, spans: InMemorySpanExporter
) -> None:
    tasks = client.submit_many([bell() for _ in range(5)], shots=10, trace=SAMPLED)
    [task.result() for task in tasks]
    names = [span.name for span in spans.get_finished_spans()]
    assert [names.count(name) for name in STAGES] == [1, 5, 5, 5]


def test_a_refusal_is_an_error_of_its_span(
    client: simenv.Client, spans: InMemorySpanExporter
) -> None:
    with pytest.raises(SimenvError) as refused:
        client.submit(bell(), shots=10, pool="nowhere", trace=SAMPLED)
    (span,) = spans.get_finished_spans()
    assert span.name == "simenv.submit"
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == refused.value.code


def test_a_repeated_submission_with_another_trace_is_the_same(client: simenv.Client) -> None:
    first = client.submit(bell(), shots=10, seed=1, idempotency_key="once", trace=SAMPLED)
    again = client.submit(bell(), shots=10, seed=1, idempotency_key="once", trace="")
    assert first.id == again.id
    first.result()


@pytest.mark.parametrize(
    "value", ["00-xyz", f"00-{'0' * 32}-{PARENT}-01", f"01-{TRACE}-{PARENT}-01", SAMPLED + "-x", 7]
)
def test_other_traces_are_refused(client: simenv.Client, value: object) -> None:
    with pytest.raises(OptionError, match="traceparent"):
        client.submit(bell(), shots=10, trace=value)


def test_a_malformed_variable_is_ignored(
    client: simenv.Client, monkeypatch: pytest.MonkeyPatch, spans: InMemorySpanExporter
) -> None:
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    client.submit(bell(), shots=10).result()
    monkeypatch.setenv("TRACEPARENT", SAMPLED)
    client.submit(bell(), shots=10).result()
    traces = [f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()]
    assert traces.count(TRACE) == len(STAGES)


def test_nothing_is_imported_when_it_is_off() -> None:
    program = (
        "import sys; from simenv.client.connection import tracing\n"
        "assert not tracing.configure('x', {})\n"
        "import simenv.client.connection.session\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_the_extra_the_trace_is_still_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    terms = TaskOptions(trace=SAMPLED)
    assert tracing.begin(terms, 1) == (terms, None)


def test_commands_send_their_spans_by_otlp(tmp_path: Path) -> None:
    """`simenv submit` with TRACEPARENT and an endpoint, over a real OTLP receiver."""
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "bell.qasm").write_text(
        'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; h q[0]; measure q -> c;'
    )
    environ = {
        **os.environ,
        "SIMENV_HOME": str(tmp_path / "home"),
        "TRACEPARENT": SAMPLED,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
    }
    simenv_command = [sys.executable, "-P", "-m", "simenv"]
    run = {"env": environ, "cwd": tmp_path, "timeout": 120, "check": True}
    subprocess.run([*simenv_command, "up", "--name", "otel", "--workers", "1"], **run)
    try:
        submit = ["submit", "bell.qasm", "--name", "otel", "--wait"]
        subprocess.run([*simenv_command, *submit], **run, stdout=subprocess.DEVNULL)
    finally:
        subprocess.run([*simenv_command, "down", "--name", "otel"], **run)
        server.shutdown()
        server.server_close()
    spans = [
        span
        for body in bodies
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == sorted(STAGES)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
