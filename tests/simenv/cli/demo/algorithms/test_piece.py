"""The gallery's answers: right ones pass, and a wrong circuit or wrong counts are found out."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction
from qiskit.circuit.library import RYGate
from qiskit.quantum_info import Statevector

from simenv.cli.demo.algorithms import DemoCircuit, pieces
from simenv.cli.demo.algorithms.piece import ExpectedOutcomes, Parities, parity

SHOTS = 100_000
STATIC = [p for p in pieces() if not any(op.name in ("if_else", "reset") for op in p.circuit)]


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


def name(piece: DemoCircuit) -> str:
    return str(piece.circuit.name)


@pytest.mark.parametrize("piece", STATIC, ids=name)
def test_expected_answer_agrees_with_qiskit_statevector(piece: DemoCircuit) -> None:
    result = exact(piece.circuit)
    if isinstance(piece.answer, ExpectedOutcomes):
        for bits in {*result, *piece.answer.probabilities}:
            expected = piece.answer.probabilities.get(bits, 0.0)
            assert result.get(bits, 0.0) == pytest.approx(expected, abs=1e-9), bits
    else:
        assert isinstance(piece.answer, Parities)
        counts = {bits: round(share * 1e12) for bits, share in result.items()}
        for clbits, expected in piece.answer.values:
            assert parity(counts, clbits) == pytest.approx(expected, abs=1e-6), clbits


@pytest.mark.parametrize("piece", STATIC, ids=name)
def test_counts_sampled_from_exact_distribution_pass(piece: DemoCircuit) -> None:
    result = exact(piece.circuit)
    keys = sorted(result)
    shares = np.array([result[key] for key in keys])
    drawn = np.random.default_rng(5).multinomial(SHOTS, shares / shares.sum())
    counts = {key: int(n) for key, n in zip(keys, drawn, strict=True) if n}
    assert piece.answer.fault(counts) == ""


@pytest.mark.parametrize("piece", STATIC, ids=name)
def test_counts_of_circuit_with_extra_gate_are_rejected(piece: DemoCircuit) -> None:
    gates = [k for k, op in enumerate(piece.circuit.data) if op.name != "measure"]
    for share in (1 / 3, 2 / 3):
        where = gates[round(share * len(gates))]
        broken = piece.circuit.copy()
        qubit = broken.data[where].qubits[0]
        broken.data.insert(where, CircuitInstruction(RYGate(1.0), (qubit,)))
        counts = {key: round(p * SHOTS) for key, p in exact(broken).items() if p > 0.5 / SHOTS}
        assert piece.answer.fault(counts) != ""


def test_impossible_outcome_is_rejected() -> None:
    answer = ExpectedOutcomes({"00": 0.5, "11": 0.5})
    assert answer.fault({"00": 500, "11": 499, "01": 1}) == "01 came 1 times and cannot"


def test_deviation_beyond_tolerance_is_rejected() -> None:
    answer = ExpectedOutcomes({"0": 0.5, "1": 0.5})
    assert answer.fault({"0": 5_200, "1": 4_800}) == ""
    assert answer.fault({"0": 5_350, "1": 4_650}) == "0 came 5350 times of 5000"


def test_registers_beyond_width_are_ignored() -> None:
    answer = ExpectedOutcomes({"10": 1.0}, width=2)
    assert answer.fault({"1 0 111": 3, "1 0 000": 4}) == ""


def test_parity_has_its_sign() -> None:
    assert parity({"001": 3, "000": 1}, (0,)) == -0.5
    assert Parities((((0, 2), -1.0),)).fault({"100": 1000}) == ""
    assert Parities((((0, 2), 1.0),)).fault({"100": 1000}) == "<Z0 Z2> is -1.000, not 1.000"


def test_gallery_names_are_unique_and_at_least_twelve() -> None:
    names = [name(piece) for piece in pieces()]
    assert len(names) == len(set(names)) >= 12
    assert len(names) - len(STATIC) == 3
