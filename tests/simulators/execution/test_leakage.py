"""Leakage to a third level with seepage, against the density operator of two three-level systems in
numpy."""

import itertools
import math

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engines import CARDS, Runner
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
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.components import extract_part, noise_of_part
from simulators.engine import PauliSum
from simulators.errors import Unsupported
from simulators.execution import sampling
from simulators.simulate import counts_of
from simulators.transfer import program as transfer
from simulators.transfer.program import ConstantTable

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


@pytest.mark.parametrize(
    ("engine", "seed", "shots"),
    [("statevector", 0, 4_000), ("statevector", 1, 4_000), ("mps", 1, 1_000)],
)
def test_trajectories_have_the_distribution_of_the_density_matrix(
    engine: str, seed: int, shots: int
) -> None:
    circuit, snapshot, reference = random_case(100 + seed)
    row = Runner(engine)(circuit, shots=shots, noise=attach_noise(circuit, build(snapshot)))
    exact = dict(enumerate(reference.distribution().tolist()))
    assert p_value(exact, counts_of(row)) > 1e-6


LEVELS_DEVICE = CalibrationSnapshot(
    "levels", 2, dynamic=True,
    native_gates=tuple(NativeGate(*each) for each in (("sx", 1), ("x", 1), ("cx", 2), ("cz", 2))),
    coupling=((0, 1),),
    qubits=(
        QubitCalibration(p01=0.02, p10=0.05, leaked_readout=0.3),
        QubitCalibration(p01=0.03, p10=0.04, leaked_readout=0.9),
    ),
    gates=tuple(
        GateCalibration(name, (), 0.02, leakage=leak, seepage=seep)
        for name, leak, seep in (
            ("sx", 0.05, 0.2), ("x", 0.1, 0.1), ("cx", 0.15, 0.05), ("cz", 0.1, 0.3),
        )
    ),
)  # fmt: skip


