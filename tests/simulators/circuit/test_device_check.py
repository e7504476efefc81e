"""A device refuses what it does not execute, and names the instruction."""

from __future__ import annotations

import pytest
from qiskit import QuantumCircuit

from simenv.client.circuits import load
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.device_check import DeviceLimits, refusal
from simulators.circuit.ir import Circuit

LINE = ((0, 1), (2, 1))  # one direction each


def device(**changes: object) -> DeviceLimits:
    table: dict[str, object] = {
        "all_to_all": False,
        "dynamic": False,
        "gates": {"rz": 1, "sx": 1, "cz": 2},
        **changes,
    }
    return DeviceLimits.of("ibis", 3, table.pop("gates"), LINE, **table)  # type: ignore[arg-type]


def native() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 3, global_phase=1.0)
    circuit.sx(0)
    circuit.cz(0, 1)
    circuit.barrier()
    circuit.delay(100, 1, "ns")
    circuit.rz(0.5, 2)
    circuit.cz(2, 1)
    circuit.measure(range(3), range(3))
    return circuit


def problem(circuit: QuantumCircuit, limits: DeviceLimits) -> str:
    program = load(circuit).program
    packed = Circuit.from_program(program)
    return refusal(packed, profile(packed, ("counts",), ()), limits)[0]


def test_native_circuit_on_coupled_qubits_is_executed() -> None:
    assert problem(native(), device()) == ""


def test_gate_that_is_not_native_is_named_with_its_qubit() -> None:
    circuit = native()
    circuit.h(2)
    result = problem(circuit, device(dynamic=True))
    assert "(h on qubit 2)" in result
    assert "native gate of device ibis" in result


def test_native_name_on_other_number_of_qubits_is_refused() -> None:
    assert "(cz on qubits 0, 1)" in problem(native(), device(gates={"rz": 1, "sx": 1, "cz": 3}))


def test_uncoupled_pair_is_named() -> None:
    circuit = QuantumCircuit(3, 1)
    circuit.sx(1)
    circuit.cz(0, 2)
    circuit.measure(0, 0)
    assert "operation 1 (cz on qubits 0, 2)" in problem(circuit, device())
    assert problem(circuit, device(all_to_all=True)) == ""


def test_pair_in_other_direction_is_refused_as_such() -> None:
    circuit = QuantumCircuit(3, 1)
    circuit.cz(1, 2)
    circuit.measure(0, 0)
    assert "in this order" in problem(circuit, device())


def test_width_beyond_device_is_refused_with_both_numbers() -> None:
    circuit = QuantumCircuit(4, 1)
    circuit.measure(0, 0)
    assert "4 qubits; device ibis has 3" in problem(circuit, device())


@pytest.mark.parametrize("dynamic", [False, True])
def test_circuit_with_measurement_on_the_way_needs_dynamic_device(dynamic: bool) -> None:
    circuit = QuantumCircuit(1, 2)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.sx(0)
    circuit.reset(0)
    circuit.measure(0, 1)
    result = problem(circuit, device(dynamic=dynamic))
    assert ("before a circuit's end" in result) is not dynamic


def conditional() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.sx(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.sx(2)
        with circuit.if_test((circuit.clbits[1], 1)):
            circuit.sx(1)
    circuit.sx(0)
    circuit.measure(1, 1)
    return circuit


def looped() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 1)
    with circuit.for_loop(range(2)):
        circuit.sx(2)
    circuit.measure(0, 0)
    return circuit


def measured_again(reset: bool) -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.sx(1)
    circuit.reset(1) if reset else circuit.measure(1, 0)
    circuit.sx(1)
    circuit.measure(1, 1)
    return circuit


@pytest.mark.parametrize(
    ("circuit", "words"),
    [
        (conditional(), "operation 2 (if on qubits 1, 2): device ibis has no"),
        (looped(), "operation 0 (for on qubit 2): device ibis has no"),
        (measured_again(reset=True), "operation 1 (reset on qubit 1): device ibis has no"),
        (measured_again(reset=False), "operation 1 (measure on qubit 1): device ibis has no"),
    ],
    ids=["if", "for", "reset", "measure"],
)
def test_operation_that_needs_dynamic_device_is_named_with_its_qubits(
    circuit: QuantumCircuit, words: str
) -> None:
    assert problem(circuit, device()).startswith(words)
    assert problem(circuit, device(dynamic=True)) == ""
