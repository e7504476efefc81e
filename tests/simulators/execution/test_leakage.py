"""Leakage to a third level with seepage, against the density operator of two three-level systems in
numpy."""

import itertools
import math

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
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.execution import sampling
from simulators.simulate import counts_of

Matrix = NDArray[np.complex128]
SX = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2
X = np.array([[0, 1], [1, 0]], np.complex128)
CX = np.eye(4)[[0, 3, 2, 1]].astype(np.complex128)  # the control is bit 0
CZ = np.diag([1, 1, 1, -1]).astype(np.complex128)
UNITARIES = {"sx": SX, "x": X, "cx": CX, "cz": CZ}


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """Two qubits with random values; the gates have random errors, leakage and seepage."""
    qubits = []
    for _ in range(2):
        t1_us = float(rng.uniform(20.0, 100.0))
        qubits.append(
            QubitCalibration(
                t1_us=t1_us, t2_us=float(rng.uniform(0.3, 2.0)) * t1_us,
                p01=float(rng.uniform(0.0, 0.1)), p10=float(rng.uniform(0.0, 0.1)),
                leaked_readout=float(rng.uniform(0.0, 1.0)),
            )
        )  # fmt: skip
    sizes = {"sx": 1, "x": 1, "cx": 2, "cz": 2}
    gates = tuple(
        GateCalibration(
            name, (), float(rng.uniform(0.0, 0.1)), float(rng.uniform(20.0, 600.0)),
            leakage=float(rng.uniform(0.0, 0.1)), seepage=float(rng.uniform(0.0, 0.3)),
        )
        for name in sizes
    )  # fmt: skip
    return CalibrationSnapshot(
        "leaking", 2, dynamic=True,
        native_gates=tuple(NativeGate(*each) for each in sizes.items()),
        coupling=((0, 1),), qubits=tuple(qubits), gates=gates,
    )  # fmt: skip


def unit(row: int, column: int) -> Matrix:
    result = np.zeros((3, 3), np.complex128)
    result[row, column] = 1.0
    return result


class ThreeLevels:
    """Density operator rho[a1, a0, b1, b0] of two three-level systems; every operation follows a
    barrier, and a qubit waits before a shorter gate."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        self.rho = np.zeros((3, 3, 3, 3), np.complex128)
        self.rho[0, 0, 0, 0] = 1.0

    def kraus(self, operators: list[Matrix], qubit: int) -> None:
        """Apply operators on the levels of one qubit."""
        total = np.zeros_like(self.rho)
        for each in operators:
            if qubit == 0:
                total += np.einsum("pa,manb,qb->mpnq", each, self.rho, each.conj())
            else:
                total += np.einsum("pa,ambn,qb->pmqn", each, self.rho, each.conj())
        self.rho = total

    def unitary(self, matrix: Matrix, qubits: tuple[int, ...]) -> None:
        if len(qubits) == 1:
            whole = np.eye(3, dtype=np.complex128)
            whole[:2, :2] = matrix
            self.kraus([whole], qubits[0])
            return
        new = np.zeros_like(self.rho)
        inner = self.rho[:2, :2, :2, :2].reshape(4, 4)
        new[:2, :2, :2, :2] = (matrix @ inner @ matrix.conj().T).reshape(2, 2, 2, 2)
        # A leaked qubit acts like the completely mixed state.
        tensor = matrix.reshape(2, 2, 2, 2)
        new[2, :2, 2, :2] = 0.5 * np.einsum(
            "mawx,xy,mbwy->ab", tensor, self.rho[2, :2, 2, :2], tensor.conj()
        )
        new[:2, 2, :2, 2] = 0.5 * np.einsum(
            "amxw,xy,bmyw->ab", tensor, self.rho[:2, 2, :2, 2], tensor.conj()
        )
        new[2, 2, 2, 2] = self.rho[2, 2, 2, 2]
        self.rho = new

    def depolarize(self, p: float, qubits: tuple[int, ...]) -> None:
        paulis = [np.eye(2), X, np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]
        before = self.rho
        total = np.zeros_like(before)
        for letters in itertools.product(paulis, repeat=len(qubits)):
            self.rho = before
            for letter, qubit in zip(letters, qubits, strict=True):
                whole = np.eye(3, dtype=np.complex128)
                whole[:2, :2] = letter
                self.kraus([whole], qubit)
            total += self.rho / 4 ** len(qubits)
        self.rho = (1.0 - p) * before + p * total

    def relax(self, qubit: int, time_ns: float) -> None:
        each = self.snapshot.qubits[qubit]
        t1_us, t2_us = each.t1_us, min(each.t2_us, 2.0 * each.t1_us)
        decay, left = math.exp(-1e-3 * time_ns / t1_us), math.exp(-1e-3 * time_ns / t2_us)
        stays = np.diag([1.0, left, 1.0]).astype(np.complex128)
        rest = unit(1, 1) * math.sqrt(max(0.0, decay - left * left))
        self.kraus([stays, rest, unit(0, 1) * math.sqrt(1.0 - decay)], qubit)

    def leak(self, gate: GateCalibration, qubits: tuple[int, ...]) -> None:
        p = 2.0 * (1.0 - (1.0 - gate.leakage) ** (1.0 / len(qubits)))
        for qubit in qubits:
            self.kraus(
                [
                    np.diag(np.sqrt([1.0, 1.0 - p, 1.0 - gate.seepage])).astype(np.complex128),
                    math.sqrt(p) * unit(2, 1),
                    math.sqrt(gate.seepage) * unit(1, 2),
                ],
                qubit,
            )

    def parameter(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        """Depolarizing parameter that completes the gate's error, by process fidelities."""
        part, d = 1.0, 2 ** len(qubits)
        p = 2.0 * (1.0 - (1.0 - gate.leakage) ** (1.0 / len(qubits)))
        stays = np.ones(1)
        for qubit in qubits:
            each, us = self.snapshot.qubits[qubit], 1e-3 * gate.duration_ns
            left = math.exp(-us / min(each.t2_us, 2.0 * each.t1_us))
            part *= (1.0 + 2.0 * left + math.exp(-us / each.t1_us)) / 4.0
            stays = np.kron(stays, [1.0, math.sqrt(1.0 - p)])
        fidelity = (d * part + 1.0) / (d + 1)
        leaked = 1.0 - (stays.sum() ** 2 + (stays**2).sum()) / (d * (d + 1))
        error = max(0.0, gate.error - leaked)
        return max(0.0, (fidelity - (1.0 - error)) / (fidelity - 1.0 / d))

    def gate(self, name: str, qubits: tuple[int, ...]) -> None:
        gate = next(each for each in self.snapshot.gates if each.name == name)
        for qubit in range(2):  # the other one waits as long
            if qubit not in qubits:
                self.relax(qubit, gate.duration_ns)
        self.unitary(UNITARIES[name], qubits)
        self.depolarize(self.parameter(gate, qubits), qubits)
        for qubit in qubits:
            self.relax(qubit, gate.duration_ns)
        self.leak(gate, qubits)

    def readout(self, qubit: int) -> NDArray[np.float64]:
        """Probability of bits 0 and 1 for each level: [bit, level]."""
        each = self.snapshot.qubits[qubit]
        r = 1.0 if each.leaked_readout is None else each.leaked_readout
        one = [each.p01, 1.0 - each.p10, r * (1.0 - each.p10) + (1.0 - r) * each.p01]
        return np.array([1.0 - np.array(one), one])

    def distribution(self) -> NDArray[np.float64]:
        levels = np.einsum("abab->ab", self.rho).real
        return np.einsum("xa,yb,ab->xy", self.readout(1), self.readout(0), levels).ravel()


