"""Scores of device models against measured counts.

HF is the Hellinger fidelity, without the bias of outcomes with few counts (`judge`); where all have
many, it is that of Qiskit. TVD is the total variation distance, half of sum |p - q|. The
log-likelihood is the mean logarithm of the probability of a shot; of circuits with more than
WIDE_BITS measured bits, few outcomes are seen twice, and HF is that of marginals as well. The
ceiling of HF is that of an exact model at this number of shots; that of the log-likelihood is minus
the entropy of the measured distribution, estimated from the counts where they permit it. What a
model is below it estimates its Kullback-Leibler divergence. Intervals are percentiles of bootstrap
samples of circuit bodies.

A `Predictor` gives the distributions of a device model for measured circuits, compiled as
`Client.submit` compiles them. Distributions are exact up to EXACT_QUBITS used qubits. Wider
Clifford circuits are exact for the Pauli twirl of their noise up to `evaluate.MAX_BITS` bits, and
sampled by the stabilizer engine beyond; circuits of up to LEAKAGE_QUBITS qubits that leak are
exact; other circuits are sampled by trajectories; circuits that
are too wide for that have no distribution. `IdealDistributions` are those of circuits as written,
without noise; a `SeriesPredictor` has dated calibrations and predicts each circuit by the one in
force at its time.

A `Score` has one row for each run, and their statistics. Each model is compared with the ideal
circuit, the uniform distribution, the ceiling by shot noise and the hardware's own repeat: the next
run of the same circuit.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.build import build as noise_model
from noise_models.calibration import CalibrationSnapshot
from noise_models.drift import moment_s
from noise_models.options import NoiseOptions
from simenv.calibration import judge
from simenv.calibration.data import CountsData, CountsRecord
from simenv.calibration.fit.observations import CompiledRun, DeviceCompiler
from simulators.circuit.analysis.fit_scope import in_force
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.circuit.passes.components import extract_part, noise_of_part
from simulators.engine import BindingResult
from simulators.errors import EngineError, Unsupported
from simulators.simulate import counts_of, simulate
from simulators.transfer import evaluate
from simulators.transfer.evolution import constant
from simulators.transfer.program import ConstantTable, TransferProgram, build

RESAMPLES = 400
COVERAGE = 0.95


class Statistic(msgspec.Struct, frozen=True):
    """A statistic of a set of circuits with its bootstrap interval; nan for one circuit body."""

    value: float
    low: float
    high: float


class Summary(msgspec.Struct, frozen=True):
    """Statistics of the values of many runs."""

    runs: int
    bodies: int
    median: Statistic
    p10: Statistic
    mean: Statistic


def summary(values: Sequence[float], bodies: Sequence[str], seed: int = 7) -> Summary | None:
    """Statistics of the finite values; None if there is none."""
    result = np.array(values, np.float64)
    finite = np.isfinite(result)
    if not finite.any():
        return None
    labels = np.array(bodies, object)[finite]
    result = result[finite]
    names, number = np.unique(labels.astype(str), return_inverse=True)
    members = [np.flatnonzero(number == k) for k in range(len(names))]
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(members), size=len(members))
        samples.append(_statistics(result[np.concatenate([members[k] for k in drawn])]))
    edge = 50.0 * (1.0 - COVERAGE)
    low, high = np.percentile(np.array(samples), [edge, 100.0 - edge], axis=0)
    if len(members) == 1:  # all samples are equal: they say nothing about other circuits
        low = high = np.full(len(low), math.nan)
    value = _statistics(result)
    median, p10, mean = (
        Statistic(value[k], float(low[k]), float(high[k])) for k in range(len(value))
    )
    return Summary(int(result.size), len(names), median, p10, mean)


def _statistics(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(np.median(values)), float(np.percentile(values, 10)), float(values.mean())


EXACT_QUBITS = 11
LEAKAGE_QUBITS = 7  # of circuits whose qubits leak: their state has a flag of each as well
SAMPLED_QUBITS = 20  # limit of trajectories
SAMPLES = 2**17
SEED = 7
_DEFAULT = NoiseOptions()


class Prediction(msgspec.Struct, frozen=True, eq=False):
    """Probabilities by outcome of the circuit's clbits. `samples`: 0 for exact ones."""

    outcomes: NDArray[np.object_]  # [k] int
    probabilities: NDArray[np.float64]  # [k]
    num_bits: int  # measured
    num_qubits: int  # used
    two_qubit_gates: int
    depth: int  # two-qubit gates on the longest path
    samples: int
    how: str


