"""Detunings that are constant during a shot (T2* beside T2), against a reference in numpy that
integrates over the detunings on a fine grid."""

import functools
import math
import re
import tracemalloc
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities
from engines import Runner
from noise_references import (
    FIVE_SIGMA,
    DeviceReference,
    Probabilities,
    all_engines,
    assert_counts,
    assert_exact,
    attached,
    chip,
    distribution,
    times,
)
from noisy import p_value

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from simulators.circuit.analysis.quadrature import (
    LARGEST_GRID,
    exact_grid,
    grid_size,
    reaches,
)
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.engine import PauliSum, RunControl
from simulators.errors import Stopped, Unsupported
from simulators.execution import detuned
from simulators.simulate import counts_of

GRID = np.linspace(-8.5, 8.5, 121)
WEIGHTS = np.exp(-0.5 * GRID**2) / np.exp(-0.5 * GRID**2).sum()


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """Two qubits with random times; the gates have random durations and errors."""
    qubits = []
    for _ in range(2):
        drawn = times(rng)
        star_us = float(rng.uniform(0.05, 0.5)) * drawn["t2_us"]
        qubits.append(QubitCalibration(**drawn, t2_star_us=star_us))
    gates = [
        GateCalibration(name, (), float(rng.uniform(0.0, 0.03)), float(rng.uniform(20.0, 600.0)))
        for name in ("sx", "x", "cx")
    ]
    return chip(gates, qubits, coupling=((0, 1),), dynamic=False)


class Reference(DeviceReference):
    """A state for each pair of detunings. Of the time of a gate, one half passes before it and one
    half after it."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        super().__init__(snapshot, batch=(GRID.size, GRID.size))
        self.sigma = []
        for each in snapshot.qubits:
            echo_us = min(each.t2_us, 2.0 * each.t1_us)
            rest = max(0.0, 1.0 - each.t2_star_us / echo_us)
            self.sigma.append(1e-3 * math.sqrt(2.0 * rest) / each.t2_star_us)

    def turn(self, qubit: int, time_ns: float) -> None:
        """exp(-i d t Z / 2) of the qubit's detuning d."""
        x = GRID[:, None] if qubit == 0 else GRID[None, :]
        phase = np.exp(-1j * self.sigma[qubit] * time_ns * x)
        part = self.elements(qubit)
        part[0, 1] *= phase[..., None, None]
        part[1, 0] *= phase.conj()[..., None, None]

    def wait(self, qubit: int, time_ns: float) -> None:
        self.turn(qubit, time_ns)
        super().wait(qubit, time_ns)

    def fidelity(self, gate: GateCalibration, qubits: Sequence[int]) -> float:
        part, us = 1.0, 1e-3 * gate.duration_ns
        for qubit in qubits:
            t1_us, t2_us = self.times_us(qubit)
            across = math.exp(-us / t2_us - 0.5 * (self.sigma[qubit] * gate.duration_ns) ** 2)
            part *= (1.0 + 2.0 * across + math.exp(-us / t1_us)) / 4.0
        return part

    def noise_before(self, gate: GateCalibration, qubits: Sequence[int]) -> None:
        for qubit in qubits:
            self.turn(qubit, 0.5 * gate.duration_ns)

    def noise_after(self, gate: GateCalibration, qubits: Sequence[int]) -> None:
        for qubit in qubits:  # what follows turns it by the whole time
            self.turn(qubit, -0.5 * gate.duration_ns)
        super().noise_after(gate, qubits)

    def delay(self, time_ns: float) -> None:
        for qubit in range(2):
            self.circuit.add("delay", [qubit], params=[time_ns])
            self.wait(qubit, time_ns)


@functools.cache
def random_case(seed: int) -> tuple[Circuit, CalibrationSnapshot, Probabilities]:
    """A random circuit, its device, and the probabilities of its outcomes."""
    rng = np.random.default_rng(seed)
    reference = Reference(device(rng))
    for qubit in range(2):
        reference.add("sx", qubit)
    choices = [("sx", (0,)), ("x", (1,)), ("sx", (1,)), ("x", (0,)), ("cx", (0, 1))]
    for _ in range(6):
        if rng.random() < 0.3:
            reference.delay(float(rng.integers(100, 4000)))
        name, qubits = choices[int(rng.integers(5))]
        reference.add(name, *qubits)
    for qubit in range(2):
        reference.add("sx", qubit)
    mean = np.einsum("a,b,abi->i", WEIGHTS, WEIGHTS, reference.populations())
    return reference.measured(), reference.snapshot, mean


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_is_the_mixture_over_the_detunings(seed: int) -> None:
    assert_exact(*random_case(seed))


