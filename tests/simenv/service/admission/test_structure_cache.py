"""The cache of structures, answers to submissions, gradients."""

import math
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit
from service import RESULT, ServiceHarness, program, spec

from simenv.client.circuits import load
from simenv.errors import LimitExceededError, OptionError, SimenvError
from simenv.model import Chain, Observable, Program, TaskOptions, TaskSpec, Workload
from simenv.scheduler.core import Route
from simenv.scheduler.routing import live_routing
from simenv.service import program_rules
from simenv.service.admission import background_checks, submissions
from simenv.service.admission.controller import (
    LOOKED_BYTES,
    PLACES,
    AdmissionController,
    StructureCache,
)
from simenv.service.internal_errors import InternalErrors
from simenv.service.program_rules import AdmittedProgram
from simenv.wire import codec
from simenv.wire.messages import client as m

MARK = b"terms"
KNOWN = AdmittedProgram(
    0, True, 2, 5, 2, Route("statevector", "test", "main", 2, 1, 1.0, 1.0, 1), Workload()
)


def kept(one: Program) -> StructureCache:
    layouts = StructureCache()
    assert layouts.keep(one.packed(), one, MARK, KNOWN)
    return layouts


def test_program_with_other_angles_is_found_before_and_after_another_lookup() -> None:
    layouts = kept(program())
    other = program(3)
    assert layouts.keep(other.packed(), other, MARK, KNOWN)
    for angle in (0.1, 0.2, -3.0):
        assert layouts.find(program(2, angle).packed(), MARK) is KNOWN
        assert layouts.find(program(3, angle).packed(), MARK) is KNOWN


@pytest.mark.parametrize("angle", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("qubits", [2, 100])
def test_program_with_non_finite_angles_is_not_found(angle: float, qubits: int) -> None:
    layouts = kept(program(qubits))
    result = program(qubits)
    angles = np.frombuffer(result.params).copy()
    angles[-1] = angle
    bad = msgspec.structs.replace(result, params=angles.tobytes())
    assert layouts.find(bad.packed(), MARK) is None
    assert layouts.find(result.packed(), MARK) is KNOWN


def test_run_of_same_structure_ends_before_first_different_task() -> None:
    layouts = kept(program())

    def end_with(odd: TaskSpec) -> int:
        tasks = [spec(seed=k, program=program(2, 0.1 * k).packed()) for k in range(6)]
        tasks[4] = odd
        assert layouts.find(tasks[0].program, MARK) is KNOWN
        return layouts.same_structure_run(tasks, 0, 6)

    like = spec(seed=9, program=program(2, 7.0).packed(), binding=3)
    assert end_with(like) == 6
    odd: list[dict[str, object]] = [
        {"shots": 101}, {"count": 2}, {"bindings": b"12345678"}, {"seed": -1}, {"binding": -1},
        {"program": program(3).packed()},
    ]  # fmt: skip
    for change in odd:
        assert end_with(msgspec.structs.replace(like, **change)) == 4, change
    twice = msgspec.structs.replace(program(), qubits=bytes(8))
    assert end_with(msgspec.structs.replace(like, program=twice.packed())) == 4
    nan = msgspec.structs.replace(like, program=program(2, math.nan).packed())
    assert end_with(nan) == 1  # each is looked at by itself then


@pytest.mark.parametrize("has_zeros", [False, True])
def test_program_with_any_changed_byte_outside_its_angles_is_not_found(has_zeros: bool) -> None:
    """Also where the bytes of the angles occur elsewhere."""
    outcome = program()
    if has_zeros:
        outcome = msgspec.structs.replace(program(4, 0.0), clbits=bytes(64), qubits=bytes(64))
    layouts, packed = kept(outcome), outcome.packed()
    assert layouts.find(packed, MARK) is KNOWN
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 1
        try:
            read = msgspec.msgpack.decode(bytes(changed), type=Program)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            read = outcome
        same = read != outcome and msgspec.structs.replace(read, params=outcome.params) == outcome
        assert (layouts.find(bytes(changed), MARK) is KNOWN) == same, place
    assert layouts.find(packed + b"\0", MARK) is None
    assert layouts.find(packed, b"other terms") is None


def test_program_without_angles_or_with_other_encoding_is_not_cached() -> None:
    layouts = StructureCache()
    got = program()
    assert not layouts.keep(got.packed(), msgspec.structs.replace(got, params=b""), MARK, KNOWN)
    short = msgspec.msgpack.encode(msgspec.structs.astuple(got)[:10])  # defaults left out
    assert msgspec.msgpack.decode(short, type=Program) == got
    assert not layouts.keep(short, got, MARK, KNOWN)


def test_cache_of_angles_is_bounded() -> None:
    layouts = StructureCache()
    entries = [_padded(k) for k in range(PLACES + 1)]
    assert len({len(each.packed()) for each in entries}) == 1
    for each in entries:
        assert layouts.keep(each.packed(), each, MARK, KNOWN)
    assert layouts.find(entries[0].packed(), MARK) is None
    assert all(layouts.find(each.packed(), MARK) is KNOWN for each in entries[1:])
    layouts, entries = StructureCache(), [_padded(k, 2**16) for k in range(PLACES)]
    for each in entries:
        assert layouts.keep(each.packed(), each, MARK, KNOWN)
    size = len(entries[0].packed())
    assert layouts.find(entries[-1].packed(), MARK) is KNOWN
    assert layouts.looked_bytes == size, "the newest place comes first"
    assert layouts.find(_padded(PLACES, 2**16).packed(), MARK) is None
    assert layouts.looked_bytes <= LOOKED_BYTES + 2 * size


def _padded(k: int, more: int = 0) -> Program:
    """Angles begin 8 bytes later for each k; the length stays."""
    qubits, slots = bytes(32 + 8 * k + more), bytes(232 - 8 * k)
    return msgspec.structs.replace(program(), qubits=qubits, slots=slots)


def test_structure_is_examined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bytes] = []
    value = background_checks.look

    def noted(packed: bytes, *others: Any) -> background_checks.Looked:
        looks.append(packed)
        return value(packed, *others)

    monkeypatch.setattr(background_checks, "look", noted)
    bench = ServiceHarness(tmp_path)
    angles = [spec(seed=k, program=program(2, 0.1 * k).packed()) for k in range(1, 4)]
    assert isinstance(bench.submit(*angles), m.Accepted)
    assert isinstance(bench.submit(spec(program=program(2, 0.7).packed())), m.Accepted)
    assert looks == [angles[0].program]
    arities = np.array([[1, 0, 0], [1, 1, 0]], np.uint16).tobytes()
    plain = msgspec.structs.replace(program(2), names=("h", "measure"), arities=arities, params=b"")
    without_angles = spec(program=plain.packed())
    for _ in range(2):
        assert isinstance(bench.submit(without_angles, without_angles), m.Accepted)
    assert looks == [angles[0].program, without_angles.program]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceHarness:
    monkeypatch.setattr(submissions, "HOLD_S", 1_000.0)
    made = ServiceHarness(tmp_path)
    made.join()
    return made


