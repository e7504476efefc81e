"""Rotations of gates about ZZ and Z, and confusion of qubits that are read together, against
density matrices in numpy."""

import math

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engines import Runner
from noisy import p_value
from numpy.typing import NDArray

from noise_models import design
from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    NativeGate,
    PauliRotation,
    QubitCalibration,
)
from noise_models.model import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.errors import Unsupported
from simulators.execution import sampling
from simulators.simulate import counts_of

Matrix = NDArray[np.complex128]
QUBITS, GATES = 4, 24
I2, Z = np.eye(2), np.diag([1.0, -1.0])
SX = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2
CZ = np.diag([1.0, 1.0, 1.0, -1.0])
TURNS = {"ZZ": np.kron(Z, Z), "IZ": np.kron(Z, I2), "ZI": np.kron(I2, Z)}  # qubit 0 is bit 0
PAIRS = [(a, b) for a in range(QUBITS) for b in range(QUBITS) if a != b]


def device(rng: np.random.Generator, *, listed: bool = True) -> CalibrationSnapshot:
    """All-to-all device. Each ordered pair has its own error and angles; qubits 2 and 0 are read
    together. `listed`: False, one entry holds for all pairs."""
    gates = [GateCalibration("sx", (), 0.0, 0.0)]
    for pair in PAIRS if listed else [()]:
        turns = tuple(PauliRotation(name, float(rng.uniform(-0.4, 0.4))) for name in TURNS)
        gates.append(GateCalibration("cz", pair, float(rng.uniform(0.2, 0.3)), rotations=turns))
    together = rng.dirichlet(np.ones(4), size=4).T
    return CalibrationSnapshot(
        "rotated", QUBITS, all_to_all=True, gates=tuple(gates),
        native_gates=(NativeGate("sx", 1), NativeGate("cz", 2)),
        qubits=tuple(
            QubitCalibration(p01=float(rng.uniform(0.0, 0.1)), p10=float(rng.uniform(0.0, 0.1)))
            for _ in range(QUBITS)
        ),
        correlated_readout=(CorrelatedReadout((2, 0), tuple(map(tuple, together.tolist()))),),
    )  # fmt: skip


def embedded(matrix: Matrix, qubits: tuple[int, ...]) -> Matrix:
    result = np.zeros((1 << QUBITS, 1 << QUBITS), np.complex128)
    for column in range(1 << QUBITS):
        own = sum((column >> q & 1) << k for k, q in enumerate(qubits))
        rest = column & ~sum(1 << q for q in qubits)
        for row in range(len(matrix)):
            result[rest | sum((row >> k & 1) << q for k, q in enumerate(qubits)), column] += matrix[
                row, own
            ]
    return result


def turned(gate: GateCalibration, factor: float) -> Matrix:
    result = np.eye(4)
    for each in gate.rotations:
        half = 0.5 * factor * each.angle_rad
        result = (math.cos(half) * np.eye(4) - 1j * math.sin(half) * TURNS[each.pauli]) @ result
    return result


def cz(rho: Matrix, gate: GateCalibration, qubits: tuple[int, ...], factor: float) -> Matrix:
    """The gate, its rotations times `factor`, and the depolarizing rest of its error."""
    whole = embedded(turned(gate, factor) @ CZ, qubits)
    rho = whole @ rho @ whole.conj().T
    infidelity = 0.8 * (1.0 - abs(np.trace(turned(gate, 1.0))) ** 2 / 16.0)
    p = max(4.0 * (gate.error - infidelity) / (4.0 * (1.0 - infidelity) - 1.0), 0.0)
    paulis = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), Z]
    mixed = sum(
        each @ rho @ each.conj().T
        for a in paulis
        for b in paulis
        for each in [embedded(np.kron(a, b).astype(np.complex128), qubits)]
    )
    return (1.0 - p) * rho + p / 16.0 * mixed


def read(rho: Matrix, snapshot: CalibrationSnapshot, share: float) -> NDArray[np.float64]:
    """Outcomes of all qubits; `share`: of the correlation of qubits 2 and 0."""
    flips = [
        np.array([[1 - each.p01, each.p10], [each.p01, 1 - each.p10]]) for each in snapshot.qubits
    ]
    group = snapshot.correlated_readout[0]
    alone = np.kron(flips[0], flips[2])  # qubit 2 is bit 0
    both = share * np.array(group.confusion) + (1.0 - share) * alone
    whole = embedded(both, group.qubits) @ embedded(flips[1], (1,)) @ embedded(flips[3], (3,))
    return np.asarray((whole @ np.diag(rho)).real)