def test_its_factor_takes_the_term_out_of_the_density_matrix() -> None:
    changes = []
    for seed in range(12):
        circuit, snapshot, expected = random_case(seed)
        off = attached(circuit, snapshot, {"qubit.quasistatic": 0})
        assert "quasistatic" not in off.kinds
        changes.append(np.abs(distribution(circuit, off) - expected).max())
    assert np.sum(np.array(changes) > 1e-3) >= 8


@all_engines
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_drawn_from_the_mixture(seed: int, engine: str) -> None:
    circuit, snapshot, expected = random_case(100 + seed)
    assert_counts(engine, circuit, attached(circuit, snapshot), expected, seed=seed)


def waiting(star_us: float = 10.0, t2_us: float = 100.0) -> CalibrationSnapshot:
    """One qubit whose gates take no time."""
    return CalibrationSnapshot(
        "waiting", 1, native_gates=(NativeGate("sx", 1), NativeGate("x", 1)),
        qubits=(QubitCalibration(t1_us=1e6, t2_us=t2_us, t2_star_us=star_us),),
    )  # fmt: skip


def ramsey(time_us: float, pulses: int = 0) -> Circuit:
    """Ramsey sequence with half turns at the places of CPMG."""
    circuit = Arrays(1, 1).add("sx", [0])
    part = 1e3 * time_us / max(1, 2 * pulses)
    for _ in range(pulses):
        circuit.add("delay", [0], params=[part]).add("x", [0]).add("delay", [0], params=[part])
    if not pulses:
        circuit.add("delay", [0], params=[part])
    return circuit.add("sx", [0]).measure([0]).circuit()


def contrast(circuit: Circuit, snapshot: CalibrationSnapshot) -> float:
    zero, one = distribution(circuit, attached(circuit, snapshot))
    return abs(one - zero)


def test_the_ramsey_envelope_is_1_over_e_at_t2_star_and_that_of_an_echo_at_t2() -> None:
    snapshot = waiting()
    assert contrast(ramsey(10.0), snapshot) == pytest.approx(math.exp(-1.0), abs=1e-4)
    assert contrast(ramsey(100.0, pulses=1), snapshot) == pytest.approx(math.exp(-1.0), abs=1e-4)
    assert contrast(ramsey(20.0), snapshot) == pytest.approx(
        math.exp(-0.2 - 4.0 * 0.9), abs=1e-4
    ), "the envelope is exp(-t / T2 - (s t)^2 / 2)"


def test_expectation_values_and_memory_follow_the_mixture() -> None:
    snapshot = waiting()
    circuit = Arrays(1, 0).add("sx", [0]).add("delay", [0], params=[6e3]).circuit()
    noise = attached(circuit, snapshot)
    wanted = -math.exp(-0.06 - 0.36 * 0.9)
    terms = {"outputs": ("expectation",), "observables": (PauliSum(("Y",), np.ones(1)),)}
    ((exact, _),) = Runner("densitymatrix")(circuit, shots=0, noise=noise, **terms).expectations
    assert exact == pytest.approx(wanted, abs=1e-4)
    for engine in ("densitymatrix", "statevector"):
        run = Runner(engine)(circuit, shots=4000, noise=noise, **terms)
        ((value, error),) = run.expectations
        assert abs(value - wanted) < 5.0 * error
        assert error < 0.02
    circuit = ramsey(6.0)
    noise = attached(circuit, snapshot)
    result = Runner("statevector")(circuit, shots=3000, noise=noise, outputs=("counts", "memory"))
    ones = int(np.frombuffer(result.memory, np.uint8).sum())
    assert counts_of(result)[1] == ones
    half = np.frombuffer(result.memory, np.uint8)[:1500].sum()
    assert abs(half - 0.5 * ones) < 5.0 * math.sqrt(1500 * 0.25), "shots are in no order of theirs"


