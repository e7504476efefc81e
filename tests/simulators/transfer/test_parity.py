"""Distributions of Clifford circuits from parities: those of the transfer simulator for twirled
noise, on all and on some clbits, with derivatives."""

import math

import numpy as np
import pytest
from qiskit import QuantumCircuit

from noise_models.build import build as noise_model
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.errors import Unsupported
from simulators.transfer.evaluate import (
    MAX_BITS,
    ChannelSet,
    outcomes,
    parity_outcomes,
    parity_program,
)
from simulators.transfer.evolution import DualMatrix, constant
from simulators.transfer.program import ConstantTable, build
from tests.simulators.transfer.test_transfer import QUBITS, circuit, device
from tests.support.arrays import from_qiskit


def attached(one: Circuit) -> NoiseProgram:
    return attach_noise(one, noise_model(device(1)))


def channels(noise: NoiseProgram, table: ConstantTable, value: float = 0.0) -> ChannelSet:
    """Twirled channels; parameter 0 scales their errors, parameter 1 the readout of qubit 3."""
    entries = []
    for channel in noise.channels:
        diagonal = np.diag(np.diag(channel.ptm))
        slope = diagonal - np.eye(len(diagonal))
        entries.append(DualMatrix(np.array([diagonal + value * slope, slope]), (0,)))
    read = noise.readout
    assert read is not None
    confusion = {
        q: constant(np.array([[1 - read.p01[q], read.p10[q]], [read.p01[q], 1 - read.p10[q]]]))
        for q in range(QUBITS)
    }
    slope = np.array([[-1.0, 0.0], [1.0, 0.0]])
    base = confusion[3].values[0]
    confusion[3] = DualMatrix(np.array([base + value * slope, slope]), (1,))
    return ChannelSet(entries, confusion, table)


@pytest.mark.parametrize("seed", range(5))
def test_distributions_and_derivatives_are_those_of_the_transfer_simulator(seed: int) -> None:
    actual = circuit(seed, 60, clifford=True)
    noise = attached(actual)
    table = ConstantTable()
    program = build(actual, noise, table)
    result = channels(noise, table, 0.05)
    expected = outcomes(program, result)
    outcome = parity_outcomes(parity_program(program, table), result)
    assert outcome.params == expected.params == (0, 1)
    np.testing.assert_allclose(outcome.probabilities, expected.probabilities, atol=1e-12)
    np.testing.assert_allclose(outcome.jacobian, expected.jacobian, atol=1e-12)
    assert np.abs(outcome.jacobian).max() > 1e-3


def test_a_group_of_clbits_has_the_marginal_distribution() -> None:
    actual = circuit(2, 60, clifford=True)
    noise = attached(actual)
    table = ConstantTable()
    program = build(actual, noise, table)
    result = channels(noise, table)
    output = outcomes(program, result).probabilities.reshape(2, 2, 2)  # clbits 3, 2, 0
    outcome = parity_outcomes(parity_program(program, table, (3, 0)), result)
    np.testing.assert_allclose(outcome.probabilities, output.sum(axis=1).ravel(), atol=1e-12)


def test_a_wide_circuit_costs_as_little_as_its_outcomes() -> None:
    quantum_circuit = QuantumCircuit(40, 8)
    quantum_circuit.sx(0)
    quantum_circuit.rz(math.pi / 2, 0)
    for qubit in range(39):
        quantum_circuit.cx(qubit, qubit + 1)
    for clbit in range(8):
        quantum_circuit.measure(5 * clbit, clbit)
    result = from_qiskit(quantum_circuit)
    noise = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))
    table = ConstantTable()
    program = parity_program(build(result, noise, table), table)
    probabilities = parity_outcomes(program, ChannelSet([], {}, table)).probabilities
    assert probabilities[0] == pytest.approx(0.5)
    assert probabilities[-1] == pytest.approx(0.5)
    assert program.num_qubits == 40


def test_other_gates_and_too_many_bits_are_refused() -> None:
    quantum_circuit = QuantumCircuit(1, 1)
    quantum_circuit.rx(0.3, 0)
    quantum_circuit.measure(0, 0)
    noise = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))
    table = ConstantTable()
    with pytest.raises(Unsupported, match="not Clifford"):
        parity_program(build(from_qiskit(quantum_circuit), noise, table), table)
    wide = QuantumCircuit(MAX_BITS + 1, MAX_BITS + 1)
    wide.measure(range(MAX_BITS + 1), range(MAX_BITS + 1))
    with pytest.raises(Unsupported, match="17 bits"):
        parity_program(build(from_qiskit(wide), noise, table), table)
