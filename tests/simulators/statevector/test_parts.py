"""Circuits in parts: outcomes, states and what follows them, against Qiskit's states and whole
circuits; and what is kept between runs."""

import math
from itertools import pairwise

import engine_runs
import numpy as np
import pytest
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.circuit.classical import expr, types
from qiskit.quantum_info import Operator, Statevector

from simenv.client.circuits import load
from simenv.client.circuits.joined_programs import joined
from simenv.errors import ProgramError
from simenv.model import Program
from simulators.circuit.ir import Circuit
from simulators.engine import CircuitParts, EngineResult, PauliSum, Request
from simulators.errors import BadCircuit, OtherOutcome, TooManyBranches, Unsupported
from simulators.simulate import counts_of
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.parts import KeptState, KeptStates

KEEP_S = 60.0
WIDTHS = (3, 13)  # of the gate list, and of tiles


def program(circuit: QuantumCircuit) -> Program:
    return load(circuit).program


def chained(circuits: list[QuantumCircuit]) -> tuple[Circuit, tuple[int, ...]]:
    """The circuit of all of them, and where each but the last ends."""
    result = program(circuits[0])
    ends = [len(result.ops) // 2]
    for circuit in circuits[1:]:
        result = joined(result, program(circuit))
        ends.append(len(result.ops) // 2)
    return Circuit.from_program(result), tuple(ends[:-1])


def run(
    engine: StatevectorEngine, circuit: Circuit, ends: tuple[int, ...], seed: int, shots: int = 0,
    outputs: tuple[str, ...] = ("counts",), precision: str = "double", **request: object,
) -> EngineResult:  # fmt: skip
    parts = CircuitParts(ends, KEEP_S) if ends else None
    outcome = Request(shots, seed, outputs, **request)  # type: ignore[arg-type]
    return engine_runs.run(engine, circuit, outcome, precision=precision, parts=parts)


def measuring(num_qubits: int) -> QuantumCircuit:
    """Two qubits of an entangled state are measured, one of them twice."""
    qubits, bits = QuantumRegister(num_qubits, "q"), ClassicalRegister(2, "c")
    circuit = QuantumCircuit(qubits, bits)
    for qubit in range(num_qubits):
        circuit.ry(0.9 + 0.2 * qubit, qubit)
    for one, two in pairwise(range(num_qubits)):
        circuit.cx(one, two)
    circuit.measure(0, bits[0])
    circuit.rx(0.7, 1)
    circuit.measure(1, bits[1])
    return circuit


def turning(num_qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(num_qubits, "q"))
    circuit.h(0)
    circuit.crz(0.4, 0, 2)
    circuit.rx(1.1, 1)
    circuit.cx(2, 1)
    return circuit


@pytest.mark.parametrize("num_qubits", WIDTHS)
def test_state_after_part_is_that_of_its_outcome(num_qubits: int) -> None:
    engine = StatevectorEngine()
    circuit, ends = chained([measuring(num_qubits), turning(num_qubits)])
    names = set()
    for seed in range(12):
        state = Statevector.from_label("0" * num_qubits)
        outcome = _outcome(engine, num_qubits, seed)
        names.add(outcome)
        for item in measuring(num_qubits).data:
            places = [item.qubits[k]._index for k in range(len(item.qubits))]
            if item.operation.name != "measure":
                state = state.evolve(item.operation, places)
                continue
            bit = outcome >> places[0] & 1
            projector = np.diag([1 - bit, bit]).astype(complex)
            state = state.evolve(Operator(projector), places)
            state = state / np.linalg.norm(state.data)
        expected = state.evolve(turning(num_qubits)).data
        result = run(engine, circuit, ends, seed, outputs=("statevector",))
        assert result.statevector is not None
        np.testing.assert_allclose(result.statevector[0], expected, atol=1e-12)
    assert len(names) > 1


def free_angle(num_qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(num_qubits)
    circuit.rx(Parameter("a"), num_qubits - 1)
    return circuit


def _outcome(engine: StatevectorEngine, num_qubits: int, seed: int) -> int:
    part = Circuit.from_program(program(measuring(num_qubits)))
    (outcome,) = counts_of(run(engine, part, (part.ops.size,), seed, 1).row(0))
    return outcome


def test_outcomes_of_seeds_have_their_probabilities() -> None:
    engine = StatevectorEngine()
    part = Circuit.from_program(program(measuring(3)))
    exact = run(engine, part, (), 0, outputs=("probabilities",))
    probs = np.frombuffer(exact.probabilities)
    seeds = 1_500
    array = np.zeros(4)
    for seed in range(seeds):
        array[_outcome(engine, 3, seed)] += 1
    chi = float(((array - seeds * probs) ** 2 / (seeds * probs)).sum())
    assert chi < 21.1  # 3 degrees of freedom: 1 in 10,000


def with_feed_forward() -> tuple[QuantumCircuit, QuantumCircuit]:
    """A part, and one that looks at its bits: conditions, registers, variables and matrices."""
    first = measuring(3)
    (bits,) = first.cregs
    more = ClassicalRegister(3, "m")
    then = QuantumCircuit(first.qregs[0], more, bits)
    with then.if_test((bits, 2)):
        then.x(2)
    with then.if_test((bits[0], 1)) as otherwise:
        then.h(1)
    with otherwise:
        then.ry(0.3, 1)
    result = then.add_var("seen", expr.lift(bits))
    then.unitary(np.array([[0.6, 0.8], [0.8, -0.6]]), [2])
    with then.switch(result) as case:
        with case(1, 3):
            then.t(2)
        with case(case.DEFAULT):
            then.sx(2)
    then.h(2)
    then.measure(then.qubits, more)
    return first, then


def test_shots_of_parts_are_those_of_one_dynamic_circuit() -> None:
    engine = StatevectorEngine()
    first, then = with_feed_forward()
    circuit, ends = chained([first, then])
    exact = run(engine, circuit, (), 0, outputs=("probabilities",))
    probs = engine_runs.probabilities(exact.row(0))
    table: dict[int, int] = dict.fromkeys(probs, 0)
    seeds = 1_200
    for seed in range(seeds):
        (outcome,) = counts_of(run(engine, circuit, ends, seed, 1).row(0))
        table[outcome] += 1
    likely = {key: p for key, p in probs.items() if p * seeds > 5}
    chi = sum((table[key] - seeds * p) ** 2 / (seeds * p) for key, p in likely.items())
    degrees = len(likely)
    assert degrees > 8
    assert chi < degrees + 5 * math.sqrt(2 * degrees)


def test_shots_after_a_part_have_the_distribution_of_its_outcome() -> None:
    engine = StatevectorEngine()
    circuit, ends = chained([*with_feed_forward()])
    for seed in range(6):
        exact = run(engine, circuit, ends, seed, outputs=("probabilities",))
        probs = engine_runs.probabilities(exact.row(0))
        actual = counts_of(run(engine, circuit, ends, seed, 4_000).row(0))
        assert len({outcome & 3 for outcome in probs}) == 1
        chi = sum((actual.get(k, 0) - 4_000 * p) ** 2 / (4_000 * p) for k, p in probs.items())
        assert chi < len(probs) + 5 * math.sqrt(2 * len(probs))


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("num_qubits", WIDTHS)
def test_kept_states_change_no_bit(num_qubits: int, precision: str) -> None:
    parts = [measuring(num_qubits), turning(num_qubits), measuring(num_qubits)]
    last = turning(num_qubits)
    last.measure_all()
    circuit, ends = chained([*parts, last])
    for seed in range(3):
        engine, fresh = StatevectorEngine(), StatevectorEngine()
        for end in range(1, 4):  # part by part, each from the state of the one before
            part, own_ends = chained([*parts[:end], QuantumCircuit(*measuring(num_qubits).qregs)])
            result = run(engine, part, own_ends, seed, 1, precision=precision)
            assert result.remark.startswith(f"{end - 1} of {end}")
        outcome = run(engine, circuit, ends, seed, 500, ("counts", "memory"), precision)
        anew = run(fresh, circuit, ends, seed, 500, ("counts", "memory"), precision)
        assert (outcome.remark[0], anew.remark[0]) == ("3", "0")
        assert (outcome.outcomes, outcome.counts, outcome.memory) == (
            anew.outcomes, anew.counts, anew.memory
        )  # fmt: skip


def test_reset_after_a_part_is_no_reset_of_an_untouched_qubit() -> None:
    first = QuantumCircuit(2, 1)
    first.x(0)
    first.h(1)
    first.measure(1, 0)
    then = QuantumCircuit(2, 1)
    then.reset(0)
    circuit, ends = chained([first, then])
    sums = (PauliSum(("IZ",), np.ones(1)),)
    result = run(StatevectorEngine(), circuit, ends, 1, outputs=("expectation",), observables=sums)
    assert np.frombuffer(result.expectations)[0] == pytest.approx(1.0)


def test_rows_of_parameters_go_on_from_one_state() -> None:
    engine = StatevectorEngine()
    outcome = joined(program(measuring(3)), program(turning(3)))
    angle = program(free_angle(3))
    ends = (len(program(measuring(3)).ops) // 2,)
    circuit = Circuit.from_program(joined(outcome, angle))
    sums = (PauliSum(("ZII",), np.ones(1)),)
    rows = np.array([[0.0], [np.pi], [0.4]])
    table = {"outputs": ("expectation", "gradient"), "observables": sums, "bindings": rows}
    result = run(engine, circuit, ends, 5, **table)  # type: ignore[arg-type]
    values = np.frombuffer(result.expectations).reshape(3, 2)[:, 0]
    assert values[0] == pytest.approx(-values[1])
    steps = rows[2] + np.array([[1e-6], [-1e-6]])
    moved = run(engine, circuit, ends, 5, **{**table, "bindings": steps})  # type: ignore[arg-type]
    up, down = np.frombuffer(moved.expectations).reshape(2, 2)[:, 0]
    assert np.frombuffer(result.gradients)[2] == pytest.approx((up - down) / 2e-6, abs=1e-6)


def test_other_outcomes_than_before_are_refused() -> None:
    engine = StatevectorEngine()
    part = Circuit.from_program(program(measuring(3)))
    result = _outcome(engine, 3, 2)
    for outcome in range(4):
        parts = CircuitParts((part.ops.size,), 0.0, (bytes([outcome]),))
        given = StatevectorEngine(), part, Request(1, 2, ("memory",))
        if outcome == result:
            assert engine_runs.run(*given, parts=parts).memory == bytes([result])
            continue
        fails(OtherOutcome, "part 0", engine_runs.run, *given, parts=parts)


@pytest.mark.parametrize("num_qubits", WIDTHS)
def test_empty_parts_change_nothing(num_qubits: int) -> None:
    empty = QuantumCircuit(QuantumRegister(num_qubits, "q"))
    last = turning(num_qubits)
    last.measure_all()
    full = [measuring(num_qubits), last]
    for seed in range(3):
        expected = run(StatevectorEngine(), *chained(full), seed, 200)
        circuit, ends = chained([empty, full[0], empty, empty, last])
        assert ends[0] == 0
        assert ends[1:] == (ends[1],) * 3
        engine = StatevectorEngine()
        for remark in ("0 of 4", "4 of 4"):
            result = run(engine, circuit, ends, seed, 200)
            assert result.remark.startswith(remark)
            assert (result.outcomes, result.counts) == (expected.outcomes, expected.counts)
    value, nothing = chained([empty, empty])
    zero = run(StatevectorEngine(), value, nothing, 1, outputs=("statevector",)).statevector
    assert zero is not None
    assert zero[0, 0] == 1.0


def splitting(branches: int) -> QuantumCircuit:
    """Measures qubits that are used again: so many distinct states, a power of two, at once."""
    circuit = QuantumCircuit(QuantumRegister(3, "q"), ClassicalRegister(2, "s"))
    for qubit in range(branches.bit_length() - 1):
        circuit.h(qubit)
        circuit.measure(qubit, qubit)
        circuit.ry(0.3 + qubit, qubit)
    return circuit


@pytest.mark.parametrize("num_states", [2, 3, 4, 5])
def test_states_of_branches_share_memory_with_the_one_they_begin_with(num_states: int) -> None:
    engine = StatevectorEngine()
    circuit, ends = chained([turning(3), splitting(4)])
    given = engine, circuit, Request(0, 1, ("probabilities",))
    limits = {"parts": CircuitParts(ends), "memory_bytes": num_states * 16 * 8}
    if num_states == 5:  # four, and that of the part
        result = engine_runs.run(*given, **limits)
        assert np.frombuffer(result.probabilities).sum() == pytest.approx(1.0)
        return
    with pytest.raises(TooManyBranches, match=f"more than {num_states - 1} distinct states"):
        engine_runs.run(*given, **limits)


def test_parts_that_cannot_be_are_refused() -> None:
    engine = StatevectorEngine()
    first, then = with_feed_forward()
    circuit, (end,) = chained([first, then])
    for ends, text in (
        ((end, end - 1), "end before operations"),
        ((-1,), "end before operations"),
        ((circuit.ops.size + 1,), "end before operations"),
        ((end + 1,), "inside a block"),
    ):
        fails(BadCircuit, text, run, engine, circuit, ends, 1, 1)
    free = Circuit.from_program(program(free_angle(1)))
    fails(BadCircuit, "free parameters", run, engine, free, (1,), 1, bindings=np.zeros((1, 1)))
    with pytest.raises(Unsupported, match="measures"):
        run(engine, *chained([measuring(3), measuring(3)]), 1, outputs=("statevector",))


def test_programs_that_cannot_be_joined_are_refused() -> None:
    two, three = QuantumCircuit(2), QuantumCircuit(3)
    fails(ProgramError, "a part of 3 qubits, after one of 2", joined, program(two), program(three))
    one = QuantumCircuit(QuantumRegister(1, "q"), ClassicalRegister(1, "c"))
    other = QuantumCircuit(QuantumRegister(1, "q"), ClassicalRegister(2, "c"))
    fails(ProgramError, "register 'c' has 2 bits, and 1", joined, program(one), program(other))
    with pytest.raises(ProgramError, match="free parameters"):
        joined(program(free_angle(2)), program(two))


def test_joined_programs_are_those_of_composed_circuits() -> None:
    first, then = with_feed_forward()
    bits, more = first.cregs[0], then.cregs[0]
    quantum_circuit = QuantumCircuit(first.qregs[0], bits, more)
    quantum_circuit.compose(first, inplace=True)
    quantum_circuit.add_uninitialized_var(expr.Var.new("unused", types.Bool()))
    quantum_circuit.compose(then, quantum_circuit.qubits, [*more, *bits], inplace=True)
    engine = StatevectorEngine()
    composed = Circuit.from_program(program(quantum_circuit))
    circuit, _ = chained([first, then])
    assert circuit.registers == composed.registers
    exact = [run(engine, each, (), 3, 0, ("probabilities",)) for each in (circuit, composed)]
    assert exact[0].probability_outcomes == exact[1].probability_outcomes
    np.testing.assert_allclose(
        np.frombuffer(exact[0].probabilities), np.frombuffer(exact[1].probabilities), atol=1e-14
    )


def test_kept_states_are_bounded_in_bytes_and_time() -> None:
    now = [0.0]
    states = KeptStates(clock=lambda: now[0])

    def kept(size_bytes: int) -> KeptState:
        return KeptState(None, np.zeros(1, np.uint64), size_bytes)

    small, large = 2**20, 2**30
    states.keep(b"small", kept(small), 10.0)
    states.keep(b"large", kept(large), 10.0)
    assert states.find(b"small") is not None
    assert states.find(b"large") is None  # no memory was granted
    states.limit(large)
    states.keep(b"large", kept(large), 5.0)
    assert states.find(b"large") is not None
    assert states.find(b"small") is None  # the least recently used
    assert states.expire() == 5.0
    now[0] = 5.0
    assert states.expire() == math.inf
    assert not len(states)
    states.keep(b"large", kept(large), 5.0)
    states.limit(0)
    assert not len(states)
    states.keep(b"none", kept(small), 0.0)
    assert not len(states)
