"""Density matrices of noisy devices in plain numpy, random devices, comparisons of engines."""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities
from engines import Runner
from noisy import p_value
from numpy.typing import NDArray
from reference import matrix

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from noise_models.options import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import counts_of

Matrix = NDArray[np.complex128]
Probabilities = NDArray[np.float64]
PAULIS = {each: matrix(each.lower(), (), 1) if each != "I" else np.eye(2) for each in "IXYZ"}
FIVE_SIGMA = 5.7e-7
FEW_SHOTS = {"mps": 2_000}  # trajectories take longer
all_engines = pytest.mark.parametrize(
    "engine", ["densitymatrix", "statevector", "statevector-dense", "mps"]
)


@functools.cache
def unitary_of(name: str) -> Matrix:
    """Matrix of a gate without parameters; bit 0 of an index is the first qubit."""
    return matrix(name, (), size_of(name))


def pauli_word(word: str) -> Matrix:
    """Matrix of a Pauli string; the first letter acts on the first qubit."""
    return functools.reduce(lambda low, letter: np.kron(PAULIS[letter], low), word, np.eye(1))


def size_of(name: str) -> int:
    return 2 if name in ("cx", "cz", "swap") else 1


def times(
    rng: np.random.Generator, lowest: float = 20.0, highest: float = 100.0
) -> dict[str, float]:
    """Random T1, and T2 up to the limit 2 T1."""
    t1_us = float(rng.uniform(lowest, highest))
    return {"t1_us": t1_us, "t2_us": float(rng.uniform(0.3, 2.0)) * t1_us}


def chip(
    gates: Sequence[GateCalibration], qubits: Sequence[QubitCalibration], **fields: object
) -> CalibrationSnapshot:
    """Device whose native gates are those that have values; fully connected without `coupling`."""
    names = dict.fromkeys(gate.name for gate in gates)
    return CalibrationSnapshot(
        "chip", len(qubits), native_gates=tuple(NativeGate(each, size_of(each)) for each in names),
        **{"dynamic": True, "all_to_all": "coupling" not in fields, **fields},
        gates=tuple(gates), qubits=tuple(qubits),
    )  # type: ignore[arg-type]  # fmt: skip


def attached(
    circuit: Circuit, snapshot: CalibrationSnapshot, options: Mapping[str, object] | None = None
) -> NoiseProgram:
    """Noise of a device with these options in this circuit."""
    return attach_noise(circuit, build(snapshot, NoiseOptions.parse(options or {})))


def distribution(
    circuit: Circuit, noise: NoiseProgram, engine: str = "densitymatrix"
) -> Probabilities:
    """Exact probability of each outcome, by an engine."""
    row = Runner(engine)(circuit, shots=0, outputs=("probabilities",), noise=noise)
    result, probs = np.zeros(1 << circuit.num_clbits), probabilities(row)
    result[list(probs)] = list(probs.values())
    return result


def assert_exact(
    circuit: Circuit, snapshot: CalibrationSnapshot, wanted: Probabilities,
    options: Mapping[str, object] | None = None,
) -> None:  # fmt: skip
    """The density matrix has these probabilities."""
    assert np.abs(distribution(circuit, attached(circuit, snapshot, options)) - wanted).max() < 1e-9


def assert_counts(
    engine: str, circuit: Circuit, noise: NoiseProgram, wanted: Probabilities, *, seed: int = 7,
    shots: int = 0,
) -> None:  # fmt: skip
    """Counts of an engine follow these probabilities, by a chi-square test at five sigma."""
    shots = shots or FEW_SHOTS.get(engine, 20_000)
    counts = counts_of(Runner(engine)(circuit, shots=shots, seed=seed, noise=noise))
    assert p_value(dict(enumerate(wanted.tolist())), counts) > FIVE_SIGMA


