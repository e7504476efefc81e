"""Fusion of gates and channels: compiled matrices, and the number of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel

from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.gates import GATES, unitary
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.densitymatrix.fusion import BLOCK, Blocks
from simulators.densitymatrix.program import Segment, build_program
from simulators.densitymatrix.wide_gates import wide_ptm

PARAMETRIZED = [gate.name for gate in GATES.values() if gate.params and gate.qubits in (1, 2)]


def fused(arrays: Arrays, model: DeviceModel | None = None) -> Blocks:
    circuit = arrays.circuit()
    noise = attach_noise(circuit, model or DeviceModel(circuit.num_qubits, durations={}))
    program = build_program(circuit, noise, measurement_layout(circuit))
    (segment,) = program.steps
    assert isinstance(segment, Segment)
    blocks = Blocks(program.num_qubits, program.longest)
    blocks.fill(segment.items, circuit.params, program.gates, program.channels)
    return blocks


@pytest.mark.parametrize("name", PARAMETRIZED)
@pytest.mark.parametrize("qubits", [(0, 1), (1, 0)])
def test_compiled_transfer_matrix_equals_that_of_the_unitary(
    name: str, qubits: tuple[int, int]
) -> None:
    gate = GATES[name]
    params = np.random.default_rng(gate.code).normal(size=gate.params).tolist()
    blocks = fused(Arrays(2, 0).add(name, qubits[: gate.qubits], (), params))
    matrix = unitary(name, tuple(params))
    if gate.qubits == 1:
        matrix = np.kron(np.eye(2), matrix) if qubits[0] == 0 else np.kron(matrix, np.eye(2))
    elif qubits == (1, 0):
        swap = unitary("swap")
        matrix = swap @ matrix @ swap
    assert blocks.count == 1
    assert np.abs(blocks.mats[:BLOCK].reshape(16, 16) - wide_ptm(matrix)).max() < 1e-14


def test_noise_of_gates_adds_no_blocks() -> None:
    arrays = Arrays(4, 0)
    for layer in range(3):
        for qubit in range(4):
            arrays.add("ry", [qubit], (), [0.1 + layer])
        for qubit in range(3):
            arrays.add("cx", [qubit, qubit + 1])
    assert fused(arrays).count == 9
    assert fused(arrays, DeviceModel(4)).count == 9


def test_qubits_without_pairs_share_blocks() -> None:
    arrays = Arrays(5, 0)
    for qubit in range(5):
        arrays.add("h", [qubit])
    assert fused(arrays).count == 3