def waiting(key: str = "~w", **terms: object) -> m.Submit:
    options = TaskOptions(**terms)  # type: ignore[arg-type]
    return m.Submit(5, key, 0, options, [spec()], awaits_result=True)


def test_acceptance_is_held_and_precedes_the_result(bench: ServiceHarness) -> None:
    assert bench.say(waiting()) == []
    assert bench.loop._poll_timeout_s() <= submissions.HOLD_S  # it is sent in time
    accepted, completed = bench.finish(bench.assigned())
    assert completed.results[0].task == accepted.first
    assert not bench.loop._accept_answers.hold_s


def test_acceptance_of_a_short_task_that_is_alone_comes_with_its_result(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "ALONE_HOLD_S", 1_000.0)
    alone = msgspec.structs.replace(waiting(), awaits_result=False)
    assert bench.say(alone) == []
    accepted, completed = bench.finish(bench.assigned())
    assert isinstance(accepted, m.Accepted)
    assert isinstance(completed, m.Completed)
    (repeated,) = bench.say(alone)
    assert repeated == msgspec.structs.replace(accepted, repeated=True)
    bench.submit(spec(), spec(2), key="~two")
    assert isinstance(bench.submit(spec(3), key="~more"), m.Accepted)  # it is not alone


@pytest.mark.parametrize("awaits_result", [True, False])
def test_result_is_in_the_acceptance_that_it_was_held_for(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch, awaits_result: bool
) -> None:
    monkeypatch.setattr(submissions, "ALONE_HOLD_S", 1_000.0)
    reads = msgspec.structs.replace(waiting(), awaits_result=awaits_result, reads_completed=True)
    assert bench.say(reads) == []
    (accepted,) = bench.finish(bench.assigned())
    (completion,) = accepted.completed.results
    assert (completion.task, completion.payload) == (accepted.first, RESULT)


def test_task_with_a_held_acceptance_is_stored(bench: ServiceHarness) -> None:
    assert bench.say(waiting()) == []
    bench.restart()
    assert bench.replayed.queued == 1


@pytest.mark.parametrize("at_the_end", [True, False])
@pytest.mark.parametrize("awaits_result", [True, False])
def test_acceptance_is_sent_after_its_hold_or_at_the_end_of_the_service(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch, awaits_result: bool, at_the_end: bool
) -> None:
    monkeypatch.setattr(submissions, "ALONE_HOLD_S", 1_000.0)
    assert bench.say(msgspec.structs.replace(waiting(), awaits_result=awaits_result)) == []
    answers = bench.loop._accept_answers
    if at_the_end:
        answers.close()
    else:
        answers._until_ns = dict.fromkeys(answers._until_ns, 0)
        bench.step()
    assert [type(each) for each in bench.heard()] == [m.Accepted]


