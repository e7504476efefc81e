"""Transitions of measured qubits, and dephasing and rotation of others by a measurement inside a
circuit, against density matrices in numpy."""

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
    MeasurementCalibration,
    MeasurementCrosstalk,
    NativeGate,
    QubitCalibration,
    ZZCoupling,
)
from noise_models.model import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.execution import sampling
from simulators.simulate import counts_of

Matrix = NDArray[np.complex128]
QUBITS, INSIDE = 3, 3  # and measurements inside a circuit
SX = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2
H = np.array([[1, 1], [1, -1]], np.complex128) / math.sqrt(2.0)
CX = np.eye(4)[[0, 3, 2, 1]].astype(np.complex128)  # the control is bit 0
GATES: dict[str, Matrix] = {"sx": SX, "h": H, "cx": CX}


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
    return CalibrationSnapshot(
        "measured", QUBITS, all_to_all=True, dynamic=True, qubits=qubits,
        native_gates=tuple(NativeGate(k, 2 if k == "cx" else 1) for k in GATES),
        gates=tuple(GateCalibration(k, (), 0.0, 0.0) for k in GATES),
        measurement_crosstalk=crosstalk,
    )  # fmt: skip


def embedded(matrix: Matrix, qubits: tuple[int, ...]) -> Matrix:
    result = np.zeros((1 << QUBITS, 1 << QUBITS), np.complex128)
    for column in range(1 << QUBITS):
        own = sum((column >> q & 1) << k for k, q in enumerate(qubits))
        rest = column & ~sum(1 << q for q in qubits)
        for row in range(len(matrix)):
            place = rest | sum((row >> k & 1) << q for k, q in enumerate(qubits))
            result[place, column] = matrix[row, own]
    return result


