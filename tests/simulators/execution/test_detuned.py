"""Detunings that are constant during a shot (T2* beside T2), against a reference in numpy that integrates
over the detunings on a fine grid."""

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
)
from noise_models.model import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import PauliSum
from simulators.errors import Unsupported
from simulators.execution import sampling
from simulators.simulate import counts_of

Matrix = NDArray[np.complex128]
SX = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2
X = np.array([[0, 1], [1, 0]], np.complex128)
CX = np.eye(4)[[0, 3, 2, 1]].astype(np.complex128)  # the control is bit 0
GRID = np.linspace(-8.5, 8.5, 121)
WEIGHTS = np.exp(-0.5 * GRID**2) / np.exp(-0.5 * GRID**2).sum()


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """Two qubits with random times; the gates have random durations and errors."""
    qubits = []
    for _ in range(2):
        t1_us = float(rng.uniform(20.0, 100.0))
        t2_us = float(rng.uniform(0.3, 2.0)) * t1_us
        star_us = float(rng.uniform(0.1, 1.0)) * t2_us
        qubits.append(QubitCalibration(t1_us=t1_us, t2_us=t2_us, t2_star_us=star_us))
    sizes = {"sx": 1, "x": 1, "cx": 2}
    gates = tuple(
        GateCalibration(
            name, (), float(rng.uniform(0.01, 0.05)), float(rng.uniform(50.0, 1500.0))
        )
        for name in sizes
    )
    return CalibrationSnapshot(
        "detuned", 2, native_gates=tuple(NativeGate(*each) for each in sizes.items()),
        coupling=((0, 1),), qubits=tuple(qubits), gates=gates,
    )  # fmt: skip