class Predictor:
    """Predictions of one snapshot with noise options; equal circuits are predicted once."""

    def __init__(
        self,
        snapshot: CalibrationSnapshot,
        options: NoiseOptions = _DEFAULT,
        compiler: DeviceCompiler | None = None,
        most_work: int = 0,
        samples: int = SAMPLES,
    ) -> None:
        """Set up. `compiler`: of another snapshot of the device, to compare noise on equal
        circuits. `most_work`: circuits with more than this number of 4^qubits steps have no
        distribution, nor those that must be sampled; 0: no limit. `samples`: of those."""
        self._most_work = most_work
        self._samples = samples
        self._compiler = compiler or DeviceCompiler(snapshot)
        self._snapshot = snapshot
        self._noise = NoiseAttachment(noise_model(snapshot, options))
        outside = snapshot.outside
        self._outside = self._noise
        if outside is not None:
            self._outside = NoiseAttachment(noise_model(outside, options))
        self._known: dict[tuple[int, bool], Prediction | None] = {}

    def prediction(self, record: CountsRecord) -> Prediction | None:
        """Prediction for a record's circuit; None if it is too wide. Raises DataError."""
        run = self._compiler.run_of(record)
        acting = in_force(self._snapshot, run.circuit)
        attachment = self._noise if acting is self._snapshot else self._outside
        key = id(run), acting is self._snapshot
        if key not in self._known:
            self._known[key] = self._predicted(run, attachment)
        return self._known[key]

    def _predicted(self, run: CompiledRun, attachment: NoiseAttachment) -> Prediction | None:
        noise = attachment.attach(run.circuit)
        circuit = noise.located(run.circuit)
        table = ConstantTable()
        try:
            program = build(circuit, noise, table)
            if program.num_qubits <= EXACT_QUBITS and 0 < self._most_work < _work(program):
                return None
            result, how = _exact(program, noise, table)
        except Unsupported:
            if self._most_work:
                return None
            return _with_leakage(circuit, noise) or _sampled(circuit, noise, self._samples)
        return Prediction(
            _spread(len(result.probabilities), program.clbits),
            np.maximum(result.probabilities, 0.0),
            len(program.clbits),
            program.num_qubits,
            *two_qubit_gates(circuit),
            0,
            how,
        )


def _work(program: TransferProgram) -> int:
    """4^qubits times steps, for all sets of detunings. Raises Unsupported."""
    if program.rotations is None:
        return program.work
    return len(evaluate.grids(program.rotations, evaluate.FINE)[0].x) * program.work


def _exact(
    program: TransferProgram, noise: NoiseProgram, table: ConstantTable
) -> tuple[evaluate.OutcomeDistribution, str]:
    """Distribution without sampling, with the name of the method. Raises Unsupported."""
    read = noise.readout
    confusion = {}
    for qubit in program.qubits if read is not None else ():
        up, down = float(read.p01[qubit]), float(read.p10[qubit])  # type: ignore[union-attr]
        confusion[qubit] = constant(np.array([[1.0 - up, down], [up, 1.0 - down]]))
    together = [
        evaluate.ReadTogether(each.qubits, constant(each.confusion))
        for each in (read.groups if read is not None else ())
    ]
    channels = evaluate.ChannelSet(
        [constant(channel.ptm) for channel in noise.channels], confusion, table, together=together
    )
    if program.num_qubits <= EXACT_QUBITS:
        return evaluate.outcomes(program, channels), "exact"
    return evaluate.parity_outcomes(
        evaluate.parity_program(program, table), channels
    ), "Pauli twirl, exact"


def _spread(size: int, clbits: tuple[int, ...]) -> NDArray[np.object_]:
    """Outcome over all clbits for each outcome of the measured ones."""
    return np.array(
        [sum((x >> k & 1) << clbit for k, clbit in enumerate(clbits)) for x in range(size)], object
    )


def _on_used_qubits(circuit: Circuit, noise: NoiseProgram) -> tuple[Circuit, NoiseProgram]:
    used = np.unique(circuit.qubits.astype(np.int64))
    part = extract_part(circuit, np.ones(circuit.ops.size, np.bool_), used)
    return part.circuit, noise_of_part(noise, noise.locations, part.operations, used)


def _with_leakage(circuit: Circuit, noise: NoiseProgram) -> Prediction | None:
    """Exact distribution of a narrow circuit whose qubits leak; None of others."""
    if noise.leakage is None:
        return None
    own, moved = _on_used_qubits(circuit, noise)
    if own.num_qubits > LEAKAGE_QUBITS:
        return None
    try:
        result = simulate(
            own, engine="densitymatrix", noise=moved, outputs=("probabilities",), shots=0
        )
    except EngineError:
        return None
    found = _probabilities(result.row(0))
    return Prediction(
        np.array(list(found), object),
        np.maximum(np.array(list(found.values())), 0.0),
        int(np.unique(circuit.clbits).size),
        own.num_qubits,
        *two_qubit_gates(circuit),
        0,
        "density matrix, exact",
    )