class DensityMatrix:
    """Density matrix rho[batch, kets, bras] with one axis for each qubit, the highest first; every
    operation acts on the whole batch."""

    def __init__(self, qubits: int, *, levels: int = 2, batch: tuple[int, ...] = ()) -> None:
        self.n, self.levels = qubits, levels
        self.rho = np.zeros((*batch, *(levels,) * (2 * qubits)), np.complex128)
        self.rho[..., *(0,) * (2 * qubits)] = 1.0

    def elements(self, qubit: int) -> Matrix:
        """View [level of the ket, level of the bra, everything else]."""
        axes = (-1 - self.n - qubit, -1 - qubit)
        return np.moveaxis(self.rho, axes, (0, 1))

    def apply(self, operators: Sequence[Matrix], qubits: Sequence[int]) -> None:
        """Apply Kraus operators."""
        kets = [self.rho.ndim - 1 - self.n - q for q in reversed(qubits)]
        bras = [self.rho.ndim - 1 - q for q in reversed(qubits)]
        self.rho = sum(
            self._mapped(self._mapped(self.rho, each, kets), each.conj(), bras)
            for each in operators
        )

    def _mapped(self, rho: Matrix, operator: Matrix, axes: list[int]) -> Matrix:
        k = len(axes)
        tensor = np.asarray(operator).reshape((self.levels,) * (2 * k))
        return np.moveaxis(np.tensordot(tensor, rho, (range(k, 2 * k), axes)), range(k), axes)

    def unitary(self, name: str, qubits: Sequence[int]) -> None:
        whole = unitary_of(name)
        if self.levels > 2:  # of one qubit
            whole = np.eye(self.levels, dtype=np.complex128)
            whole[:2, :2] = unitary_of(name)
        self.apply([whole], qubits)

    def pauli(self, word: str, probability: float, qubits: Sequence[int]) -> None:
        """A Pauli error."""
        before = self.rho
        self.apply([pauli_word(word)], qubits)
        self.rho = (1.0 - probability) * before + probability * self.rho

    def depolarize(self, probability: float, qubits: Sequence[int]) -> None:
        """Replace the state of the qubits by the completely mixed one; levels above 1 stay."""
        before = self.rho.copy()
        for qubit in qubits:
            part = self.elements(qubit)
            mean = 0.5 * (part[0, 0] + part[1, 1])
            part[0, 1], part[1, 0], part[0, 0], part[1, 1] = 0.0, 0.0, mean, mean
        self.rho = (1.0 - probability) * before + probability * self.rho

    def dampen(
        self, qubit: int, time_ns: float, t1_us: float, t2_us: float, excited: float = 0.0
    ) -> None:
        """Let populations decay with T1 and coherences with T2."""
        decayed, left = -math.expm1(-1e-3 * time_ns / t1_us), math.exp(-1e-3 * time_ns / t2_us)
        part = self.elements(qubit)
        moved = decayed * (excited * part[0, 0] - (1.0 - excited) * part[1, 1])
        part[0, 0] -= moved
        part[1, 1] += moved
        part[0, 1] *= left
        part[1, 0] *= left

    def measure(self, qubit: int, clbit: int, read: Probabilities) -> None:
        """Project the qubit and write what is read; the batch is the record of the classical bits.

        read: Probability [bit, level].
        """
        found, part = np.zeros_like(self.rho), self.elements(qubit)
        self.rho = found
        into = self.elements(qubit)
        records = np.arange(len(found))
        for bit in range(2):
            written = records & ~(1 << clbit) | bit << clbit
            for level in range(self.levels):
                for record, target in enumerate(written.tolist()):
                    into[level, level, target] += read[bit, level] * part[level, level, record]

    def populations(self) -> Probabilities:
        """Probabilities [batch, levels of all qubits]; qubit 0 is the lowest digit."""
        size = self.levels**self.n
        batch = self.rho.shape[: self.rho.ndim - 2 * self.n]
        return np.einsum("...aa->...a", self.rho.reshape(*batch, size, size)).real


