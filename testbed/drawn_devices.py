"""Devices whose noise is known, drawn at random, their counts, and counts that are spoiled.

A truth is a calibration, or differs from one in all values, some also by one of TERMS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import calibration as cal, library
from simenv.calibration import accept
from simenv.calibration.data import CountsData, CountsRecord, MeasuredCircuit, body_of
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.score import SAMPLES, Predictor
from simenv.client.circuits import load
from simulators.circuit.analysis.fit_scope import CircuitSize, in_force

Random = np.random.Generator
KINDS = ("random", "GHZ", "mixed widths", "near uniform", "without layout")
LIMA, PATH = "lima", (0, 1, 3, 4)  # a device of the library, and coupled qubits of it
ANGLE_RAD = 0.05  # standard deviation of the rotations after gates on pairs


# --- devices --------------------------------------------------------------------------------------


def device(random: Random, num_qubits: int) -> cal.CalibrationSnapshot:
    """Return a random calibration of a line of qubits with native rz, sx, x and cz."""
    line = tuple((k, k + 1) for k in range(num_qubits - 1))

    def drawn(middle: float, sigma: float) -> float:
        return float(random.lognormal(np.log(middle), sigma))

    qubits = []
    for _ in range(num_qubits):
        t1 = drawn(100.0, 0.4)
        t2 = min(drawn(80.0, 0.4), 1.9 * t1)
        p01, p10 = drawn(0.015, 0.5), drawn(0.025, 0.5)
        qubits.append(cal.QubitCalibration(t1_us=t1, t2_us=t2, p01=p01, p10=p10, readout_ns=1000.0))
    ones = [
        (name, (k,), drawn(0.0008, 0.5), 35.0) for k in range(num_qubits) for name in ("sx", "x")
    ]
    twos = [("cz", pair, drawn(0.008, 0.5), 70.0) for pair in line]
    gates = [("rz", (), 0.0, 0.0), *ones, *twos]
    natives = [("rz", 1, 1), ("sx", 1, 0), ("x", 1, 0), ("cz", 2, 0)]
    return cal.CalibrationSnapshot(
        "drawn", num_qubits, technology="superconducting", coupling=line, qubits=tuple(qubits),
        native_gates=tuple(cal.NativeGate(*each) for each in natives),
        gates=tuple(cal.GateCalibration(*each) for each in gates),
    )  # fmt: skip


def _times(
    snapshot: cal.CalibrationSnapshot, factor: Callable[[], float], most: float = 1.0
) -> cal.CalibrationSnapshot:
    """Return a snapshot with each value times a factor; probabilities are at most `most`."""

    def p(value: float | None) -> float:
        return min((value or 0.0) * factor(), most)

    qubits = []
    for each in snapshot.qubits:
        t1 = (each.t1_us or 0.0) * factor()
        t2 = min((each.t2_us or 0.0) * factor(), 1.9 * t1)
        own = msgspec.structs.replace(each, t1_us=t1, t2_us=t2, p01=p(each.p01), p10=p(each.p10))
        qubits.append(own)
    gates = tuple(
        msgspec.structs.replace(gate, error=p(gate.error)) if gate.error else gate
        for gate in snapshot.gates
    )
    return msgspec.structs.replace(snapshot, qubits=tuple(qubits), gates=gates)


def changed(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot with each value times a factor with a standard deviation of 0.3."""
    return _times(snapshot, lambda: float(random.lognormal(0.0, 0.3)))


def with_dead_qubit(snapshot: cal.CalibrationSnapshot, qubit: int) -> cal.CalibrationSnapshot:
    """Return a snapshot with a qubit whose T2 is far above 2 T1."""
    qubits = list(snapshot.qubits)
    qubits[qubit] = msgspec.structs.replace(qubits[qubit], t1_us=7.7, t2_us=332.0)
    return msgspec.structs.replace(snapshot, qubits=tuple(qubits))


def scaled(snapshot: cal.CalibrationSnapshot, factor: float) -> cal.CalibrationSnapshot:
    """Return a snapshot with each value times the same factor."""
    return _times(snapshot, lambda: factor, 0.3)