def _sampled(circuit: Circuit, noise: NoiseProgram, samples: int) -> Prediction | None:
    own, moved = _on_used_qubits(circuit, noise)
    attempts: list[tuple[str, str, tuple[tuple[str, int | float], ...]]]
    attempts = []
    if noise.detunings is None:
        attempts.append(("stabilizer", "Pauli twirl, sampled", (("twirl", 1),)))
    if own.num_qubits <= SAMPLED_QUBITS:
        attempts.append(("statevector", "trajectories, sampled", ()))
    for engine, how, settings in attempts:
        try:
            result = simulate(
                own,
                engine=engine,
                noise=moved,
                shots=samples,
                seed=SEED,
                settings=settings,
            )
        except EngineError:
            continue
        counts = counts_of(result.row(0))
        return Prediction(
            np.array(list(counts), object),
            np.array(list(counts.values()), np.float64) / samples,
            int(np.unique(circuit.clbits).size),
            own.num_qubits,
            *two_qubit_gates(circuit),
            samples,
            how,
        )
    return None


def two_qubit_gates(circuit: Circuit) -> tuple[int, int]:
    """Number of two-qubit gates, and of those on the longest path."""
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1]) - rows[:, 1]
    depth = np.zeros(circuit.num_qubits, np.int64)
    places = np.flatnonzero((rows[:, 1] == 2) & (rows[:, 0] >= UNITARY)).tolist()
    for k in places:
        pair = circuit.qubits[begins[k] : begins[k] + 2].astype(np.int64)
        depth[pair] = depth[pair].max() + 1
    return len(places), int(depth.max(initial=0))


UNIFORM, IDEAL, REPEAT, CEILING = "uniform", "ideal", "repeat", "ceiling"

_PARITY_POINTS = 4000
WIDE_BITS = 8  # most bits of a circuit whose outcomes are judged by HF alone
MARGINAL_BITS = 5


class ScoreRow(msgspec.Struct, frozen=True):
    """One run. Fidelities and distances by model; nan where a model has no distribution."""

    name: str
    body: str
    is_test: bool
    time_s: float
    shots: int
    bits: int  # measured
    qubits: int  # used
    two_qubit_gates: int
    depth: int  # two-qubit gates on the longest path
    how: str  # method that gave the distribution
    hf: dict[str, float]
    tvd: dict[str, float]
    log_likelihood: dict[str, float]  # natural, of a shot
    expected: dict[str, float]  # what each model expects of it for its own counts
    marginal_hf: dict[str, float]  # of circuits with more than WIDE_BITS measured bits
    kl_divergence: dict[str, float]  # log-likelihood below its ceiling; nan where that is not known


class Score(msgspec.Struct, frozen=True, eq=False):
    """All rows, and points (predicted, measured) of each model for parity plots."""

    models: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    parity: dict[str, NDArray[np.float64]]  # [points, 2]
    not_judged: int  # runs whose circuits are too wide

    def part(self, *, test: bool) -> Score:
        """Rows of one side of the split."""
        rows = tuple(row for row in self.rows if row.is_test == test)
        return msgspec.structs.replace(self, rows=rows)

    def summary(self, model: str, field: str = "hf") -> Summary | None:
        """Statistics of one model over all rows."""
        values = [getattr(row, field).get(model, math.nan) for row in self.rows]
        return summary(values, [row.body for row in self.rows])


class Model(Protocol):
    """Model that predicts the distribution of a measured circuit; None: it cannot."""

    def prediction(self, record: CountsRecord) -> Prediction | None: ...


