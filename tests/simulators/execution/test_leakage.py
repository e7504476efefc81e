"""Leakage to a third level with seepage, against the density operator of two three-level systems in
numpy."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.linalg
from arrays import Arrays
from engines import CARDS, Runner
from noise_references import (
    DeviceReference,
    Matrix,
    Probabilities,
    assert_counts,
    assert_exact,
    attached,
    chip,
    confused,
    confusion,
    distribution,
    times,
    unitary_of,
)

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    PauliGenerator,
    QubitCalibration,
)
from simulators.circuit import ir
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import Q0, NoiseProgram
from simulators.circuit.passes.components import extract_part, noise_of_part
from simulators.circuit.passes.leakage_flags import flagged
from simulators.engine import PauliSum, Request, RunControl, RunOptions
from simulators.errors import Stopped, Unsupported
from simulators.statevector.noisy import NoisyPlan
from simulators.trajectories import locations, pattern_sampling, shot_blocks
from simulators.trajectories.flags import FlagSteps
from simulators.trajectories.noise_table import ErrorPatterns
from simulators.transfer import program as transfer
from simulators.transfer.program import ConstantTable


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """Two qubits with random values; the gates have random errors, leakage and seepage."""
    qubits = [
        QubitCalibration(
            **times(rng), p01=float(rng.uniform(0.0, 0.1)), p10=float(rng.uniform(0.0, 0.1)),
            leaked_readout=float(rng.uniform(0.0, 1.0)), leaked_t1_us=third,
            excited=float(rng.uniform(0.0, 0.2)), preparation_error=0.0,
        )
        for third in (None, float(rng.uniform(1.0, 20.0)))
    ]  # fmt: skip
    gates = [
        GateCalibration(
            name, (), float(rng.uniform(0.0, 0.1)), float(rng.uniform(20.0, 600.0)),
            leakage=float(rng.uniform(0.0, 0.1)), seepage=float(rng.uniform(0.0, 0.3)),
        )
        for name in ("sx", "x", "cx", "cz")
    ]  # fmt: skip
    return chip(gates, qubits, coupling=((0, 1),))


def unit(row: int, column: int) -> Matrix:
    result = np.zeros((3, 3), np.complex128)
    result[row, column] = 1.0
    return result


def leaked(gate: GateCalibration, qubits: Sequence[int]) -> float:
    """Probability that a qubit in |1> leaks: the gate's leakage is a mean over its states."""
    return 2.0 * (1.0 - (1.0 - gate.leakage) ** (1.0 / len(qubits)))