def aged(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot with each value times 1/5 to 5, as of a calibration of long ago."""
    most = np.log(5.0)
    return _times(snapshot, lambda: float(np.exp(random.uniform(-most, most))), 0.3)


def library_changed(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return any snapshot with each value times a factor between about 0.5 and 2, that of a pair
    for both directions; values that it lacks are added."""

    def factor() -> float:
        return float(np.exp(random.normal(0.0, 0.3)))

    qubits = tuple(
        msgspec.structs.replace(
            each, t1_us=(each.t1_us or 100.0) * factor(), t2_us=(each.t2_us or 100.0) * factor(),
            p01=min((each.p01 or 0.01) * factor(), 0.4),
            p10=min((each.p10 or 0.01) * factor(), 0.4),
        )
        for each in snapshot.qubits
    )  # fmt: skip
    scales: dict[tuple[int, ...], float] = {}
    gates = tuple(
        msgspec.structs.replace(
            gate, error=gate.error * scales.setdefault(tuple(sorted(gate.qubits)), factor())
        ) if gate.error else gate
        for gate in snapshot.gates
    )  # fmt: skip
    return msgspec.structs.replace(snapshot, qubits=qubits, gates=gates)


def _with_pairs(
    snapshot: cal.CalibrationSnapshot, own: Callable[[cal.GateCalibration], cal.GateCalibration]
) -> cal.CalibrationSnapshot:
    gates = tuple(own(gate) if len(gate.qubits) == 2 else gate for gate in snapshot.gates)
    return msgspec.structs.replace(snapshot, gates=gates)


def coherent(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot whose cz rotate, by angles with a standard deviation of 0.06 rad."""
    turns = lambda: tuple(cal.PauliRotation(name, float(random.normal(0.0, 0.06)))  # noqa: E731
                          for name in ("ZZ", "ZI", "IZ"))  # fmt: skip
    return _with_pairs(snapshot, lambda gate: msgspec.structs.replace(gate, rotations=turns()))


def rotated(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot whose pairs have rotations ZZ and IZ after their gates; errors include
    them."""

    def own(gate: cal.GateCalibration) -> cal.GateCalibration:
        angles = random.normal(0.0, ANGLE_RAD, 2)
        turns = tuple(
            cal.PauliRotation(p, float(a)) for p, a in zip(("ZZ", "IZ"), angles, strict=True)
        )
        added = 0.2 * float((angles**2).sum())  # infidelity of small rotations of two qubits
        return msgspec.structs.replace(gate, rotations=turns, error=(gate.error or 0.0) + added)

    return _with_pairs(snapshot, own)


def leaking(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot whose cz leak, by 0.1 % to 0.4 %."""
    return _with_pairs(snapshot, lambda gate: msgspec.structs.replace(
        gate, leakage=float(random.uniform(1e-3, 4e-3)), seepage=float(random.uniform(0.0, 0.1))
    ))  # fmt: skip


def read_together(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot in which the records of two neighbours flip together, by 0.5 % to 3 %."""
    first = int(random.integers(snapshot.num_qubits - 1))
    flip = float(random.uniform(0.005, 0.03))
    flips = [(each.p01 or 0.0, each.p10 or 0.0) for each in snapshot.qubits[first : first + 2]]
    alone = [np.array([[1.0 - up, down], [up, 1.0 - down]]) for up, down in flips]
    both = np.kron(alone[1], alone[0])
    rows = tuple(map(tuple, ((1.0 - flip) * both + flip * both[::-1]).tolist()))
    group = cal.CorrelatedReadout((first, first + 1), rows)
    return msgspec.structs.replace(snapshot, correlated_readout=(group,))


def with_joint_flips(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return `read_together` whose qubits' own readout errors include the joint flips."""
    result = read_together(snapshot, random)
    (group,) = result.correlated_readout
    qubits = list(result.qubits)
    for each in group.qubits:
        flips = (qubits[each].p01 or 0.0, qubits[each].p10 or 0.0)
        p01, p10 = (p + group.joint_flip * (1.0 - 2.0 * p) for p in flips)
        qubits[each] = msgspec.structs.replace(qubits[each], p01=p01, p10=p10)
    return msgspec.structs.replace(result, qubits=tuple(qubits))


def with_t2_star(snapshot: cal.CalibrationSnapshot, share: float) -> cal.CalibrationSnapshot:
    """Return a snapshot whose qubits have this share of their T2 as T2*."""
    return msgspec.structs.replace(snapshot, qubits=tuple(
        msgspec.structs.replace(each, t2_star_us=share * (each.t2_limited_us or 0.0))
        for each in snapshot.qubits
    ))  # fmt: skip


def detuned(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot whose qubits have 20 % to 80 % of their T2 as T2*."""
    return with_t2_star(snapshot, float(random.uniform(0.2, 0.8)))


def in_layers(snapshot: cal.CalibrationSnapshot, random: Random) -> cal.CalibrationSnapshot:
    """Return a snapshot with rates of its own for the cz of every second pair at the same time: two
    to three times the errors of each cz, as Z, X and ZZ of all its qubits."""
    errors = [gate.error or 0.0 for gate in snapshot.gates if len(gate.qubits) == 2]
    learned = []
    for begin in range(2 if snapshot.num_qubits > 3 else 0):
        pairs = [(k, k + 1) for k in range(begin, snapshot.num_qubits - 1, 2)]
        rate = float(random.uniform(2.0, 3.0)) * float(np.mean(errors)) / 5.0
        qubits = tuple(qubit for pair in pairs for qubit in pair)
        generators = [cal.PauliGenerator("ZZ", pair, rate) for pair in pairs]
        generators += [cal.PauliGenerator(p, (q,), rate) for q in qubits for p in "XZ"]
        together = tuple(cal.LayerGate("cz", pair) for pair in pairs)
        learned.append(cal.LayerCalibration(together, qubits, tuple(generators)))
    return msgspec.structs.replace(snapshot, layers=tuple(learned))


TERMS = {
    "coherent errors": coherent, "correlated readout": read_together, "T2*": detuned,
    "leakage": leaking, "errors of layers": in_layers,
}  # fmt: skip


# --- circuits and counts --------------------------------------------------------------------------


def source_of(text: str, number: int | None = None) -> MeasuredCircuit:
    """Return a circuit (OpenQASM) as counts name it. `number`: of a body that others have, too."""
    loaded = load(text)
    body = body_of(loaded) + ("" if number is None else f"-{number}")
    return MeasuredCircuit(text, loaded, loaded.program.num_clbits, body)


def circuits(
    random: Random,
    num_qubits: int,
    count: int,
    kind: str = "random",
    layers: tuple[int, int] = (1, 8),
) -> list[MeasuredCircuit]:
    """Return circuits of native gates of one of KINDS, of so many `layers`; near uniform: 10 to
    15."""
    results = []
    for number in range(count):
        size = num_qubits
        if kind in ("mixed widths", "without layout"):
            size = int(random.integers(2, num_qubits + 1))
        lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{size}];", f"creg c[{size}];"]
        between = (10, 15) if kind == "near uniform" else layers
        lines += _ghz(size, number) if kind == "GHZ" else _layers(random, size, between)
        lines += [f"measure q[{k}] -> c[{k}];" for k in range(size)]
        results.append(source_of("\n".join(lines) + "\n"))
    return results


def _layers(random: Random, size: int, between: tuple[int, int] = (1, 8)) -> list[str]:
    lines = []
    for layer in range(int(random.integers(between[0], between[1] + 1))):
        for k in range(size):
            first, second = random.uniform(0.0, 2.0 * np.pi, 2)
            lines.append(f"rz({first}) q[{k}]; sx q[{k}]; rz({second}) q[{k}]; sx q[{k}];")
        begins = range(layer % 2, size - 1, 2)
        lines += [f"cz q[{k}],q[{k + 1}];" for k in begins if random.random() < 0.8]
    return lines


def _ghz(size: int, number: int) -> list[str]:
    """Return a GHZ state from one of its qubits, after a number of pairs of gates that cancel."""
    half = "rz(pi/2) q[{0}]; sx q[{0}]; rz(pi/2) q[{0}];"
    begin = number % size
    lines = ["cz q[0],q[1]; cz q[0],q[1];"] * (number // size) + [half.format(begin)]
    steps = [(k, k + 1) for k in range(begin, size - 1)] + [(k, k - 1) for k in range(begin, 0, -1)]
    for a, b in steps:
        lines += [half.format(b), f"cz q[{a}],q[{b}];", half.format(b)]
    return lines


def preparations(num_qubits: int) -> list[MeasuredCircuit]:
    """Return circuits that prepare each basis state."""
    return [_native(num_qubits, [f"x q[{k}];" for k in range(num_qubits) if state >> k & 1])
            for state in range(1 << num_qubits)]  # fmt: skip


def in_bases(random: Random, num_qubits: int, count: int, body: int) -> list[MeasuredCircuit]:
    """Return a random circuit with gates on pairs that is measured in so many bases: one body."""
    lines: list[str] = []
    while not any("cz" in line for line in lines):
        lines = _layers(random, num_qubits)
    results = []
    for _ in range(count):
        turns = [f"rz({random.choice([0.0, 0.5 * np.pi])}) q[{k}]; sx q[{k}];"
                 for k in range(num_qubits) if random.random() < 2 / 3]  # fmt: skip
        each = _native(num_qubits, [*lines, *turns])
        results.append(msgspec.structs.replace(each, body=f"body-{body}"))
    return results


def _native(size: int, lines: Sequence[str]) -> MeasuredCircuit:
    head = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{size}];", f"creg c[{size}];"]
    ends = [f"measure q[{k}] -> c[{k}];" for k in range(size)]
    return source_of("\n".join([*head, *lines, *ends]) + "\n")


def sequences(random: Random, num_qubits: int) -> list[MeasuredCircuit]:
    """Return circuits of one kind of operation on all qubits: x, quarter turns, delays."""

    def every(text: str) -> str:
        return "".join(f"{text} q[{k}];" for k in range(num_qubits))

    parts = ["", every("x"), every("sx") * (4 * int(random.integers(1, 40)))]
    for _ in range(2):
        waits = every(f"delay[{int(random.integers(5, 80)) * 1_000}ns]")
        parts += [every("x") + waits, every("sx") + waits + every("rz(pi)") + every("sx")]
    head = f'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[{num_qubits}] q;\nbit[{num_qubits}] c;\n'
    ends = "".join(f"c[{k}] = measure q[{k}];\n" for k in range(num_qubits))
    return [source_of(f"{head}{part}\n{ends}", number) for number, part in enumerate(parts)]


def random_circuit(path: tuple[int, ...], random: Random) -> str:
    """Return six layers of random gates on qubits and a cx on neighbours of LIMA, as OpenQASM."""
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', "qreg q[5];", f"creg c[{len(path)}];"]
    for _ in range(6):
        for q in path:
            lines += [f"rz({random.uniform(0, 6.28):.4f}) q[{q}];", f"sx q[{q}];"]
        first = int(random.integers(len(path) - 1))
        lines.append(f"cx q[{path[first]}],q[{path[first + 1]}];")
    lines += [f"measure q[{qubit}] -> c[{k}];" for k, qubit in enumerate(path)]
    return "\n".join(lines) + "\n"


def counts_of(
    truth: cal.CalibrationSnapshot, sources: Sequence[MeasuredCircuit], shots: int, random: Random,
    samples: int = SAMPLES, compiler: DeviceCompiler | None = None, *, own_layout: bool = True,
) -> CountsData:  # fmt: skip
    """Return counts of the circuits, drawn from the exact distributions of the true device;
    `samples`: of circuits without one. `compiler`: that chooses the qubits; else they are 0, 1,
    ..., or, without `own_layout`, those of the circuit's text."""
    predictor = Predictor(truth, compiler=compiler, samples=samples)
    records = []
    for k, source in enumerate(sources):
        is_chosen = compiler is not None or not own_layout
        layout = () if is_chosen else tuple(range(source.loaded.program.num_qubits))
        record = CountsRecord(source, {0: 1}, 1, f"circuit-{k}", body=source.body, layout=layout)
        result = predictor.prediction(record)
        assert result is not None
        drawn = random.multinomial(shots, result.probabilities / result.probabilities.sum())
        counts = {x: n for x, n in zip(result.outcomes.tolist(), drawn.tolist(), strict=True) if n}
        records.append(msgspec.structs.replace(record, counts=counts, shots=shots))
    return CountsData(tuple(records), truth.name)


def measured(
    texts: Sequence[str], truth: cal.CalibrationSnapshot, random: Random, shots: int = 8_000
) -> tuple[CountsRecord, ...]:
    """Return counts of circuits (OpenQASM) of native gates on the qubits of their texts."""
    sources = [source_of(text) for text in texts]
    return counts_of(truth, sources, shots, random, own_layout=False).records


def random_counts(
    number: int, num_qubits: int, seed: int = 1, snapshot: cal.CalibrationSnapshot | None = None
) -> tuple[CountsData, cal.CalibrationSnapshot]:
    """Return counts of random circuits on a device that differs from a snapshot, by default LIMA,
    and the snapshot."""
    name = LIMA if snapshot is None else snapshot.name
    snapshot = snapshot or library.load(name)
    truth = library_changed(snapshot, np.random.default_rng(seed))
    random = np.random.default_rng(seed + 1)
    texts = [random_circuit(PATH[:num_qubits], random) for _ in range(number)]
    return CountsData(measured(texts, truth, random), name), snapshot


def fidelities(model: cal.CalibrationSnapshot, judged: CountsData) -> NDArray[np.float64]:
    """Return the fidelity of each row to a device, as a submit to it would be."""
    circuits = accept.held_out_circuits(judged.records, [0] * len(judged.records), {})
    return accept.fidelities(circuits, [Predictor(model)])


def acting_beyond(model: cal.CalibrationSnapshot, judged: CountsData, gates: int) -> int:
    """Return on how many circuits with more gates on pairs than these the fit itself acts."""
    compiler, found = DeviceCompiler(model), 0
    for record in judged.records:
        circuit = compiler.run_of(record).circuit
        sizes = dict(CircuitSize.of(circuit, model).gates)
        is_deeper = sum(n for name, n in sizes.items() if name == "cz") > gates
        found += is_deeper and in_force(model, circuit) is model
    return found


def loss(
    model: cal.CalibrationSnapshot, truth: cal.CalibrationSnapshot, judged: CountsData
) -> float:
    """Return the mean squared Hellinger distance of the exact distributions of both devices."""
    compiler = DeviceCompiler(truth)
    predictors = [Predictor(each, compiler=compiler) for each in (model, truth)]
    losses = []
    for record in judged.records:
        roots: list[NDArray[np.float64]] = []
        for each in predictors:
            result = each.prediction(record)
            assert result is not None
            roots.append(np.sqrt(result.probabilities))
        losses.append(float(((roots[0] - roots[1]) ** 2).sum()))
    return float(np.mean(losses))


# --- counts that are wrong ------------------------------------------------------------------------


def _with(data: CountsData, records: Sequence[CountsRecord]) -> CountsData:
    return msgspec.structs.replace(data, records=tuple(records))


def _outcomes(data: CountsData, change: Callable[[int], int]) -> CountsData:
    """Return data with each outcome changed."""
    records = []
    for each in data.records:
        counts: dict[int, int] = {}
        for outcome, count in each.counts.items():
            counts[change(outcome)] = counts.get(change(outcome), 0) + count
        records.append(msgspec.structs.replace(each, counts=counts))
    return _with(data, records)


def _ordered(order: Sequence[int]) -> Callable[[int], int]:
    return lambda outcome: sum((outcome >> source & 1) << k for k, source in enumerate(order))


def _rows_of(data: CountsData, places: Sequence[int]) -> CountsData:
    """Return data whose row k has the counts of row places[k]."""
    rows = data.records
    pairs = zip(rows, places, strict=True)
    return _with(data, [msgspec.structs.replace(each, counts=rows[k].counts, shots=rows[k].shots)
                        for each, k in pairs])  # fmt: skip


def _drawn(data: CountsData, random: Random, p: Callable[[], object]) -> CountsData:
    """Return data whose counts are drawn from other distributions."""
    records = []
    for each in data.records:
        drawn = random.multinomial(data.records[0].shots, p()).tolist()
        counts = {x: n for x, n in enumerate(drawn) if n}
        records.append(msgspec.structs.replace(each, counts=counts))
    return _with(data, records)


def _counted(each: CountsRecord, counts: dict[int, int]) -> CountsRecord:
    left = {outcome: count for outcome, count in counts.items() if count}
    return msgspec.structs.replace(each, counts=left, shots=sum(left.values()))


def incomplete(data: CountsData, random: Random) -> dict[str, list[CountsRecord]]:
    """Return rows without their rarest outcomes, and counts that no number of shots has."""

    def changed(change: Callable[[CountsRecord], dict[int, int]]) -> list[CountsRecord]:
        return [_counted(each, change(each)) for each in data.records]

    def smooth(each: CountsRecord) -> dict[int, int]:
        noise = random.normal(0.0, 0.2, len(each.counts))  # of the scatter of shots
        rows = zip(each.counts.items(), noise.tolist(), strict=True)
        return {x: round(0.2 * n + 0.2 * r * n**0.5) for (x, n), r in rows}

    def most(each: CountsRecord, number: int) -> dict[int, int]:
        return dict(sorted(each.counts.items(), key=lambda pair: -pair[1])[:number])

    return {
        "outcomes below 2 % left out": changed(
            lambda each: {x: n for x, n in each.counts.items() if n >= 0.02 * each.shots}
        ),
        "outcomes below 1 % left out": changed(
            lambda each: {x: n for x, n in each.counts.items() if n >= 0.01 * each.shots}
        ),
        "the five most frequent outcomes": changed(lambda each: most(each, 5)),
        "counts times 3.7": changed(
            lambda each: {x: round(3.7 * n) for x, n in each.counts.items()}
        ),
        "a fifth of the counts, rounded": changed(smooth),
    }


def two_devices(
    truth: cal.CalibrationSnapshot, sources: Sequence[MeasuredCircuit], shots: int, random: Random
) -> Iterator[tuple[str, CountsData]]:
    """Yield counts of which half the rows are of a device whose cz have an error of 0.12, with the
    name of the half."""
    worse = _with_pairs(truth, lambda gate: msgspec.structs.replace(gate, error=0.12))
    own, other = (counts_of(each, sources, shots, random) for each in (truth, worse))
    count = len(sources)
    chosen = set(random.permutation(count)[: count // 2].tolist())
    for name, places in {
        "half the rows of a worse device": chosen,
        "the first half of a worse device": set(range(count // 2)),
    }.items():
        rows = [(other if k in places else own).records[k] for k in range(count)]
        yield name, _with(own, rows)
    yield "each circuit also on a worse device", _with(own, [*own.records, *other.records])


def spoiled(data: CountsData, size: int, random: Random) -> Iterator[tuple[str, CountsData]]:
    """Yield wrong data made of right ones, with the name of the mistake."""
    last, count, ones = size - 1, len(data.records), (1 << size) - 1
    line, rows = list(range(size)), list(range(count))
    turned = _ordered(line[::-1])
    for name, change in {
        "bits reversed": turned,
        "two bits exchanged": _ordered([line[1], line[0], *line[2:]]),
        "outer bits exchanged": _ordered([last, *line[1:-1], 0]),
        "bits rotated": _ordered([*line[1:], 0]),
        "bits rotated back": _ordered([last, *line[:-1]]),
        "bits reversed and inverted": lambda x: turned(x) ^ ones,
        "all bits inverted": lambda x: x ^ ones,
        "first bit inverted": lambda x: x ^ 1,
        "last bit inverted": lambda x: x ^ 1 << last,
        "two bits inverted": lambda x: x ^ 3,
        "first bit is 0": lambda x: x & ~1,
        "last bit is 1": lambda x: x | 1 << last,
        "first bit in place of the second": lambda x: x & ~2 | (x & 1) << 1,
        "all outcomes 0": lambda _: 0,
        "all outcomes 1": lambda _: ones,
    }.items():
        yield name, _outcomes(data, change)
    for name, places in {
        "rows shifted by one": [*rows[1:], 0],
        "rows shifted back by one": [count - 1, *rows[:-1]],
        "rows reversed": rows[::-1],
        "rows shuffled": random.permutation(count).tolist(),
        "neighbouring rows exchanged": [k ^ 1 if k ^ 1 < count else k for k in rows],
        "half of the rows shuffled": [
            *rows[: count // 2], *random.permutation(rows[count // 2 :]).tolist(),
        ],
        "counts of the first row in all": [0] * count,
        "a row in five of another circuit": [
            (k + count // 2) % count if k % 5 == 0 else k for k in rows
        ],
    }.items():  # fmt: skip
        yield name, _rows_of(data, places)
    flat = np.full(1 << size, 2.0**-size)
    yield "uniform counts", _drawn(data, random, lambda: flat)
    mixed = lambda: random.dirichlet(np.ones(1 << size))  # noqa: E731
    yield "counts of random distributions", _drawn(data, random, mixed)
    for name, numbers in {
        "qubits numbered from the other end": line[::-1],
        "qubits of the wrong couplings": [line[1], line[0], *line[2:]],
        "qubits rotated": [*line[1:], 0],
    }.items():
        yield (
            name,
            _with(
                data,
                [msgspec.structs.replace(each, layout=tuple(numbers)) for each in data.records],
            ),
        )
    # A generator of its own: the other kinds draw as they did before there were these.
    for name, records in incomplete(data, np.random.default_rng(len(data.records))).items():
        yield name, _with(data, records)
    yield "ten shots a circuit", _with(data, [
        msgspec.structs.replace(each, counts={next(iter(each.counts)): 10}, shots=10)
        for each in data.records
    ])  # fmt: skip
    for name, change in {"inverted": lambda x: x ^ ones, "reversed": turned}.items():
        pairs = zip(data.records, _outcomes(data, change).records, strict=True)
        every_second = [b if k % 2 else a for k, (a, b) in enumerate(pairs)]
        yield f"every second row {name}", _with(data, every_second)