class Reference:
    """Unnormalized density matrix for each record of measurements inside a circuit."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        rho = np.zeros((1 << QUBITS, 1 << QUBITS), np.complex128)
        rho[0, 0] = 1.0
        self.records: dict[tuple[int, ...], Matrix] = {(): rho}

    def mixture(self, terms: list[Matrix], qubits: tuple[int, ...]) -> None:
        whole = [embedded(each, qubits) for each in terms]
        self.records = {
            record: sum(each @ rho @ each.conj().T for each in whole)
            for record, rho in self.records.items()
        }

    def measure(self, qubit: int) -> None:
        own = self.snapshot.qubits[qubit]
        # Decay until the outcome is decided, and the confusion that is left of the calibrated one.
        kept = math.exp(-(own.readout_decided or 0.0) / own.t1_us)  # of 1 us
        damped = np.array([[1.0, 0.0], [0.0, math.sqrt(kept)]])
        self.mixture([damped, np.array([[0.0, math.sqrt(1.0 - kept)], [0.0, 0.0]])], (qubit,))
        p10 = max((own.p10 - (1.0 - kept) * (1.0 - own.p01)) / kept, 0.0)
        read = np.array([[1 - own.p01, p10], [own.p01, 1 - p10]])
        results: dict[tuple[int, ...], Matrix] = {}
        for record, rho in self.records.items():
            projected = []
            for state in range(2):
                projector = embedded(np.diag([1.0 - state, float(state)]), (qubit,))
                projected.append(projector @ rho @ projector)
            for bit in range(2):
                results[*record, bit] = read[bit, 0] * projected[0] + read[bit, 1] * projected[1]
        self.records = results
        # The calibrated probabilities contain relaxation, which has no excitation here.
        up = own.measure_excitation
        down = 1.0 - up - (1.0 - own.measure_decay - up) / kept
        kraus = [np.zeros((2, 2)) for _ in range(4)]
        for each, (row, column, p) in zip(
            kraus, [(0, 0, 1 - up), (1, 0, up), (1, 1, 1 - down), (0, 1, down)], strict=True
        ):
            each[row, column] = math.sqrt(p)
        self.mixture(kraus, (qubit,))
        terms = {each.qubits: each for each in self.snapshot.measurement_crosstalk}
        for other in range(QUBITS):
            if other != qubit:
                term = terms.get((qubit, other)) or terms[()]
                p = min(1.5 * term.error, 0.5)
                turn = np.diag(np.exp([-0.5j * term.angle_rad, 0.5j * term.angle_rad]))
                z = np.diag([1.0, -1.0])
                self.mixture([math.sqrt(1 - p) * turn, math.sqrt(p) * z @ turn], (other,))

    def distribution(self) -> NDArray[np.float64]:
        """Outcomes: bits of the measurements inside, then those of all qubits."""
        result = np.zeros(1 << (INSIDE + QUBITS))
        flips = np.ones((1, 1))
        for q in range(QUBITS):
            own = self.snapshot.qubits[q]
            flips = np.kron([[1 - own.p01, own.p10], [own.p01, 1 - own.p10]], flips)
        for record, rho in self.records.items():
            inside = sum(bit << k for k, bit in enumerate(record))
            final = flips @ np.diag(rho).real
            for outcome in range(1 << QUBITS):
                result[inside | outcome << INSIDE] += final[outcome]
        return result


def random_case(
    seed: int, snapshot: CalibrationSnapshot | None = None
) -> tuple[Circuit, CalibrationSnapshot, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    drawn = device(rng)
    snapshot = drawn if snapshot is None else snapshot
    reference, circuit = Reference(snapshot), Arrays(QUBITS, INSIDE + QUBITS)

    def gates(count: int) -> None:
        for q in range(QUBITS):
            circuit.add("h", [q])
            reference.mixture([H], (q,))
        for _ in range(count):
            order = rng.permutation(QUBITS).tolist()
            name = str(rng.choice(list(GATES)))
            qubits = tuple(order[: 2 if name == "cx" else 1])
            circuit.add(name, qubits)
            reference.mixture([GATES[name]], qubits)

    gates(3)
    for clbit in range(INSIDE):
        qubit = int(rng.integers(QUBITS))
        circuit.add("barrier", range(QUBITS)).add("measure", [qubit], [clbit])
        circuit.add("barrier", range(QUBITS))
        reference.measure(qubit)
        gates(3)
    for q in range(QUBITS):
        circuit.add("measure", [q], [INSIDE + q])
    return circuit.circuit(), snapshot, reference.distribution()


def distribution(circuit: Circuit, noise: NoiseProgram) -> NDArray[np.float64]:
    row = Runner("densitymatrix")(circuit, shots=0, outputs=("probabilities",), noise=noise)
    probs = np.zeros(1 << circuit.num_clbits)
    outcomes = sampling.unpack(row.probability_outcomes, row.probability_width)
    probs[outcomes] = np.frombuffer(row.probabilities)
    return probs


WITHOUT_IDLE = {"idle": False}  # other qubits do not relax meanwhile


def model(snapshot: CalibrationSnapshot, **factors: float):  # type: ignore[no-untyped-def]
    values = {f"qubit.{name}": factor for name, factor in factors.items()}
    return build(snapshot, NoiseOptions.parse(WITHOUT_IDLE | values))


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_has_transitions_and_crosstalk(seed: int) -> None:
    circuit, snapshot, wanted = random_case(seed)
    noise = attach_noise(circuit, model(snapshot))
    assert np.abs(distribution(circuit, noise) - wanted).max() < 1e-9


@pytest.mark.parametrize("engine", ["densitymatrix", "statevector", "statevector-dense", "mps"])
@pytest.mark.parametrize("seed", range(3))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, wanted = random_case(100 + seed)
    noise = attach_noise(circuit, model(snapshot))
    shots = 1_000 if engine == "mps" else 20_000
    result = Runner(engine)(circuit, shots=shots, seed=seed, noise=noise)
    assert p_value(dict(enumerate(wanted.tolist())), counts_of(result)) > 5.7e-7  # five sigma


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
        off = distribution(circuit, attach_noise(circuit, model(snapshot, **{name: 0.0})))
        expected = distribution(circuit, attach_noise(circuit, model(reduced)))
        assert np.abs(off - expected).max() < 1e-12
        assert np.abs(off - wanted).max() > 1e-3


def test_relaxation_that_is_split_beside_zz_leaves_them_in_place() -> None:
    """With a ZZ rate that does nothing, a device with one pair has the same outcomes."""
    drawn = device(np.random.default_rng(11))
    early = tuple(msgspec.structs.replace(each, readout_decided=None) for each in drawn.qubits)
    circuit, snapshot, wanted = random_case(11, msgspec.structs.replace(drawn, qubits=early))
    coupled = msgspec.structs.replace(snapshot, zz=(ZZCoupling((0, 1), 1e-9),))
    noise = attach_noise(circuit, build(coupled, NoiseOptions.parse({"qubit.idle": 0})))
    assert np.abs(distribution(circuit, noise) - wanted).max() < 1e-6


def test_a_measurement_at_the_end_changes_no_other_qubit() -> None:
    snapshot = device(np.random.default_rng(3))
    circuit = Arrays(QUBITS, 2).add("h", [0]).add("h", [1]).add("cx", [0, 1]).measure([0, 1])
    assert not attach_noise(circuit.circuit(), model(snapshot)).locations.size


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
    probs = distribution(circuit.circuit(), attach_noise(circuit.circuit(), build(snapshot)))
    assert probs[2] + probs[3] == pytest.approx(0.5 + 0.5 * 0.4 * math.cos(1.0), abs=1e-12)


def test_the_order_of_a_measurement_and_gates_is_that_of_their_times() -> None:
    """Listed qubit by qubit, measurements that act together disturb nobody; as soon as possible,
    that of qubit 0 is over before the second gate of qubit 1, which is listed before it."""
    together = Arrays(2, 2)
    for q in range(2):
        together.add("sx", [q]).add("sx", [q]).add("measure", [q], [q])
    assert not attach_noise(together.circuit(), build(TIMED)).locations.size
    bare = msgspec.structs.replace(TIMED, qubits=(), gates=())
    assert not attach_noise(together.circuit(), build(bare)).locations.size
    early = Arrays(2, 2).add("sx", [1]).add("sx", [1]).measure([0, 1]).circuit()
    assert not attach_noise(early, build(TIMED)).locations.size
    (row,) = attach_noise(early, build(TIMED), "asap").locations.tolist()
    assert row == [0, 0, 1, -1]
    probs = distribution(early, attach_noise(early, build(TIMED), "asap"))
    assert probs[2] + probs[3] == pytest.approx(0.5 + 0.5 * 0.4 * math.cos(1.0), abs=1e-12)


def test_a_thousand_measurements_at_the_end_ask_for_no_channel_of_a_pair() -> None:
    """One channel is shared, and none placed where no gate follows."""
    number = 1_000
    snapshot = msgspec.structs.replace(
        TIMED,
        num_qubits=number,
        coupling=(),
        qubits=(QubitCalibration(readout_ns=1000.0),) * number,
    )
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
    probs = distribution(circuit.circuit(), attach_noise(circuit.circuit(), build(snapshot)))
    assert probs[1] + probs[3] == pytest.approx(-math.expm1(-1.0), abs=1e-12)


def test_a_decay_before_the_decision_gives_an_outcome_that_agrees_with_the_state() -> None:
    """|1> that decays early is read as 0 and is 0: a second measurement agrees."""
    qubit = QubitCalibration(t1_us=10.0, readout_ns=1000.0, p01=0.0, p10=0.05, readout_decided=0.5)
    snapshot = CalibrationSnapshot("early", 1, dynamic=True, qubits=(qubit,))
    circuit = Arrays(1, 2).add("x", [0]).add("measure", [0], [0])
    circuit.add("x", [0]).add("x", [0]).add("measure", [0], [1])

    def joint(**values: float) -> NDArray[np.float64]:
        built = build(snapshot, NoiseOptions.parse({f"qubit.{k}": v for k, v in values.items()}))
        return distribution(circuit.circuit(), attach_noise(circuit.circuit(), built))

    decayed, late = -math.expm1(-0.05), math.exp(-0.05)
    agree = joint()
    assert agree[0] == pytest.approx(decayed + (0.05 - decayed) * (1.0 - 0.95 * late), abs=1e-12)
    assert agree[0] + agree[2] == pytest.approx(0.05, abs=1e-12), "as calibrated"
    apart = joint(readout_decided=0.0)
    assert apart[0] == pytest.approx(0.05 * (1.0 - 0.95 * math.exp(-0.1)), abs=1e-12)
    exact = joint(readout=0.0)
    assert exact[0] + exact[2] == pytest.approx(decayed, abs=1e-12)