class Instrument(ThreeLevels):
    """Without relaxation, one state for each record of classical bits."""

    def __init__(self) -> None:
        super().__init__(LEVELS_DEVICE)
        self.records: dict[int, NDArray[np.complex128]] = {0: self.rho}

    def relax(self, qubit: int, time_ns: float) -> None:
        pass

    def parameter(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        d = 2 ** len(qubits)
        p = 2.0 * (1.0 - (1.0 - gate.leakage) ** (1.0 / len(qubits)))
        stays = np.array([1.0, math.sqrt(1.0 - p)])
        stays = stays if len(qubits) == 1 else np.kron(stays, stays)
        leaked = 1.0 - (stays.sum() ** 2 + (stays**2).sum()) / (d * (d + 1))
        return max(0.0, gate.error - leaked) / (1.0 - 1.0 / d)

    def each(self, name: str, qubits: tuple[int, ...], *, under: int = -1) -> None:
        """Apply a gate or a reset, in records with a bit if `under` is not negative."""
        for record, rho in self.records.items():
            if under >= 0 and not record >> under & 1:
                continue
            self.rho = rho
            if name == "reset":
                self.kraus([unit(0, level) for level in range(3)], qubits[0])
            else:
                gate = next(each for each in LEVELS_DEVICE.gates if each.name == name)
                self.unitary(UNITARIES[name], qubits)
                self.depolarize(self.parameter(gate, qubits), qubits)
                self.leak(gate, qubits)
            self.records[record] = self.rho

    def measure(self, qubit: int, clbit: int) -> None:
        rates = self.readout(qubit)
        found: dict[int, NDArray[np.complex128]] = {}
        for record, rho in self.records.items():
            for bit in range(2):
                self.rho = rho
                self.kraus(
                    [math.sqrt(rates[bit, level]) * unit(level, level) for level in range(3)], qubit
                )
                new = record & ~(1 << clbit) | bit << clbit
                found[new] = found.get(new, 0.0) + self.rho
        self.records = found

    def outcomes(self) -> NDArray[np.float64]:
        result = np.zeros(8)
        for record, rho in self.records.items():
            result[record] = np.einsum("abab->", rho).real
        return result


def dynamic_case() -> tuple[Circuit, Instrument]:
    """Measurement, reset and gates under a condition between gates that leak."""
    reference, circuit = Instrument(), Arrays(2, 3)

    def gate(name: str, *qubits: int) -> None:
        circuit.add(name, qubits)
        reference.each(name, qubits)

    for name, *qubits in (("x", 0), ("sx", 1), ("cx", 0, 1), ("sx", 0), ("cz", 0, 1)):
        gate(name, *qubits)
    circuit.add("measure", [0], [0])
    reference.measure(0, 0)
    gate("cx", 0, 1)
    circuit.begin((ir.CLBIT, 0, 0))
    circuit.add("x", [1]).add("cz", [0, 1])
    circuit.add("end")
    reference.each("x", (1,), under=0)
    reference.each("cz", (0, 1), under=0)
    circuit.add("reset", [0])
    reference.each("reset", (0,))
    for name, *qubits in (("sx", 0), ("cx", 0, 1), ("sx", 1)):
        gate(name, *qubits)
    for qubit in range(2):
        circuit.add("measure", [qubit], [1 + qubit])
        reference.measure(qubit, 1 + qubit)
    return circuit.circuit(), reference


def test_measurements_resets_and_conditions_act_on_leaked_qubits() -> None:
    circuit, reference = dynamic_case()
    noise = attach_noise(circuit, build(LEVELS_DEVICE))
    assert reference.outcomes().sum() == pytest.approx(1.0)
    assert np.abs(distribution(circuit, noise) - reference.outcomes()).max() < 1e-9


@pytest.mark.parametrize(("engine", "shots"), [("statevector", 4_000), ("mps", 500)])
def test_dynamic_trajectories_have_the_exact_distribution(engine: str, shots: int) -> None:
    circuit, reference = dynamic_case()
    row = Runner(engine)(circuit, shots=shots, noise=attach_noise(circuit, build(LEVELS_DEVICE)))
    exact = dict(enumerate(reference.outcomes().tolist()))
    assert p_value(exact, counts_of(row)) > 1e-6


def test_its_factor_takes_leakage_out() -> None:
    circuit, snapshot, _ = random_case(3)
    clean = msgspec.structs.replace(
        snapshot, gates=tuple(msgspec.structs.replace(g, leakage=None) for g in snapshot.gates)
    )
    off = attach_noise(circuit, build(snapshot, NoiseOptions.parse({"gate.leakage": 0})))
    assert off.leakage is None
    assert "leakage" not in off.kinds
    gates = [each.rest(gate, (0,)) for each in map(build, (snapshot, clean))
             for gate in each.snapshot.gates if gate.name == "sx"]  # fmt: skip
    assert gates[0] < gates[1], "the rest of the error is that of the measured values"


@pytest.mark.parametrize("engine", ["stabilizer", "sweep", "contraction", "pauli", "aer", "quimb"])
def test_engines_without_flags_refuse_leakage_by_name(engine: str) -> None:
    if engine not in CARDS:
        pytest.skip(f"no engine {engine}")
    circuit, snapshot, _ = random_case(5)
    noise = attach_noise(circuit, build(snapshot))
    with pytest.raises(Unsupported, match="leakage"):
        Runner(engine)(circuit, shots=10, noise=noise)


def test_a_leaked_qubit_contributes_nothing_to_expectation_values() -> None:
    """x leaks with probability 0.2 from |1>; then the Z of the partner is known, its own is not."""
    circuit = Arrays(2, 0).add("x", [0]).add("x", [0]).add("x", [1]).circuit()
    quiet = msgspec.structs.replace(
        LEVELS_DEVICE,
        gates=tuple(msgspec.structs.replace(g, error=0.0) for g in LEVELS_DEVICE.gates),
    )
    noise = attach_noise(circuit, build(quiet))
    sums = tuple(PauliSum((each,), np.ones(1)) for each in ("IZ", "ZI", "ZZ"))
    # After the first x the qubit is in |1> and leaks with p; comes back to |1> with s.
    p, s = 0.2, 0.1
    zero, one = 1.0 - p, p * s
    exact = [zero - one, -(1.0 - p), -(zero - one) * (1.0 - p)]
    found = Runner("densitymatrix")(
        circuit, outputs=("expectation",), observables=sums, noise=noise
    )
    assert [value for value, _ in found.expectations] == pytest.approx(exact, abs=1e-9)
    drawn = Runner("statevector")(
        circuit, shots=4_000, outputs=("expectation",), observables=sums, noise=noise
    )
    for (value, error), expected in zip(drawn.expectations, exact, strict=True):
        assert abs(value - expected) < 5 * error + 1e-9
    with pytest.raises(Unsupported, match="probabilities of qubits that leak"):
        Runner("densitymatrix")(circuit, outputs=("probabilities",), noise=noise)


def test_a_state_with_too_many_flags_names_them() -> None:
    circuit = Arrays(9, 9)
    for qubit in range(8):
        circuit.add("cx", [qubit, qubit + 1])
    wide = msgspec.structs.replace(
        LEVELS_DEVICE, num_qubits=9, coupling=tuple((k, k + 1) for k in range(8)),
        qubits=(QubitCalibration(),) * 9,
    )  # fmt: skip
    built = circuit.measure(range(9)).circuit()
    with pytest.raises(Unsupported, match="9 of them are flags of qubits that leak"):
        Runner("densitymatrix")(built, shots=10, noise=attach_noise(built, build(wide)))


def test_leakage_of_a_part_has_the_numbers_of_the_part() -> None:
    """Qubits 1 and 3 of five run as qubits 0 and 1."""
    wide = msgspec.structs.replace(
        LEVELS_DEVICE, num_qubits=5, coupling=((1, 3),),
        qubits=tuple(LEVELS_DEVICE.qubits[k // 2] if k % 2 else QubitCalibration()
                     for k in range(5)),
    )  # fmt: skip
    whole, own = Arrays(5, 2), Arrays(2, 2)
    for name, *qubits in (("x", 0), ("sx", 1), ("cx", 0, 1), ("sx", 0), ("cz", 0, 1)):
        whole.add(name, [2 * q + 1 for q in qubits])
        own.add(name, qubits)
    for qubit in range(2):
        whole.add("measure", [2 * qubit + 1], [qubit])
    circuit, built = whole.circuit(), own.measure(range(2)).circuit()
    noise = attach_noise(circuit, build(wide))
    used, operations = np.array([1, 3]), np.arange(circuit.ops.size)
    part = extract_part(circuit, np.ones(circuit.ops.size, np.bool_), used)
    moved = noise_of_part(noise, noise.locations, operations, used)
    alone = attach_noise(built, build(LEVELS_DEVICE))
    assert distribution(part.circuit, moved) == pytest.approx(distribution(built, alone), abs=1e-12)
    worse = build(wide, NoiseOptions.parse({"gate.error_1q": 0.4}))
    noise = attach_noise(circuit, worse)
    with pytest.raises(ValueError, match="flags"):
        noise_of_part(noise, noise.locations[1:], operations, used)


def test_the_transfer_simulator_of_fits_refuses_leakage_by_name() -> None:
    circuit, snapshot, _ = random_case(5)
    noise = attach_noise(circuit, build(snapshot))
    with pytest.raises(Unsupported, match=r"leakage; noise=\{'gate.leakage': 0\}"):
        transfer.build(circuit, noise, ConstantTable())
