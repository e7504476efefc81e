"""A DeviceInfo as a Qiskit Target, and programs that fit it."""

from __future__ import annotations

import msgspec
from qiskit import QuantumCircuit

from noise_models import library
from simenv.client.circuits import load
from simenv.client.devices.compiler import Compiler
from simenv.model.devices import DeviceInfo
from simenv.service.devices.describe import device_info
from simenv.transpiler.target import NativeForm, target_of


def info(name: str = "superconducting-lattice") -> DeviceInfo:
    return device_info(name, library.load(name), "digest")


def test_target_has_gates_couplings_errors_and_durations_of_device() -> None:
    device = info()
    target = target_of(device)
    assert target.num_qubits == device.num_qubits
    assert {gate.name for gate in device.gates} <= set(target.operation_names)
    assert set(target["cz"]) <= set(device.coupling)
    each = next(item for item in device.operations if item.name == "cz" and item.qubits)
    assert target["cz"][each.qubits].error == each.error
    assert target["cz"][each.qubits].duration == each.duration_ns * 1e-9


def test_compiled_circuit_fits_and_is_kept() -> None:
    device = info()
    compiler, form = Compiler(device), NativeForm(device)
    circuit = QuantumCircuit(4, 4)
    circuit.h(0)
    for qubit in (1, 2, 3):
        circuit.cx(0, qubit)
    circuit.measure(range(4), range(4))
    written = load(circuit)
    assert not form.fits(written.program)
    result = compiler.compiled(written, "auto")
    assert form.fits(result.loaded.program)
    assert compiler.compiled(load(circuit), "auto").loaded.packed is result.loaded.packed
    assert compiler.compiled(result.loaded, "auto").compiler == ""


def test_uncoupled_pair_does_not_fit_unless_all_are_coupled() -> None:
    device = info()
    far = next(
        (0, b) for b in range(1, device.num_qubits) if not {(0, b), (b, 0)} & {*device.coupling}
    )
    circuit = QuantumCircuit(device.num_qubits)
    circuit.cz(*far)
    program = load(circuit).program
    assert not NativeForm(device).fits(program)
    assert NativeForm(msgspec.structs.replace(device, all_to_all=True)).fits(program)
    wide = QuantumCircuit(device.num_qubits + 1)
    assert not NativeForm(device).fits(load(wide).program)
