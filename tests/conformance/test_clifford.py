"""Clifford gates at every angle that makes them one; Paulis that depend on what was measured."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from arrays import Arrays
from clifford import assert_alike, clifford
from engine_runs import probabilities
from engines import Runner
from failing import fails
from qiskit.quantum_info import SparsePauliOp, Statevector
from reference import final_state

from simulators.circuit import ir
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.gates import GATES, unitary
from simulators.circuit.ir import feed_forward
from simulators.engine import PauliSum
from simulators.errors import Unsupported
from simulators.simulate import counts_of

NEVER = {"t", "tdg", "ch", "cs", "csdg", "csx", "ccx", "ccz", "cswap", "rccx", "c3sx", "rcccx"}


@pytest.mark.parametrize("name", sorted(set(GATES) - NEVER))
def test_clifford_at_quarter_turn_is_right(runner_of: Callable[[str], Runner], name: str) -> None:
    """At every angle of whole quarter turns: the right gate, or a refusal the profile expects."""
    gate, run = GATES[name], runner_of("stabilizer")
    width = gate.qubits if gate.qubits >= 0 else 2
    rng = np.random.default_rng(gate.code)
    tried = 0
    for turns in itertools.product(range(8), repeat=min(2, gate.params)):
        angles = np.array([*turns, *rng.integers(0, 8, 4)]) * np.pi / 2
        arrays = clifford(4, 24, int(rng.integers(100)))
        arrays.add(name, rng.permutation(4)[:width].tolist(), (), angles[: gate.params].tolist())
        for q in range(4):
            arrays.add("sx" if q % 2 else "h", [q])
        circuit = arrays.circuit()
        if not profile(circuit).clifford:
            continue
        tried += 1
        labels = tuple("".join(rng.choice(list("IXYZ"), 4)) for _ in range(20))
        items = tuple(PauliSum((label,), np.ones(1)) for label in labels)
        expectations = run(circuit, outputs=("expectation",), observables=items).expectations
        state = Statevector(final_state(circuit))
        for label, (value, _) in zip(labels, expectations, strict=True):
            exact = state.expectation_value(SparsePauliOp(label)).real
            assert value == pytest.approx(exact, abs=1e-9)
    assert tried


@pytest.mark.parametrize("name", sorted(NEVER))
def test_non_clifford_gate_is_not_profiled_as_clifford(name: str) -> None:
    circuit = Arrays(4, 0).add(name, range(GATES[name].qubits)).circuit()
    assert not profile(circuit).clifford
    assert not profile(circuit).by_angles


@pytest.mark.parametrize("angle", [1e12 + 0.3, -1e14 - 0.3, 1e15 + 0.25, np.pi / 2 + 1e-9])
@pytest.mark.parametrize("name", ["rz", "rzz", "cp", "u2"])
def test_angle_off_quarter_turn_is_refused_by_stabilizer_engine(
    runner_of: Callable[[str], Runner], name: str, angle: float
) -> None:
    gate = GATES[name]
    circuit = Arrays(2, 1).add(name, range(gate.qubits), (), [angle] * gate.params)
    result = circuit.add("measure", [0], [0]).circuit()
    assert not profile(result).clifford
    with pytest.raises(Unsupported, match="no multiple"):
        runner_of("stabilizer")(result, shots=10)


@pytest.mark.parametrize("off", [0.0, 1e-13, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("name", ["rx", "rzz", "cry"])
def test_matrix_is_clifford_within_rounding_only(
    runner_of: Callable[[str], Runner], name: str, off: float
) -> None:
    angle = (np.pi if name == "cry" else np.pi / 2) + off
    matrix = np.exp(0.7j) * unitary(name, (angle,))
    wires = [1, 0][: GATES[name].qubits]
    circuit = Arrays(2, 1).unitary(matrix, wires).add("measure", [0], [0]).circuit()
    run = runner_of("stabilizer")
    if off < 1e-12:
        assert run(circuit, shots=10)
        return
    fails(Unsupported, "no Clifford", run, circuit, shots=10)


@pytest.mark.parametrize("engine", ["aer", "stabilizer"])
def test_feed_forward_counts_are_correct(runner_of: Callable[[str], Runner], engine: str) -> None:
    run = runner_of(engine)
    assert_alike(counts_of(run(feed_forward(), shots=4000)), {0: 0.5, 3: 0.5}, 4000)
    teleported = Arrays(3, 3).add("h", [0]).add("s", [0])
    teleported.add("h", [1]).add("cx", [1, 2]).add("cx", [0, 1]).add("h", [0])
    teleported.add("measure", [0], [0]).add("measure", [1], [1])
    teleported.begin((ir.CLBIT, 1, 0)).add("x", [2]).add("end")
    teleported.begin((ir.CLBIT, 0, 0)).add("z", [2]).add("end")
    teleported.add("sdg", [2]).add("h", [2]).add("measure", [2], [2])
    result = counts_of(run(teleported.circuit(), shots=4000))
    assert_alike(result, dict.fromkeys(range(4), 0.25), 4000)


def test_parity_conditions_and_else_match_statevector(runner_of: Callable[[str], Runner]) -> None:
    stabilizer, exact = runner_of("stabilizer"), runner_of("statevector")
    xor = ((ir.CLBIT, 0, 0), (ir.CLBIT, 1, 0), (ir.BIT_XOR, 0, 0), (ir.LOGIC_NOT, 0, 0))
    arrays = Arrays(4, 5).add("h", [0]).add("h", [1]).add("h", [3])
    arrays.add("measure", [0], [0]).add("measure", [1], [1]).add("measure", [0], [4])
    arrays.begin(*xor).add("x", [2]).add("rz", [3], (), [np.pi]).add("else")
    arrays.add("y", [0]).add("end").add("reset", [1]).add("cx", [0, 1]).add("h", [3])
    circuit = arrays.measure(range(4)).circuit()
    odds = probabilities(exact(circuit, outputs=("probabilities",)))
    assert probabilities(stabilizer(circuit, outputs=("probabilities",))) == pytest.approx(odds)
    assert_alike(counts_of(stabilizer(circuit, shots=4000)), odds, 4000)
    for label in ("ZIZZ", "IZIZ", "ZZII"):
        keywords = {"outputs": ("expectation",), "observables": (PauliSum((label,), np.ones(1)),)}
        ((value, _),) = stabilizer(circuit, **keywords).expectations
        assert value == pytest.approx(exact(circuit, **keywords).expectations[0][0], abs=1e-12)
