"""Tasks whose acceptance nobody waited for, and where a sweep is cut."""

import sys
import threading
from pathlib import Path
from types import FrameType

import circuits
import msgspec
import pytest
from client_peer import Peer, spec, terms
from failing import fails
from hypothesis import given, strategies as st
from qiskit import QuantumCircuit, qasm2
from qiskit.circuit import Parameter, ParameterVector

import simenv
from simenv.client.circuits import load, native
from simenv.client.circuits.decoder import to_qiskit
from simenv.client.client import Client
from simenv.client.connection import tracing
from simenv.client.connection.session import ServiceSession
from simenv.client.submission.options import item_seeds
from simenv.client.submission.prepare import (
    RESULT_BYTES,
    PreparedSubmit,
    bindings_per_task,
    prepare_many,
)
from simenv.client.submission.send import InflightWindow, PostedTask, post, send
from simenv.errors import (
    BatchRefusedError,
    InfeasibleError,
    NoServiceError,
    ServiceLostError,
    TimedOutError,
)
from simenv.model import MAX_BINDINGS, Program, TaskOptions, TaskSpec
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.transport.unix_streams import UnixConnection, unread_error

BAD = m.Refusal("infeasible", "33 qubits do not fit", "28 do", index=0)


def posted(link: ServiceSession, seed: int = 0, key: str | None = None) -> PostedTask:
    return post(link, PreparedSubmit(terms(), [spec(seed)], single=True), key, InflightWindow())


def refusing(peer: Peer, *seeds: int) -> None:
    def picky(message: m.Submit) -> list[m.ToClient]:
        if message.tasks[0].seed in seeds:
            return [m.Refused(message.request, [BAD])]
        return peer.submitted(message)

    peer.on(m.Submit, picky)


def test_refused_posted_task_does_not_affect_others(link: ServiceSession, peer: Peer) -> None:
    refusing(peer, 1)
    tasks = [posted(link, seed) for seed in range(3)]
    ended = list(simenv.as_completed(tasks, timeout_s=60))
    assert ended[0] is tasks[1]
    assert {task.result().seed for task in ended[1:]} == {0, 2}
    assert isinstance(tasks[1].exception(), InfeasibleError)
    assert (list(simenv.as_completed([tasks[1]])), len({*tasks, tasks[1]})) == ([tasks[1]], 3)
    assert tasks[1] != tasks[0]


def test_silence_posts_a_task_again(link: ServiceSession, peer: Peer, impatient: None) -> None:
    peer.silent = True
    task = posted(link, 7)
    fails(ServiceLostError, "", task.result)
    peer.silent = False
    assert task.result(5).seed == 7
    first, *others = peer.of(m.Submit)
    assert {(again.key, again.offset) for again in others} == {(first.key, first.offset)}
    assert not link.requests._open
    assert link.tasks.pending.unanswered == 0