def score(
    data: CountsData,
    models: Mapping[str, Model],
    ideal: Callable[[CountsRecord], dict[int, float] | None],
    note: Callable[[str], None] = lambda _: None,
) -> Score:
    """Score each model on all runs; the first one gives the ceiling and the widths."""
    rows: list[ScoreRow] = []
    parity: dict[str, list[NDArray[np.float64]]] = {name: [] for name in models}
    ceilings: dict[tuple[int, int], float] = {}
    skipped = 0
    for record, repeat in with_repeats(data.records):
        entries = {name: each.prediction(record) for name, each in models.items()}
        first = next((each for each in entries.values() if each is not None), None)
        if first is None:
            skipped += 1
            continue
        agreement = _Agreement(record, first)
        for name, each in entries.items():
            if each is not None:
                pairs = agreement.add(name, _table(each))
                if len(parity[name]) < _PARITY_POINTS:
                    parity[name].append(pairs[:64])
        for name, table in _references(ideal(record), repeat):
            agreement.add(name, table)
        key = (id(first), record.shots)
        if key not in ceilings:
            ceilings[key] = judge.ceiling(first.probabilities, record.shots)
        agreement.hf[CEILING] = ceilings[key]
        agreement.add_uniform()
        rows.append(agreement.row())
    note(f"{len(rows)} runs judged, {skipped} too wide")
    points = {
        name: np.concatenate(entries) if entries else np.zeros((0, 2))
        for name, entries in parity.items()
    }
    return Score(tuple(models), tuple(rows), points, skipped)


class _Agreement:
    """Agreement of models with the counts of one run. `prediction`: any model's."""

    def __init__(self, record: CountsRecord, prediction: Prediction) -> None:
        self._record = record
        self._prediction = prediction
        self._measured = {x: count / record.shots for x, count in record.counts.items()}
        self.hf: dict[str, float] = {}
        self._tvd: dict[str, float] = {}
        self._log_likelihood: dict[str, float] = {}
        self._expected: dict[str, float] = {}
        self._marginal_hf: dict[str, float] = {}

    def add(self, name: str, table: Mapping[int, float]) -> NDArray[np.float64]:
        """Judge a model by its distribution; return predicted and measured frequencies."""
        shots, num_bits = self._record.shots, self._prediction.num_bits
        pairs = aligned(table, self._measured)
        p, q = pairs.T
        self.hf[name] = judge.fidelity(judge.loss(p, q, shots))
        self._tvd[name] = judge.variation_distance(p, q)
        self._log_likelihood[name] = judge.log_likelihood(p, q, num_bits)
        self._expected[name] = judge.expected_log_likelihood(p, num_bits)
        if num_bits > WIDE_BITS:
            bits = measured_bits(self._prediction)
            self._marginal_hf[name] = _marginal_fidelity(table, self._measured, bits, shots)
        return pairs

    def add_uniform(self) -> None:
        """Judge the uniform distribution, without its 2^bits entries."""
        shots, num_bits = self._record.shots, self._prediction.num_bits
        q = np.array(list(self._measured.values()))
        each = 2.0**-num_bits
        unseen = judge.loss(np.array([each]), np.zeros(1), shots) * (2.0**num_bits - len(q))
        seen = judge.loss(np.full(len(q), each), q, shots)
        self.hf[UNIFORM] = judge.fidelity(seen + unseen)
        self._tvd[UNIFORM] = 0.5 * float(np.abs(q - each).sum() + 1.0 - len(q) * each)
        self._log_likelihood[UNIFORM] = self._expected[UNIFORM] = -num_bits * math.log(2.0)

    def row(self) -> ScoreRow:
        """Row of the run."""
        record, first = self._record, self._prediction
        best = judge.log_likelihood_ceiling(np.array([*self._measured.values()]), record.shots)
        divergence = {model: best - value for model, value in self._log_likelihood.items()}
        self._log_likelihood[CEILING] = best
        return ScoreRow(
            record.name, record.body, record.is_test, record.time_s, record.shots, first.num_bits,
            first.num_qubits, first.two_qubit_gates, first.depth, first.how, self.hf, self._tvd,
            self._log_likelihood, self._expected, self._marginal_hf, divergence,
        )  # fmt: skip


def measured_bits(prediction: Prediction) -> list[int]:
    """Measured clbits of a circuit: those that are 1 in some outcome."""
    union = 0
    for outcome in prediction.outcomes.tolist():
        union |= outcome
    return [k for k in range(union.bit_length()) if union >> k & 1]


def _marginal_fidelity(
    first: Mapping[int, float], second: Mapping[int, float], bits: Sequence[int], shots: int
) -> float:
    """Mean fidelity of the marginals of MARGINAL_BITS neighbouring bits."""
    pairs = zip(_marginals(first, bits), _marginals(second, bits), strict=True)
    return float(np.mean([judge.fidelity(judge.loss(p, q, shots)) for p, q in pairs]))


