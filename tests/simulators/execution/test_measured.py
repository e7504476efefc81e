"""Transitions of measured qubits, and dephasing and rotation of others by a measurement inside a
circuit, against density matrices in numpy."""

import math

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from noise_references import (
    PAULIS,
    DeviceReference,
    Probabilities,
    all_engines,
    assert_counts,
    assert_exact,
    attached,
    chip,
    confused,
    confusion,
    distribution,
)

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    MeasurementCalibration,
    MeasurementCrosstalk,
    NativeGate,
    QubitCalibration,
    ZZCoupling,
)
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise

QUBITS, INSIDE = 3, 3  # and measurements inside a circuit
GATES = ("sx", "h", "cx")


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """Random transitions and crosstalk, of pairs and of all others, beside relaxation during
    readouts; gates take no time and have no error."""
    qubits = tuple(
        QubitCalibration(
            t1_us=float(rng.uniform(20.0, 100.0)), readout_ns=1000.0,
            p01=float(rng.uniform(0.0, 0.1)), p10=float(rng.uniform(0.0, 0.1)),
            measure_decay=float(rng.uniform(0.06, 0.3)),
            measure_excitation=float(rng.uniform(0.0, 0.2)),
            readout_decided=float(rng.uniform(0.0, 1.0)) if rng.random() < 0.7 else None,
        )
        for _ in range(QUBITS)
    )  # fmt: skip
    pairs = [(a, b) for a in range(QUBITS) for b in range(QUBITS) if a != b]
    chosen: list[tuple[int, ...]] = [pairs[k] for k in rng.permutation(len(pairs))[:3].tolist()]
    crosstalk = tuple(
        MeasurementCrosstalk(pair, float(rng.uniform(0.0, 0.2)), float(rng.uniform(-1.0, 1.0)))
        for pair in [*chosen, ()]
    )
    gates = [GateCalibration(name, (), 0.0, 0.0) for name in GATES]
    return chip(gates, qubits, measurement_crosstalk=crosstalk)