def confused(populations: Probabilities, read: Sequence[Probabilities]) -> Probabilities:
    """Probabilities of what is read, by the confusion [bit, level] of each qubit."""
    return populations @ functools.reduce(lambda low, each: np.kron(each, low), read).T


def confusion(qubit: QubitCalibration) -> Probabilities:
    return np.array([[1.0 - qubit.p01, qubit.p10], [qubit.p01, 1.0 - qubit.p10]])


class DeviceReference(DensityMatrix):
    """Density matrix of a device whose gates act one after the other, with barriers between; the
    other qubits wait meanwhile, from their first gates on. `circuit` has the same gates."""

    def __init__(
        self, snapshot: CalibrationSnapshot, *, levels: int = 2, batch: tuple[int, ...] = ()
    ) -> None:
        super().__init__(snapshot.num_qubits, levels=levels, batch=batch)
        self.snapshot, self.begun = snapshot, set[int]()
        self.circuit = Arrays(self.n, self.n)

    def calibrated(self, name: str, qubits: Sequence[int]) -> GateCalibration:
        return next(
            each
            for each in self.snapshot.gates
            if each.name == name and each.qubits in ((), tuple(qubits))
        )

    def times_us(self, qubit: int) -> tuple[float, float]:
        """T1 and T2."""
        each = self.snapshot.qubits[qubit]
        t1_us = math.inf if each.t1_us is None else each.t1_us
        return t1_us, min(math.inf if each.t2_us is None else each.t2_us, 2.0 * t1_us)

    def wait(self, qubit: int, time_ns: float) -> None:
        """Relaxation."""
        excited = self.snapshot.qubits[qubit].excited or 0.0
        self.dampen(qubit, time_ns, *self.times_us(qubit), excited)

    def fidelity(self, gate: GateCalibration, qubits: Sequence[int]) -> float:
        """Process fidelity of what a gate has beside its depolarizing rest: relaxation."""
        result, us = 1.0, 1e-3 * (gate.duration_ns or 0.0)
        for t1_us, t2_us in map(self.times_us, qubits):
            result *= (1.0 + 2.0 * math.exp(-us / t2_us) + math.exp(-us / t1_us)) / 4.0
        return result

    def error(self, gate: GateCalibration, qubits: Sequence[int]) -> float:
        """Average infidelity that a gate has without what acts outside its two levels."""
        return gate.error

    def rest(self, gate: GateCalibration, qubits: Sequence[int]) -> float:
        """Depolarizing parameter that completes the gate's error."""
        d = 2 ** len(qubits)
        average = (d * self.fidelity(gate, qubits) + 1.0) / (d + 1.0)
        return max(0.0, (average - 1.0 + self.error(gate, qubits)) / (average - 1.0 / d))

    def noise_before(self, gate: GateCalibration, qubits: Sequence[int]) -> None:
        """None."""

    def noise_after(self, gate: GateCalibration, qubits: Sequence[int]) -> None:
        """Depolarizing rest, then relaxation."""
        if gate.error is not None:
            self.depolarize(self.rest(gate, qubits), qubits)
        for qubit in qubits:
            self.wait(qubit, gate.duration_ns or 0.0)

    def gate(self, name: str, qubits: Sequence[int]) -> None:
        gate = self.calibrated(name, qubits)
        for qubit in self.begun - set(qubits):
            self.wait(qubit, gate.duration_ns or 0.0)
        self.begun |= set(qubits)
        self.noise_before(gate, qubits)
        self.unitary(name, qubits)
        self.noise_after(gate, qubits)

    def add(self, name: str, *qubits: int) -> None:
        """Add a gate to the circuit, and apply it."""
        self.circuit.add(name, qubits).add("barrier", range(self.n))
        self.gate(name, qubits)

    def measured(self) -> Circuit:
        """The circuit with measurements of all qubits at its end."""
        return self.circuit.measure(range(self.n)).circuit()