def _marginals(table: Mapping[int, float], bits: Sequence[int]) -> list[NDArray[np.float64]]:
    """Distributions of each MARGINAL_BITS neighbouring bits."""
    size = bits[-1] // 8 + 1
    packed = b"".join(outcome.to_bytes(size, "little") for outcome in table)
    values = np.frombuffer(packed, np.uint8).reshape(-1, size)
    ones = np.unpackbits(values, axis=1, bitorder="little")[:, list(bits)]
    weights = np.fromiter(table.values(), np.float64)
    powers = 1 << np.arange(MARGINAL_BITS)
    results = []
    for begin in range(len(bits) - MARGINAL_BITS + 1):
        number = ones[:, begin : begin + MARGINAL_BITS] @ powers
        results.append(np.bincount(number, weights, 1 << MARGINAL_BITS).astype(np.float64))
    return results


def fidelity(prediction: Prediction, record: CountsRecord) -> float:
    """Fidelity of a prediction to the counts of a run; see `judge`."""
    measured = {x: count / record.shots for x, count in record.counts.items()}
    p, q = aligned(_table(prediction), measured).T
    return judge.fidelity(judge.loss(p, q, record.shots))


def _references(
    ideal: dict[int, float] | None, repeat: CountsRecord | None
) -> Iterator[tuple[str, dict[int, float]]]:
    if ideal is not None:
        yield IDEAL, ideal
    if repeat is not None:
        yield REPEAT, {x: count / repeat.shots for x, count in repeat.counts.items()}


def _table(prediction: Prediction) -> dict[int, float]:
    return dict(zip(prediction.outcomes.tolist(), prediction.probabilities.tolist(), strict=True))


def aligned(first: Mapping[int, float], second: Mapping[int, float]) -> NDArray[np.float64]:
    """Both distributions over the outcomes of either: [outcomes, 2]."""
    keys = [*first, *(key for key in second if key not in first)]
    return np.array([(first.get(key, 0.0), second.get(key, 0.0)) for key in keys], np.float64)


def with_repeats(
    records: Sequence[CountsRecord],
) -> Iterator[tuple[CountsRecord, CountsRecord | None]]:
    """Each record with another run of its circuit: the next one, or for the last the one before."""
    runs: dict[tuple[str, tuple[int, ...], int], list[CountsRecord]] = {}
    for record in records:
        runs.setdefault((record.source.text, record.layout, record.level), []).append(record)
    others: dict[int, CountsRecord | None] = {}
    for same in runs.values():
        same.sort(key=lambda each: each.time_s)
        for k, record in enumerate(same):
            other = same[k + 1] if k + 1 < len(same) else same[k - 1]
            others[id(record)] = other if len(same) > 1 else None
    for record in records:
        yield record, others[id(record)]


MAX_QUBITS = 20


class IdealDistributions:
    """Cache of ideal distributions: equal circuits are computed once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, float] | None] = {}

    def __call__(self, record: CountsRecord) -> dict[int, float] | None:
        """Probability by outcome; None for a circuit that is too wide or cannot be simulated
        exactly."""
        key = record.source.text
        if key not in self._known:
            self._known[key] = _computed(record)
        return self._known[key]


def _computed(record: CountsRecord) -> dict[int, float] | None:
    circuit = Circuit.from_program(record.source.loaded.program)
    if np.unique(circuit.qubits).size > MAX_QUBITS:
        return None
    try:
        result = simulate(circuit, outputs=("probabilities",), shots=0).row(0)
    except EngineError:
        return None
    return _probabilities(result)


def _probabilities(result: BindingResult) -> dict[int, float]:
    """Probability by outcome of an exact result."""
    width = result.probability_width
    values = np.frombuffer(result.probabilities, np.float64).tolist()
    keys = range(0, len(result.probability_outcomes), max(width, 1))
    return {
        int.from_bytes(result.probability_outcomes[at : at + width], "little"): value
        for at, value in zip(keys, values, strict=True)
    }


class SeriesPredictor(Predictor):
    """Predictor with a series of snapshots, each in force from its date on; the first one also
    before it. A circuit without a date is predicted by `default`."""

    def __init__(
        self,
        default: CalibrationSnapshot,
        series: Sequence[CalibrationSnapshot],
        most_work: int = 0,
    ) -> None:
        """Set up; each snapshot of `series` has a date. Raises ValueError for an invalid date."""
        super().__init__(default, most_work=most_work)
        pairs = ((moment_s(each.calibrated), each) for each in series)
        dated = sorted(pairs, key=lambda pair: pair[0])
        self._begins = [begin_s for begin_s, _ in dated]
        self._members = [Predictor(each, most_work=most_work) for _, each in dated]

    def prediction(self, record: CountsRecord) -> Prediction | None:
        """Prediction for a record's circuit by the snapshot of its date."""
        if not self._members or record.time_s != record.time_s:
            return super().prediction(record)
        place = max(bisect_right(self._begins, record.time_s) - 1, 0)
        return self._members[place].prediction(record)