def test_task_whose_repeat_could_not_be_sent_is_repeated_by_the_next_call(
    link: ServiceSession, peer: Peer, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.silent = True
    task = posted(link, 7)
    fails(ServiceLostError, "may have been accepted", task.result)
    resend = link.channel.resend

    def full(body: bytes) -> None:
        if isinstance(codec.from_client(body), m.Submit):
            raise unread_error()
        resend(body)

    monkeypatch.setattr(link.channel, "resend", full)
    fails(NoServiceError, "", task.result, 5)
    monkeypatch.setattr(link.channel, "resend", resend)
    peer.silent = False
    assert (task.result(5).seed, len(peer.accepted)) == (7, 1)
    assert not link.requests._open
    assert link.tasks.pending.unanswered == 0


def test_late_acceptance_of_posted_task_is_received(link: ServiceSession, peer: Peer) -> None:
    go = threading.Event()
    peer.on(m.Submit, lambda message: peer.submitted(message) if go.wait(30) else [])
    task = posted(link, 7)
    for each in (task.result, task.exception):
        fails(TimedOutError, "", each, 0.01)
    assert repr(task) == "<Task not accepted yet>"
    assert not task.done()
    go.set()
    assert (task.result(5).seed, repr(task)) == (7, f"<Task {task.id} DONE>")


def test_repr_of_refused_posted_task_does_not_raise(link: ServiceSession, peer: Peer) -> None:
    refusing(peer, 1)
    task = posted(link, 1)
    assert isinstance(task.exception(5), InfeasibleError)
    assert repr(task) == "<Task refused>"


def test_refused_binding_is_named_by_its_index_in_sweep(link: ServiceSession, peer: Peer) -> None:
    bad = m.Refusal("infeasible", "33 qubits do not fit", "28 do", index=2)
    peer.on(m.Submit, lambda message: [m.Refused(message.request, [bad])])
    rows = TaskSpec(spec().program, 10, 1, bytes(800), count=100)
    with pytest.raises(BatchRefusedError, match=r"100 of 300.* item 200: 33 qubits") as caught:
        send(link, PreparedSubmit(terms(), [rows, rows, rows]), None)
    assert [error.index for error in caught.value.errors] == [200]


def test_posted_submit_says_that_its_result_is_awaited(link: ServiceSession, peer: Peer) -> None:
    posted(link, 1).result(5)
    send(link, PreparedSubmit(terms(), [spec(2)], single=True), None)
    assert [message.awaits_result for message in peer.of(m.Submit)] == [True, False]


def test_result_in_an_acceptance_ends_the_task_at_once(link: ServiceSession, peer: Peer) -> None:
    def at_once(message: m.Submit) -> list[m.ToClient]:
        assert message.reads_completed
        accepted, completed = peer.submitted(message)
        assert isinstance(completed, m.Completed)
        return [msgspec.structs.replace(accepted, completed=completed)]

    peer.on(m.Submit, at_once)
    (task,) = send(link, PreparedSubmit(terms(), [spec(7)], single=True), None)
    assert task.handle.over
    assert task.result(5).seed == 7
    assert not link.tasks.pending.tasks


def test_window_keeps_no_answered_task_but_the_last(link: ServiceSession, peer: Peer) -> None:
    window = InflightWindow()
    for seed in range(5):
        order = PreparedSubmit(terms(), [spec(seed)], single=True)
        assert post(link, order, None, window).result(5).seed == seed
    assert len(window._open) == 1


COUNTS = TaskOptions()


def layers(num_qubits: int, depth: int) -> Program:
    angles = iter(ParameterVector("a", num_qubits * depth))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(depth):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return load(circuit).program


SMALL = layers(4, 3)


def test_short_sweep_of_small_circuit_is_split_for_two_workers() -> None:
    assert bindings_per_task(SMALL, COUNTS, 1024, 128) >= 128, "less work than two messages cost"
    assert bindings_per_task(SMALL, COUNTS, 1024, 256) == 128
    assert bindings_per_task(SMALL, COUNTS, 1024, 0) >= 1


@pytest.mark.parametrize("total", [100, 1_000, 10_000, 100_000])
def test_bindings_of_small_circuit_are_grouped_into_few_tasks(total: int) -> None:
    rows = bindings_per_task(SMALL, COUNTS, 1024, total)
    assert 64 <= rows <= MAX_BINDINGS
    assert rows == max(64, total // 16) or rows == MAX_BINDINGS or rows * 16 >= total


def test_bindings_of_slow_circuit_are_separate_tasks() -> None:
    assert bindings_per_task(layers(18, 20), COUNTS, 1024, 500) == 1


@given(st.integers(1, 14), st.integers(1, 2**20), st.integers(1, 10**5))
def test_result_size_of_task_is_bounded(num_qubits: int, shots: int, total: int) -> None:
    program = layers(num_qubits, 1)
    rows = bindings_per_task(program, COUNTS, shots, total)
    assert 1 <= rows <= MAX_BINDINGS
    assert rows == 1 or rows * min(shots, 2**num_qubits) * 12 <= RESULT_BYTES
    states = bindings_per_task(program, TaskOptions(("statevector",)), 0, total)
    assert states == 1 or states * 16 * 2**num_qubits <= RESULT_BYTES


def test_qubits_of_a_device_that_a_circuit_leaves_alone_cost_nothing() -> None:
    placed = QuantumCircuit(127, 4)
    placed.compose(to_qiskit(SMALL), range(100, 104), range(4), inplace=True)
    alone = bindings_per_task(SMALL, COUNTS, 1024, 1000)
    assert bindings_per_task(load(placed).program, COUNTS, 1024, 1000) == alone > 1


def bell(angle: float) -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.rx(angle, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


@pytest.fixture(params=[True, False], ids=["compiled", "python"])
def packer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.CHOICE, "packer", native.build() if request.param else None)


@pytest.mark.usefixtures("packer")
def test_repeated_circuits_and_texts_have_programs_of_their_own_places() -> None:
    one, two = bell(0.1), bell(0.2)
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; h q[0]; measure q[0]->c[0];'
    for work in ([one, two, one], [one, text, two, one, text]):
        specs = prepare_many(work, {"seed": 5, "shots": 10}).specs
        seeds = item_seeds(5, len(work), None)
        expected = [
            TaskSpec(load(each).packed, 10, seed) for each, seed in zip(work, seeds, strict=True)
        ]
        assert specs == expected


@pytest.mark.usefixtures("packer")
def test_bad_circuits_are_refused_at_each_of_their_places() -> None:
    free = QuantumCircuit(1, 1)
    free.rx(Parameter("x"), 0)
    free.measure(0, 0)
    with pytest.raises(BatchRefusedError) as refused:
        prepare_many([bell(0.1), free, bell(0.2), free, bell(0.1)], {})
    assert [error.index for error in refused.value.errors] == [1, 3]
    unmeasured = QuantumCircuit(1)
    with pytest.raises(BatchRefusedError) as refused:
        prepare_many([unmeasured, bell(0.1), unmeasured], {})
    assert [error.index for error in refused.value.errors] == [0, 2]


@pytest.mark.usefixtures("packer")
def test_programs_above_the_limit_are_refused_by_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = bell(0.1), bell(0.2)
    for _ in range(20):
        large.h(0)
    limit = len(load(small).packed)
    monkeypatch.setattr("simenv.client.circuits.text_checks.MAX_PACKED_BYTES", limit)
    with pytest.raises(BatchRefusedError, match=f"the limit is {limit}") as refused:
        prepare_many([small, large, small], {})
    assert [error.index for error in refused.value.errors] == [1]


ROOT = Path(simenv.__file__).parent
MOST = 10


def test_a_submit_crosses_few_modules(env: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, tracing.API, raising=False)  # without spans
    crossed: dict[str, str] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code is UnixConnection.send.__code__:
            sys.setprofile(None)
        if event == "call" and code.co_filename.startswith(f"{ROOT}/"):
            crossed.setdefault(code.co_filename[len(str(ROOT)) :], code.co_name)

    text = qasm2.dumps(circuits.bell())
    env.submit(text, shots=10).result()  # parsed once: the reader of the text is a part of its own
    sys.setprofile(note)
    try:
        env.submit(text, shots=10).result()
    finally:
        sys.setprofile(None)
    assert "/wire/transport/unix_streams.py" in crossed
    assert len(crossed) <= MOST, sorted(crossed.items())
