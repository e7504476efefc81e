"""Circuits of one structure are compiled once, into what each of them asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Statevector

from noise_models.calibration import CalibrationSnapshot, NativeGate
from simenv.client.circuits import load
from simenv.client.circuits.decode.to_qiskit import to_qiskit
from simenv.client.devices.compiler import CompiledCircuit, Compiler
from simenv.service.devices.describe import device_info
from simenv.transpiler.angles import MOST_ANGLES, opened

WIDTH = 4
LINE = tuple((a, b) for k in range(WIDTH - 1) for a, b in ((k, k + 1), (k + 1, k)))
NATIVE = {
    "lattice": (("rz", 1, 1), ("sx", 1, 0), ("x", 1, 0), ("cz", 2, 0)),
    "eagle": (("rz", 1, 1), ("sx", 1, 0), ("x", 1, 0), ("ecr", 2, 0)),
    "ions": (("rz", 1, 1), ("r", 1, 2), ("rzz", 2, 1)),
}


def compiler(device: str) -> Compiler:
    snapshot = CalibrationSnapshot(
        name=device,
        num_qubits=WIDTH,
        coupling=LINE,
        native_gates=tuple(NativeGate(*gate) for gate in NATIVE[device]),
    )
    return Compiler(device_info(device, snapshot, "00"))


def with_angles() -> Iterator[tuple[str, int, int]]:
    for name, gate in get_standard_gate_name_mapping().items():
        if gate.params and 0 < gate.num_qubits <= 2 and name != "delay":
            yield name, gate.num_qubits, len(gate.params)


GATES = tuple(with_angles())


def mixed(structure: int, seed: int) -> QuantumCircuit:
    """Random gates with angles on random qubits, from generic and special values."""
    shape, values = np.random.default_rng(structure), np.random.default_rng((structure, seed))
    circuit = QuantumCircuit(WIDTH, global_phase=0.3)
    standard_gate_name_mapping = get_standard_gate_name_mapping()
    for name in ("h", "cx", "t"):
        circuit.append(
            standard_gate_name_mapping[name], range(standard_gate_name_mapping[name].num_qubits)
        )
    for _ in range(12):
        name, size, count = GATES[int(shape.integers(len(GATES)))]
        qubits = shape.permutation(WIDTH)[:size].tolist()
        special = shape.random(count) < 0.3
        eighths = shape.integers(-8, 9, count)
        angles = np.where(special, eighths * math.pi / 4, values.uniform(-7.0, 7.0, count))
        circuit.append(type(standard_gate_name_mapping[name])(*angles.tolist()), qubits)
    return circuit


def rotations(seed: int) -> QuantumCircuit:
    """Layers that an optimizer of angles runs again and again."""
    values = np.random.default_rng(seed)
    circuit = QuantumCircuit(WIDTH)
    for _ in range(3):
        for qubit in range(WIDTH):
            for name in ("rz", "ry", "rx", "rz"):
                getattr(circuit, name)(values.uniform(-3.0, 3.0), qubit)
        for qubit in range(WIDTH - 1):
            circuit.cx(qubit, qubit + 1)
        circuit.rzz(values.uniform(-3.0, 3.0), 0, WIDTH - 1)
    return circuit


def counted(circuit: QuantumCircuit) -> dict[str, int]:
    return {name: n for name, n in circuit.count_ops().items() if name != "global_phase"}


def final_state(compiled: CompiledCircuit) -> Statevector:
    """The state of the circuit's own qubits."""
    last, first = (np.frombuffer(each, np.uint16).tolist() for each in compiled.layouts)
    assert sorted(first) == list(range(WIDTH))
    state = Statevector(to_qiskit(compiled.loaded.program))
    tensor = state.data.reshape((2,) * WIDTH)  # axis 0 is the last qubit
    axes = [WIDTH - 1 - last[qubit] for qubit in reversed(range(WIDTH))]
    return Statevector(tensor.transpose(axes).reshape(-1))


