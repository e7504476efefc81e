"""Memory error of qubits in each layer of a circuit, against density matrices in numpy."""

import json
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
from noise_models.importers import import_snapshot
from noise_models.model import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.execution import sampling
from simulators.simulate import counts_of

Operation = tuple[str, tuple[int, ...]]
Matrix = NDArray[np.complex128]
QUBITS = 4
MATRICES: dict[str, Matrix] = {
    "sx": np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2,
    "h": np.array([[1, 1], [1, -1]], np.complex128) / math.sqrt(2.0),
    "t": np.diag([1.0, np.exp(0.25j * np.pi)]),
    "cx": np.eye(4)[[0, 3, 2, 1]].astype(np.complex128),  # the control is bit 0
    "cz": np.diag([1, 1, 1, -1]).astype(np.complex128),
}


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """All-to-all device with a random memory error of each qubit."""
    gates = tuple(
        GateCalibration(name, (), float(rng.uniform(0.0, 0.03 if name == "cx" else 0.01)))
        for name in MATRICES
    )
    return CalibrationSnapshot(
        "ions", QUBITS, all_to_all=True, dynamic=True, gates=gates,
        native_gates=tuple(NativeGate(k, 2 if k in ("cx", "cz") else 1) for k in MATRICES),
        qubits=tuple(
            QubitCalibration(memory_error=float(rng.uniform(0.0, 0.1))) for _ in range(QUBITS)
        ),
    )  # fmt: skip


