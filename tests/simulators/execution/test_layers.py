"""Errors of layers against a reference in numpy, whose circuits are lists of moments between
barriers."""

import itertools
import math
import sys
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engines import Runner
from noise_references import (
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

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    NativeGate,
    PauliGenerator,
    QubitCalibration,
    ZZCoupling,
)
from noise_models.model import NoiseModel
from noise_models.snapshot import dump, load
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.layers import without_layers
from simulators.engine import PauliSum
from simulators.simulate import counts_of

Moment = tuple[tuple[str, tuple[int, ...]], ...]
ONE_NS = 40.0


def layer(
    rng: np.random.Generator, gates: Sequence[tuple[str, tuple[int, int]]], qubits: Sequence[int]
) -> LayerCalibration:
    """Random rates of some Paulis on the qubits of a layer and its pairs of neighbours."""
    pairs = [(a, a + 1) for a in qubits if a + 1 in qubits]
    places = [*(((q,), 1) for q in qubits), *((pair, 2) for pair in pairs)]
    generators = tuple(
        PauliGenerator("".join(letters), place, float(rng.exponential(0.004)))
        for place, size in places
        for letters in itertools.product("XYZ", repeat=size)
        if rng.random() < 0.7
    )
    made = tuple(LayerGate(name, pair) for name, pair in gates)
    return LayerCalibration(made, tuple(qubits), generators)


def device(rng: np.random.Generator, name: str = "cz", size: int = 4) -> CalibrationSnapshot:
    """A line of qubits with random times, errors and layers, one of which is a part of another."""
    qubits = tuple(QubitCalibration(**times(rng, 5.0, 50.0)) for _ in range(size))
    pairs = tuple((a, a + 1) for a in range(size - 1))
    gates = [GateCalibration(each, (), float(rng.uniform(0, 0.01)), ONE_NS) for each in ("sx", "x")]
    gates += [
        GateCalibration(
            name, pair, float(rng.uniform(0.0, 0.04)), float(rng.choice([200.0, 300.0, 420.0]))
        )
        for pair in pairs
    ]
    listed = [
        layer(rng, [(name, (0, 1))], (0, 1, 2)),
        layer(rng, [(name, (0, 1)), (name, (2, 3))], tuple(range(size))),
        layer(rng, [(name, (1, 2))], tuple(range(size))),
    ]
    layers = tuple(listed[k] for k in rng.permutation(3))
    return load(dump(chip(gates, qubits, coupling=pairs, layers=layers)))