@pytest.mark.parametrize("device", NATIVE)
@pytest.mark.parametrize("structure", range(8))
def test_compiled_circuits_of_one_structure_prepare_their_own_states(
    device: str, structure: int
) -> None:
    result = compiler(device)
    native = {name for name, _, _ in NATIVE[device]} | {"global_phase"}
    for seed in range(3):
        circuit = mixed(structure, seed)
        compiled = result.compiled(load(circuit), "always")
        assert np.allclose(final_state(compiled).data, Statevector(circuit).data, atol=1e-9), (
            "global phase included"
        )
        assert set(compiled.loaded.program.names) <= native
        assert not compiled.loaded.program.num_slots
    assert len(result._structures) <= 3


def test_rotations_of_one_structure_are_compiled_once_with_the_gates_of_the_transpiler() -> None:
    result = compiler("lattice")
    layouts = set()
    for seed in range(4):
        circuit = rotations(seed)
        compiled = result.compiled(load(circuit), "auto")
        layouts.add(compiled.layouts)
        assert np.allclose(final_state(compiled).data, Statevector(circuit).data, atol=1e-9)
        outcome = result._transpiler.run(circuit)  # as Qiskit compiles it with its angles
        assert counted(to_qiskit(compiled.loaded.program)) == counted(outcome)
    assert len(result._structures) == len(layouts) == 1


def test_multiples_of_a_quarter_of_pi_are_compiled_as_numbers() -> None:
    result = compiler("lattice")
    circuit = QuantumCircuit(1)
    circuit.rx(math.pi, 0)
    compiled = result.compiled(load(circuit), "auto").loaded.program
    assert set(compiled.names) - {"global_phase"} == {"x"}
    assert opened(load(circuit).program)[1].size == 0


def test_angles_that_are_parameters_leave_free_ones_and_control_flow_alone() -> None:
    free = QuantumCircuit(1, 1)
    free.ry(Parameter("a"), 0)
    free.ry(0.3, 0)
    branching = QuantumCircuit(1, 1)
    branching.measure(0, 0)
    with branching.if_test((branching.clbits[0], 1)):
        branching.ry(0.3, 0)
    delayed = QuantumCircuit(1)
    delayed.delay(123.4, 0, "ns")
    quantum_circuit = QuantumCircuit(1)
    for _ in range(MOST_ANGLES + 1):
        quantum_circuit.ry(0.3, 0)
    for circuit in (free, branching, delayed, quantum_circuit):
        program = load(circuit).program
        assert opened(program) == (program, pytest.approx(np.zeros(0)))
    quantum_circuit.data.pop()
    assert opened(load(quantum_circuit).program)[1].size == MOST_ANGLES


def test_transpiled_circuit_has_the_gates_of_the_one_that_is_submitted() -> None:
    result = compiler("lattice")
    circuit = mixed(3, 1)
    outcome = result._transpiler.transpiled(circuit)
    compiled = to_qiskit(result.compiled(load(circuit), "auto").loaded.program)
    assert counted(outcome) == counted(compiled)
    assert (
        outcome.layout.final_index_layout()
        == result._transpiler.run(circuit).layout.final_index_layout()
    )
    assert not outcome.parameters
    assert np.allclose(Statevector(outcome).data, Statevector(compiled).data, atol=1e-9)
    assert circuit.count_ops() == mixed(3, 1).count_ops(), "the caller's circuit is not changed"


def test_structure_on_other_qubits_of_the_device_is_compiled_again() -> None:
    result = compiler("lattice")
    circuit = QuantumCircuit(2)
    circuit.ry(0.3, 0)
    circuit.cx(0, 1)
    first = result.compiled(load(circuit), "auto", (0, 1))
    second = result.compiled(load(circuit), "auto", (3, 2))
    assert first.layouts != second.layouts
    assert len(result._structures) == 2
