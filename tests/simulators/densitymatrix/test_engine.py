"""Density matrix engine: exact distributions, parts, fusion."""

import engine_runs
import numpy as np
import pytest
from arrays import Arrays, measured
from device_models import DeviceModel
from failing import fails

from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.gates import GATES, unitary
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.densitymatrix.fusion import BLOCK, Blocks
from simulators.densitymatrix.program import Segment, build_program, wide_ptm
from simulators.engine import BindingResult, Request
from simulators.errors import TooManyBranches, Unsupported

ENGINE = DensityMatrixEngine()


def run(
    circuit: Circuit, noise: NoiseProgram | None, *, threads: int = 1, **request: object
) -> BindingResult:
    outcome = Request(**{"shots": 0, "seed": 5, **request})  # type: ignore[arg-type]
    return engine_runs.run(ENGINE, circuit, outcome, noise, threads=threads).row(0)


def probs(circuit: Circuit, noise: NoiseProgram | None) -> dict[int, float]:
    return engine_runs.probabilities(run(circuit, noise, outputs=("probabilities",)))


def gates(n: int, seed: int, count: int = 24) -> Arrays:
    """Gates of every kind on n qubits; one clbit more than qubits."""
    random = np.random.default_rng(seed)
    arrays = Arrays(n, n + 1)
    names = (
        ["sx", "h", "u", "rz", "p", "ry"]
        + ["cx", "cz", "rzz", "cry", "iswap"] * (n > 1)
        + ["ccx"] * (n > 2)
    )
    shape = {
        "u": (1, 3), "rz": (1, 1), "p": (1, 1), "ry": (1, 1), "cx": (2, 0), "cz": (2, 0),
        "rzz": (2, 1), "cry": (2, 1), "iswap": (2, 0), "ccx": (3, 0),
    }  # fmt: skip
    for _ in range(count):
        name = names[int(random.integers(len(names)))]
        qubits, params = shape.get(name, (1, 0))
        arrays.add(
            name, random.permutation(n)[:qubits].tolist(), (), random.normal(size=params).tolist()
        )
    return arrays


def test_counts_are_equal_for_one_and_two_threads_on_many_qubits() -> None:
    arrays = gates(9, 2, 30)
    circuit = measured(arrays)
    noise = attach_noise(circuit, DeviceModel(9, gate_error=0.01))
    assert run(circuit, noise, shots=2000) == run(circuit, noise, shots=2000, threads=2)


def test_one_gate_on_127_qubits_needs_one_qubit() -> None:
    circuit = Arrays(127, 1).add("x", [99]).add("measure", [99], [0]).circuit()
    noise = attach_noise(circuit, DeviceModel(127, readout=(0.0, 0.25)))
    result = probs(circuit, noise)
    assert set(result) == {0, 1}
    assert result[0] == pytest.approx(0.25, abs=0.01)


def test_qubits_beyond_its_width_are_refused() -> None:
    arrays = Arrays(15, 15).add("h", [0])
    for qubit in range(14):
        arrays.add("cx", [qubit, qubit + 1])
    fails(Unsupported, "15 qubits", run, measured(arrays), None, shots=1)


def test_records_beyond_the_limit_are_refused() -> None:
    arrays = Arrays(1, 8)
    for bit in range(8):
        arrays.add("h", [0]).add("measure", [0], [bit])
    circuit = arrays.add("h", [0]).circuit()
    with pytest.raises(TooManyBranches, match="100 distinct classical records") as caught:
        engine_runs.run(ENGINE, circuit, Request(10, 1), max_branches=100)
    assert "raise max_branches or memory; another engine" in caught.value.hint


def test_equal_records_share_a_state() -> None:
    arrays = Arrays(1, 2).add("h", [0]).add("measure", [0], [1])
    for _ in range(40):
        arrays.add("h", [0]).add("measure", [0], [0])
    assert run(arrays.add("h", [0]).circuit(), None, shots=10).remark == "2 branches"


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
def test_compiled_transfer_matrix_is_that_of_unitary(name: str, qubits: tuple[int, int]) -> None:
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
    assert np.abs(blocks.fused.mats[:BLOCK].reshape(16, 16) - wide_ptm(matrix)).max() < 1e-14


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