class Reference(DeviceReference):
    """Unnormalized density matrix for each record of measurements inside a circuit."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        super().__init__(snapshot, batch=(1 << INSIDE,))
        self.rho[1:] = 0.0
        self.circuit = Arrays(QUBITS, INSIDE + QUBITS)

    def measure_inside(self, qubit: int, clbit: int) -> None:
        every = range(QUBITS)
        self.circuit.add("barrier", every).add("measure", [qubit], [clbit]).add("barrier", every)
        own = self.snapshot.qubits[qubit]
        # Decay until the outcome is decided, and the confusion that is left of the calibrated one.
        decided_ns = 1000.0 * (own.readout_decided or 0.0)
        left = math.exp(-1e-3 * decided_ns / own.t1_us)
        self.dampen(qubit, decided_ns, own.t1_us, 2.0 * own.t1_us)
        p10 = max((own.p10 - (1.0 - left) * (1.0 - own.p01)) / left, 0.0)
        self.measure(qubit, clbit, confusion(msgspec.structs.replace(own, p10=p10)))
        # The calibrated probabilities contain relaxation, which has no excitation here.
        up = own.measure_excitation
        down = 1.0 - up - (1.0 - own.measure_decay - up) / left
        kraus = [np.zeros((2, 2)) for _ in range(4)]
        for each, (row, column, p) in zip(
            kraus, [(0, 0, 1 - up), (1, 0, up), (1, 1, 1 - down), (0, 1, down)], strict=True
        ):
            each[row, column] = math.sqrt(p)
        self.apply(kraus, [qubit])
        terms = {each.qubits: each for each in self.snapshot.measurement_crosstalk}
        for other in range(QUBITS):
            if other != qubit:
                term = terms.get((qubit, other)) or terms[()]
                self.pauli("Z", min(1.5 * term.error, 0.5), [other])
                half = 0.5 * term.angle_rad
                self.apply([np.cos(half) * np.eye(2) - 1j * np.sin(half) * PAULIS["Z"]], [other])

    def outcomes(self) -> Probabilities:
        """Bits of the measurements inside, then those of all qubits."""
        return confused(self.populations(), list(map(confusion, self.snapshot.qubits))).T.ravel()


def random_case(
    seed: int, snapshot: CalibrationSnapshot | None = None
) -> tuple[Circuit, CalibrationSnapshot, Probabilities]:
    rng = np.random.default_rng(seed)
    drawn = device(rng)
    reference = Reference(drawn if snapshot is None else snapshot)

    def gates(count: int) -> None:
        for q in range(QUBITS):
            reference.add("h", q)
        for _ in range(count):
            order = rng.permutation(QUBITS).tolist()
            name = str(rng.choice(GATES))
            reference.add(name, *order[: 2 if name == "cx" else 1])

    gates(3)
    for clbit in range(INSIDE):
        reference.measure_inside(int(rng.integers(QUBITS)), clbit)
        gates(3)
    for q in range(QUBITS):
        reference.circuit.add("measure", [q], [INSIDE + q])
    return reference.circuit.circuit(), reference.snapshot, reference.outcomes()


WITHOUT_IDLE = {"idle": False}  # other qubits do not relax meanwhile


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_has_transitions_and_crosstalk(seed: int) -> None:
    assert_exact(*random_case(seed), WITHOUT_IDLE)


@all_engines
@pytest.mark.parametrize("seed", range(3))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, wanted = random_case(100 + seed)
    noise = attached(circuit, snapshot, WITHOUT_IDLE)
    assert_counts(engine, circuit, noise, wanted, seed=seed)


def test_their_factors_take_them_out() -> None:
    circuit, snapshot, wanted = random_case(7)
    qubits = tuple(
        msgspec.structs.replace(each, measure_decay=None, measure_excitation=None)
        for each in snapshot.qubits
    )
    plain = msgspec.structs.replace(snapshot, qubits=qubits)
    without = {
        "measurement": plain,
        "measurement_crosstalk": msgspec.structs.replace(snapshot, measurement_crosstalk=()),
    }
    for name, reduced in without.items():
        factor = WITHOUT_IDLE | {f"qubit.{name}": 0.0}
        off = distribution(circuit, attached(circuit, snapshot, factor))
        expected = distribution(circuit, attached(circuit, reduced, WITHOUT_IDLE))
        assert np.abs(off - expected).max() < 1e-12
        assert np.abs(off - wanted).max() > 1e-3


def test_relaxation_that_is_split_beside_zz_leaves_them_in_place() -> None:
    """With a ZZ rate that does nothing, a device with one pair has the same outcomes."""
    drawn = device(np.random.default_rng(11))
    early = tuple(msgspec.structs.replace(each, readout_decided=None) for each in drawn.qubits)
    circuit, snapshot, wanted = random_case(11, msgspec.structs.replace(drawn, qubits=early))
    coupled = msgspec.structs.replace(snapshot, zz=(ZZCoupling((0, 1), 1e-9),))
    noise = attached(circuit, coupled, {"qubit.idle": 0})
    assert np.abs(distribution(circuit, noise) - wanted).max() < 1e-6


def test_a_measurement_at_the_end_changes_no_other_qubit() -> None:
    snapshot = device(np.random.default_rng(3))
    circuit = Arrays(QUBITS, 2).add("h", [0]).add("h", [1]).add("cx", [0, 1]).measure([0, 1])
    assert not attached(circuit.circuit(), snapshot, WITHOUT_IDLE).locations.size


TIMED = CalibrationSnapshot(
    "disturbed", 2, dynamic=True, coupling=((0, 1),),
    native_gates=(NativeGate("sx", 1), NativeGate("cz", 2)),
    qubits=(QubitCalibration(readout_ns=1000.0),) * 2,
    gates=(GateCalibration("sx", (), 0.0, 40.0), GateCalibration("cz", (), 0.0, 200.0)),
    measurement_crosstalk=(MeasurementCrosstalk((), 0.2, 1.0),),
)  # fmt: skip


@pytest.mark.parametrize("tail", [(), ("reset",), ("sx",), ("reset", "sx")])
@pytest.mark.parametrize("readout_ns", [0.0, 1000.0])
def test_a_measurement_disturbs_whatever_its_own_qubit_does_later(
    tail: tuple[str, ...], readout_ns: float
) -> None:
    """A Ramsey sequence of one qubit around the measurement of the other."""
    circuit = Arrays(2, 2).add("sx", [1]).add("barrier", [0, 1]).add("measure", [0], [0])
    circuit.add("barrier", [0, 1])
    for name in tail:
        circuit.add(name, [0])
    circuit.add("sx", [1]).add("measure", [1], [1])
    qubits = (QubitCalibration(readout_ns=readout_ns),) * 2
    snapshot = msgspec.structs.replace(TIMED, qubits=qubits)
    probs = distribution(circuit.circuit(), attached(circuit.circuit(), snapshot))
    assert probs[2] + probs[3] == pytest.approx(0.5 + 0.5 * 0.4 * math.cos(1.0), abs=1e-12)


def test_the_order_of_a_measurement_and_gates_is_that_of_their_times() -> None:
    """Listed qubit by qubit, measurements that act together disturb nobody; as soon as possible,
    that of qubit 0 is over before the second gate of qubit 1, which is listed before it."""
    together = Arrays(2, 2)
    for q in range(2):
        together.add("sx", [q]).add("sx", [q]).add("measure", [q], [q])
    assert not attached(together.circuit(), TIMED).locations.size
    bare = msgspec.structs.replace(TIMED, qubits=(), gates=())
    assert not attached(together.circuit(), bare).locations.size
    early = Arrays(2, 2).add("sx", [1]).add("sx", [1]).measure([0, 1]).circuit()
    assert not attached(early, TIMED).locations.size
    (row,) = attach_noise(early, build(TIMED), "asap").locations.tolist()
    assert row == [0, 0, 1, -1]
    probs = distribution(early, attach_noise(early, build(TIMED), "asap"))
    assert probs[2] + probs[3] == pytest.approx(0.5 + 0.5 * 0.4 * math.cos(1.0), abs=1e-12)


def test_a_thousand_measurements_at_the_end_ask_for_no_channel_of_a_pair() -> None:
    """One channel is shared, and none placed where no gate follows."""
    number = 1_000
    snapshot = msgspec.structs.replace(
        TIMED, num_qubits=number, coupling=(),
        qubits=(QubitCalibration(readout_ns=1000.0),) * number,
    )  # fmt: skip
    built, circuit = build(snapshot), Arrays(number, number)
    for q in range(number):
        circuit.add("sx", [q])
    assert not attach_noise(circuit.measure(range(number)).circuit(), built).locations.size
    assert len(built.after_gate("measure", (0,))) == 0
    inside = Arrays(number, 2)
    for q in range(9):
        inside.add("sx", [q])
    inside.add("barrier", range(9)).add("measure", [0], [0]).add("measure", [1], [1])
    inside.add("barrier", range(9))
    for q in range(9):
        inside.add("sx", [q])
    noise = attach_noise(inside.circuit(), built)
    assert len(noise.channels) == 1
    assert sorted(noise.locations[:, 2].tolist()) == sorted([0, 1, *(2 * [*range(2, 9)])])


def test_a_decision_of_a_measurement_that_alone_has_a_duration_follows_its_relaxation() -> None:
    qubit = QubitCalibration(t1_us=2.0, t2_us=2.0, readout_decided=0.9)
    snapshot = CalibrationSnapshot(
        "named", 1, dynamic=True, native_gates=(NativeGate("x", 1),), qubits=(qubit,),
        gates=(GateCalibration("x", (), 0.0, 0.0),),
        measurements=(MeasurementCalibration("measure_2", 0, 0.0, 2000.0),),
    )  # fmt: skip
    circuit = Arrays(1, 2).add("x", [0]).add("measure_2", [0], [0]).add("x", [0]).measure([0])
    probs = distribution(circuit.circuit(), attached(circuit.circuit(), snapshot))
    assert probs[1] + probs[3] == pytest.approx(-math.expm1(-1.0), abs=1e-12)


def test_a_decay_before_the_decision_gives_an_outcome_that_agrees_with_the_state() -> None:
    """|1> that decays early is read as 0 and is 0: a second measurement agrees."""
    qubit = QubitCalibration(t1_us=10.0, readout_ns=1000.0, p01=0.0, p10=0.05, readout_decided=0.5)
    snapshot = CalibrationSnapshot("early", 1, dynamic=True, qubits=(qubit,))
    circuit = Arrays(1, 2).add("x", [0]).add("measure", [0], [0])
    circuit.add("x", [0]).add("x", [0]).add("measure", [0], [1])

    def joint(**values: float) -> Probabilities:
        options = {f"qubit.{k}": v for k, v in values.items()}
        return distribution(circuit.circuit(), attached(circuit.circuit(), snapshot, options))

    decayed, late = -math.expm1(-0.05), math.exp(-0.05)
    agree = joint()
    assert agree[0] == pytest.approx(decayed + (0.05 - decayed) * (1.0 - 0.95 * late), abs=1e-12)
    assert agree[0] + agree[2] == pytest.approx(0.05, abs=1e-12), "as calibrated"
    apart = joint(readout_decided=0.0)
    assert apart[0] == pytest.approx(0.05 * (1.0 - 0.95 * math.exp(-0.1)), abs=1e-12)
    exact = joint(readout=0.0)
    assert exact[0] + exact[2] == pytest.approx(decayed, abs=1e-12)
