"""Clifford gates of every device are recognised as such, whatever their angles are."""

import functools
import itertools
import math

import calibration_samples as samples
import numpy as np
import pytest
from arrays import Arrays
from qiskit import QuantumCircuit

from noise_models import library
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import import_snapshot
from simenv.client.circuits import load
from simenv.service.devices.registry import device_info
from simenv.transpiler.transpiler import Transpiler
from simulators.circuit import gates
from simulators.circuit.analysis import profiler
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import counts_of, simulate
from simulators.stabilizer import convert

MOST = 600  # angles of a gate


@functools.cache
def devices() -> dict[tuple[str, ...], CalibrationSnapshot]:
    """A bundled or imported device for each set of native gates."""
    loaded = [library.load(name) for name in library.names()]
    loaded += [import_snapshot(files)[0] for files in samples.files().values()]
    return {tuple(sorted(gate.name for gate in each.native_gates)): each for each in loaded}


def native_names() -> list[str]:
    return sorted({name for names in devices() for name in names} | set(gates.GATES))


@pytest.mark.parametrize("name", [name for name, gate in gates.GATES.items() if gate.params])
def test_every_angle_that_makes_a_clifford_gate_is_recognised(name: str) -> None:
    """On a grid of eighths of a turn; the rest by the matrix."""
    gate = gates.GATES[name]
    if gate.qubits < 1:
        pytest.skip("a gate on any number of qubits")
    every = list(itertools.product(range(-3, 5), repeat=gate.params))
    chosen = np.random.default_rng(0).permutation(len(every))[:MOST].tolist()
    found = 0
    for turns in (every[k] for k in chosen):
        angles = [turn * math.pi / 4 for turn in turns]
        circuit = Arrays(gate.qubits, 0).add(name, list(range(gate.qubits)), params=angles)
        matrix = gates.unitary(name, tuple(angles))
        is_clifford = convert.of_matrix(matrix) is not None
        assert (profiler.non_clifford_gates(circuit.circuit()) == 0) == is_clifford, turns
        found += is_clifford
    assert found


def test_native_gates_of_all_devices_are_known() -> None:
    assert set(native_names()) <= set(gates.GATES)


def clifford(num_qubits: int, depth: int) -> QuantumCircuit:
    """Random Clifford gates and their inverse, measured."""
    rng = np.random.default_rng(num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for _ in range(depth):
        for qubit in range(num_qubits):
            getattr(circuit, str(rng.choice(["h", "s", "sx", "x", "sdg", "y"])))(qubit)
        first, second = rng.permutation(num_qubits)[:2].tolist()
        getattr(circuit, str(rng.choice(["cx", "cz", "swap"])))(first, second)
    result = circuit.compose(circuit.inverse())
    assert result is not None
    result.measure_all()
    return result


@pytest.mark.parametrize("names", sorted(devices()), ids="-".join)
def test_clifford_circuits_stay_clifford_circuits_in_native_gates(names: tuple[str, ...]) -> None:
    snapshot = devices()[names]
    if not any(gate.num_qubits == 2 for gate in snapshot.native_gates):
        pytest.skip("a device without gates on two qubits")
    info = device_info(snapshot.name, snapshot, "0")
    compiled = load(Transpiler(info).transpiled(clifford(2, 6))).program
    assert profiler.non_clifford_gates(Circuit.from_program(compiled)) == 0


R = 'OPENQASM 2.0; include "qelib1.inc"; gate r(t, p) q { u3(t, p - pi/2, pi/2 - p) q; } '


def test_mirror_circuits_of_ions_run_as_stabilizer_circuits() -> None:
    """24 qubits whose half turns are about axes between X and Y, with the noise of the device."""
    ions, size = library.load("trapped-ions"), 24
    rng = np.random.default_rng(24)
    layers = []
    for _ in range(4):
        layer = [("r", (q,), (math.pi, int(rng.integers(8)) * math.pi / 4)) for q in range(size)]
        pairs = rng.permutation(size).reshape(-1, 2).tolist()
        layers.append([*layer, *(("rzz", tuple(pair), (math.pi / 2,)) for pair in pairs)])
    circuit = Arrays(size, size)
    for layer in layers:
        for name, qubits, angles in layer:
            circuit.add(name, qubits, params=angles)
    for layer in reversed(layers):
        for name, qubits, angles in reversed(layer):
            circuit.add(name, qubits, params=[-angles[0], *angles[1:]])
    built = circuit.measure(range(size)).circuit()
    assert profiler.profile(built).clifford
    settings = (("twirl", 1),)
    noise = attach_noise(built, build(ions))
    ideal = simulate(built, engine="stabilizer", shots=100).row(0)
    noisy = simulate(built, engine="stabilizer", shots=2000, noise=noise, settings=settings).row(0)
    assert set(counts_of(ideal)) == {0}
    assert 200 < counts_of(noisy)[0] < 1900


def test_a_gate_defined_in_a_file_is_recognised_by_its_angles() -> None:
    for axis in range(8):
        text = f"{R} qreg q[1]; creg c[1]; r(pi, {axis}*pi/4) q[0]; measure q -> c;"
        assert profiler.profile(Circuit.from_program(load(text).program)).clifford
    text = f"{R} qreg q[1]; creg c[1]; r(pi, pi/8) q[0]; measure q -> c;"
    assert not profiler.profile(Circuit.from_program(load(text).program)).clifford
