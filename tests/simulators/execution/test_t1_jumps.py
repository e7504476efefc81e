"""Noise of a device whose T1 is low by a jump, against density matrices in numpy."""

import math

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engines import Runner
from noisy import p_value
from numpy.typing import NDArray

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
    T1Jumps,
)
from noise_models.model import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.execution import sampling
from simulators.simulate import counts_of

Matrix = NDArray[np.complex128]
QUBITS = 3
DIM = 1 << QUBITS
SX: Matrix = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2
CX: Matrix = np.eye(4)[[0, 3, 2, 1]].astype(np.complex128)  # the control is bit 0
GATE_NS = {"sx": 50.0, "cx": 400.0}


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """All-to-all device without gate errors; T1 of about half of the qubits is low."""
    qubits = []
    for _ in range(QUBITS):
        t1 = float(rng.uniform(10.0, 60.0))
        jumps = T1Jumps(1.0, 600.0, float(rng.uniform(0.05, 0.5)), low=bool(rng.integers(2)))
        t2 = float(t1 * rng.uniform(0.3, 2.0))
        excited = float(rng.uniform(0.0, 0.1))
        qubits.append(QubitCalibration(t1_us=t1, t2_us=t2, excited=excited, t1_jumps=jumps))
    return CalibrationSnapshot(
        "chip", QUBITS, all_to_all=True, dynamic=True, qubits=tuple(qubits),
        native_gates=(NativeGate("sx", 1), NativeGate("cx", 2)),
        gates=tuple(GateCalibration(name, (), None, ns) for name, ns in GATE_NS.items()),
    )  # fmt: skip


def embedded(matrix: Matrix, qubits: tuple[int, ...]) -> Matrix:
    result = np.zeros((DIM, DIM), np.complex128)
    for column in range(DIM):
        own = sum((column >> q & 1) << k for k, q in enumerate(qubits))
        rest = column & ~sum(1 << q for q in qubits)
        for row in range(len(matrix)):
            place = rest | sum((row >> k & 1) << q for k, q in enumerate(qubits))
            result[place, column] = matrix[row, own]
    return result


def relaxed(rho: Matrix, qubit: int, time_us: float, values: QubitCalibration) -> Matrix:
    """Relaxation of one qubit, written by the elements of its density matrix: populations approach
    equilibrium with the rate 1 / T1 of the jump, coherences decay with the pure dephasing of the
    calibrated T1 and half of that rate."""
    assert values.t1_us is not None
    assert values.t2_us is not None
    assert values.t1_jumps is not None
    low = values.t1_us * (values.t1_jumps.factor if values.t1_jumps.low else 1.0)
    pure = 1.0 / values.t2_us - 0.5 / values.t1_us
    kept = math.exp(-time_us / low)
    coherent = math.exp(-time_us * (pure + 0.5 / low))
    up = values.excited or 0.0
    result = np.zeros_like(rho)
    bit = 1 << qubit
    for row in range(DIM):
        for column in range(DIM):
            if (row ^ column) & bit:
                result[row, column] = coherent * rho[row, column]
                continue
            zero = rho[row & ~bit, column & ~bit]
            one = rho[row | bit, column | bit]
            share = up if row & bit else 1.0 - up
            result[row, column] = kept * rho[row, column] + (1.0 - kept) * share * (zero + one)
    return result


def random_case(seed: int) -> tuple[Circuit, CalibrationSnapshot, NDArray[np.float64]]:
    """A random circuit with idle qubits, its device, and the probabilities of its outcomes. Each
    operation begins when all operations before it have ended, by barriers."""
    rng = np.random.default_rng(seed)
    snapshot = device(rng)
    circuit = Arrays(QUBITS, QUBITS)
    rho = np.zeros((DIM, DIM), np.complex128)
    rho[0, 0] = 1.0
    for qubit, each in enumerate(snapshot.qubits):  # |1> at the start, as in equilibrium
        flip = embedded(np.array([[0, 1], [1, 0]], np.complex128), (qubit,))
        excited = each.excited or 0.0
        rho = (1.0 - excited) * rho + excited * flip @ rho @ flip
    every = tuple(range(QUBITS))
    for step in range(12):
        order = rng.permutation(QUBITS).tolist()
        name = "sx" if step < QUBITS or rng.random() < 0.6 else "cx"
        qubits = (step,) if step < QUBITS else tuple(order[: 1 if name == "sx" else 2])
        circuit.add(name, qubits).add("barrier", every)
        unitary = embedded(SX if name == "sx" else CX, qubits)
        rho = unitary @ rho @ unitary.conj().T
        for qubit, each in enumerate(snapshot.qubits):
            if qubit in qubits or step >= qubit:  # a qubit waits from its first gate on
                rho = relaxed(rho, qubit, 1e-3 * GATE_NS[name], each)
    probabilities = np.real(np.diag(rho))
    return circuit.measure(every).circuit(), snapshot, probabilities


def distribution(circuit: Circuit, noise: NoiseProgram) -> NDArray[np.float64]:
    row = Runner("densitymatrix")(circuit, shots=0, outputs=("probabilities",), noise=noise)
    probs = np.zeros(DIM)
    outcomes = sampling.unpack(row.probability_outcomes, row.probability_width)
    probs[outcomes] = np.frombuffer(row.probabilities)
    return probs


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_relaxes_by_the_t1_in_force(seed: int) -> None:
    circuit, snapshot, expected = random_case(seed)
    noise = attach_noise(circuit, build(snapshot))
    assert np.abs(distribution(circuit, noise) - expected).max() < 1e-9


@pytest.mark.parametrize("engine", ["densitymatrix", "statevector", "mps"])
@pytest.mark.parametrize("seed", range(2))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, expected = random_case(100 + seed)
    noise = attach_noise(circuit, build(snapshot))
    shots = 2_000 if engine == "mps" else 20_000
    counts = counts_of(Runner(engine)(circuit, shots=shots, seed=seed, noise=noise))
    assert p_value(dict(enumerate(expected.tolist())), counts) > 5.7e-7  # five sigma


def test_its_factor_takes_the_jump_out() -> None:
    changes = []
    for seed in range(8):
        circuit, snapshot, expected = random_case(seed)
        usual = tuple(msgspec.structs.replace(each, t1_jumps=None) for each in snapshot.qubits)
        without = build(msgspec.structs.replace(snapshot, qubits=usual))
        wanted = distribution(circuit, attach_noise(circuit, without))
        off = build(snapshot, NoiseOptions.parse({"qubit.t1_jumps": 0}))
        assert np.abs(distribution(circuit, attach_noise(circuit, off)) - wanted).max() < 1e-12
        changes.append(np.abs(expected - wanted).max())
    assert np.sum(np.array(changes) > 1e-3) >= 5