class Reference:
    """Density matrix of a list of operations; its bit q is qubit q."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        self.rho = np.zeros((1 << QUBITS, 1 << QUBITS), np.complex128)
        self.rho[0, 0] = 1.0

    def embedded(self, matrix: Matrix, qubits: tuple[int, ...]) -> Matrix:
        result = np.zeros((1 << QUBITS, 1 << QUBITS), np.complex128)
        for column in range(1 << QUBITS):
            own = sum((column >> q & 1) << k for k, q in enumerate(qubits))
            rest = column & ~sum(1 << q for q in qubits)
            for row in range(len(matrix)):
                place = rest | sum((row >> k & 1) << q for k, q in enumerate(qubits))
                result[place, column] = matrix[row, own]
        return result

    def mixture(self, terms: list[tuple[float, Matrix]], qubits: tuple[int, ...]) -> None:
        whole = [(p, self.embedded(each, qubits)) for p, each in terms]
        self.rho = sum(p * each @ self.rho @ each.conj().T for p, each in whole)

    def dephase(self, qubit: int, layers: int) -> None:
        z = np.diag([1.0, -1.0])
        for _ in range(layers):
            p = 1.5 * self.snapshot.qubits[qubit].memory_error
            self.mixture([(1.0 - p, np.eye(2)), (p, z)], (qubit,))

    def gate(self, name: str, qubits: tuple[int, ...]) -> None:
        self.mixture([(1.0, MATRICES[name])], qubits)
        error = next(each.error for each in self.snapshot.gates if each.name == name)
        d = 1 << len(qubits)
        p = error * d / (d - 1)  # depolarizing
        paulis = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]),
                  np.diag([1, -1])]  # fmt: skip
        words = paulis if d == 2 else [np.kron(a, b) for a in paulis for b in paulis]
        terms = [(p / d**2, each) for each in words]
        self.mixture([(1.0 - p, np.eye(d)), *terms], qubits)

    def run(self, operations: list[Operation]) -> Matrix:
        """Operations as late as possible: the layers after each are counted from the end."""
        left = [0] * QUBITS
        starts = []
        for name, qubits in reversed(operations):
            after = max(left[q] for q in qubits)
            steps = 1 if name in ("cx", "cz") else 0
            starts.append(after + steps)
            for q in qubits:
                left[q] = after + steps
        begun: dict[int, int] = {}  # layers that are left after the last operation of a qubit
        for (name, qubits), start in zip(operations, reversed(starts), strict=True):
            for q in qubits:
                if q in begun:
                    self.dephase(q, begun[q] - start)
                    begun[q] = start
            if name == "barrier":
                continue
            self.gate(name, qubits)
            for q in qubits:
                begun[q] = start
                if len(qubits) == 2:
                    self.dephase(q, 1)
                    begun[q] = start - 1
        return self.rho


def random_case(seed: int) -> tuple[Circuit, CalibrationSnapshot, Matrix]:
    """A random circuit with idle qubits and barriers, its device, and its last density matrix."""
    rng = np.random.default_rng(seed)
    snapshot = device(rng)
    operations: list[Operation] = []
    for _ in range(18):
        order = rng.permutation(QUBITS).tolist()
        draw = rng.random()
        if draw < 0.45:
            operations.append((str(rng.choice(["cx", "cz"])), tuple(order[:2])))
        elif draw < 0.9:
            operations.append((str(rng.choice(["sx", "h", "t"])), (order[0],)))
        else:
            operations.append(("barrier", tuple(order[: int(rng.integers(2, QUBITS + 1))])))
    operations += [("h", (q,)) for q in range(QUBITS)]
    circuit = Arrays(QUBITS, QUBITS)
    for name, qubits in operations:
        circuit.add(name, qubits)
    return circuit.measure(range(QUBITS)).circuit(), snapshot, Reference(snapshot).run(operations)


def distribution(circuit: Circuit, noise: NoiseProgram) -> NDArray[np.float64]:
    row = Runner("densitymatrix")(circuit, shots=0, outputs=("probabilities",), noise=noise)
    probs = np.zeros(1 << circuit.num_clbits)
    outcomes = sampling.unpack(row.probability_outcomes, row.probability_width)
    probs[outcomes] = np.frombuffer(row.probabilities)
    return probs


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_has_the_memory_error_of_each_layer(seed: int) -> None:
    circuit, snapshot, rho = random_case(seed)
    noise = attach_noise(circuit, build(snapshot))
    assert np.abs(distribution(circuit, noise) - np.diag(rho).real).max() < 1e-9


@pytest.mark.parametrize("engine", ["densitymatrix", "statevector", "statevector-dense", "mps"])
@pytest.mark.parametrize("seed", range(3))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, rho = random_case(100 + seed)
    noise = attach_noise(circuit, build(snapshot))
    shots = 2_000 if engine == "mps" else 20_000
    result = Runner(engine)(circuit, shots=shots, seed=seed, noise=noise)
    expected = dict(enumerate(np.diag(rho).real.tolist()))
    assert p_value(expected, counts_of(result)) > 5.7e-7  # five sigma


def test_its_factor_takes_the_term_out_and_idle_noise_off_too() -> None:
    changes = []
    for seed in range(8):
        circuit, snapshot, _ = random_case(seed)
        none = tuple(msgspec.structs.replace(q, memory_error=None) for q in snapshot.qubits)
        without = build(msgspec.structs.replace(snapshot, qubits=none))
        wanted = distribution(circuit, attach_noise(circuit, without))
        for off in ({"qubit.memory": 0}, {"qubit": 0}, {"idle": False}):
            noise = attach_noise(circuit, build(snapshot, NoiseOptions.parse(off)))
            assert np.abs(distribution(circuit, noise) - wanted).max() < 1e-12
        with_it = distribution(circuit, attach_noise(circuit, build(snapshot)))
        changes.append(np.abs(with_it - wanted).max())
    assert np.sum(np.array(changes) > 1e-3) >= 6


def test_a_factor_multiplies_the_error_of_a_layer() -> None:
    circuit, snapshot, _ = random_case(3)
    half = tuple(
        msgspec.structs.replace(q, memory_error=0.5 * q.memory_error) for q in snapshot.qubits
    )
    wanted = build(msgspec.structs.replace(snapshot, qubits=half))
    scaled = build(snapshot, NoiseOptions.parse({"qubit.memory": 0.5}))
    probs = [distribution(circuit, attach_noise(circuit, each)) for each in (wanted, scaled)]
    assert np.abs(probs[0] - probs[1]).max() < 1e-12
    same = build(snapshot, NoiseOptions.parse({"qubit.memory_error": 0.02}))
    assert same.memory(2, 3).infidelity == pytest.approx((1.0 - (1.0 - 0.06) ** 3) / 3.0)


def layered(*body: str) -> Circuit:
    """Qubit 0 in |+> while qubits 1 and 2 have gates; then it is read in its own basis."""
    circuit = Arrays(QUBITS, 1).add("h", [0]).add("h", [1]).add("h", [2])
    circuit.add("barrier", [0, 1, 2])
    for name in body:
        if name == "loop":
            circuit.repeat(3).add("cz", [1, 2]).add("end")
        else:
            circuit.add(name, [1, 2] if name == "cz" else [1])
    return circuit.add("barrier", [0, 1, 2]).add("h", [0]).add("measure", [0], [0]).circuit()


@pytest.mark.parametrize(
    ("body", "layers"),
    [((), 0), (("sx", "sx"), 0), (("cz",), 1), (("cz", "sx", "cz"), 2)],
)
def test_a_waiting_qubit_has_the_error_of_each_layer_of_the_others(
    body: tuple[str, ...], layers: int
) -> None:
    snapshot = msgspec.structs.replace(
        device(np.random.default_rng(1)),
        gates=(),
        qubits=(QubitCalibration(memory_error=0.04),) * QUBITS,
    )
    circuit = layered(*body)
    probs = distribution(circuit, attach_noise(circuit, build(snapshot)))
    assert probs[0] - probs[1] == pytest.approx((1.0 - 0.12) ** layers, abs=1e-12)


def test_a_qubit_waits_for_each_pass_of_a_loop() -> None:
    ions = QubitCalibration(memory_error=0.04)
    snapshot = msgspec.structs.replace(
        device(np.random.default_rng(1)), gates=(), qubits=(ions,) * QUBITS
    )
    circuit = layered("cz", "loop")
    noise = attach_noise(circuit, build(snapshot))
    zeros = counts_of(Runner("statevector")(circuit, shots=20_000, seed=5, noise=noise))[0]
    wanted = 0.5 + 0.5 * (1.0 - 0.12) ** 4
    assert abs(zeros / 20_000 - wanted) < 5.0 * math.sqrt(wanted * (1.0 - wanted) / 20_000)


# Quantinuum's Helios, 98 ions, as published (arXiv 2511.05465): errors of its components, and the
# process fidelity of a layer of random Clifford circuits with a gate on each pair of a random
# pairing, .883(16) (table A7).
HELIOS = {
    "name": "Helios", "n_qubits": 98,
    "noise_specs": {
        "1q_gate_error": {"p1": 2.5e-5}, "2q_gate_error": {"p2": 7.9e-4},
        "memory_error": {"memory_error": 6.0e-4},
    },
}  # fmt: skip
PUBLISHED = 0.883


def mirror(rng: np.random.Generator, num_qubits: int, layers: int) -> Circuit:
    """Mirror circuit: layers of random Cliffords and pairings, then their inverses."""
    circuit = Arrays(num_qubits, num_qubits)
    turns = [[(float(rng.integers(4)), float(rng.integers(4))) for _ in range(num_qubits)]
             for _ in range(layers)]  # fmt: skip
    pairs = [rng.permutation(num_qubits).reshape(-1, 2).tolist() for _ in range(layers)]
    for turn, pairing in zip(turns, pairs, strict=True):
        for q, (angle, phase) in enumerate(turn):
            circuit.add("r", [q], params=[angle * math.pi / 2, phase * math.pi / 2])
        for pair in pairing:
            circuit.add("rzz", pair, params=[math.pi / 2])
    for turn, pairing in zip(reversed(turns), reversed(pairs), strict=True):
        for pair in pairing:
            circuit.add("rzz", pair, params=[-math.pi / 2])
        for q, (angle, phase) in enumerate(turn):
            circuit.add("r", [q], params=[-angle * math.pi / 2, phase * math.pi / 2])
    return circuit.measure(range(num_qubits)).circuit()


def test_a_layer_of_98_ions_has_the_published_fidelity() -> None:
    snapshot, _ = import_snapshot({"helios.json": json.dumps(HELIOS).encode()})

    def fidelity(**options: float) -> float:
        """Process fidelity of a layer: survival of longer mirror circuits by that of shorter
        ones."""
        model = build(snapshot, NoiseOptions.parse({f"qubit.{k}": v for k, v in options.items()}))
        survived = {}
        for half in (1, 3):
            survived[half] = 0
            for seed in range(4):
                circuit = mirror(np.random.default_rng(seed), 98, half)
                result = Runner("stabilizer")(
                    circuit, shots=2_000, seed=seed, noise=attach_noise(circuit, model)
                )
                survived[half] += counts_of(result)[0]
        return (survived[3] / survived[1]) ** 0.25

    assert abs(fidelity() - PUBLISHED) < 0.03
    assert fidelity(memory=0) > PUBLISHED + 0.05, "the errors of the gates alone"