class Reference:
    """States [nodes, nodes, 2, 2, 2, 2] for each pair of detunings: ket of qubit 1 and 0, then bra;
    every operation follows a barrier, and a qubit waits before a shorter gate."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        self.rho = np.zeros((GRID.size, GRID.size, 2, 2, 2, 2), np.complex128)
        self.rho[:, :, 0, 0, 0, 0] = 1.0
        self.sigma = []
        for each in snapshot.qubits:
            echo_us = min(each.t2_us, 2.0 * each.t1_us)
            assert each.t2_star_us <= echo_us or self.sigma is not None
            rest = max(0.0, 1.0 - each.t2_star_us / echo_us)
            self.sigma.append(1e-3 * math.sqrt(2.0 * rest) / each.t2_star_us)

    def turn(self, qubit: int, time_ns: float) -> None:
        """exp(-i d t Z / 2) of the qubit's detuning d."""
        x = GRID[:, None] if qubit == 0 else GRID[None, :]
        phase = np.exp(-1j * self.sigma[qubit] * time_ns * x)
        ket, bra = (3, 5) if qubit == 0 else (2, 4)
        rho = np.moveaxis(self.rho, (ket, bra), (0, 1))
        rho[0, 1] *= phase[..., None, None]
        rho[1, 0] *= phase.conj()[..., None, None]

    def relax(self, qubit: int, time_ns: float) -> None:
        each = self.snapshot.qubits[qubit]
        t2_us = min(each.t2_us, 2.0 * each.t1_us)
        ket, bra = (3, 5) if qubit == 0 else (2, 4)
        rho = np.moveaxis(self.rho, (ket, bra), (0, 1))
        lost = rho[1, 1] * -math.expm1(-1e-3 * time_ns / each.t1_us)
        rho[0, 0] += lost
        rho[1, 1] -= lost
        left = math.exp(-1e-3 * time_ns / t2_us)
        rho[0, 1] *= left
        rho[1, 0] *= left

    def unitary(self, matrix: Matrix, qubits: tuple[int, ...]) -> None:
        whole = {
            (0,): np.kron(np.eye(2), matrix), (1,): np.kron(matrix, np.eye(2)), (0, 1): matrix,
        }[qubits]  # fmt: skip
        flat = self.rho.reshape(*self.rho.shape[:2], 4, 4)
        self.rho = (whole @ flat @ whole.conj().T).reshape(self.rho.shape)

    def depolarize(self, p: float, qubits: tuple[int, ...]) -> None:
        if len(qubits) == 2:
            trace = np.einsum("abijij->ab", self.rho)
            mixed = trace[..., None, None] * np.eye(4) / 4.0
            self.rho = (1.0 - p) * self.rho + p * mixed.reshape(self.rho.shape)
            return
        ket, bra = (3, 5) if qubits[0] == 0 else (2, 4)
        rho = np.moveaxis(self.rho, (ket, bra), (0, 1))
        total = rho[0, 0] + rho[1, 1]
        rho *= 1.0 - p
        rho[0, 0] += 0.5 * p * total
        rho[1, 1] += 0.5 * p * total

    def parameter(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        """Depolarizing parameter that completes the gate's error, by process fidelities."""
        part = 1.0
        for qubit in qubits:
            each, us = self.snapshot.qubits[qubit], 1e-3 * gate.duration_ns
            t2_us = min(each.t2_us, 2.0 * each.t1_us)
            across = math.exp(-us / t2_us - 0.5 * (self.sigma[qubit] * gate.duration_ns) ** 2)
            part *= (1.0 + 2.0 * across + math.exp(-us / each.t1_us)) / 4.0
        d = 2 ** len(qubits)
        fidelity = (d * part + 1.0) / (d + 1)
        return max(0.0, (fidelity - (1.0 - gate.error)) / (fidelity - 1.0 / d))

    def gate(self, name: str, qubits: tuple[int, ...]) -> None:
        gate = next(each for each in self.snapshot.gates if each.name == name)
        for qubit in range(2):  # the other one waits as long
            if qubit not in qubits:
                self.turn(qubit, gate.duration_ns)
                self.relax(qubit, gate.duration_ns)
        for qubit in qubits:
            self.turn(qubit, 0.5 * gate.duration_ns)
        self.unitary({"sx": SX, "x": X, "cx": CX}[name], qubits)
        self.depolarize(self.parameter(gate, qubits), qubits)
        for qubit in qubits:
            self.relax(qubit, gate.duration_ns)
            self.turn(qubit, 0.5 * gate.duration_ns)

    def wait(self, time_ns: float) -> None:
        for qubit in range(2):
            self.turn(qubit, time_ns)
            self.relax(qubit, time_ns)

    def mean(self) -> Matrix:
        return np.einsum("a,b,abij->ij", WEIGHTS, WEIGHTS, self.rho.reshape(*self.rho.shape[:2], 4, 4))


def random_case(seed: int, gates: int = 6) -> tuple[Circuit, CalibrationSnapshot, Matrix]:
    """A random circuit, its device, and the final density matrix before the measurement."""
    rng = np.random.default_rng(seed)
    snapshot = device(rng)
    reference, circuit = Reference(snapshot), Arrays(2, 2)
    for qubit in range(2):  # a qubit waits from its first operation on
        circuit.add("sx", [qubit])
    circuit.add("barrier", [0, 1])
    sx = next(each for each in snapshot.gates if each.name == "sx")
    for qubit in range(2):
        reference.turn(qubit, 0.5 * sx.duration_ns)
        reference.unitary(SX, (qubit,))
        reference.depolarize(reference.parameter(sx, (qubit,)), (qubit,))
        reference.relax(qubit, sx.duration_ns)
        reference.turn(qubit, 0.5 * sx.duration_ns)
    for _ in range(gates):
        if rng.random() < 0.3:
            time_ns = float(rng.integers(100, 4000))
            for qubit in range(2):
                circuit.add("delay", [qubit], params=[time_ns])
            reference.wait(time_ns)
        name, qubits = [("sx", (0,)), ("x", (1,)), ("sx", (1,)), ("x", (0,)), ("cx", (0, 1))][
            int(rng.integers(5))
        ]
        circuit.add(name, qubits).add("barrier", [0, 1])
        reference.gate(name, qubits)
    return circuit.measure(range(2)).circuit(), snapshot, reference.mean()


def distribution(circuit: Circuit, noise: NoiseProgram, engine: str = "densitymatrix") -> list[float]:
    row = Runner(engine)(circuit, shots=0, outputs=("probabilities",), noise=noise)
    probs = np.zeros(1 << circuit.num_clbits)
    outcomes = sampling.unpack(row.probability_outcomes, row.probability_width)
    probs[outcomes] = np.frombuffer(row.probabilities)
    return probs


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_is_the_mixture_over_the_detunings(seed: int) -> None:
    circuit, snapshot, rho = random_case(seed)
    noise = attach_noise(circuit, build(snapshot))
    assert np.abs(distribution(circuit, noise) - np.diag(rho).real).max() < 1e-9