def test_loops_and_blocks_rotate_each_time() -> None:
    """Detunings in a loop have no quadrature: shots have Gaussian ones."""
    snapshot = msgspec.structs.replace(waiting(), dynamic=True)
    circuit = Arrays(1, 1).add("sx", [0])
    circuit.repeat(5).add("delay", [0], params=[2e3]).add("end")
    built = circuit.add("sx", [0]).measure([0]).circuit()
    noise = attached(built, snapshot)
    assert noise.detunings is not None
    assert noise.detunings.loops
    result = counts_of(Runner("statevector")(built, shots=4_000, noise=noise))
    wanted = 0.5 - 0.5 * math.exp(-1.0)
    assert abs(result[0] / 4_000 - wanted) < 5.0 * math.sqrt(0.25 / 4_000)


@pytest.mark.parametrize("engine", ["stabilizer", "sweep", "pauli"])
def test_engines_without_detunings_refuse_them(engine: str) -> None:
    circuit = ramsey(6.0)
    noise = attached(circuit, waiting())
    with pytest.raises(Unsupported, match="quasistatic"):
        Runner(engine)(circuit, shots=10, noise=noise)


def line(size: int, **values: float) -> CalibrationSnapshot:
    """Qubits with gates that take no time and have no errors."""
    return msgspec.structs.replace(
        waiting(), num_qubits=size, qubits=(QubitCalibration(**values),) * size,
        coupling=tuple((q, q + 1) for q in range(size - 1)),
        native_gates=(*waiting().native_gates, NativeGate("cx", 2)),
    )  # fmt: skip


def cat(size: int, time_ns: float, halves: int = 1) -> Circuit:
    """A state (|0...0> + i |1...1>) that waits, with half turns between equal waits, and is
    undone; its coherence is that between 0 and 1 of qubit 0."""
    circuit = Arrays(size, size).add("sx", [0])
    for q in range(size - 1):
        circuit.add("cx", [q, q + 1])
    circuit.add("barrier", list(range(size)))
    for _ in range(halves):
        for q in range(size):
            circuit.add("delay", [q], params=[time_ns / halves])
            if halves > 1:
                circuit.add("x", [q])
        circuit.add("barrier", list(range(size)))
    for q in reversed(range(size - 1)):
        circuit.add("cx", [q, q + 1])
    return circuit.add("sx", [0]).measure(range(size)).circuit()


def test_too_many_nodes_of_an_exact_result_are_refused() -> None:
    circuit = cat(6, 2e4)
    noise = attached(circuit, line(6, t2_us=100.0, t2_star_us=10.0))
    with pytest.raises(Unsupported, match="has more than 65536 nodes") as caught:
        distribution(circuit, noise)
    assert "shorter waiting times" in caught.value.hint
    assert sum(counts_of(Runner("statevector")(circuit, shots=20, noise=noise)).values()) == 20


@pytest.mark.parametrize(
    ("wait_ns", "star_us", "factor"), [(1e6, 1e-3, 1.0), (2e3, 10.0, 1e9), (1e12, 10.0, 1.0)]
)
def test_a_huge_reach_takes_no_memory(wait_ns: float, star_us: float, factor: float) -> None:
    """Strong detunings, by T2*, by the factor or by a long wait: nodes that are too many are
    counted, not built."""
    circuit = cat(2, wait_ns)
    options = {"qubit.quasistatic": factor}
    noise = attached(circuit, line(2, t2_us=1e12, t2_star_us=star_us), options)
    assert noise.detunings is not None
    tracemalloc.start()
    try:
        assert grid_size(noise.detunings) == LARGEST_GRID
        assert exact_grid(list(reaches(noise.detunings).values()), 8192) is None
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(Unsupported, match="has more than 65536 nodes"):
        distribution(circuit, noise)
    assert sum(counts_of(Runner("statevector")(circuit, shots=20, noise=noise)).values()) == 20


def test_weak_detunings_of_seven_entangled_qubits_have_an_exact_result() -> None:
    """The phases of the qubits add up. The remark states the error of the sparse grid."""
    circuit = cat(7, 1e3)
    noise = attached(circuit, line(7, t2_star_us=40.0))
    row = Runner("densitymatrix")(circuit, shots=0, outputs=("probabilities",), noise=noise)
    probs = probabilities(row)
    s = math.sqrt(2.0) / 40.0
    wanted = 0.5 + 0.5 * math.exp(-7 * s * s / 2.0)
    text = re.search(r"(\d+) sets of detunings, quadrature error at most (\S+)", row.remark)
    assert text is not None
    assert int(text[1]) < 2000  # where all combinations of the qubits' nodes are 16,384
    assert float(text[2]) <= 1e-11
    assert abs(probs[1] - wanted) < float(text[2])
    assert sum(probs.values()) == pytest.approx(1.0, abs=1e-10)