class Reference(DeviceReference):
    """Density matrix of moments, each of which ends when its longest gate has ended; a gate that
    is shorter begins later. A waiting time acts before the next gate or barrier of its qubit."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        super().__init__(snapshot)
        self.waited = np.zeros(self.n)

    def flush(self, qubits: Sequence[int]) -> None:
        for qubit in qubits:
            self.wait(qubit, self.waited[qubit])
            self.waited[qubit] = 0.0

    def generators(self, acting: LayerCalibration, factor: float) -> None:
        for each in acting.generators:
            self.pauli(each.pauli, (1.0 - math.exp(-2.0 * factor * each.rate)) / 2.0, each.qubits)

    def layers(self, moment: Moment) -> list[LayerCalibration]:
        """Layers of a moment: contained, and alone on their qubits; the largest first."""
        wide = {each for each in moment if len(each[1]) == 2}
        found: list[LayerCalibration] = []
        for each in sorted(self.snapshot.layers, key=lambda one: -len(one.gates)):
            own = {(gate.name, tuple(gate.qubits)) for gate in each.gates}
            near = {gate for gate in wide if set(gate[1]) & set(each.qubits)}
            taken = {qubit for one in found for qubit in one.qubits}
            if own == near and not taken & set(each.qubits):
                found.append(each)
        return found

    def moment(self, moment: Moment, factor: float = 1.0) -> None:
        times = {qubits: self.calibrated(name, qubits).duration_ns for name, qubits in moment}
        length = max(times.values())
        acting = self.layers(moment) if factor else []
        inside = {qubit for each in acting for qubit in each.qubits}
        windows = {
            qubit: max(times[tuple(gate.qubits)] for gate in each.gates)
            for each in acting
            for qubit in each.qubits
        }
        alone = {qubit: qubits for qubits in times for qubit in qubits}
        for qubit in range(self.n):
            idle = length - times.get(alone.get(qubit, ()), 0.0)
            if qubit in inside:
                idle = length - windows[qubit]
            self.waited[qubit] += idle
        self.flush(sorted(alone))
        for each in acting:
            self.generators(each, factor)
        own = {tuple(gate.qubits) for each in acting for gate in each.gates}
        for name, qubits in moment:
            self.unitary(name, qubits)
            gate = self.calibrated(name, qubits)
            if len(qubits) == 1 and qubits[0] in inside:  # relaxation is a part of the rates
                self.depolarize(self.rest(gate, qubits), qubits)
            elif qubits not in own:
                self.noise_after(gate, qubits)
        self.flush(range(self.n))


def random_moments(rng: np.random.Generator, name: str, size: int, count: int = 8) -> list[Moment]:
    """All qubits turn first and last; between, random turns and gates on pairs."""
    turns: Moment = tuple(("sx", (q,)) for q in range(size))
    moments = [turns]
    for _ in range(count):
        pairs = [pair for pair in ((0, 1), (1, 2), (2, 3)) if rng.random() < 0.55]
        if (1, 2) in pairs and len(pairs) > 1:
            pairs.remove((1, 2))
        moment: Moment = tuple((name, pair) for pair in pairs)
        if rng.random() < 0.4 or not moment:
            chosen = [q for q in range(size) if rng.random() < 0.7] or [0]
            moment = tuple((str(rng.choice(["sx", "x"])), (q,)) for q in chosen)
        else:  # gates on one qubit beside those on pairs
            free = set(range(size)).difference(*pairs)
            moment += tuple(("sx", (q,)) for q in sorted(free) if rng.random() < 0.5)
        moments.append(tuple(moment[k] for k in rng.permutation(len(moment))))
    return [*moments, turns]


def circuit_of(moments: Sequence[Moment], size: int) -> Circuit:
    built = Arrays(size, size)
    for moment in moments:
        for name, qubits in moment:
            built.add(name, list(qubits))
        built.add("barrier", list(range(size)))
    return built.measure(range(size)).circuit()


def random_case(
    seed: int, factor: float = 1.0
) -> tuple[Circuit, CalibrationSnapshot, Probabilities]:
    rng = np.random.default_rng(seed)
    name = ("cz", "cx")[seed % 2]
    snapshot = device(rng, name)
    moments = random_moments(rng, name, 4)
    reference = Reference(snapshot)
    for moment in moments:
        reference.moment(moment, factor)
    return circuit_of(moments, 4), snapshot, reference.populations()


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_has_the_errors_of_the_layers_that_act(seed: int) -> None:
    assert_exact(*random_case(seed))


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_the_factor_scales_the_rates_and_0_leaves_the_errors_of_the_gates(factor: float) -> None:
    for seed in range(6):
        circuit, snapshot, wanted = random_case(seed, factor)
        assert_exact(circuit, snapshot, wanted, {"gate.layer": factor})
        if not factor:
            found = distribution(circuit, attached(circuit, snapshot, {"gate.layer": factor}))
            bare = msgspec.structs.replace(snapshot, layers=())
            assert np.array_equal(found, distribution(circuit, attached(circuit, bare)))


@all_engines
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_drawn_from_the_same_distribution(seed: int, engine: str) -> None:
    circuit, snapshot, wanted = random_case(100 + seed)
    assert_counts(engine, circuit, attached(circuit, snapshot), wanted, seed=seed)


def plain(**changes: object) -> CalibrationSnapshot:
    """Four qubits in a line; cz on 0-1 and 2-3 is a layer of X errors of qubit 1 and 2 together."""
    made = LayerCalibration(
        (LayerGate("cz", (0, 1)), LayerGate("cz", (2, 3))), (0, 1, 2, 3),
        (PauliGenerator("XX", (1, 2), 0.1),),
    )  # fmt: skip
    base = CalibrationSnapshot(
        "plain", 4, native_gates=(NativeGate("sx", 1), NativeGate("cz", 2)),
        coupling=((0, 1), (1, 2), (2, 3)), layers=(made,),
        gates=(GateCalibration("sx", (), 0.0, 50.0), GateCalibration("cz", (), 0.03, 200.0)),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def uses(circuit: Arrays, snapshot: CalibrationSnapshot) -> int:
    """How often the pair error of a layer acts."""
    noise = attached(circuit.circuit(), snapshot)
    flips = [math.isclose(each.ptm[3, 3], math.exp(-0.2)) for each in noise.channels]
    return sum(1 for row in noise.locations.tolist() if row[2:] == [1, 2] and flips[row[1]])


TIMES = (GateCalibration("sx", (), 0.0, 50.0), GateCalibration("cz", (0, 1), 0.01, 200.0),
         GateCalibration("cz", (2, 3), 0.01, 320.0))  # fmt: skip


def test_gates_that_start_or_end_together_are_a_layer_in_any_order() -> None:
    two = Arrays(4, 4).add("cz", [1, 0]).add("sx", [2]).add("cz", [3, 2]).measure(range(4))
    assert uses(two, plain()) == 1, "both end at the measurements"
    assert uses(two, plain(gates=TIMES)) == 1, "the shorter one ends with the longer one"
    apart = Arrays(4, 4).add("cz", [0, 1]).add("sx", [1]).add("cz", [2, 3]).measure(range(4))
    assert uses(apart, plain()) == 0
    aligned = Arrays(4, 4).add("cz", [0, 1]).add("cz", [2, 3]).add("barrier", [0, 1, 2, 3])
    assert uses(aligned.add("sx", [1]).measure(range(4)), plain()) == 1
    untimed = plain(gates=(GateCalibration("sx", ()), GateCalibration("cz", (), 0.01)))
    assert uses(two, untimed) == 1, "gates without durations act by depth"
    later = Arrays(4, 4).add("cz", [1, 2]).add("cz", [0, 1]).add("cz", [2, 3])
    assert uses(later.measure(range(4)), untimed) == 1


def test_a_layer_acts_alone_on_its_qubits() -> None:
    """A layer of one gate was learned while its neighbours wait."""
    single = LayerCalibration(
        (LayerGate("cz", (0, 1)),), (0, 1, 2), (PauliGenerator("XX", (1, 2), 0.1),)
    )
    alone = Arrays(4, 4).add("sx", [2]).add("cz", [0, 1]).add("barrier", [0, 1, 2, 3])
    assert uses(alone.measure(range(4)), plain(layers=(single,))) == 1
    beside = Arrays(4, 4).add("cz", [0, 1]).add("cz", [2, 3]).measure(range(4))
    assert uses(beside, plain(layers=(single,))) == 0
    overlaps = plain(layers=(single,), gates=TIMES)
    assert uses(beside, overlaps) == 0, "the neighbours' gate begins earlier"


@pytest.mark.parametrize("zz_khz", [0.0, 80.0])
def test_a_circuit_lists_the_gates_of_a_layer_apart(zz_khz: float) -> None:
    """The same circuit with barriers has the same distribution, however it is listed."""
    zz = (ZZCoupling((1, 2), zz_khz),) if zz_khz else ()
    snapshot = plain(qubits=(QubitCalibration(t1_us=30.0, t2_us=20.0),) * 4, zz=zz)
    before, after = ("sx", "t", "h", "t"), ("h", "t", "sx")
    listed, apart = Arrays(4, 4), Arrays(4, 4)
    for pairs, circuit in ((((0, 1, 2, 3),), listed), (((0, 1), (2, 3)), apart)):
        for qubits in pairs:
            for qubit in qubits:
                for name in before:
                    circuit.add(name, [qubit])
            for pair in ((0, 1), (2, 3)):
                if set(pair) <= set(qubits):
                    circuit.add("cz", list(pair))
            for qubit in qubits:
                for name in after:
                    circuit.add(name, [qubit])
    results = []
    for each in (listed, apart):
        built = each.measure(range(4)).circuit()
        results.append(distribution(built, attached(built, snapshot)))
    assert np.abs(results[0] - results[1]).max() < 1e-12
    without = attached(built, snapshot, {"gate.layer": 0})
    assert np.abs(results[0] - distribution(built, without)).max() > 1e-3


def test_clifford_engines_have_errors_of_layers() -> None:
    """Two-qubit Pauli channels: P(1 on both) is (1 - e^-4 rate) / 2 less, after two layers."""
    circuit, open_ended = Arrays(4, 4), Arrays(4, 0)
    for each in (circuit, open_ended):
        for _ in range(2):
            each.add("cz", [0, 1]).add("cz", [2, 3]).add("barrier", [0, 1, 2, 3])
    built, whole = circuit.measure(range(4)).circuit(), open_ended.circuit()
    noise = attached(built, plain())
    assert noise.kinds == {"pauli"}
    wanted = (1.0 - math.exp(-0.4)) / 2.0
    exact = distribution(built, noise)
    assert exact[6] == pytest.approx(wanted, abs=1e-12)
    for engine in ("stabilizer", "sweep"):
        counts = counts_of(Runner(engine)(built, shots=20_000, noise=noise))
        assert abs(counts.get(6, 0) / 20_000 - wanted) < 5.0 * math.sqrt(0.25 / 20_000), engine
    terms = {"outputs": ("expectation",), "observables": (PauliSum(("IZII",), np.ones(1)),)}
    noise = attached(whole, plain())
    ((value, _),) = Runner("pauli")(whole, shots=0, noise=noise, **terms).expectations
    assert value == pytest.approx(math.exp(-0.4), abs=1e-9)


def test_replaced_errors_of_gates_replace_those_of_layers() -> None:
    built = Arrays(4, 4).add("cz", [0, 1]).add("cz", [2, 3]).measure(range(4)).circuit()
    options = {"gate.error_2q": 0.1}
    found = distribution(built, attached(built, plain(), options))
    bare = attached(built, plain(layers=()), options)
    assert np.array_equal(found, distribution(built, bare))


def test_a_composition_of_models_with_layers_is_refused() -> None:
    from noise_models.relations import compose
    from noise_models.strict_json import NoiseError

    with pytest.raises(NoiseError, match="layers"):
        compose(build(plain()), build(plain()))


def test_relaxation_before_a_layer_acts_before_its_channels() -> None:
    """Also of a qubit whose gate begins later than another gate of the layer; so a barrier changes
    nothing."""
    snapshot = plain(qubits=(QubitCalibration(t1_us=2.0, t2_us=3.0),) * 4, gates=TIMES)
    results = []
    for barrier in (True, False):
        circuit = Arrays(4, 4)
        for qubit in range(4):
            circuit.add("h", [qubit]).add("t", [qubit]).add("sx", [qubit])
        circuit.add("cz", [1, 2])
        for _ in range(12):
            circuit.add("sx", [2]).add("t", [2])
        if barrier:
            circuit.add("barrier", [0, 1, 2, 3])
        circuit.add("cz", [2, 3]).add("cz", [0, 1])
        for qubit in (0, 2):
            circuit.add("sx", [qubit])
        circuit.add("barrier", [0, 1, 2, 3])
        built = circuit.measure(range(4)).circuit()
        results.append(distribution(built, attached(built, snapshot)))
    assert np.abs(results[0] - results[1]).max() < 1e-12


def calls(repetitions: int, model: NoiseModel) -> int:
    """Calls of functions during the attachment to a circuit of this depth."""
    circuit = Arrays(4, 4)
    for _ in range(repetitions):
        circuit.add("sx", [0]).add("cz", [0, 1])
    count, made = 0, circuit.measure(range(4)).circuit()

    def add(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(add)
    try:
        attach_noise(made, model)
    finally:
        sys.setprofile(before)
    return count


def test_the_work_of_layers_is_proportional_to_the_depth() -> None:
    single = LayerCalibration(
        (LayerGate("cz", (0, 1)),), (0, 1, 2, 3), (PauliGenerator("Z", (0,), 0.01),)
    )
    qubits = (QubitCalibration(t1_us=50.0, t2_us=50.0),) * 4
    model = build(load(dump(plain(layers=(single,), qubits=qubits))))
    calls(10, model)
    assert calls(400, model) < 2.5 * calls(200, model)


@pytest.mark.parametrize("seed", range(3))
def test_waiting_times_lose_their_parts_in_windows(seed: int) -> None:
    """Against the sum over all windows of a qubit, in any order and with common parts."""
    rng = np.random.default_rng(seed)
    windows = {
        qubit: [(begin, begin + rng.exponential(3.0)) for begin in rng.uniform(0.0, 100.0, 20)]
        for qubit in range(3)
    }
    qubits = rng.integers(4, size=50)
    ends, waits = rng.uniform(0.0, 110.0, 50), rng.exponential(8.0, 50)
    expected = [
        max(0.0, wait - sum(max(0.0, min(b, end) - max(a, end - wait)) for a, b in
                            windows.get(int(qubit), ())))
        for qubit, end, wait in zip(qubits, ends, waits, strict=True)
    ]  # fmt: skip
    found = without_layers(qubits, ends, waits, windows)
    assert np.abs(found - expected).max() < 1e-12


def test_a_gate_on_a_waiting_qubit_of_a_layer_has_no_relaxation_of_its_own() -> None:
    """The rates of the layer contain that of the whole time; the rest of its error is left."""
    single = LayerCalibration(
        (LayerGate("cz", (0, 1)),), (0, 1, 2), (PauliGenerator("Z", (2,), 0.01),)
    )
    qubits = (QubitCalibration(t1_us=20.0, t2_us=20.0),) * 4
    circuit = Arrays(4, 4).add("sx", [2]).add("barrier", [0, 1, 2, 3]).add("cz", [0, 1])
    circuit.add("sx", [2]).add("barrier", [0, 1, 2, 3]).measure(range(4))
    gates = (GateCalibration("sx", (), 0.01, 50.0), GateCalibration("cz", (), 0.03, 200.0))
    device = plain(layers=(single,), qubits=qubits, gates=gates)
    noise = attached(circuit.circuit(), device)
    own, learned, rest = (noise.channels[row[1]] for row in noise.locations if row[2] == 2)
    assert own.infidelity == pytest.approx(0.01)
    assert learned.infidelity == pytest.approx((1.0 - math.exp(-0.02)) / 3.0)
    left = math.exp(-50.0 / 20e3)
    relaxed = (1.0 + 3.0 * left) / 4.0  # process fidelity, T2 = T1
    average = (2.0 * relaxed + 1.0) / 3.0
    assert rest.infidelity == pytest.approx(0.5 * (average - 0.99) / (average - 0.5))
    assert np.allclose(rest.ptm, np.diag(np.diag(rest.ptm)))