def random_case(
    seed: int, *, coherent: float = 1.0, together: float = 1.0, listed: bool = True
) -> tuple[Circuit, CalibrationSnapshot, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    snapshot = device(rng, listed=listed)
    table = {gate.qubits: gate for gate in snapshot.gates if gate.name == "cz"}
    circuit = Arrays(QUBITS, QUBITS)
    rho = np.zeros((1 << QUBITS, 1 << QUBITS), np.complex128)
    rho[0, 0] = 1.0
    for k in range(GATES):
        if k < QUBITS or rng.random() < 0.5:
            qubit = k if k < QUBITS else int(rng.integers(QUBITS))
            circuit.add("sx", [qubit])
            whole = embedded(SX, (qubit,))
            rho = whole @ rho @ whole.conj().T
        else:
            pair = PAIRS[int(rng.integers(len(PAIRS)))]
            circuit.add("cz", pair)
            rho = cz(rho, table.get(pair) or table[()], pair, coherent)
    return circuit.measure(range(QUBITS)).circuit(), snapshot, read(rho, snapshot, together)


def distribution(
    circuit: Circuit, snapshot: CalibrationSnapshot, options: dict[str, float]
) -> NDArray[np.float64]:
    noise = attach_noise(circuit, build(snapshot, NoiseOptions.parse(options)))
    row = Runner("densitymatrix")(circuit, shots=0, outputs=("probabilities",), noise=noise)
    probs = np.zeros(1 << QUBITS)
    outcomes = sampling.unpack(row.probability_outcomes, row.probability_width)
    probs[outcomes] = np.frombuffer(row.probabilities)
    return probs


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_has_rotations_and_correlated_readout(seed: int) -> None:
    circuit, snapshot, wanted = random_case(seed, listed=seed % 4 > 0)
    assert np.abs(distribution(circuit, snapshot, {}) - wanted).max() < 1e-9


@pytest.mark.parametrize("engine", ["densitymatrix", "statevector", "statevector-dense", "mps"])
@pytest.mark.parametrize("seed", range(3))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, wanted = random_case(100 + seed)
    noise = attach_noise(circuit, build(snapshot))
    shots = 1_000 if engine == "mps" else 20_000
    result = Runner(engine)(circuit, shots=shots, seed=seed, noise=noise)
    assert p_value(dict(enumerate(wanted.tolist())), counts_of(result)) > 5.7e-7  # five sigma


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_their_factors_scale_them(factor: float) -> None:
    """With `gate.coherent` at 0, the depolarizing rest stays that of the measured error."""
    full = distribution(*random_case(7)[:2], {})
    for name, argument in (("gate.coherent", "coherent"), ("qubit.correlated_readout", "together")):
        circuit, snapshot, wanted = random_case(7, **{argument: factor})  # type: ignore[arg-type]
        scaled = distribution(circuit, snapshot, {name: factor})
        assert np.abs(scaled - wanted).max() < 1e-9
        assert np.abs(scaled - full).max() > 1e-3


def test_values_replace_the_angles_of_all_pairs() -> None:
    circuit, snapshot, _ = random_case(8)
    values = {"gate.zz_angle_rad": 0.3, "gate.iz_angle_rad": 0.0}
    turns = {
        gate.qubits: gate.rotations
        for gate in build(snapshot, NoiseOptions.parse(values)).snapshot.gates
    }
    for gate in snapshot.gates:
        if gate.name == "cz":
            kept = {each.pauli: each.angle_rad for each in gate.rotations} | {"ZZ": 0.3}
            del kept["IZ"]
            assert {each.pauli: each.angle_rad for each in turns[gate.qubits]} == kept
    assert turns[()] == ()
    changed = distribution(circuit, snapshot, values)
    assert np.abs(changed - distribution(circuit, snapshot, {})).max() > 1e-3


def test_a_stabilizer_engine_refuses_rotations_or_says_that_they_are_twirled() -> None:
    circuit, snapshot, _ = random_case(9)
    snapshot = msgspec.structs.replace(snapshot, qubits=(), correlated_readout=())
    noise = attach_noise(circuit, build(snapshot))
    with pytest.raises(Unsupported, match="no kraus noise"):
        Runner("stabilizer")(circuit, shots=100, noise=noise)
    result = Runner("stabilizer")(circuit, shots=100, noise=noise, settings=(("twirl", 1),))
    assert "twirled" in result.remark


def test_a_designed_device_has_the_angles_of_its_pairs_in_both_directions() -> None:
    made, _ = design.snapshot_of(
        design.DeviceDesign(
            "made", 3, ((0, 1), (2, 1)), error_2q=(0.01,),
            zz_angle_rad=(0.08, 0.02), iz_angle_rad=(0.06, 0.0),
        )
    )  # fmt: skip
    found = {
        gate.qubits: {each.pauli: each.angle_rad for each in gate.rotations}
        for gate in made.gates
        if gate.name == "cz"
    }
    assert found == {
        (0, 1): {"ZZ": 0.08, "IZ": 0.06}, (1, 0): {"ZZ": 0.08, "ZI": 0.06},
        (2, 1): {"ZZ": 0.02}, (1, 2): {"ZZ": 0.02},
    }  # fmt: skip
