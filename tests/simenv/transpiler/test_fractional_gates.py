"""Fractional gates: in a Target and in compiled circuits on request, and in circuits as written."""

import math

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator

from noise_models import library
from simenv.client.circuits import load
from simenv.model.devices import DeviceInfo
from simenv.service.devices.registry import device_info
from simenv.transpiler.compile_cost import Costs
from simenv.transpiler.native_form import NativeForm
from simenv.transpiler.transpiler import Transpiler, target_of

RX_RZZ = {"rx", "rzz"}


def info(name: str = "fez") -> DeviceInfo:
    return device_info(name, library.load(name), "0")


def ising(width: int, angle: float = 0.4, steps: int = 2) -> QuantumCircuit:
    circuit = QuantumCircuit(width)
    for _ in range(steps):
        circuit.rx(0.6, range(width))
        for first in range(width - 1):
            circuit.rzz(angle, first, first + 1)
    return circuit


def test_targets_have_fractional_gates_on_request_with_their_own_figures() -> None:
    device = info()
    assert {each.name for each in device.fractional_gates} == RX_RZZ
    assert RX_RZZ.isdisjoint(target_of(device).operation_names)
    target = target_of(device, fractional_gates=True)
    figures = {(each.name, each.qubits): each for each in device.operations}
    assert len(target["rzz"]) == 254  # of 352: the error of the others is 1
    for name in RX_RZZ:
        for qubits, found in target[name].items():
            stated = figures[name, qubits]
            assert found.error == stated.error < 1.0
            assert found.duration == pytest.approx(stated.duration_ns * 1e-9)
    assert target.gate_has_angle_bounds("rzz")
    assert target.supported_angle_bound("rzz", [math.pi / 2])
    assert not target.supported_angle_bound("rzz", [-0.1])


@pytest.mark.parametrize("level", [-1, 0, 1, 2, 3])
def test_circuits_are_compiled_to_fractional_gates_on_request(level: int) -> None:
    device, circuit = info(), ising(6)
    without = Transpiler(device, level).run(circuit)
    compiled = Transpiler(device, level, fractional_gates=True).run(circuit)
    assert RX_RZZ.isdisjoint(without.count_ops())
    assert set(compiled.count_ops()) >= RX_RZZ
    assert NativeForm(device).fits(load(compiled).program)
    assert "fractional gates" in Transpiler(device, level, fractional_gates=True).name
    assert "fractional" not in Transpiler(device, level).name


@pytest.mark.parametrize("angle", [0.4, -0.4, math.pi / 2, -math.pi / 2, 2.0, -3.0, 7.0])
def test_compiled_circuits_do_the_same(angle: float) -> None:
    device = info("fractional")  # five qubits
    circuit = ising(3, angle)
    compiled = Transpiler(device, fractional_gates=True).run(circuit)
    given = QuantumCircuit(5).compose(circuit, range(3))
    found = Operator.from_circuit(compiled).data
    overlap = np.trace(found.conj().T @ Operator(given).data) / 32.0
    assert abs(overlap) == pytest.approx(1.0, abs=1e-9)
    angles = [each.params[0] for each in compiled.data if each.name == "rzz"]
    assert all(-1e-9 <= each <= math.pi / 2 + 1e-9 for each in angles)


def test_the_cheaper_of_both_compilations_is_taken() -> None:
    device = info()
    qubits = next(
        each.qubits for each in device.operations if each.name == "rzz" and each.error >= 1.0
    )
    costs = Costs(device)
    for circuit, mapping in ((ising(30), ()), (ising(2), qubits), (ising(2, -math.pi / 2), ())):
        found = Transpiler(device, fractional_gates=True).run(circuit, mapping)
        without = Transpiler(device).run(circuit, mapping)
        assert costs.of(found)[0] <= 1.02 * costs.of(without)[0]
        if mapping:  # where rzz does not work
            assert "rzz" not in found.count_ops()


@pytest.mark.parametrize("width", [3, 6, 12])
def test_circuits_are_placed_where_fractional_gates_work(width: int) -> None:
    device, circuit = info(), ising(width)
    found = Transpiler(device, fractional_gates=True).run(circuit)
    assert found.count_ops() == {"rx": 2 * width, "rzz": 2 * (width - 1)}
    least = Costs(device).of(Transpiler(device).run(circuit))
    errors, layers = Costs(device).of(found)
    assert errors < 0.7 * least[0]
    assert 2 * layers <= least[1]


def test_circuit_in_fractional_gates_fits_where_they_work_within_their_limits() -> None:
    device = info()
    form = NativeForm(device)
    works = {each.qubits: each.error < 1.0 for each in device.operations if each.name == "rzz"}
    good, bad = (next(q for q, each in works.items() if each is wanted) for wanted in (True, False))
    for qubits, angle, fits in ((good, 0.3, True), (good, -0.3, False), (bad, 0.3, False)):
        circuit = QuantumCircuit(156)
        circuit.rx(-2.0, qubits[0])
        circuit.rzz(angle, *qubits)
        assert form.fits(load(circuit).program) is fits


def test_fractional_gates_stand_in_blocks_under_conditions() -> None:
    """As with IBM's present clients, whose backends have both."""
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.rx(0.3, 1)
    compiled = Transpiler(info(), fractional_gates=True).run(circuit)
    (block,) = next(each for each in compiled.data if each.name == "if_else").operation.blocks
    assert [each.name for each in block.data] == ["rx"]


def test_devices_without_fractional_gates_compile_as_before() -> None:
    device = info("superconducting-lattice")
    assert device.fractional_gates == ()
    circuit = ising(4)
    asked = Transpiler(device, fractional_gates=True)
    assert asked.run(circuit) == Transpiler(device).run(circuit)
    assert asked.name == Transpiler(device).name
