"""Rotations of gates about ZZ and Z, and confusion of qubits that are read together, against
density matrices in numpy."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from engines import Runner
from noise_references import (
    DeviceReference,
    Matrix,
    Probabilities,
    all_engines,
    assert_counts,
    assert_exact,
    attached,
    chip,
    confusion,
    distribution,
    pauli_word,
    size_of,
)
from reference import apply

from noise_models import design
from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    PauliRotation,
    QubitCalibration,
)
from noise_models.options import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.errors import Unsupported

QUBITS, GATES = 4, 16  # more of them leave little but depolarizing noise
PAIRS = [(a, b) for a in range(QUBITS) for b in range(QUBITS) if a != b]


def device(rng: np.random.Generator, *, listed: bool = True) -> CalibrationSnapshot:
    """All-to-all device. Each ordered pair has its own error and angles; qubits 2 and 0 are read
    together. `listed`: False, one entry holds for all pairs."""
    gates = [GateCalibration("sx", (), 0.0, 0.0)]
    for pair in PAIRS if listed else [()]:
        turns = tuple(
            PauliRotation(name, float(rng.uniform(-0.4, 0.4))) for name in ("ZZ", "IZ", "ZI")
        )
        gates.append(GateCalibration("cz", pair, float(rng.uniform(0.1, 0.15)), rotations=turns))
    together = rng.dirichlet(np.ones(4), size=4).T
    qubits = [QubitCalibration(p01=a, p10=b) for a, b in rng.uniform(0, 0.1, (QUBITS, 2)).tolist()]
    both = CorrelatedReadout((2, 0), tuple(map(tuple, together.tolist())))
    return chip(gates, qubits, correlated_readout=(both,))


class Reference(DeviceReference):
    """Gates with rotations, whose angles are multiplied by `factor`."""

    def __init__(self, snapshot: CalibrationSnapshot, factor: float) -> None:
        super().__init__(snapshot)
        self.factor = factor

    def turned(self, gate: GateCalibration, factor: float) -> Matrix:
        """Product of a gate's rotations."""
        result = np.eye(2 ** size_of(gate.name))
        for each in gate.rotations:
            half = 0.5 * factor * each.angle_rad
            turn = math.cos(half) * np.eye(4) - 1j * math.sin(half) * pauli_word(each.pauli)
            result = turn @ result
        return result

    def unitary(self, name: str, qubits: Sequence[int]) -> None:
        super().unitary(name, qubits)
        self.apply([self.turned(self.calibrated(name, qubits), self.factor)], qubits)

    def fidelity(self, gate: GateCalibration, qubits: Sequence[int]) -> float:
        """That of the whole angles."""
        return abs(np.trace(self.turned(gate, 1.0))) ** 2 / 4.0 ** len(qubits)

    def read(self, share: float) -> Probabilities:
        """Outcomes of all qubits; `share`: of the correlation of qubits 2 and 0."""
        flips = [confusion(each) for each in self.snapshot.qubits]
        group = self.snapshot.correlated_readout[0]
        alone = np.kron(flips[0], flips[2])  # qubit 2 is bit 0
        both = share * np.array(group.confusion) + (1.0 - share) * alone
        probs = apply(self.populations(), both, group.qubits)
        return apply(apply(probs, flips[1], (1,)), flips[3], (3,))


def random_case(
    seed: int, *, coherent: float = 1.0, together: float = 1.0, listed: bool = True
) -> tuple[Circuit, CalibrationSnapshot, Probabilities]:
    rng = np.random.default_rng(seed)
    reference = Reference(device(rng, listed=listed), coherent)
    for k in range(GATES):
        if k < QUBITS or k >= GATES - QUBITS or rng.random() < 0.3:
            reference.add("sx", k % QUBITS)
        else:
            reference.add("cz", *PAIRS[int(rng.integers(len(PAIRS)))])
    return reference.measured(), reference.snapshot, reference.read(together)


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_has_rotations_and_correlated_readout(seed: int) -> None:
    assert_exact(*random_case(seed, listed=seed % 4 > 0))


@all_engines
@pytest.mark.parametrize("seed", range(3))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, wanted = random_case(100 + seed)
    assert_counts(engine, circuit, attached(circuit, snapshot), wanted, seed=seed)


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_their_factors_scale_them(factor: float) -> None:
    """With `gate.coherent` at 0, the depolarizing rest stays that of the measured error."""
    full = random_case(7)[2]
    for name, argument in (("gate.coherent", "coherent"), ("qubit.correlated_readout", "together")):
        circuit, snapshot, wanted = random_case(7, **{argument: factor})  # type: ignore[arg-type]
        assert_exact(circuit, snapshot, wanted, {name: factor})
        assert np.abs(wanted - full).max() > 1e-3


def test_values_replace_the_angles_of_all_pairs() -> None:
    circuit, snapshot, unchanged = random_case(8)
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
    changed = distribution(circuit, attached(circuit, snapshot, values))
    assert np.abs(changed - unchanged).max() > 1e-3


def test_a_stabilizer_engine_refuses_rotations_or_says_that_they_are_twirled() -> None:
    circuit, snapshot, _ = random_case(9)
    snapshot = msgspec.structs.replace(snapshot, qubits=(), correlated_readout=())
    noise = attached(circuit, snapshot)
    with pytest.raises(Unsupported, match="no kraus noise"):
        Runner("stabilizer")(circuit, shots=100, noise=noise)
    result = Runner("stabilizer")(circuit, shots=100, noise=noise, settings=(("twirl", 1),))
    assert "twirled" in result.remark


def test_a_designed_device_has_the_angles_of_its_pairs_in_both_directions() -> None:
    made, _ = design.snapshot_of(
        design.DeviceDesign(
            "made", 3, ((0, 1), (2, 1)),
            values={
                "error_2q": (0.01,), "zz_angle_rad": (0.08, 0.02), "iz_angle_rad": (0.06, 0.0),
            },
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