def test_half_turns_leave_no_phase_to_integrate() -> None:
    """Decoupling of strong detunings of eight entangled qubits: one set of detunings."""
    circuit = cat(8, 4e4, halves=2)
    noise = attached(circuit, line(8, t2_star_us=2.0))
    assert noise.detunings is not None
    assert max(noise.detunings.bounds.values()) < 1e-9
    row = Runner("densitymatrix")(circuit, shots=0, outputs=("probabilities",), noise=noise)
    assert row.remark.startswith("1 sets")
    assert distribution(circuit, noise)[1] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_bounds_of_phases_hold(seed: int) -> None:
    """A half turn that turns too far is none; swaps move phases to another qubit."""
    rng = np.random.default_rng(seed)
    snapshot = device(rng)
    gates = tuple(
        msgspec.structs.replace(each, error=0.05, over_rotation_rad=0.2)
        if each.name == "x" and seed % 2
        else each
        for each in snapshot.gates
    )
    gates += (GateCalibration("swap", (), 0.01, 300.0),)
    snapshot = msgspec.structs.replace(
        snapshot, gates=gates, native_gates=(*snapshot.native_gates, NativeGate("swap", 2))
    )
    circuit = Arrays(2, 2)
    for _ in range(10):
        name = str(rng.choice(["sx", "x", "x", "cx", "swap", "delay"]))
        if name in ("cx", "swap"):
            circuit.add(name, rng.permutation(2).tolist())
        elif name == "delay":
            circuit.add("delay", [int(rng.integers(2))], params=[float(rng.integers(100, 3000))])
        else:
            circuit.add(name, [int(rng.integers(2))])
    circuit.add("sx", [0]).add("sx", [1])
    built = circuit.measure(range(2)).circuit()
    noise = attached(built, snapshot)
    assert noise.detunings is not None
    sums = msgspec.structs.replace(noise.detunings, bounds={})
    by_sums = msgspec.structs.replace(noise, detunings=sums, digest=b"sums" * 8)
    assert any(reaches(noise.detunings).get(q, 0.0) < r for q, r in reaches(sums).items())
    change = np.subtract(distribution(built, noise), distribution(built, by_sums))
    assert np.abs(change).max() < 1e-10


def test_exact_probabilities_of_unconnected_qubits_are_products() -> None:
    """Twelve Ramsey sequences at once, with readout errors; strong detunings."""
    size = 12
    circuit = Arrays(size, size)
    for q in range(size):
        circuit.add("sx", [q]).add("delay", [q], params=[2e3 * (q + 1)]).add("sx", [q])
    built = circuit.measure(range(size)).circuit()
    noise = attached(built, line(size, t2_star_us=10.0, p01=0.02, p10=0.05))
    row = Runner("densitymatrix")(built, shots=0, outputs=("probabilities",), noise=noise)
    assert "12 components" in row.remark
    probs = np.array(list(probabilities(row).values()))
    wanted = np.ones(1)
    for q in range(size):
        one = 0.5 + 0.5 * math.exp(-((0.2 * (q + 1)) ** 2))
        one = one * 0.95 + (1.0 - one) * 0.02
        wanted = np.outer([1.0 - one, one], wanted).ravel()
    assert np.abs(probs - wanted).max() < 1e-10


def test_exact_expectation_values_of_unconnected_qubits_are_products() -> None:
    size = 12
    circuit = Arrays(size, 0)
    for q in range(size):
        circuit.add("sx", [q]).add("delay", [q], params=[1e3 * (q + 1)])
    built = circuit.circuit()
    noise = attached(built, line(size, t2_star_us=10.0))
    labels = ("Y" * size, "I" * (size - 2) + "YY", "Z" + "I" * (size - 1))
    sums = (PauliSum(labels, np.array([2.0, 0.5, 3.0])), PauliSum(labels[1:2], np.ones(1)))
    row = Runner("densitymatrix")(
        built, shots=0, noise=noise, outputs=("expectation",), observables=sums
    )
    left = [-math.exp(-((0.1 * (q + 1)) ** 2)) for q in range(size)]
    pair = left[0] * left[1]
    values = [value for value, _ in row.expectations]
    assert values == pytest.approx([2.0 * math.prod(left) + 0.5 * pair, pair], abs=1e-10)
    assert "12 components" in row.remark