def random_case(seed: int, gates: int = 12) -> tuple[Circuit, CalibrationSnapshot, ThreeLevels]:
    """A random circuit, its device, and the reference before the measurement."""
    rng = np.random.default_rng(seed)
    snapshot = device(rng)
    reference, circuit = ThreeLevels(snapshot), Arrays(2, 2)
    names = [
        *(("sx", (0,)), ("x", (1,)), ("sx", (1,)), ("x", (0,)), ("cx", (0, 1)), ("cz", (0, 1))),
        *(("cx", (0, 1)), ("cz", (0, 1))),
    ]
    circuit.add("sx", [0]).add("barrier", [0, 1])
    first = next(each for each in snapshot.gates if each.name == "sx")
    reference.unitary(SX, (0,))
    reference.depolarize(reference.parameter(first, (0,)), (0,))
    reference.relax(0, first.duration_ns)
    reference.leak(first, (0,))
    for name, qubits in [("x", (1,)), *(names[rng.integers(len(names))] for _ in range(gates))]:
        circuit.add(name, qubits).add("barrier", [0, 1])
        reference.gate(name, qubits)
    return circuit.measure(range(2)).circuit(), snapshot, reference


def distribution(
    circuit: Circuit, noise: NoiseProgram, engine: str = "densitymatrix"
) -> NDArray[np.float64]:
    row = Runner(engine)(circuit, shots=0, outputs=("probabilities",), noise=noise)
    probs = np.zeros(1 << circuit.num_clbits)
    outcomes = sampling.unpack(row.probability_outcomes, row.probability_width)
    probs[outcomes] = np.frombuffer(row.probabilities)
    return probs


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_is_that_of_three_level_systems(seed: int) -> None:
    circuit, snapshot, reference = random_case(seed)
    noise = attach_noise(circuit, build(snapshot))
    assert "leakage" in noise.kinds
    assert abs(np.einsum("abab->", reference.rho) - 1.0) < 1e-12
    assert np.abs(distribution(circuit, noise) - reference.distribution()).max() < 1e-9


@pytest.mark.parametrize("engine", ["statevector"])
@pytest.mark.parametrize("seed", range(4))
def test_trajectories_have_the_distribution_of_the_density_matrix(engine: str, seed: int) -> None:
    circuit, snapshot, reference = random_case(100 + seed)
    row = Runner(engine)(circuit, shots=20_000, noise=attach_noise(circuit, build(snapshot)))
    exact = dict(enumerate(reference.distribution().tolist()))
    assert p_value(exact, counts_of(row)) > 1e-6
