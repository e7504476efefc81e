"""Fits of devices whose noise is known: does a fit tell the truth?

A device of 3 to 7 qubits is drawn at random, with its calibration. The truth is the calibration
(`--false`: every fit that is used is then wrong), or it differs from it in all values (`--truths`).
Counts are drawn from the exact distributions of circuits on the truth, and the calibration is
fitted to them. Circuits are random ones of all qubits or of some, GHZ circuits, or deep ones whose
outcomes are near uniform; their qubits are given or chosen by the compiler. Truths may have one of
TERMS: coherent errors of cz, joint flips of neighbours that are read together, detunings of each
shot (T2* beside T2, of a calibration that has another one or none), leakage, or errors of layers.
The loss of a model is
its mean squared Hellinger distance to the truth, by the exact distributions of circuits that were
drawn anew. `--wrong` spoils counts in many ways, each of which must be refused, and the right
counts must not.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.harness import SEED, Option, Report
from bench.harness.kernels import load_kernels
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    NativeGate,
    PauliGenerator,
    PauliRotation,
    QubitCalibration,
)
from simenv.calibration.data import CountsData, CountsRecord, MeasuredCircuit, body_of
from simenv.calibration.fit.calibrate import FitRefusedError, calibrate
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.guards import LEAST_SHOTS
from simenv.calibration.score import SAMPLES, Predictor
from simenv.client.circuits import load

OPTIONS = (
    Option("--false", default=50, help="number of devices whose calibration is true"),
    Option("--truths", default=50, help="number of devices whose calibration is not true"),
    Option("--wrong", default=1, help="number of devices whose counts are spoiled in each way"),
    SEED,
)
SHOTS = (30, 100, 300, 1000)
CIRCUITS = (2, 3, 5, 7, 10, 12, 16, 24, 40)
KINDS = ("random", "GHZ", "mixed widths", "near uniform", "without layout")
REFUSED = "the counts are not fitted", "the fit is not stored"  # of errors: they look wrong
JUDGED = 24  # circuits that no fit sees


def device(random: np.random.Generator, num_qubits: int) -> CalibrationSnapshot:
    """Random calibration of a line of qubits with native rz, sx, x and cz."""
    line = [(k, k + 1) for k in range(num_qubits - 1)]
    qubits = []
    for _ in range(num_qubits):
        t1 = float(random.lognormal(np.log(100.0), 0.4))
        qubits.append(
            QubitCalibration(
                t1_us=t1,
                t2_us=float(min(random.lognormal(np.log(80.0), 0.4), 1.9 * t1)),
                p01=float(random.lognormal(np.log(0.015), 0.5)),
                p10=float(random.lognormal(np.log(0.025), 0.5)),
                readout_ns=1000.0,
            )
        )
    gates = [GateCalibration("rz", error=0.0, duration_ns=0.0)]
    for k in range(num_qubits):
        for name in ("sx", "x"):
            error = float(random.lognormal(np.log(0.0008), 0.5))
            gates.append(GateCalibration(name, (k,), error=error, duration_ns=35.0))
    for pair in line:
        error = float(random.lognormal(np.log(0.008), 0.5))
        gates.append(GateCalibration("cz", pair, error=error, duration_ns=70.0))
    natives = [("rz", 1, 1), ("sx", 1, 0), ("x", 1, 0), ("cz", 2, 0)]
    return CalibrationSnapshot(
        "drawn", num_qubits, technology="superconducting",
        native_gates=tuple(NativeGate(*each) for each in natives),
        coupling=tuple(line), qubits=tuple(qubits), gates=tuple(gates),
    )  # fmt: skip


def changed(snapshot: CalibrationSnapshot, random: np.random.Generator) -> CalibrationSnapshot:
    """Snapshot with each value multiplied by a factor with a standard deviation of 0.3."""

    def factor() -> float:
        return float(random.lognormal(0.0, 0.3))

    qubits = []
    for each in snapshot.qubits:
        t1 = (each.t1_us or 0.0) * factor()
        qubits.append(msgspec.structs.replace(
            each, t1_us=t1, t2_us=min((each.t2_us or 0.0) * factor(), 1.9 * t1),
            p01=(each.p01 or 0.0) * factor(), p10=(each.p10 or 0.0) * factor(),
        ))  # fmt: skip
    gates = [
        msgspec.structs.replace(gate, error=gate.error * factor()) if gate.error else gate
        for gate in snapshot.gates
    ]
    return msgspec.structs.replace(snapshot, qubits=tuple(qubits), gates=tuple(gates))


def aged(snapshot: CalibrationSnapshot, random: np.random.Generator) -> CalibrationSnapshot:
    """Snapshot with each value multiplied by a factor of 1/5 to 5, as of a calibration of long
    ago."""

    def factor() -> float:
        return float(np.exp(random.uniform(-np.log(5.0), np.log(5.0))))

    def flip(value: float | None) -> float:
        return min((value or 0.0) * factor(), 0.3)

    qubits = []
    for each in snapshot.qubits:
        t1 = (each.t1_us or 0.0) * factor()
        t2 = min((each.t2_us or 0.0) * factor(), 1.9 * t1)
        qubits.append(msgspec.structs.replace(
            each, t1_us=t1, t2_us=t2, p01=flip(each.p01), p10=flip(each.p10),
        ))  # fmt: skip
    gates = [
        msgspec.structs.replace(gate, error=flip(gate.error)) if gate.error else gate
        for gate in snapshot.gates
    ]
    return msgspec.structs.replace(snapshot, qubits=tuple(qubits), gates=tuple(gates))


def coherent(snapshot: CalibrationSnapshot, random: np.random.Generator) -> CalibrationSnapshot:
    """Snapshot whose cz rotate, by angles with a standard deviation of 0.06 rad."""
    gates = tuple(
        msgspec.structs.replace(gate, rotations=tuple(
            PauliRotation(name, float(random.normal(0.0, 0.06))) for name in ("ZZ", "ZI", "IZ")
        ))
        if len(gate.qubits) == 2 else gate
        for gate in snapshot.gates
    )  # fmt: skip
    return msgspec.structs.replace(snapshot, gates=gates)


def read_together(
    snapshot: CalibrationSnapshot, random: np.random.Generator
) -> CalibrationSnapshot:
    """Snapshot in which the records of two neighbours flip together, by 0.5 % to 3 %."""
    first = int(random.integers(snapshot.num_qubits - 1))
    flip = float(random.uniform(0.005, 0.03))
    alone = []
    for each in snapshot.qubits[first : first + 2]:
        up, down = each.p01 or 0.0, each.p10 or 0.0
        alone.append(np.array([[1.0 - up, down], [up, 1.0 - down]]))
    both = np.kron(alone[1], alone[0])
    both = (1.0 - flip) * both + flip * both[::-1]
    rows = tuple(map(tuple, both.tolist()))
    return msgspec.structs.replace(
        snapshot, correlated_readout=(CorrelatedReadout((first, first + 1), rows),)
    )


def with_t2_star(snapshot: CalibrationSnapshot, share: float) -> CalibrationSnapshot:
    """Snapshot whose qubits have this share of their T2 as T2*."""
    qubits = tuple(
        msgspec.structs.replace(each, t2_star_us=share * (each.t2_limited_us or 0.0))
        for each in snapshot.qubits
    )
    return msgspec.structs.replace(snapshot, qubits=qubits)


def detuned(snapshot: CalibrationSnapshot, random: np.random.Generator) -> CalibrationSnapshot:
    """Snapshot whose qubits have 20 % to 80 % of their T2 as T2*."""
    return with_t2_star(snapshot, float(random.uniform(0.2, 0.8)))


def leaking(snapshot: CalibrationSnapshot, random: np.random.Generator) -> CalibrationSnapshot:
    """Snapshot whose cz leak, by 0.1 % to 0.4 %."""
    gates = tuple(
        msgspec.structs.replace(
            gate, leakage=float(random.uniform(1e-3, 4e-3)), seepage=float(random.uniform(0.0, 0.1))
        )
        if len(gate.qubits) == 2 else gate
        for gate in snapshot.gates
    )  # fmt: skip
    return msgspec.structs.replace(snapshot, gates=gates)


def in_layers(snapshot: CalibrationSnapshot, random: np.random.Generator) -> CalibrationSnapshot:
    """Snapshot with rates of its own for the cz of every second pair at the same time: two to three
    times the errors of each cz, as Z, X and ZZ of all its qubits."""
    errors = [gate.error or 0.0 for gate in snapshot.gates if len(gate.qubits) == 2]
    learned = []
    for begin in range(2 if snapshot.num_qubits > 3 else 0):
        pairs = [(k, k + 1) for k in range(begin, snapshot.num_qubits - 1, 2)]
        rate = float(random.uniform(2.0, 3.0)) * float(np.mean(errors)) / 5.0
        generators = [PauliGenerator("ZZ", pair, rate) for pair in pairs]
        generators += [PauliGenerator(p, (q,), rate) for pair in pairs for q in pair for p in "XZ"]
        qubits = tuple(qubit for pair in pairs for qubit in pair)
        together = tuple(LayerGate("cz", pair) for pair in pairs)
        learned.append(LayerCalibration(together, qubits, tuple(generators)))
    return msgspec.structs.replace(snapshot, layers=tuple(learned))


TERMS = {
    "coherent errors": coherent,
    "correlated readout": read_together,
    "T2*": detuned,
    "leakage": leaking,
    "errors of layers": in_layers,
}
_PLAIN = 0.4  # of the truths have none


def circuits(
    random: np.random.Generator, num_qubits: int, count: int, kind: str = "random"
) -> list[MeasuredCircuit]:
    """Circuits of native gates of one of KINDS, one to eight layers deep, or 10 to 15."""
    results = []
    for number in range(count):
        size = num_qubits
        if kind in ("mixed widths", "without layout"):
            size = int(random.integers(2, num_qubits + 1))
        lines = ["OPENQASM 2.0;", 'include "qelib1.inc";']
        lines += [f"qreg q[{size}];", f"creg c[{size}];"]
        lines += (
            _ghz(size, number) if kind == "GHZ" else _layers(random, size, kind == "near uniform")
        )
        lines += [f"measure q[{k}] -> c[{k}];" for k in range(size)]
        text = "\n".join(lines) + "\n"
        loaded = load(text)
        results.append(MeasuredCircuit(text, loaded, size, body_of(loaded)))
    return results


def _layers(random: np.random.Generator, size: int, is_deep: bool) -> list[str]:
    lines = []
    for layer in range(int(random.integers(10, 16) if is_deep else random.integers(1, 9))):
        for k in range(size):
            first, second = random.uniform(0.0, 2.0 * np.pi, 2)
            lines.append(f"rz({first}) q[{k}]; sx q[{k}]; rz({second}) q[{k}]; sx q[{k}];")
        begins = range(layer % 2, size - 1, 2)
        lines += [f"cz q[{k}],q[{k + 1}];" for k in begins if random.random() < 0.8]
    return lines


def _ghz(size: int, number: int) -> list[str]:
    """GHZ state from one of its qubits, after a number of pairs of gates that cancel."""
    half = "rz(pi/2) q[{0}]; sx q[{0}]; rz(pi/2) q[{0}];"
    begin = number % size
    lines = ["cz q[0],q[1]; cz q[0],q[1];"] * (number // size) + [half.format(begin)]
    steps = [(k, k + 1) for k in range(begin, size - 1)] + [(k, k - 1) for k in range(begin, 0, -1)]
    for a, b in steps:
        lines += [half.format(b), f"cz q[{a}],q[{b}];", half.format(b)]
    return lines


def counts_of(
    truth: CalibrationSnapshot,
    sources: Sequence[MeasuredCircuit],
    shots: int,
    random: np.random.Generator,
    samples: int = SAMPLES,
    compiler: DeviceCompiler | None = None,
) -> CountsData:
    """Counts of the circuits, drawn from the exact distributions of the true device; `samples`: of
    circuits without one. `compiler`: that chooses the qubits; else they are 0, 1, ..."""
    predictor = Predictor(truth, compiler=compiler, samples=samples)
    records = []
    for k, source in enumerate(sources):
        layout = () if compiler else tuple(range(source.loaded.program.num_qubits))
        record = CountsRecord(source, {0: 1}, 1, f"circuit-{k}", body=source.body, layout=layout)
        result = predictor.prediction(record)
        assert result is not None
        p = result.probabilities / result.probabilities.sum()
        drawn = random.multinomial(shots, p)
        counts = {x: n for x, n in zip(result.outcomes.tolist(), drawn.tolist(), strict=True) if n}
        records.append(msgspec.structs.replace(record, counts=counts, shots=shots))
    return CountsData(tuple(records), truth.name)


def loss(model: CalibrationSnapshot, truth: CalibrationSnapshot, judged: CountsData) -> float:
    """Mean squared Hellinger distance of the exact distributions of both devices."""
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


def _outcomes(data: CountsData, change: Callable[[int], int]) -> CountsData:
    """Data with each outcome changed."""
    records = []
    for each in data.records:
        counts: dict[int, int] = {}
        for outcome, count in each.counts.items():
            counts[change(outcome)] = counts.get(change(outcome), 0) + count
        records.append(msgspec.structs.replace(each, counts=counts))
    return msgspec.structs.replace(data, records=tuple(records))


def _ordered(order: Sequence[int]) -> Callable[[int], int]:
    return lambda outcome: sum((outcome >> source & 1) << k for k, source in enumerate(order))


def _rows_of(data: CountsData, places: Sequence[int]) -> CountsData:
    """Data whose row k has the counts of row places[k]."""
    records = data.records
    return msgspec.structs.replace(data, records=tuple(
        msgspec.structs.replace(each, counts=records[k].counts, shots=records[k].shots)
        for each, k in zip(records, places, strict=True)
    ))  # fmt: skip


def _layouts(data: CountsData, numbers: Sequence[int]) -> CountsData:
    """Data whose qubits have other numbers."""
    return msgspec.structs.replace(data, records=tuple(
        msgspec.structs.replace(each, layout=tuple(numbers)) for each in data.records
    ))  # fmt: skip


def spoiled(
    data: CountsData, size: int, random: np.random.Generator
) -> Iterator[tuple[str, CountsData]]:
    """Wrong data made of right ones, with the name of the mistake."""
    last, count, ones = size - 1, len(data.records), (1 << size) - 1
    line = list(range(size))
    yield "bits reversed", _outcomes(data, _ordered(line[::-1]))
    yield "two bits exchanged", _outcomes(data, _ordered([line[1], line[0], *line[2:]]))
    yield "outer bits exchanged", _outcomes(data, _ordered([last, *line[1:-1], 0]))
    yield "bits rotated", _outcomes(data, _ordered([*line[1:], 0]))
    yield "bits rotated back", _outcomes(data, _ordered([last, *line[:-1]]))
    yield "bits reversed and inverted", _outcomes(data, lambda x: _ordered(line[::-1])(x) ^ ones)
    yield "all bits inverted", _outcomes(data, lambda x: x ^ ones)
    yield "first bit inverted", _outcomes(data, lambda x: x ^ 1)
    yield "last bit inverted", _outcomes(data, lambda x: x ^ 1 << last)
    yield "two bits inverted", _outcomes(data, lambda x: x ^ 3)
    yield "first bit is 0", _outcomes(data, lambda x: x & ~1)
    yield "last bit is 1", _outcomes(data, lambda x: x | 1 << last)
    yield "first bit in place of the second", _outcomes(data, lambda x: x & ~2 | (x & 1) << 1)
    yield "all outcomes 0", _outcomes(data, lambda _: 0)
    yield "all outcomes 1", _outcomes(data, lambda _: ones)
    places = list(range(count))
    yield "rows shifted by one", _rows_of(data, [*places[1:], 0])
    yield "rows shifted back by one", _rows_of(data, [count - 1, *places[:-1]])
    yield "rows reversed", _rows_of(data, places[::-1])
    yield "rows shuffled", _rows_of(data, random.permutation(count).tolist())
    yield (
        "neighbouring rows exchanged",
        _rows_of(data, [k ^ 1 if k ^ 1 < count else k for k in places]),
    )
    half = [*places[: count // 2], *random.permutation(places[count // 2 :]).tolist()]
    yield "half of the rows shuffled", _rows_of(data, half)
    yield "counts of the first row in all", _rows_of(data, [0] * count)
    yield (
        "a row in five of another circuit",
        _rows_of(data, [(k + count // 2) % count if k % 5 == 0 else k for k in places]),
    )
    shots = data.records[0].shots
    flat = []
    for each in data.records:
        drawn = random.multinomial(shots, np.full(1 << size, 2.0**-size)).tolist()
        flat.append(msgspec.structs.replace(each, counts={x: n for x, n in enumerate(drawn) if n}))
    yield "uniform counts", msgspec.structs.replace(data, records=tuple(flat))
    random_rows = []
    for each in data.records:
        drawn = random.multinomial(shots, random.dirichlet(np.ones(1 << size))).tolist()
        counts = {x: n for x, n in enumerate(drawn) if n}
        random_rows.append(msgspec.structs.replace(each, counts=counts))
    yield (
        "counts of random distributions",
        msgspec.structs.replace(data, records=tuple(random_rows)),
    )
    yield "qubits numbered from the other end", _layouts(data, line[::-1])
    yield "qubits of the wrong couplings", _layouts(data, [line[1], line[0], *line[2:]])
    yield "qubits rotated", _layouts(data, [*line[1:], 0])
    few = tuple(
        msgspec.structs.replace(each, counts={next(iter(each.counts)): 10}, shots=10)
        for each in data.records
    )
    yield "ten shots a circuit", msgspec.structs.replace(data, records=few)
    inverted = _outcomes(data, lambda x: x ^ ones).records
    mixed = tuple(
        b if k % 2 else a for k, (a, b) in enumerate(zip(data.records, inverted, strict=True))
    )
    yield "every second row inverted", msgspec.structs.replace(data, records=mixed)
    turned = _outcomes(data, _ordered(line[::-1])).records
    mixed = tuple(
        b if k % 2 else a for k, (a, b) in enumerate(zip(data.records, turned, strict=True))
    )
    yield "every second row reversed", msgspec.structs.replace(data, records=mixed)


def _wrong_data(report: Report, count: int, random: np.random.Generator) -> int:
    """Return how many right counts are refused."""
    stored, refused, total = 0, 0, 0
    for _ in range(count):
        num_qubits = int(random.integers(4, 7))
        calibration = device(random, num_qubits)
        truth = changed(calibration, random)
        data = counts_of(truth, circuits(random, num_qubits, 30), 2_000, random)
        old = counts_of(aged(calibration, random), circuits(random, num_qubits, 30), 2_000, random)
        right = (("right", data), ("right, of an old calibration", old))
        for name, counts in (*right, *spoiled(data, num_qubits, random)):
            try:
                calibrate(counts, calibration, "fitted")
                text = "STORED"
            except FitRefusedError as error:
                text = error.message
            is_right = name.startswith("right")
            total += not is_right
            stored += text == "STORED" and not is_right
            refused += is_right and text.startswith(REFUSED)
            print(f"{num_qubits} qubits, {name}: {text}", flush=True)
    report.at_most(
        "wrong_stored", stored, f"of {total} kinds of wrong counts, fits that are stored"
    )
    return refused


class _Outcome(msgspec.Struct, frozen=True):
    """What became of one set of counts."""

    is_refused: bool = False
    is_worse: bool = False  # than the calibration
    is_below_aer: bool = False  # on folds, beyond the 99 % interval
    is_used: bool = False


def _trial(number: int, random: np.random.Generator, *, is_true: bool) -> _Outcome:
    """Draw a device and counts, and fit it."""
    num_qubits = int(random.integers(3, 8))
    calibration = device(random, num_qubits)
    truth, terms = calibration, "true"
    if not is_true:
        truth, terms = changed(calibration, random), "changed"
        if random.random() > _PLAIN:
            terms = str(random.choice(list(TERMS)))
            truth = TERMS[terms](truth, random)
            if terms == "T2*" and random.random() < 0.5:
                calibration = detuned(calibration, random)
    kind, bodies = str(random.choice(KINDS)), int(random.choice(CIRCUITS))
    shots = max(int(random.choice(SHOTS)), -(-LEAST_SHOTS // bodies))
    compiler = DeviceCompiler(calibration) if kind == "without layout" else None
    built = circuits(random, num_qubits, bodies, kind)
    data = counts_of(truth, built, shots, random, compiler=compiler)
    judged = counts_of(
        truth, circuits(random, num_qubits, JUDGED, kind), 1, random, compiler=compiler
    )
    label = f"{number}: {num_qubits} qubits, {kind}, {bodies} x {shots}, {terms}"
    try:
        fitted = calibrate(data, calibration, "fitted")
    except FitRefusedError as error:
        print(f"{label}: {error.message}", flush=True)
        return _Outcome(is_refused=error.message.startswith(REFUSED))
    before, after = (loss(each, truth, judged) for each in (calibration, fitted.snapshot))
    held = fitted.held_out
    print(
        f"{label}: share {fitted.share:g}, loss {before:.6f} -> {after:.6f}; {fitted.prior.text};"
        f" {'' if held is None else held.text}; {fitted.reason}",
        flush=True,
    )
    return _Outcome(
        is_worse=after > before * (1.0 + 1e-9) + 1e-12,
        is_below_aer=bool(fitted.share) and held is not None and held.is_below_aer,
        is_used=bool(fitted.share),
    )


def run(options: Namespace) -> Report:
    report = Report("fit_truths", "fits of devices whose noise is known")
    load_kernels()
    random = np.random.default_rng(options.seed)
    refused = _wrong_data(report, options.wrong, random) if options.wrong else 0
    below = 0
    for is_true, count in ((True, options.false), (False, options.truths)):
        found = [_trial(k, random, is_true=is_true) for k in range(count)]
        refused += sum(each.is_refused for each in found)
        below += sum(each.is_below_aer for each in found)
        worse = sum(each.is_worse for each in found)
        used = sum(each.is_used for each in found)
        if is_true and count:
            report.at_most("false_fits", worse, f"of {count} true calibrations, changed")
        elif count:
            label = f"of {count} fits ({used} used), with a loss above the calibration's"
            report.at_most("worse_fits", worse, label)
    report.at_most("right_refused", refused, "right counts that are refused")
    report.at_most("below_aer", below, "fits below Aer's recipe beyond their 99 % interval, folds")
    return report