def test_a_part_of_a_circuit_keeps_the_rotations_of_its_qubits() -> None:
    snapshot = msgspec.structs.replace(
        waiting(), num_qubits=3, qubits=(QubitCalibration(t2_us=100.0, t2_star_us=10.0),) * 3
    )
    circuit = Arrays(3, 1).add("sx", [0]).add("sx", [2])
    for q in range(3):
        circuit.add("delay", [q], params=[8e3])
    built = circuit.add("sx", [2]).add("measure", [2], [0]).circuit()
    noise = attached(built, snapshot)
    whole = distribution(built, noise)
    part, own = active_part(built, noise, output_support(("counts",), (), built))
    assert part.circuit.num_qubits == 1
    assert own.detunings is not None
    assert set(own.detunings.qubits.tolist()) == {0}
    assert np.abs(distribution(part.circuit, own) - whole).max() < 1e-12


@pytest.mark.parametrize("engine", ["densitymatrix", "statevector", "mps"])
def test_unconnected_qubits_have_detunings_of_their_own(engine: str) -> None:
    """Counts of two Ramsey sequences at once, with readout errors, and a pair that is entangled."""
    qubit = QubitCalibration(t2_us=100.0, t2_star_us=10.0, p01=0.05, p10=0.1)
    snapshot = msgspec.structs.replace(
        waiting(), num_qubits=4, qubits=(qubit,) * 4, coupling=((2, 3),),
        native_gates=(*waiting().native_gates, NativeGate("cx", 2)),
    )  # fmt: skip
    circuit = Arrays(4, 4)
    for q in range(4):
        circuit.add("sx", [q]).add("delay", [q], params=[4e3 + 1e3 * q]).add("sx", [q])
    built = circuit.add("cx", [2, 3]).add("sx", [3]).measure(range(4)).circuit()
    noise = attached(built, snapshot)
    expected = distribution(built, noise)
    shots = 2_000 if engine == "mps" else 20_000
    run = Runner(engine)(built, shots=shots, noise=noise, outputs=("counts", "memory"))
    assert "3 components" in run.remark
    assert p_value(dict(enumerate(expected.tolist())), counts_of(run)) > FIVE_SIGMA
    memory = np.frombuffer(run.memory, np.uint8)
    values, sizes = np.unique(memory, return_counts=True)
    assert dict(zip(values.tolist(), sizes.tolist(), strict=True)) == counts_of(run)


def test_each_binding_has_its_own_shots() -> None:
    circuit = Arrays(1, 1).add("sx", [0]).add("delay", [0], params=[5e3]).add("rz", [0], params=[0])
    circuit.free(0)
    built = circuit.add("sx", [0]).measure([0]).circuit()
    noise = attached(built, waiting())
    angles = np.array([[0.0], [math.pi / 2.0], [math.pi]])
    rows = Runner("statevector").all(built, shots=8000, noise=noise, bindings=angles)
    left = math.exp(-0.05 - 0.25 * 0.9)
    for row, angle in zip(rows, angles[:, 0].tolist(), strict=True):
        ones = counts_of(row).get(1, 0) / 8000
        assert abs(ones - 0.5 - 0.5 * left * math.cos(angle)) < 5.0 * math.sqrt(0.25 / 8000)


def test_sets_of_shots_are_the_distinct_rows_of_their_detunings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = [(np.linspace(-2.0, 2.0, k), np.full(k, 1.0 / k)) for k in (3, 5, 2)]
    mixed = [rules[0], rules[1], None, rules[2]]
    for limit in (1 << 62, 40):
        monkeypatch.setattr(detuned, "_MOST_NUMBERS", limit)
        for given in (rules, mixed, []):
            found, owner = detuned._drawn_sets(np.random.default_rng(3), given, 500, RunControl())
            rng = np.random.default_rng(3)
            columns = []
            for rule in given:
                if rule is None:
                    columns.append(rng.standard_normal(500))
                else:
                    edges = rule[1].cumsum()
                    node = np.searchsorted(edges, rng.random(500))
                    columns.append(rule[0][np.minimum(node, edges.size - 1)])
            drawn = np.column_stack(columns) if columns else np.zeros((500, 0))
            assert (found[owner] == drawn).all()
            assert len(found) == len(np.unique(drawn, axis=0))


def test_a_stop_ends_the_draw_of_detunings() -> None:
    control = RunControl()
    control.stop()
    with pytest.raises(Stopped):
        detuned._drawn_sets(np.random.default_rng(0), [None], 10, control)