class ThreeLevels(DeviceReference):
    """Density operator of two three-level systems."""

    def __init__(self, snapshot: CalibrationSnapshot, batch: tuple[int, ...] = ()) -> None:
        super().__init__(snapshot, levels=3, batch=batch)

    def unitary(self, name: str, qubits: Sequence[int]) -> None:
        if len(qubits) == 1:
            super().unitary(name, qubits)
            return
        matrix, new = unitary_of(name), np.zeros_like(self.rho)
        inner = self.rho[..., :2, :2, :2, :2].reshape(*self.rho.shape[:-4], 4, 4)
        inner = matrix @ inner @ matrix.conj().T
        new[..., :2, :2, :2, :2] = inner.reshape(*self.rho.shape[:-4], 2, 2, 2, 2)
        # A leaked qubit acts like the completely mixed state.
        tensor = matrix.reshape(2, 2, 2, 2)
        new[..., 2, :2, 2, :2] = 0.5 * np.einsum(
            "mawx,...xy,mbwy->...ab", tensor, self.rho[..., 2, :2, 2, :2], tensor.conj()
        )
        new[..., :2, 2, :2, 2] = 0.5 * np.einsum(
            "amxw,...xy,bmyw->...ab", tensor, self.rho[..., :2, 2, :2, 2], tensor.conj()
        )
        new[..., 2, 2, 2, 2] = self.rho[..., 2, 2, 2, 2]
        self.rho = new

    def noise_after(self, gate: GateCalibration, qubits: Sequence[int]) -> None:
        super().noise_after(gate, qubits)
        p = leaked(gate, qubits)
        for qubit in qubits:
            self.apply(
                [
                    np.diag(np.sqrt([1.0, 1.0 - p, 1.0 - gate.seepage])),
                    math.sqrt(p) * unit(2, 1),
                    math.sqrt(gate.seepage) * unit(1, 2),
                ],
                [qubit],
            )

    def gate(self, name: str, qubits: Sequence[int]) -> None:
        waiting = self.begun - set(qubits)
        super().gate(name, qubits)
        for qubit in waiting:
            self.decay(qubit, 1e-3 * (self.calibrated(name, qubits).duration_ns or 0.0))

    def delay(self, qubit: int, time_us: float) -> None:
        """Add a delay to the circuit; all qubits wait as long."""
        self.circuit.add("delay", [qubit], params=(1e3 * time_us,)).add("barrier", range(self.n))
        for each in self.begun:
            self.wait(each, 1e3 * time_us)
            self.decay(each, time_us)

    def decay(self, qubit: int, time_us: float) -> None:
        """Decay of the third level while a qubit waits, by the rate equation of the levels; that of
        the others has acted."""
        each, (t1_us, _) = self.snapshot.qubits[qubit], self.times_us(qubit)
        up, rate = (each.excited or 0.0) / t1_us, 1.0 / t1_us
        third = 1.0 / (0.5 * t1_us if each.leaked_t1_us is None else each.leaked_t1_us)
        rates = np.array([[-up, rate - up, 0.0], [up, up - rate, third], [0.0, 0.0, -third]])
        zero, one, left = scipy.linalg.expm(rates * time_us)[:, 2]
        self.apply(
            [
                np.diag(np.sqrt([1.0, 1.0, left])),
                math.sqrt(one) * unit(1, 2),
                math.sqrt(zero) * unit(0, 2),
            ],
            [qubit],
        )

    def error(self, gate: GateCalibration, qubits: Sequence[int]) -> float:
        """What leaks is a part of the gate's error."""
        d, stays = 2 ** len(qubits), np.ones(1)
        for _ in qubits:
            stays = np.kron(stays, [1.0, math.sqrt(1.0 - leaked(gate, qubits))])
        inside = (stays.sum() ** 2 + (stays**2).sum()) / (d * (d + 1))
        return max(0.0, gate.error - (1.0 - inside))

    def read(self, qubit: int) -> Probabilities:
        """Probability [bit, level]."""
        each = self.snapshot.qubits[qubit]
        r, own = 1.0 if each.leaked_readout is None else each.leaked_readout, confusion(each)
        return np.column_stack([own, r * own[:, 1] + (1.0 - r) * own[:, 0]])

    def outcomes(self) -> Probabilities:
        return confused(self.populations(), [self.read(0), self.read(1)])


