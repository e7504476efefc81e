"""Distributions of Clifford circuits from parities: those of the transfer simulator for twirled
noise, on all and on some clbits, with derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from qiskit import QuantumCircuit

from noise_models.build import build as noise_model
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.errors import Unsupported
from simulators.transfer.dual import DualMatrix, constant
from simulators.transfer.evaluate import ChannelSet, outcomes
from simulators.transfer.parity import MAX_BITS, parity_outcomes, parity_program
from simulators.transfer.program import ConstantTable, build
from tests.simulators.transfer.test_transfer import QUBITS, device
from tests.support.arrays import from_qiskit


def clifford(seed: int, gates: int = 60) -> Circuit:
    """Native Clifford gates; three of the qubits are measured."""
    rng = np.random.default_rng(seed)
    made = QuantumCircuit(QUBITS, 4)
    for _ in range(gates):
        qubit = int(rng.integers(1, QUBITS))
        kind = int(rng.integers(4))
        if kind == 0:
            made.sx(qubit - int(rng.integers(2)))
        elif kind == 1:
            made.rz(math.pi / 2 * int(rng.integers(1, 4)), qubit)
        elif kind == 2:
            made.cx(qubit - 1, qubit)
        else:
            made.cx(qubit, qubit - 1)
    made.barrier()
    for clbit, qubit in ((2, 0), (0, 3), (3, 1)):
        made.measure(qubit, clbit)
    return from_qiskit(made)


def attached(one: Circuit) -> NoiseProgram:
    return attach_noise(one, noise_model(device(1)))


def channels(noise: NoiseProgram, table: ConstantTable, value: float = 0.0) -> ChannelSet:
    """Twirled channels; parameter 0 scales their errors, parameter 1 the readout of qubit 3."""
    made = []
    for channel in noise.channels:
        diagonal = np.diag(np.diag(channel.ptm))
        slope = diagonal - np.eye(len(diagonal))
        made.append(DualMatrix(np.array([diagonal + value * slope, slope]), (0,)))
    read = noise.readout
    assert read is not None
    confusion = {
        q: constant(np.array([[1 - read.p01[q], read.p10[q]], [read.p01[q], 1 - read.p10[q]]]))
        for q in range(QUBITS)
    }
    slope = np.array([[-1.0, 0.0], [1.0, 0.0]])
    base = confusion[3].values[0]
    confusion[3] = DualMatrix(np.array([base + value * slope, slope]), (1,))
    return ChannelSet(made, confusion, table)


@pytest.mark.parametrize("seed", range(5))
def test_distributions_and_derivatives_are_those_of_the_transfer_simulator(seed: int) -> None:
    one = clifford(seed)
    noise = attached(one)
    table = ConstantTable()
    program = build(one, noise, table)
    given = channels(noise, table, 0.05)
    expected = outcomes(program, given)
    made = parity_outcomes(parity_program(program, table), given)
    assert made.params == expected.params == (0, 1)
    np.testing.assert_allclose(made.probabilities, expected.probabilities, atol=1e-12)
    np.testing.assert_allclose(made.jacobian, expected.jacobian, atol=1e-12)
    assert np.abs(made.jacobian).max() > 1e-3


def test_a_group_of_clbits_has_the_marginal_distribution() -> None:
    one = clifford(2)
    noise = attached(one)
    table = ConstantTable()
    program = build(one, noise, table)
    given = channels(noise, table)
    whole = outcomes(program, given).probabilities.reshape(2, 2, 2)  # clbits 3, 2, 0
    made = parity_outcomes(parity_program(program, table, (3, 0)), given)
    np.testing.assert_allclose(made.probabilities, whole.sum(axis=1).ravel(), atol=1e-12)


def test_a_wide_circuit_costs_as_little_as_its_outcomes() -> None:
    made = QuantumCircuit(40, 8)
    made.sx(0)
    made.rz(math.pi / 2, 0)
    for qubit in range(39):
        made.cx(qubit, qubit + 1)
    for clbit in range(8):
        made.measure(5 * clbit, clbit)
    one = from_qiskit(made)
    noise = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))
    table = ConstantTable()
    program = parity_program(build(one, noise, table), table)
    found = parity_outcomes(program, ChannelSet([], {}, table)).probabilities
    assert found[0] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.5)
    assert program.num_qubits == 40


def test_other_gates_and_too_many_bits_are_refused() -> None:
    made = QuantumCircuit(1, 1)
    made.rx(0.3, 0)
    made.measure(0, 0)
    noise = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))
    table = ConstantTable()
    with pytest.raises(Unsupported, match="not Clifford"):
        parity_program(build(from_qiskit(made), noise, table), table)
    wide = QuantumCircuit(MAX_BITS + 1, MAX_BITS + 1)
    wide.measure(range(MAX_BITS + 1), range(MAX_BITS + 1))
    with pytest.raises(Unsupported, match="17 bits"):
        parity_program(build(from_qiskit(wide), noise, table), table)
