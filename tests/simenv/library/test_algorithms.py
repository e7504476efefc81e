"""Answers of the library: right ones pass, and a wrong circuit or wrong counts are found out."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction
from qiskit.circuit.library import RYGate
from qiskit.quantum_info import Statevector, hellinger_fidelity

from simenv import library
from simenv.library.algorithm import parity

SHOTS = 100_000
STATIC = [
    each
    for each in (*library.algorithms(), library.grover_search())
    if not any(op.name in ("if_else", "reset") for op in each.circuit)
]


def exact(circuit: QuantumCircuit) -> dict[str, float]:
    """Outcome -> probability, by Qiskit's own statevector."""
    plain = circuit.remove_final_measurements(inplace=False)
    measured = [
        circuit.find_bit(op.qubits[0]).index
        for op in sorted(
            (op for op in circuit if op.name == "measure"),
            key=lambda op: circuit.find_bit(op.clbits[0]).index,
        )
    ]
    table: dict[str, float] = Statevector(plain).probabilities_dict(measured)
    return table


def name(each: library.Algorithm) -> str:
    return each.name


@pytest.mark.parametrize("each", STATIC, ids=name)
def test_expected_answer_agrees_with_qiskit_statevector(each: library.Algorithm) -> None:
    result = exact(each.circuit)
    if isinstance(each.expected, library.ExpectedOutcomes):
        for bits in {*result, *each.expected.probabilities}:
            expected = each.expected.probabilities.get(bits, 0.0)
            assert result.get(bits, 0.0) == pytest.approx(expected, abs=1e-9), bits
    else:
        assert isinstance(each.expected, library.ExpectedParities)
        counts = {bits: round(share * 1e12) for bits, share in result.items()}
        for clbits, expected in each.expected.values:
            assert parity(counts, clbits) == pytest.approx(expected, abs=1e-6), clbits


@pytest.mark.parametrize("each", STATIC, ids=name)
def test_counts_sampled_from_exact_distribution_pass(each: library.Algorithm) -> None:
    result = exact(each.circuit)
    keys = sorted(result)
    shares = np.array([result[key] for key in keys])
    drawn = np.random.default_rng(5).multinomial(SHOTS, shares / shares.sum())
    assert each.fault({key: int(n) for key, n in zip(keys, drawn, strict=True) if n}) == ""


@pytest.mark.parametrize("each", STATIC, ids=name)
def test_counts_of_circuit_with_extra_gate_are_rejected(each: library.Algorithm) -> None:
    gates = [k for k, op in enumerate(each.circuit.data) if op.name != "measure"]
    for share in (1 / 3, 2 / 3):
        where = gates[round(share * len(gates))]
        broken = each.circuit.copy()
        qubit = broken.data[where].qubits[0]
        broken.data.insert(where, CircuitInstruction(RYGate(1.0), (qubit,)))
        counts = {key: round(p * SHOTS) for key, p in exact(broken).items() if p > 0.5 / SHOTS}
        assert each.fault(counts) != ""


def test_outcomes_that_are_impossible_or_deviate_are_rejected() -> None:
    answer = library.ExpectedOutcomes({"00": 0.5, "11": 0.5})
    assert answer.fault({"00": 500, "11": 499, "01": 1}) == "01 came 1 times and cannot"
    answer = library.ExpectedOutcomes({"0": 0.5, "1": 0.5})
    assert answer.fault({"0": 5_200, "1": 4_800}) == ""
    assert answer.fault({"0": 5_350, "1": 4_650}) == "0 came 5350 times of 5000"
    assert library.ExpectedOutcomes({"10": 1.0}, width=2).fault({"1 0 111": 3, "1 0 000": 4}) == ""


def test_names_are_unique_and_success_is_that_of_likely_outcomes() -> None:
    assert parity({"001": 3, "000": 1}, (0,)) == -0.5
    assert library.ExpectedParities((((0, 2), -1.0),)).fault({"100": 1000}) == ""
    assert (
        library.ExpectedParities((((0, 2), 1.0),)).fault({"100": 1000})
        == "<Z0 Z2> is -1.000, not 1.000"
    )
    names = [name(each) for each in library.algorithms()]
    assert len(names) == len(set(names)) >= 12
    assert len(names) + 1 - len(STATIC) == 3  # dynamic circuits, which tests of the demo run
    assert all(each.reference for each in library.algorithms())
    expected = library.grover_search(0b101).expected
    assert isinstance(expected, library.ExpectedOutcomes)
    assert expected.likely == {"101"}
    counts = {"101": 90, "000": 10}
    assert expected.success(counts) == 0.9
    assert expected.fidelity(counts) == pytest.approx(
        hellinger_fidelity(counts, dict(expected.probabilities))
    )


@pytest.mark.parametrize(("spins", "field"), [(2, 1.0), (4, 1.0), (7, 0.3), (6, 2.5)])
def test_ground_energy_is_the_lowest_eigenvalue_and_a_bound(spins: int, field: float) -> None:
    problem = library.ising_ground_state(spins, field)
    lowest = np.linalg.eigvalsh(problem.hamiltonian.to_matrix())[0]
    assert problem.ground_energy == pytest.approx(lowest, abs=1e-9)
    angles = np.random.default_rng(1).uniform(-3, 3, problem.circuit.num_parameters)
    state = Statevector(problem.circuit.assign_parameters(angles))
    assert state.expectation_value(problem.hamiltonian).real >= problem.ground_energy