def random_case(
    seed: int, gates: int = 12, waits_us: tuple[float, ...] = ()
) -> tuple[Circuit, CalibrationSnapshot, Probabilities]:
    """A random circuit, its device, and the probabilities of its outcomes. `waits_us`: delays, each
    after three gates."""
    rng = np.random.default_rng(seed)
    reference = ThreeLevels(device(rng))
    names = [
        *(("sx", (0,)), ("x", (1,)), ("sx", (1,)), ("x", (0,)), ("cx", (0, 1)), ("cz", (0, 1))),
        *(("cx", (0, 1)), ("cz", (0, 1))),
    ]
    first = [("sx", (0,)), ("x", (1,))]
    waits = iter(waits_us)
    for k, (name, qubits) in enumerate(
        [*first, *(names[rng.integers(len(names))] for _ in range(gates))]
    ):
        reference.add(name, *qubits)
        if k % 3 == 2 and (time_us := next(waits, None)) is not None:
            reference.delay(k // 3 % 2, time_us)
    assert abs(reference.populations().sum() - 1.0) < 1e-12
    return reference.measured(), reference.snapshot, reference.outcomes()


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_is_that_of_three_level_systems(seed: int) -> None:
    circuit, snapshot, wanted = random_case(seed)
    assert "leakage" in attached(circuit, snapshot).kinds
    assert_exact(circuit, snapshot, wanted)


@pytest.mark.parametrize(
    ("engine", "seed", "shots"),
    [("statevector", 0, 100_000), ("statevector", 1, 100_000), ("mps", 1, 1_000)],
)
def test_trajectories_have_the_distribution_of_the_density_matrix(
    engine: str, seed: int, shots: int
) -> None:
    circuit, snapshot, wanted = random_case(100 + seed)
    assert_counts(engine, circuit, attached(circuit, snapshot), wanted, shots=shots)


TRAJECTORY_ENGINES = [("statevector", 40_000), ("statevector-dense", 4_000), ("mps", 1_000)]
WAITS_US = (10.0, 2.0, 40.0, 3.0)


@pytest.mark.parametrize(("engine", "shots"), [("densitymatrix", 0), *TRAJECTORY_ENGINES])
@pytest.mark.parametrize("seed", range(2))
def test_leaked_qubits_come_back_during_delays(engine: str, shots: int, seed: int) -> None:
    circuit, snapshot, wanted = random_case(200 + seed, waits_us=WAITS_US)
    noise = attached(circuit, snapshot)
    assert (noise.leakage.decay > 0.1).any()
    if shots:
        assert_counts(engine, circuit, noise, wanted, shots=shots)
    else:
        assert_exact(circuit, snapshot, wanted)


LEVELS_DEVICE = chip(
    [
        GateCalibration(name, (), 0.02, leakage=leak, seepage=seep)
        for name, leak, seep in (
            ("sx", 0.05, 0.2), ("x", 0.1, 0.1), ("cx", 0.15, 0.05), ("cz", 0.1, 0.3),
        )
    ],
    [
        QubitCalibration(p01=0.02, p10=0.05, leaked_readout=0.3),
        QubitCalibration(p01=0.03, p10=0.04, leaked_readout=0.9),
    ],
    coupling=((0, 1),),
)  # fmt: skip


class Instrument(ThreeLevels):
    """One state for each record of three classical bits; nothing waits, nothing relaxes."""

    def __init__(self) -> None:
        super().__init__(LEVELS_DEVICE, batch=(8,))
        self.rho[1:] = 0.0
        self.circuit = Arrays(2, 3)

    def add(self, name: str, *qubits: int) -> None:
        self.circuit.add(name, qubits)
        if name == "reset":
            self.apply([unit(0, level) for level in range(3)], qubits)
        else:
            self.gate(name, qubits)

    def read_into(self, qubit: int, clbit: int) -> None:
        self.circuit.add("measure", [qubit], [clbit])
        self.measure(qubit, clbit, self.read(qubit))


def dynamic_case() -> tuple[Circuit, Probabilities]:
    """Measurement, reset and gates under a condition between gates that leak."""
    reference = Instrument()
    for name, *qubits in (("x", 0), ("sx", 1), ("cx", 0, 1), ("sx", 0), ("cz", 0, 1)):
        reference.add(name, *qubits)
    reference.read_into(0, 0)
    reference.add("cx", 0, 1)
    reference.circuit.begin((ir.CLBIT, 0, 0))
    before = reference.rho
    reference.add("x", 1)
    reference.add("cz", 0, 1)
    reference.rho[::2] = before[::2]  # records whose bit 0 is 0
    reference.circuit.add("end")
    for name, *qubits in (("reset", 0), ("sx", 0), ("cx", 0, 1), ("sx", 1)):
        reference.add(name, *qubits)
    for qubit in range(2):
        reference.read_into(qubit, 1 + qubit)
    return reference.circuit.circuit(), reference.populations().sum(axis=1)


def test_measurements_resets_and_conditions_act_on_leaked_qubits() -> None:
    circuit, wanted = dynamic_case()
    assert wanted.sum() == pytest.approx(1.0)
    assert_exact(circuit, LEVELS_DEVICE, wanted)


@pytest.mark.parametrize(("engine", "shots"), [("statevector", 4_000), ("mps", 500)])
def test_dynamic_trajectories_have_the_exact_distribution(engine: str, shots: int) -> None:
    circuit, wanted = dynamic_case()
    assert_counts(engine, circuit, attached(circuit, LEVELS_DEVICE), wanted, shots=shots)


def waiting_case(time_ns: float) -> Circuit:
    """x leaks from |1> with probability 1/2; the qubit waits, and is read."""
    circuit = Arrays(1, 1).add("x", [0])
    return circuit.add("delay", [0], params=(time_ns,)).measure([0]).circuit()


@pytest.mark.parametrize("own_us", [None, 7.0])
@pytest.mark.parametrize("idle", [True, False])  # delays of a circuit act without a schedule too
def test_a_leaked_qubit_comes_back_while_it_waits(own_us: float | None, idle: bool) -> None:
    t1_us, time_us = 20.0, 10.0
    qubit = QubitCalibration(t1_us=t1_us, t2_us=t1_us, leaked_readout=1.0, leaked_t1_us=own_us)
    snapshot = chip([GateCalibration("x", (), 0.6, leakage=0.25)], [qubit])
    rate, third = 1.0 / t1_us, 1.0 / (own_us or 0.5 * t1_us)
    relaxed, left = math.exp(-rate * time_us), math.exp(-third * time_us)
    one = third * (relaxed - left) / (third - rate)
    state = distribution(
        waiting_case(1e3 * time_us), attached(waiting_case(1e3 * time_us), snapshot,
        {"idle": idle, "gate.depolarizing": 0}),
    )  # fmt: skip
    assert state[1] == pytest.approx(0.5 * relaxed + 0.5 * (left + one), abs=1e-9)
    still = distribution(
        waiting_case(1e3 * time_us), attached(waiting_case(1e3 * time_us), snapshot,
        {"idle": idle, "gate.depolarizing": 0, "qubit.idle": 0}),
    )  # fmt: skip
    assert still[1] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("technology", ["trapped-ion", "neutral-atom"])
def test_a_leaked_ion_or_atom_stays_leaked_while_it_waits(technology: Any) -> None:
    t1_us, time_us = 20.0, 10.0
    qubit = QubitCalibration(t1_us=t1_us, t2_us=t1_us, leaked_readout=1.0)
    snapshot = chip([GateCalibration("x", (), 0.6, leakage=0.25)], [qubit])
    circuit = waiting_case(1e3 * time_us)

    def ones(each: CalibrationSnapshot) -> float:
        noise = attached(circuit, each, {"gate.depolarizing": 0})
        return float(distribution(circuit, noise)[1])

    ion = msgspec.structs.replace(snapshot, technology=technology)
    relaxed = math.exp(-time_us / t1_us)
    assert ones(ion) == pytest.approx(0.5 * relaxed + 0.5, abs=1e-9)
    third = msgspec.structs.replace(qubit, leaked_t1_us=0.5 * t1_us)
    given = ones(msgspec.structs.replace(ion, qubits=(third,)))
    assert given == pytest.approx(ones(snapshot), abs=1e-9)


@pytest.mark.parametrize(("engine", "shots"), TRAJECTORY_ENGINES)
@pytest.mark.parametrize("time_us", [10.0, 40.0])
def test_a_leaked_qubit_comes_back_in_trajectories(engine: str, shots: int, time_us: float) -> None:
    circuit = waiting_case(1e3 * time_us)
    qubit = QubitCalibration(t1_us=20.0, t2_us=20.0, leaked_readout=1.0, leaked_t1_us=7.0)
    snapshot = chip([GateCalibration("x", (), 0.6, leakage=0.25)], [qubit])
    noise = attached(circuit, snapshot, {"gate.depolarizing": 0})
    assert_counts(engine, circuit, noise, distribution(circuit, noise), shots=shots)


def located_part(circuit: Circuit, noise: NoiseProgram) -> tuple[locations.NoisyCircuit, FlagSteps]:
    """Errors and flags of a circuit of one part, in the form of runs by patterns."""
    found = flagged(circuit, noise)
    plan = NoisyPlan(found.circuit, found.noise, RunOptions(), small=True)
    part = plan.part(found.circuit, Request(1, 1, ("counts",)))
    assert part.located is not None
    assert part.located.flags is not None
    return part.located, part.located.flags


def drawn_inserts(
    circuit: Circuit, noise: NoiseProgram, shots: int, control: RunControl
) -> tuple[ErrorPatterns, ErrorPatterns, FlagSteps]:
    """Errors of shots, the same with the inserts of leaked qubits, and the flags."""
    located, flags = located_part(circuit, noise)
    places = np.arange(len(located.table.table))
    errors = pattern_sampling.draw_patterns(located.errors, 0, shots, (7, 0), places)
    return errors, flags.extended(errors, 0, (7, 0), places, control), flags


def test_leaked_qubits_without_a_gate_on_several_need_few_inserts() -> None:
    circuit = Arrays(1, 1)
    for _ in range(400):
        circuit.add("x", [0])
    built = circuit.measure([0]).circuit()
    gates = [GateCalibration("x", (), 2e-3, leakage=2e-3)]
    noise = attached(built, chip(gates, [QubitCalibration(leaked_readout=0.7)]))
    errors, found, flags = drawn_inserts(built, noise, 1_000, RunControl())
    assert found.entries.size - errors.entries.size <= 1_000  # each is read once
    assert flags.mean_inserts < 2.0


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_number_of_inserts_is_bounded(seed: int) -> None:
    circuit, snapshot, _ = random_case(200 + seed, gates=40, waits_us=WAITS_US)
    noise = attached(circuit, snapshot)
    errors, found, flags = drawn_inserts(circuit, noise, 10_000, RunControl())
    added = np.diff(found.ends) - np.diff(errors.ends)
    assert 0.0 < added.mean() < flags.mean_inserts + 5.0 * added.std() / 100.0
    for begin, end in zip(found.ends[:50].tolist(), found.ends[1:51].tolist(), strict=True):
        assert (np.diff(found.entries[begin:end]) > 0).all()


def test_blocks_of_shots_have_room_for_inserts(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, snapshot, _ = random_case(201, gates=40)
    noise = attached(circuit, snapshot)
    sizes, extended = [], FlagSteps.extended

    def recorded(self: FlagSteps, *values: Any) -> ErrorPatterns:
        result = extended(self, *values)
        sizes.append(result.entries.size)
        return result

    monkeypatch.setattr(FlagSteps, "extended", recorded)
    monkeypatch.setattr(shot_blocks, "_MOST_ERRORS", 2_000)
    Runner("statevector")(circuit, shots=2_000, seed=3, noise=noise)
    assert max(sizes) < 2_500


def test_a_stop_ends_the_draw_of_inserts() -> None:
    circuit, snapshot, _ = random_case(201)
    control = RunControl()
    control.stop()
    with pytest.raises(Stopped):
        drawn_inserts(circuit, attached(circuit, snapshot), 1_000, control)


@pytest.mark.parametrize("delays", [False, True])
def test_a_leaked_qubit_comes_back_beside_gates_of_a_learned_layer(delays: bool) -> None:
    """Qubit 2 leaks and waits while layers of a cx on qubits 0 and 1 act."""
    gates = [
        GateCalibration("x", (), 0.6, 0.0, leakage=0.25), GateCalibration("cx", (0, 1), 0.0, 2e3),
    ]  # fmt: skip
    qubit = QubitCalibration(t1_us=20.0, t2_us=20.0, leaked_readout=1.0, leaked_t1_us=3.0)
    none = PauliGenerator("X", (2,), 1e-9)
    learned = LayerCalibration((LayerGate("cx", (0, 1)),), (0, 1, 2), (none,))
    circuit = Arrays(3, 1).add("x", [2]).add("barrier", range(3))
    for _ in range(5):
        circuit.add("cx", [0, 1])
    if delays:
        circuit.add("delay", [2], params=(1e4,))
    built = circuit.add("barrier", range(3)).add("measure", [2], [0]).circuit()
    snapshot = chip(gates, [qubit] * 3, coupling=((0, 1), (1, 2)), layers=(learned,))
    options = {"gate.depolarizing": 0}
    one = distribution(built, attached(built, snapshot, options))[1]
    rate, third, time_us = 1.0 / 20.0, 1.0 / 3.0, 10.0
    relaxed, left = math.exp(-rate * time_us), math.exp(-third * time_us)
    back = left + third * (relaxed - left) / (third - rate)
    assert one == pytest.approx(0.5 + 0.5 * back, abs=1e-6)  # a qubit in |1> has the layer's errors


def test_its_factor_takes_leakage_out() -> None:
    circuit, snapshot, _ = random_case(3)
    clean = msgspec.structs.replace(
        snapshot, gates=tuple(msgspec.structs.replace(g, leakage=None) for g in snapshot.gates)
    )
    off = attached(circuit, snapshot, {"gate.leakage": 0})
    assert off.leakage is None
    assert "leakage" not in off.kinds
    gates = [each.gates.rest(gate, (0,)) for each in map(build, (snapshot, clean))
             for gate in each.snapshot.gates if gate.name == "sx"]  # fmt: skip
    assert gates[0] < gates[1], "the rest of the error is that of the measured values"


@pytest.mark.parametrize("engine", ["stabilizer", "sweep", "contraction", "pauli", "aer", "quimb"])
def test_engines_without_flags_refuse_leakage_by_name(engine: str) -> None:
    if engine not in CARDS:
        pytest.skip(f"no engine {engine}")
    circuit, snapshot, _ = random_case(5)
    noise = attached(circuit, snapshot)
    with pytest.raises(Unsupported, match="leakage"):
        Runner(engine)(circuit, shots=10, noise=noise)


def test_refusals_name_the_factors_of_all_that_is_left_out() -> None:
    circuit, snapshot, _ = random_case(5)
    qubits = tuple(msgspec.structs.replace(q, t2_star_us=0.5 * q.t2_us) for q in snapshot.qubits)
    noise = attached(circuit, msgspec.structs.replace(snapshot, qubits=qubits))
    with pytest.raises(Unsupported, match="leakage and no quasistatic") as caught:
        Runner("sweep")(circuit, shots=10, noise=noise)
    assert "noise={'gate.leakage': 0, 'qubit.quasistatic': 0} leaves" in caught.value.hint


def test_a_leaked_qubit_contributes_nothing_to_expectation_values() -> None:
    """x leaks with probability 0.2 from |1>; then the Z of the partner is known, its own is not."""
    circuit = Arrays(2, 0).add("x", [0]).add("x", [0]).add("x", [1]).circuit()
    quiet = msgspec.structs.replace(
        LEVELS_DEVICE,
        gates=tuple(msgspec.structs.replace(g, error=0.0) for g in LEVELS_DEVICE.gates),
    )
    noise = attached(circuit, quiet)
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
        Runner("densitymatrix")(built, shots=10, noise=attached(built, wide))


def test_leakage_of_a_part_has_the_numbers_of_the_part() -> None:
    """Qubits 1 and 3 of five run as qubits 0 and 1; they wait, also beside gates of qubit 2."""
    small = msgspec.structs.replace(
        LEVELS_DEVICE,
        qubits=tuple(msgspec.structs.replace(each, t1_us=0.5) for each in LEVELS_DEVICE.qubits),
        gates=tuple(msgspec.structs.replace(g, duration_ns=90.0) for g in LEVELS_DEVICE.gates),
    )
    wide = msgspec.structs.replace(
        small, num_qubits=5, coupling=((1, 3),),
        qubits=tuple(small.qubits[k // 2] if k % 2 else QubitCalibration() for k in range(5)),
    )  # fmt: skip
    whole, own = Arrays(5, 2), Arrays(2, 2)
    for name, *qubits in (("x", 0), ("sx", 1), ("cx", 0, 1), ("sx", 0), ("sx", 0), ("cz", 0, 1)):
        whole.add(name, [2 * q + 1 for q in qubits]).add("t", [2])
        own.add(name, qubits)
    for qubit in range(2):
        whole.add("measure", [2 * qubit + 1], [qubit])
    circuit, built = whole.circuit(), own.measure(range(2)).circuit()
    noise = attached(circuit, wide)
    assert noise.leakage.decay.any()
    used = np.array([1, 3])
    kept = np.array([2 not in Operands.of(circuit).qubits(k) for k in range(circuit.ops.size)])
    operations = np.flatnonzero(kept)
    part = extract_part(circuit, kept, used)
    assert set(noise.locations[:, Q0]) == {1, 3}
    moved = noise_of_part(noise, noise.locations, operations, used)
    alone = attached(built, small)
    assert distribution(part.circuit, moved) == pytest.approx(distribution(built, alone), abs=1e-12)
    noise = attached(circuit, wide, {"gate.error_1q": 0.4})
    with pytest.raises(ValueError, match="flags"):
        noise_of_part(noise, noise.locations[1:], operations, used)


def test_the_transfer_simulator_of_fits_refuses_leakage_by_name() -> None:
    circuit, snapshot, _ = random_case(5)
    noise = attached(circuit, snapshot)
    with pytest.raises(Unsupported, match=r"leakage; noise=\{'gate.leakage': 0\}"):
        transfer.build(circuit, noise, ConstantTable())