def test_acceptance_is_sent_at_once_where_the_result_is_not_near(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path)
    bench.get(m.Accepted, waiting("~a"))  # no worker has joined
    bench.join()
    tasks = bench.assigned()
    behind = m.Submit(6, "~b", 0, TaskOptions(), [spec(k) for k in range(2)], awaits_result=True)
    bench.get(m.Accepted, behind)
    bench.finish(tasks)
    assert bench.get(m.Accepted, waiting("~a")).repeated


ZZ = Observable(("ZZ",), struct.pack("<d", 1.0))
BOTH = ("expectation", "gradient")


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def chain(**changes: object) -> Chain:
    sizes = {"parameters": 2, "slots": ints(0, 2), "columns": ints(1, 0)}
    return Chain(**{**sizes, "factors": struct.pack("<2d", 0.5, -1.0), **changes})  # type: ignore[arg-type]


def terms(**changes: object) -> TaskOptions:
    fields: dict[str, object] = {"outputs": BOTH, "observables": (ZZ,), "ranks": 1}
    return TaskOptions(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": ("gradient",)}, "expectation values"),
        ({"outputs": ("expectation",), "chain": chain()}, "without the output"),
        ({"ranks": 0}, "ranks = 0"),
        ({"ranks": 2}, "ranks = 2"),
        ({"chain": chain(slots=ints(0))}, "different lengths"),
        ({"chain": chain(slots=b"\0" * 7)}, "different lengths"),
        ({"chain": chain(columns=ints(0, 2))}, "does not exist"),
        ({"chain": chain(columns=ints(0, -1))}, "does not exist"),
        ({"chain": chain(factors=struct.pack("<2d", 0.5, float("nan")))}, "finite"),
        ({"chain": chain(parameters=0)}, "parameters"),
        ({"chain": chain(parameters=2**40)}, "limit"),
    ],
)
def test_contradictory_gradient_options_are_refused(changes: dict[str, object], words: str) -> None:
    fails(SimenvError, words, program_rules.check_gradient_terms, terms(**changes))


@pytest.mark.parametrize("outputs", [("expectation",), BOTH])
def test_observable_without_terms_is_refused(outputs: tuple[str, ...]) -> None:
    program_rules.check_terms(terms(outputs=outputs))
    with pytest.raises(OptionError, match="an observable without terms"):
        program_rules.check_terms(terms(outputs=outputs, observables=(ZZ, Observable((), b""))))


def test_task_without_computable_gradient_is_refused() -> None:
    exact = TaskSpec(b"", 0, 1)
    chained, wide = terms(chain=chain()), terms(chain=chain(parameters=2**18))
    check = program_rules.check_gradient_task
    fails(OptionError, "10 shots", check, TaskSpec(b"", 10, 1), terms(), 3, 2**20)
    fails(OptionError, "free parameters", check, exact, terms(), 0, 2**20)
    fails(OptionError, "a slot that the program does not have", check, exact, chained, 2, 2**20)
    fails(LimitExceededError, "1 observables", check, exact, wide, 3, 2**20)
    check(exact, chained, 3, 2**20)


def test_structures_of_one_profile_are_routed_once_while_options_and_nodes_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route_now, routed = live_routing.route_now, []
    monkeypatch.setattr(
        live_routing, "route_now", lambda *given: routed.append(given) or route_now(*given)
    )
    bench = ServiceHarness(tmp_path)
    controller = AdmissionController(bench.config.pools, bench.state)

    def admit(number: int, first: int, **options: Any) -> Route:
        circuit = QuantumCircuit(3, 3)
        circuit.ry(0.3 + number, first)
        circuit.cx(first, (first + number % 2 + 1) % 3)
        circuit.measure(range(3), range(3))
        terms = TaskOptions(**options)
        message = m.Submit(1, f"~{number}", 0, terms, [spec(program=load(circuit).packed)])
        pending = submissions.PendingSubmit(b"peer", "", message, codec.encode(message), 0)
        assert controller.admit_some(pending, 2**63, InternalErrors())
        assert pending.refusals == []
        return pending.routes[0]

    first = admit(0, 0)
    assert admit(1, 1) is first  # another structure with equal counts
    assert len(routed) == 1
    assert admit(2, 2, engine="densitymatrix").engine == "densitymatrix"
    assert len(routed) == 2
    bench.state.cluster.capacity = msgspec.structs.replace(
        bench.state.cluster.capacity
    )  # as when a node is lost
    assert admit(3, 1) == first
    assert len(routed) == 3
