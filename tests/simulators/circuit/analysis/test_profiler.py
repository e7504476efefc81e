"""Bounds on bonds are bounds, and what is called Clifford is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from arrays import Arrays
from hypothesis import given, settings
from random_circuits import unitary_circuits
from reference import final_state

from simulators.circuit.analysis.profiler import non_clifford_gates, profile, traits
from simulators.circuit.analysis.qubit_order import gate_pairs
from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.validation import operations
from simulators.circuit.validation.admission import validation_error


def rank_bits(circuit: Circuit) -> float:
    """log2 of the largest Schmidt rank over all cuts between neighbours."""
    state = final_state(circuit)
    n = circuit.num_qubits
    ranks = [np.linalg.matrix_rank(state.reshape(2 ** (n - k), -1), 1e-9) for k in range(1, n)]
    return float(np.log2(max(ranks, default=1)))


@settings(derandomize=True, deadline=None)
@given(circuit=unitary_circuits(least=1, most=6))
def test_schmidt_rank_of_random_circuit_is_within_bond_bound(circuit: Circuit) -> None:
    assert rank_bits(circuit) <= traits(circuit).bond_bits


@pytest.mark.parametrize("name", sorted(n for n, g in GATES.items() if g.qubits not in (0, 1)))
def test_schmidt_rank_of_each_gate_is_within_bond_bound(name: str) -> None:
    """Each half of its qubits entangled with partners, so that the state shows the whole rank."""
    gate = GATES[name]
    width = gate.qubits if gate.qubits != ANY else 3
    rng = np.random.default_rng(gate.code)
    for cut in range(1, width):
        arrays = Arrays(2 * width, 0)
        wires = [*range(cut), *range(width + cut, 2 * width)]
        partners = [*range(cut, 2 * cut), *range(2 * cut, width + cut)]
        for a, b in zip(wires, partners, strict=True):
            arrays.add("h", [a]).add("cx", [a, b])
        before = traits(arrays.circuit()).bond_bits
        arrays.add(name, wires, (), rng.uniform(0.5, 2.5, gate.params).tolist())
        assert rank_bits(arrays.circuit()) <= traits(arrays.circuit()).bond_bits
        assert before <= width


def test_cx_chain_has_bond_bound_of_one_bit() -> None:
    arrays = Arrays(1000, 0)
    for q in range(999):
        arrays.add("cx", [q, q + 1])
    result = traits(arrays.circuit())
    assert (result.bond_bits, result.longest, result.clifford) == (1, 1, True)
    arrays.add("swap", [0, 999])
    assert traits(arrays.circuit()).bond_bits == 3
    assert traits(arrays.circuit()).longest == 999


def test_gates_that_are_no_clifford_gates_are_counted() -> None:
    arrays = Arrays(4, 4).add("h", [0]).add("cx", [0, 1]).add("barrier", range(4))
    arrays.add("rz", [0], (), [np.pi / 2]).add("mcx", [0, 1]).add("mcphase", [0, 1], (), [np.pi])
    arrays.add("cp", [0, 1], (), [np.pi]).add("measure", [0], [0])
    assert non_clifford_gates(arrays.circuit()) == 0
    arrays.add("t", [0]).add("rz", [0], (), [0.3]).add("u", [1], (), [0.1, 0.2, 0.3])
    assert non_clifford_gates(arrays.circuit()) == 3
    arrays.add("cp", [0, 1], (), [np.pi / 2]).add("ccx", [0, 1, 2]).add("mcx", [0, 1, 2])
    arrays.add("mcphase", [0, 1], (), [np.pi / 2]).add("mcphase", [1], (), [np.pi / 2])
    assert non_clifford_gates(arrays.circuit()) == 7
    arrays.add("rz", [2], (), [0.3])
    arrays.free(len(arrays.circuit().params) - 1)
    assert non_clifford_gates(arrays.circuit()) == 7
    assert non_clifford_gates(Arrays(1, 0).circuit()) == 0


def test_bond_bound_of_very_long_circuit_is_unknown() -> None:
    arrays = Arrays(60_000, 0)
    for _ in range(200):
        arrays.add("cx", [0, 59_999])
    assert traits(arrays.circuit()).bond_bits == -1


@pytest.mark.parametrize("offset", [0.0, 3e-13, -3e-13, 5e-12, -1e-9])
def test_angle_is_clifford_only_within_rounding_of_quarter_turn(offset: float) -> None:
    for turns in (0, 1, 2, 3, -7, 4_001):
        circuit = Arrays(1, 0).add("rz", [0], (), [turns * np.pi / 2 + offset]).circuit()
        near = abs(offset) < min(9e-10, 1e-12 * max(1, abs(turns)))
        assert traits(circuit).clifford == near
        assert traits(circuit).by_angles


def test_operations_are_checked_once_for_validity_and_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    check = operations.check_operations

    def noted(*args: Any) -> int:
        calls.append(args)
        return int(check(*args))

    monkeypatch.setattr(operations, "check_operations", noted)
    sound = Arrays(2, 0).add("cx", [0, 1]).circuit()
    assert validation_error(sound) == ""
    assert profile(sound).gates_2q == 1
    assert len(calls) == 1
    wrong = Arrays(2, 0).add("cx", [1, 1]).circuit()
    for _ in range(2):
        assert validation_error(wrong) == "operation 0 (cx): the same qubit twice"
    assert len(calls) == 2


def test_free_parameters_leave_clifford_property_undecided() -> None:
    arrays = Arrays(2, 0).add("h", [0]).add("u", [0], (), [0.0, np.pi, 0.0])
    arrays.free(0)
    result = traits(arrays.circuit())
    assert (result.clifford, result.may_be_clifford, result.by_angles) == (False, True, True)
    arrays.add("u", [0], (), [0.0, 0.3, 0.0])
    result = traits(arrays.circuit())
    assert (result.clifford, result.may_be_clifford, result.by_angles) == (False, False, True)
    arrays.add("t", [0])
    assert not traits(arrays.circuit()).by_angles


def test_pairs_of_gates_are_listed_once_with_the_lower_qubit_first() -> None:
    arrays = Arrays(5, 0).add("cx", [3, 1]).add("ccx", [4, 0, 2]).add("cz", [1, 3]).add("h", [2])
    arrays.add("barrier", [0, 1, 2, 3, 4])
    assert gate_pairs(arrays.circuit()).tolist() == [[0, 2], [0, 4], [1, 3], [2, 4]]
    assert gate_pairs(Arrays(2, 0).add("h", [0]).circuit()).tolist() == []
