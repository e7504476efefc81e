"""Checks of measured counts against a calibration, before a fit.

Counts whose bits are in another order, that belong to other circuits, or that were measured on
other qubits than the file says can be fitted, but the result says nothing. Each check compares the
predictions of the calibration as the file has them with the same predictions of such a mistake: of
whole outcomes, or of WINDOW_BITS bits each for circuits with more than _MOST_BITS (`Sample`). It
needs a difference that is large beside what shots and a wrong calibration explain: a calibration
that is merely old passes. Other numbers of the qubits are compared by what a fit needs to change
under each numbering (`_relabelled`), without another prediction.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import networkx
import numpy as np
from numpy.typing import NDArray

from noise_models.build import build as noise_model
from noise_models.calibration import CalibrationSnapshot, LayerCalibration, LayerGate
from noise_models.channel import Readout
from noise_models.options import NoiseOptions
from simenv.calibration import accept, judge, plausibility
from simenv.calibration.data import CountsData, CountsRecord
from simenv.calibration.fit import components as fit_parts, solve
from simenv.calibration.fit.components import Component
from simenv.calibration.fit.identify import LikelihoodFit
from simenv.calibration.fit.observations import (
    DeviceCompiler,
    Distributions,
    histogram,
    observe,
)
from simenv.calibration.fit.solve import FitProblem, NormalBlock, Prior
from simenv.calibration.score import Prediction, Predictor, measured_bits
from simenv.worker.noise import gates_of
from simulators.circuit.analysis.measurements import measurement_layout

LEAST_SHOTS = 750  # of all circuits together
MOST_CIRCUITS = 60  # that are compared
_MOST_BITS = 10  # of circuits that are compared by whole outcomes
WINDOW_BITS = 5
_MOST_SAMPLED = 8  # wide circuits whose predictions are sampled
_SAMPLES = 2**12
_NORMAL = 2.326  # standard errors of a 99 % bound
_MOST_SAMPLED_QUBITS = 16
_LEAST_CIRCUITS = 2  # different ones, for a comparison of rows
_LEAST_APART = 0.05  # squared Hellinger distance of predictions that tell circuits apart
_LEAST_EXPECTED = 0.02  # of fidelity, by which right counts would tell the circuits apart
_LEAST_TOLD = 0.2  # of the difference between circuits that right counts would show
_LEAST_EXPECTED_SHOTS = 50.0  # of outcomes that no shot has
_ORDER_GAIN = 0.02  # of mean fidelity, by another order of bits
_ORDER_SHARE = 0.7  # of what the fidelity lacks to its ceiling, by another order
_MOST_GROUPS = 4  # sets of clbits whose order is searched
_LEAST_ERRORS = 5.0  # standard errors by shots, of a difference on few bodies
_LEAST_COPIED = 1e-9  # chance of rows with equal counts
_SMALL_COUNT = 100  # below which the multiples of a factor are told from others
_ROUNDING = 1e-6  # of a multiple
_LEAST_LOG_ODDS = 16.0  # for a factor of all counts
_LEAST_FREE = 16  # counts that do not follow from the others of their circuit, for a divisor
_LEAST_BIASED = 0.1  # of a predicted bit, from 1/2
_LEAST_SLOPE = 0.1  # of measured bits over predicted ones
_LEAST_NOISE = 1.0 / plausibility.LARGEST_FACTOR  # of the errors that the calibration predicts
_LEAST_QUBITS = 2  # whose readout is judged together: that of one alone may have improved
_LEAST_CONTRAST = 0.1  # 1 - p01 - p10 of a readout whose errors can be taken back
_MOST_UNIFORM = 0.01  # of the counts, beside what a fit explains
_LEAST_MISSING = 5.0  # outcomes with few shots that are expected and missing, beyond two a row
_LEAST_SCATTER = 0.5  # of the variance that shots have
_LEAST_SCATTERED = 40.0  # outcomes, beyond the unknowns of the fit
_MOST_RELABELLED = 200  # other numberings of the qubits
_MOST_REFITTED = 30  # circuits of the fit by which they are compared
_REFIT_STEPS = 4
# Widths of the changes since a calibration, common and own: as of yesterday to long ago.
_WIDTHS = (0.5, 0.3), (0.5, 0.45), (0.7, 0.7), (1.0, 1.0), (1.5, 1.5)
_LEAST_EVIDENCE = 5.5  # twice the logarithm of the odds of other numbers


class Sample(msgspec.Struct, frozen=True, eq=False):
    """Bits of a circuit with their predicted distribution and measured frequencies, [2^bits]."""

    record: CountsRecord
    predicted: NDArray[np.float64]
    measured: NDArray[np.float64]
    bits: tuple[int, ...]  # clbits

    def fidelity(self, predicted: NDArray[np.float64]) -> float:
        """Fidelity of a prediction to the counts."""
        return judge.fidelity(judge.loss(predicted, self.measured, self.record.shots))

    @property
    def own(self) -> float:
        """Fidelity of the prediction for this circuit."""
        return self.fidelity(self.predicted)

    @property
    def ceiling(self) -> float:
        """Fidelity that a right prediction would have."""
        return judge.ceiling(self.predicted, self.record.shots)


def problem(records: Sequence[CountsRecord], snapshot: CalibrationSnapshot, most_work: int) -> str:
    """What is wrong with the data, in one sentence; "": nothing was found. `most_work`: of one
    prediction (`Predictor`)."""
    shots = sum(record.shots for record in records)
    if shots < LEAST_SHOTS:
        return f"{shots} shots in all are too few for a fit: at least {LEAST_SHOTS}"
    if found := _unfit(records, snapshot) or _divisor(records) or _copied(records):
        return found
    compiler = DeviceCompiler(snapshot)
    predictor = Predictor(snapshot, compiler=compiler, most_work=most_work)
    circuits = accept.held_out_circuits(records, [0] * len(records), {})
    chosen = np.linspace(0, len(circuits) - 1, min(len(circuits), MOST_CIRCUITS)).astype(int)
    sampler = Predictor(snapshot, compiler=compiler, samples=_SAMPLES)
    noiseless = Predictor(snapshot, NoiseOptions.parse("off"), compiler, most_work)
    readout = noise_model(snapshot).readout()
    samples, wide, sampled, ideal, read = [], [], 0, [], []
    for k in chosen.tolist():
        record = circuits[k].record
        prediction = predictor.prediction(record)
        if prediction is None and sampled < _MOST_SAMPLED:
            qubits = np.unique(compiler.run_of(record).circuit.qubits)
            if len(qubits) <= _MOST_SAMPLED_QUBITS:
                sampled += 1
                prediction = sampler.prediction(record)
        if prediction is not None and prediction.num_bits > _MOST_BITS:
            wide.append(_WideSample.of(record, prediction))
        elif prediction is not None:
            samples.append(_sample(record, prediction))
            exact = None if prediction.samples else noiseless.prediction(record)
            if exact is not None:
                ideal.append((samples[-1], _sample(record, exact)))
                if readout is not None:
                    read.append(_ReadSample.of(*ideal[-1], compiler, readout))
    windows = [each for circuit in wide for each in circuit.windows()]
    return (
        _constant([*samples, *windows], snapshot, compiler, most_work)
        or _order(samples)
        or _usual_order(samples, wide)
        or _rows([*samples, *windows])
        or _independent([*samples, *windows])
        or _noiseless(ideal)
        or _readout_free(read)
        or (_relabelled(samples, snapshot, compiler) if samples else "")
    )


def _sample(record: CountsRecord, prediction: Prediction) -> Sample:
    bits = tuple(measured_bits(prediction))
    measured = histogram(record.counts, bits) / record.shots
    return Sample(record, _of_bits(prediction, bits), measured, bits)


def _of_bits(prediction: Prediction, bits: Sequence[int]) -> NDArray[np.float64]:
    """Predicted distribution of some clbits, [2^bits]."""
    ones = _ones(prediction.outcomes.tolist(), bits)
    return _marginal(ones, prediction.probabilities)


class _WideSample(msgspec.Struct, frozen=True, eq=False):
    """Circuit with many bits: outcomes [k, bits] with their weights, predicted and measured."""

    record: CountsRecord
    bits: tuple[int, ...]
    predicted: tuple[NDArray[np.uint8], NDArray[np.float64]]
    measured: tuple[NDArray[np.uint8], NDArray[np.float64]]

    @staticmethod
    def of(record: CountsRecord, prediction: Prediction) -> _WideSample:
        bits = measured_bits(prediction)
        counts = np.array(list(record.counts.values()), np.float64)
        return _WideSample(
            record,
            tuple(bits),
            (_ones(prediction.outcomes.tolist(), bits), prediction.probabilities),
            (_ones(list(record.counts), bits), counts / record.shots),
        )

    def windows(self, order: Sequence[int] | None = None, flips: int = 0) -> list[Sample]:
        """Neighbouring bits, if bit k of the counts is bit order[k] of the circuit, inverted where
        `flips` has bit k."""
        count = len(self.bits)
        sources = list(order or range(count))
        ones, weights = self.predicted
        results = []
        for begin in [*range(0, count - WINDOW_BITS, WINDOW_BITS), count - WINDOW_BITS]:
            places = list(range(begin, begin + WINDOW_BITS))
            turned = np.array([flips >> k & 1 for k in places], np.uint8)
            predicted = _marginal(ones[:, [sources[k] for k in places]] ^ turned, weights)
            measured = _marginal(self.measured[0][:, places], self.measured[1])
            bits = tuple(self.bits[k] for k in places)
            results.append(Sample(self.record, predicted, measured, bits))
        return results


def _ones(outcomes: Sequence[int], bits: Sequence[int]) -> NDArray[np.uint8]:
    return np.array([[outcome >> bit & 1 for bit in bits] for outcome in outcomes], np.uint8)


def _marginal(ones: NDArray[np.uint8], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    number = ones.astype(np.int64) @ (1 << np.arange(ones.shape[1]))
    return np.bincount(number, weights, 1 << ones.shape[1]).astype(np.float64)


def _unfit(records: Sequence[CountsRecord], snapshot: CalibrationSnapshot) -> str:
    """Native circuits that use pairs which the device does not couple."""
    natives = {gate.name for gate in snapshot.native_gates}
    coupled = {frozenset(pair) for pair in snapshot.coupling}
    if not coupled or not natives:
        return ""
    wrong: dict[tuple[int, ...], CountsRecord] = {}
    for record in records:
        gates = gates_of(record.source.loaded.program)
        if record.level > 0 and not record.layout:
            continue  # the compiler chose the qubits
        if any(name not in natives for name, _ in gates):
            if record.layout:
                continue
            return ""  # written for any device
        for _, qubits in gates:
            placed = tuple(record.layout[q] for q in qubits) if record.layout else qubits
            if len(placed) == 2 and frozenset(placed) not in coupled:
                wrong.setdefault(tuple(sorted(placed)), record)
    if not wrong:
        return ""
    pairs = ", ".join("-".join(map(str, pair)) for pair in sorted(wrong)[:8])
    first = next(iter(wrong.values()))
    return (
        f"circuits of native gates use pairs of qubits that {snapshot.name} does not couple:"
        f" {pairs} ({first.label}); they ran on another device, or on qubits of other numbers"
    )


def _mean(values: Sequence[float], samples: Sequence[Sample]) -> accept.Interval:
    bodies = [each.record.body for each in samples]
    return accept.interval(np.array(values), np.ones(len(values), np.int64), bodies)


def _is_certain(before: Sequence[Sample], after: Sequence[Sample]) -> bool:
    """Return whether the second predictions fit better beyond chance: by an interval over bodies;
    few bodies must each fit better, and together beyond shot noise."""
    change = np.array([b.own - a.own for a, b in zip(before, after, strict=True)])
    _, number = np.unique([each.record.body for each in before], return_inverse=True)
    sums = np.bincount(number, change)
    if len(sums) >= accept.LEAST_FLIPPED:
        return _mean(change.tolist(), before).is_above
    variance = sum(
        _apart(a.predicted, b.predicted) / a.record.shots
        for a, b in zip(before, after, strict=True)
    )
    return bool((sums > 0.0).all()) and float(change.sum()) > _LEAST_ERRORS * math.sqrt(variance)


def _is_explained(before: Sequence[Sample], after: Sequence[Sample]) -> bool:
    """Return whether a mistake explains most of what the calibration lacks, beyond chance."""
    own, other = (float(np.mean([each.own for each in group])) for group in (before, after))
    lacking = float(np.mean([each.ceiling for each in before])) - own
    if other - own < max(_ORDER_GAIN, _ORDER_SHARE * lacking):
        return False
    return _is_certain(before, after)


_UNREAD = NoiseOptions.parse(
    dict.fromkeys(("qubit.readout", "qubit.correlated_readout", "qubit.preparation"), 0.0)
)


def _constant(
    samples: Sequence[Sample],
    snapshot: CalibrationSnapshot,
    compiler: DeviceCompiler,
    most_work: int,
) -> str:
    """Bits that are the same in all shots, or equal to another one in all shots, where the circuits
    and the errors of their gates do not say so. Errors of readout and preparation alone are no
    reason to expect an outcome: those of an idle qubit may be far less than calibrated."""
    found = _unseen(samples, [each.predicted for each in samples])
    if not found:
        return ""
    exact = Predictor(snapshot, _UNREAD, compiler, most_work)
    sampler = Predictor(snapshot, _UNREAD, compiler, samples=_SAMPLES)
    predicted = []
    for each in samples:
        prediction = exact.prediction(each.record) or sampler.prediction(each.record)
        predicted.append(each.predicted if prediction is None else _of_bits(prediction, each.bits))
    return _unseen(samples, predicted)


def _unseen(samples: Sequence[Sample], predicted: Sequence[NDArray[np.float64]]) -> str:
    """First bit or pair of bits without an outcome that these predictions expect; "": none."""
    expected: dict[str, float] = {}
    seen: set[str] = set()
    for each, distribution in zip(samples, predicted, strict=True):
        shots, size = each.record.shots, len(each.bits)
        outcomes = np.arange(1 << size)
        bits = [outcomes >> k & 1 == 1 for k in range(size)]
        sides = [
            (f"clbit {each.bits[k]} is never {b}", bits[k] == b)
            for k in range(size)
            for b in (0, 1)
        ]
        sides += [
            (f"clbits {each.bits[a]} and {each.bits[b]} never differ", bits[a] != bits[b])
            for a, b in itertools.combinations(range(size), 2)
        ]
        for text, place in sides:
            if each.measured[place].any():
                seen.add(text)
            expected[text] = expected.get(text, 0.0) + shots * float(distribution[place].sum())
    for text, number in expected.items():
        if text not in seen and number > _LEAST_EXPECTED_SHOTS:
            return f"{text} in the counts, where the calibration expects {number:.0f} shots"
    return ""


def _divisor(records: Sequence[CountsRecord]) -> str:
    """Common divisor of all counts, which numbers of shots do not have by chance."""
    divisor = math.gcd(*(count for record in records for count in record.counts.values()))
    free = sum(len(record.counts) - 1 for record in records)
    if free < _LEAST_FREE:
        return ""
    if divisor == 1:
        return _scaled(records)
    return (
        f"all counts are multiples of {divisor:,}: they are not numbers of shots, which the"
        " intervals of a fit follow from"
    )


def _scaled(records: Sequence[CountsRecord]) -> str:
    """Factor by which all counts were multiplied before they were rounded: numbers of shots are not
    multiples of any. Each of its small multiples is there by chance as often as others."""
    small = {n for record in records for n in record.counts.values() if n <= _SMALL_COUNT}
    for factor in np.arange(1.5, 12.0, 0.01).tolist():
        products = factor * np.arange(1, _SMALL_COUNT)
        either = np.rint([products - _ROUNDING, products + _ROUNDING])  # halves in both directions
        for rounded in (either, np.floor(products + _ROUNDING)):
            members = set(rounded[rounded <= _SMALL_COUNT].astype(int).tolist())
            odds = len(small) * math.log(_SMALL_COUNT / len(members))
            if odds > _LEAST_LOG_ODDS and small <= members:
                return (
                    f"all counts are multiples of about {factor:.3g}, rounded: they are not numbers"
                    " of shots, which the intervals of a fit follow from"
                )
    return ""


def _copied(records: Sequence[CountsRecord]) -> str:
    """Rows of one circuit with equal counts of all outcomes, which runs have by chance too rarely.
    Two counts of mean n are equal with the probability (4 pi n)^-1/2."""
    groups: dict[tuple[object, ...], list[CountsRecord]] = {}
    runs: Counter[tuple[object, ...]] = Counter()
    for each in records:
        circuit = (each.source.text, each.layout, each.level)
        runs[circuit] += 1
        groups.setdefault((*circuit, frozenset(each.counts.items())), []).append(each)
    for key, equal in groups.items():
        if len(equal) < 2:
            continue
        free = sorted(equal[0].counts.values())[:-1]  # the last one follows from the shots
        chance = -0.5 * sum(math.log(4.0 * math.pi * count) for count in free)
        number = math.log(runs[key[:-1]]) * len(equal)  # ways to choose the rows, at most
        if chance * (len(equal) - 1) + number < math.log(_LEAST_COPIED):
            return (
                f"{len(equal)} rows have equal counts of all {len(free) + 1} outcomes, which runs"
                f" of a circuit have by chance too rarely: {equal[0].label} and {equal[1].label};"
                " copies are no further measurements"
            )
    return ""


def _independent(samples: Sequence[Sample]) -> str:
    """Bits that are 0 as often as 1 in all circuits, whatever is predicted for them."""
    found: dict[int, list[tuple[float, float, int, str]]] = {}
    for each in samples:
        outcomes = np.arange(len(each.predicted))
        for k, bit in enumerate(each.bits):
            is_one = outcomes >> k & 1 == 1
            predicted, measured = (
                float(x[is_one].sum()) - 0.5 for x in (each.predicted, each.measured)
            )
            row = (predicted, measured, each.record.shots, each.record.body)
            found.setdefault(bit, []).append(row)
    for bit, rows in sorted(found.items()):
        p, q, shots = (np.array([row[k] for row in rows]) for k in range(3))
        biased = {row[3] for row in rows if abs(row[0]) > _LEAST_BIASED}
        weight = float(shots @ p**2)
        if len(biased) < _LEAST_CIRCUITS:
            continue
        slope = float(shots @ (p * q)) / weight
        is_even = float(shots @ q**2) < _LEAST_SLOPE**2 * weight + 0.75 * len(rows)
        if is_even and slope + 1.5 / math.sqrt(weight) < _LEAST_SLOPE:
            return (
                f"clbit {bit} is 0 as often as 1 in all circuits, where the calibration expects up"
                f" to {0.5 + float(np.abs(p).max()):.0%} of one of them: its records are of another"
                " qubit, or chance"
            )
    return ""


def _noiseless(samples: Sequence[tuple[Sample, Sample]]) -> str:
    """Counts of a simulator without noise: what the calibration changes in the distributions of the
    circuits is not there. Each sample has its prediction without noise beside it."""
    found = weight = 0.0
    for each, ideal in samples:
        change = each.predicted - ideal.predicted
        scale = each.record.shots * change / np.maximum(each.predicted, 1e-12)
        found += float(scale @ (each.measured - ideal.predicted))
        weight += float(scale @ change)
    if not weight:
        return ""
    part = found / weight
    own, other = (float(np.mean([pair[k].own for pair in samples])) for k in (0, 1))
    if other <= own or part + _NORMAL / math.sqrt(weight) >= _LEAST_NOISE:
        return ""
    return (
        f"the counts fit the circuits without noise better: mean fidelity {other:.3f} in place of"
        f" {own:.3f}, with {max(part, 0.0):.0%} of the errors that the calibration predicts; they"
        " are those of a simulator, or their errors were mitigated"
    )


class _ReadSample(msgspec.Struct, frozen=True, eq=False):
    """Circuit with the parts of its predicted distribution: that without noise, what the readout
    errors of each qubit change, and the rest of the noise, [1 + qubits, 2^bits]."""

    sample: Sample
    ideal: NDArray[np.float64]
    qubits: tuple[int, ...]
    parts: NDArray[np.float64]

    @staticmethod
    def of(
        sample: Sample, ideal: Sample, compiler: DeviceCompiler, readout: Readout
    ) -> _ReadSample:
        """Take the readout errors of one clbit back from the prediction, for each of them."""
        layout = measurement_layout(compiler.run_of(sample.record).circuit)
        bits, predicted = sample.bits, sample.predicted
        own: dict[int, NDArray[np.float64]] = {}
        for k, bit in enumerate(bits):
            qubit, operation = int(layout.source[bit]), int(layout.operations[bit])
            up, down = readout.flips(qubit, operation) if qubit >= 0 else (0.0, 0.0)
            contrast = 1.0 - up - down
            if up + down > 0.0 and contrast > _LEAST_CONTRAST:
                zeros, ones = predicted.reshape(-1, 2, 1 << k).transpose(1, 0, 2)
                moved = (up * zeros - down * ones) / contrast
                change = own.setdefault(qubit, np.zeros(len(predicted)))
                change += np.stack((-moved, moved), axis=1).reshape(-1)
        rest = predicted - ideal.predicted - sum(own.values())
        return _ReadSample(sample, ideal.predicted, tuple(own), np.array([rest, *own.values()]))


def _readout_free(samples: Sequence[_ReadSample]) -> str:
    """Counts whose readout errors were mitigated: those that the calibration predicts are not
    there, beside errors of gates of any size. Of the qubits, each may have improved alone."""
    qubits = sorted({qubit for each in samples for qubit in each.qubits})
    if len(qubits) < _LEAST_QUBITS:
        return ""
    size = 1 + len(qubits)
    matrix, right, square, outcomes = np.zeros((size, size)), np.zeros(size), 0.0, 0
    for each in samples:
        place = [0, *(1 + qubits.index(qubit) for qubit in each.qubits)]
        weights = each.sample.record.shots / np.maximum(each.sample.predicted, 1e-12)
        scaled, rest = each.parts * weights, each.sample.measured - each.ideal
        matrix[np.ix_(place, place)] += scaled @ each.parts.T
        right[place] += scaled @ rest
        square += float(weights @ rest**2)
        outcomes += len(rest) - 1

    def part(columns: NDArray[np.float64], number: int) -> tuple[float, float]:
        """Estimate of a part of the predicted change with its error, where the columns are the
        parts that are unknown."""
        inverse = np.linalg.pinv(columns.T @ matrix @ columns, hermitian=True)
        found = inverse @ (columns.T @ right)
        spread = max((square - float(found @ (columns.T @ right))) / max(outcomes, 1), 1.0)
        return float(found[number]), math.sqrt(max(float(inverse[number, number]) * spread, 0.0))

    def together(alone: Sequence[int]) -> NDArray[np.float64]:
        """Columns of gates, of the readout of each qubit in `alone`, and of that of all others."""
        own = np.eye(size)
        return np.column_stack((own[:, [0, *alone]], 1.0 - own[:, [0, *alone]].sum(axis=1)))

    value, error = part(together([]), 1)
    if value + _NORMAL * error >= _LEAST_NOISE:
        return ""
    for k in range(1, size):
        own, own_error = part(together([k]), 1)
        others, others_error = part(together([k]), 2)
        if max(own - _NORMAL * own_error, others + others_error) >= _LEAST_NOISE:
            return ""  # it is there on one qubit, or likely on those beside one that has improved
    return (
        f"the counts have {max(value, 0.0):.0%} of the readout errors that the calibration predicts"
        f" for qubits {', '.join(map(str, qubits))}, on each of them and beside errors of gates of"
        " any size: their readout errors were mitigated, or they are those of a simulator"
    )


def uniform(fit: LikelihoodFit) -> str:
    """Part of all counts that is uniform whatever the circuit, with the greatest likelihood beside
    all values of the device: errors of gates grow with the depth, those of readout are of single
    records and of pairs."""
    part = Component(fit_parts.UNIFORM, ())
    likelihood = fit.likelihood.with_unknown(part)
    gradient = np.append(np.zeros(len(fit.best.x)), 1.0)
    step = likelihood.at(np.append(fit.best.x, 0.0))
    low, _ = likelihood.ends(step, gradient, 0.0)  # the least deviance as a parabola
    if low[-1] <= _MOST_UNIFORM:
        return ""  # without the search for the greatest likelihood
    best = likelihood.maximum(likelihood.values(low)[: len(low)])
    low, _ = likelihood.ends(best, gradient, _NORMAL**2)
    if low[-1] <= _MOST_UNIFORM:
        return ""
    return (
        f"{best.x[-1]:.1%} of the counts are uniform over all outcomes, whatever the circuit (at"
        f" least {low[-1]:.1%}), which no errors of gates or readout explain"
    )


def smooth(blocks: Sequence[NormalBlock], shots: NDArray[np.int64], unknowns: int) -> str:
    """Counts that scatter less than shots do about a fit, such as rounded probabilities. `blocks`:
    of the fit at its `unknowns`, with the `shots` of each."""
    outcomes = sum(max(block.num_outcomes - 1.0, 0.0) for block in blocks)
    losses = np.array([block.loss for block in blocks])
    freedom = outcomes - unknowns
    if freedom < _LEAST_SCATTERED:
        return ""
    part = 4.0 * float(shots @ losses) / freedom
    if part >= _LEAST_SCATTER:
        return ""
    return (
        f"the counts scatter less than shots do: {part:.0%} of the variance about the fit; rounded"
        " probabilities, smoothed counts, or counts that were scaled down are no counts of shots"
    )


def incomplete(problem: FitProblem, values: NDArray[np.float64]) -> str:
    """Outcomes with few shots that are not in the counts: left out below a threshold, or beyond a
    number of outcomes. `values`: of the components of a fit, with which rare outcomes are as
    frequent as the errors of the counts make them.

    No outcome of a circuit has fewer shots than m, its least count. By the prediction, the expected
    number of outcomes with 1 to m - 1 shots is distributed as an exponential variable of mean 1 at
    most, so that their sum over circuits is about the number of circuits."""
    places = [each.place for each in problem.observations]
    channels = problem.distributions.channels(places, problem.components, values, derivatives=False)
    built = problem.distributions.outcomes(places, channels)
    total, least = 0.0, math.inf
    for each in problem.observations:
        counts = np.rint(each.frequencies * each.shots)
        smallest = float(counts[counts > 0.0].min())
        if smallest > 1.0:
            total += _between(each.shots * built[each.place].probabilities, smallest)
            least = min(least, smallest / each.shots)
    circuits = len(places)
    if total < 2.0 * circuits + _LEAST_MISSING:
        return ""
    return (
        f"outcomes with few shots are missing: {total:.0f} outcomes of {circuits} circuits are"
        " expected to have fewer shots than the rarest that is there (none has less than"
        f" {least:.2%} of a circuit's shots); counts above a threshold, or of the most frequent"
        " outcomes alone, are not those that were measured"
    )


def _between(means: NDArray[np.float64], smallest: float) -> float:
    """Expected number of outcomes with at least 1 and fewer than `smallest` shots, by the normal
    approximation of Poisson distributions."""
    means = np.maximum(means, 0.0)
    below = 0.5 * (1.0 + np.array([
        math.erf((smallest - 0.5 - mean) / math.sqrt(2.0 * mean + 1e-12)) for mean in means
    ]))  # fmt: skip
    return float(np.maximum(below - np.exp(-means), 0.0).sum())


def _usual_order(samples: Sequence[Sample], wide: Sequence[_WideSample]) -> str:
    """Usual mistakes of the order of bits, in circuits of all sets of clbits together."""
    before = [*samples, *(each for circuit in wide for each in circuit.windows())]
    if len({each.record.body for each in before}) < 2:
        return ""
    for text, (is_reversed, is_inverted) in _MISTAKES.items():
        after = []
        for each in samples:
            order, flips = _changed(len(each.bits), is_reversed, is_inverted)
            index = _moved(len(each.bits), order, flips)
            after.append(msgspec.structs.replace(each, predicted=each.predicted[index]))
        for circuit in wide:
            after += circuit.windows(*_changed(len(circuit.bits), is_reversed, is_inverted))
        if _is_explained(before, after):
            own, other = (np.mean([each.own for each in group]) for group in (before, after))
            return (
                f"the counts fit the circuits better with their bits {text}: mean fidelity"
                f" {other:.3f} in place of {own:.3f}"
            )
    return ""


_MISTAKES = {
    "in reverse order": (True, False),
    "inverted": (False, True),
    "in reverse order and inverted": (True, True),
}


def _changed(size: int, is_reversed: bool, is_inverted: bool) -> tuple[tuple[int, ...], int]:
    order = tuple(range(size))
    return order[::-1] if is_reversed else order, (1 << size) - 1 if is_inverted else 0


def _order(samples: Sequence[Sample]) -> str:
    """Order or inversion of the bits of circuits of one set of clbits, for the sets with the most
    and widest circuits."""
    groups = sorted(_alike(samples), key=lambda group: -len(group) * len(group[0].bits))
    for chosen in groups[:_MOST_GROUPS]:
        if len(chosen) > 1 and (found := _order_of(chosen[0].bits, chosen)):
            return found
    return ""


def _order_of(bits: tuple[int, ...], chosen: Sequence[Sample]) -> str:
    before = np.array([each.own for each in chosen])
    best: tuple[tuple[int, ...], int] = (tuple(range(len(bits))), 0)
    reached = before

    def tried(order: tuple[int, ...], flips: int) -> NDArray[np.float64]:
        index = _moved(len(bits), order, flips)
        return np.array([each.fidelity(each.predicted[index]) for each in chosen])

    improved = True
    while improved:
        improved = False
        for candidate in _neighbours(*best, len(bits)):
            values = tried(*candidate)
            if values.mean() > reached.mean() + 1e-9:
                best, reached, improved = candidate, values, True
    order, flips = best
    index = _moved(len(bits), order, flips)
    after = [msgspec.structs.replace(each, predicted=each.predicted[index]) for each in chosen]
    if not _is_explained(chosen, after):
        return ""
    texts = []
    if order != tuple(range(len(bits))):
        reverse = order == tuple(reversed(range(len(bits))))
        listed = ", ".join(str(bits[k]) for k in order)
        texts.append("in reverse order" if reverse else f"in the order of clbits {listed}")
    if flips:
        listed = ", ".join(str(bits[k]) for k in range(len(bits)) if flips >> k & 1)
        texts.append(f"with clbits {listed} inverted")
    return (
        f"the counts fit the circuits better with their bits {' and '.join(texts)}: mean fidelity"
        f" {reached.mean():.3f} in place of {before.mean():.3f}"
    )


def _neighbours(
    order: tuple[int, ...], flips: int, size: int
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Orders and inversions that differ by one change; first the usual mistakes."""
    yield tuple(reversed(order)), flips
    yield order, flips ^ ((1 << size) - 1)
    yield tuple(reversed(order)), flips ^ ((1 << size) - 1)
    for a, b in itertools.combinations(range(size), 2):
        changed = list(order)
        changed[a], changed[b] = changed[b], changed[a]
        yield tuple(changed), flips
        yield order, flips ^ (1 << a | 1 << b)
    for k in range(size):
        yield order, flips ^ (1 << k)
    for shift in range(1, size):
        yield order[shift:] + order[:shift], flips


def _moved(size: int, order: Sequence[int], flips: int) -> NDArray[np.int64]:
    """Index of the predicted outcome for each outcome as it was written: its bit k is bit order[k]
    of the circuit, inverted where `flips` has bit k."""
    written = np.arange(1 << size) ^ flips
    result = np.zeros(1 << size, np.int64)
    for k, source in enumerate(order):
        result |= (written >> k & 1) << source
    return result


def _rows(samples: Sequence[Sample]) -> str:
    """Rows whose counts are of another circuit, or of none."""
    told, expected, bodies = [], [], []
    elsewhere: list[tuple[Sample, str]] = []
    for group in _alike(samples):
        for k, each in enumerate(group):
            others = [
                other
                for other in group[k + 1 :] + group[:k]
                if _apart(other.predicted, each.predicted) > _LEAST_APART
            ]
            if not others:
                continue
            fidelities = [each.fidelity(other.predicted) for other in others]
            told.append(each.own - float(np.mean(fidelities)))
            shots = each.record.shots
            expected.append(each.ceiling - float(np.mean([
                judge.fidelity(
                    judge.expected_loss(each.predicted, shots)
                    + _apart(other.predicted, each.predicted)
                )
                for other in others
            ])))  # fmt: skip
            bodies.append(each.record.body)
            texts = [f"fit {other.record.label}" for other in others]
            for text, mistake in _MISTAKES.items():
                index = _moved(len(each.bits), *_changed(len(each.bits), *mistake))
                fidelities.append(each.fidelity(each.predicted[index]))
                texts.append(f"fit it with their bits {text}")
            best = int(np.argmax(fidelities))
            if each.own < each.ceiling - 0.2 and fidelities[best] > each.own + 0.15:
                elsewhere.append((each, texts[best]))
    if len(set(bodies)) < _LEAST_CIRCUITS or float(np.mean(expected)) < _LEAST_EXPECTED:
        return ""
    ratio = float(np.sum(told) / np.sum(expected))
    if ratio < _LEAST_TOLD and not _is_each_told(np.array(told), bodies):
        return (
            "the counts do not tell the circuits apart: they fit the prediction for their own"
            f" circuit as well as for others ({ratio:.0%} of the difference that is expected);"
            " rows in another order, or counts of noise alone"
        )
    least = 1.0 if len(set(bodies)) < accept.LEAST_FLIPPED else max(2.0, 0.1 * len(told))
    if len(elsewhere) >= least:
        each, text = elsewhere[0]
        return (
            f"the counts of {len(elsewhere)} of {len(told)} circuits fit another circuit, or"
            f" another order of bits, better: those of {each.record.label} {text}"
        )
    return ""


def _is_each_told(told: NDArray[np.float64], bodies: Sequence[str]) -> bool:
    """Return whether the circuits fit their own predictions better, though by little: the errors of
    the device are much larger than calibrated."""
    found = accept.interval(told, np.ones(len(told), np.int64), bodies)
    if len(set(bodies)) >= accept.LEAST_FLIPPED:
        return found.is_above
    return bool((told > 0.0).all()) and found.mean > _LEAST_EXPECTED * _LEAST_TOLD


def _alike(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples with the same clbits, in the order of the file."""
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for each in samples:
        groups.setdefault(each.bits, []).append(each)
    return list(groups.values())


def _apart(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Squared Hellinger distance 2 - 2 sum sqrt(p q)."""
    return float(2.0 - 2.0 * np.sqrt(np.maximum(p, 0.0) * np.maximum(q, 0.0)).sum())


def _relabelled(
    samples: Sequence[Sample], snapshot: CalibrationSnapshot, compiler: DeviceCompiler
) -> str:
    """Another numbering of the used qubits, with the same couplings, under which a fit changes the
    calibration much less. The counts are fitted once, without a narrow prior; the cost of the
    changes to the values of another qubit follows from the normal equations there. An old
    calibration says little about which qubit is which, and is no reason to refuse counts."""
    runs = [compiler.run_of(each.record) for each in samples]
    if any(run.was_placed for run in runs):
        return ""
    used = sorted({q for run in runs for q in run.circuit.qubits.tolist()})
    graph = networkx.Graph([pair for pair in snapshot.coupling if set(pair) <= set(used)])
    graph.add_nodes_from(used)
    found = networkx.vf2pp_all_isomorphisms(graph, graph)
    matches = list(itertools.islice(found, _MOST_RELABELLED))
    if len(matches) < 2:
        return ""
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), _MOST_REFITTED)).astype(int)
    records = tuple(samples[k].record for k in chosen.tolist())
    fit = _FreeFit.of(CountsData(records, snapshot.name), snapshot, compiler)
    if fit is None:
        return ""
    own, _ = fit.cost(snapshot)
    enough = _LEAST_EVIDENCE + 2.0 * math.log(len(matches))
    best, text = math.inf, ""
    for match in matches:
        moved = {qubit: match.get(qubit, qubit) for qubit in range(snapshot.num_qubits)}
        if all(key == value for key, value in moved.items()):
            continue
        cost, changes = fit.cost(_renumbered(snapshot, moved))
        if cost < best and own - cost > max(enough, min(changes, 2.0 * enough)):
            best = cost
            listed = ", ".join(f"{a} as {b}" for a, b in moved.items() if a != b)
            text = (
                "the counts fit the calibration better with other numbers of the qubits"
                f" ({listed}; {len(matches) - 1} numberings compared): twice the logarithm of the"
                f" odds is {own - cost:.0f}, and {changes:.0f} for the changes that remain"
            )
    return text


class _ChangePrior(msgspec.Struct, frozen=True, eq=False):
    """Normal distribution of the changes of all values since a calibration. `volume`: twice the
    logarithm of its width over that of what the counts leave open."""

    precision: NDArray[np.float64]
    volume: float

    @staticmethod
    def of(covariance: NDArray[np.float64], hessian: NDArray[np.float64]) -> _ChangePrior:
        own = np.eye(len(covariance))
        _, volume = np.linalg.slogdet(own + covariance @ hessian)
        return _ChangePrior(np.asarray(np.linalg.inv(covariance)), float(volume))


class _FreeFit(msgspec.Struct, frozen=True, eq=False):
    """Fit of a device's values, with the normal equations of the counts there."""

    components: tuple[fit_parts.Component, ...]
    logarithms: NDArray[np.float64]  # of the calibrated values
    values: NDArray[np.float64]
    hessian: NDArray[np.float64]
    gradient: NDArray[np.float64]
    priors: tuple[_ChangePrior, ...]  # by the age of the calibration

    @staticmethod
    def of(
        data: CountsData, snapshot: CalibrationSnapshot, compiler: DeviceCompiler
    ) -> _FreeFit | None:
        """None if no circuit is narrow enough, or none has a calibrated value."""
        distributions = Distributions(fit_parts.DeviceChannels(snapshot), compiler)
        observed = observe(data, distributions, [0] * len(data.records), pooled=False)
        if not observed.observations:
            return None
        places = [each.place for each in observed.observations]
        components = distributions.components(places, pooled=False)
        if not fit_parts.are_calibrated(components):
            return None
        problem = FitProblem(distributions, components, observed.observations)
        columns = problem.columns(Prior(_WIDTHS[0][0], 1.0))
        blocks = problem.blocks(np.zeros(len(components)))
        weights = solve.weights_of(problem.observations, blocks, robust=False)
        result = solve.solve(problem, columns, weights, max_steps=_REFIT_STEPS, blocks=blocks)
        weights = solve.weights_of(problem.observations, result.blocks, robust=False)
        hessian, gradient = solve.normal_equations(result.blocks, weights, len(components))
        factors = [k for k, each in enumerate(components) if each.qubits and each.kind in _FACTORS]
        place = np.ix_(factors, factors)
        kinds = [(components[k].kind, len(components[k].qubits)) for k in factors]
        same = np.array([[float(a == b) for b in kinds] for a in kinds])
        own = np.eye(len(factors))
        kept = tuple(components[k] for k in factors)
        return _FreeFit(
            kept, _logarithms(snapshot, kept), result.values[factors], hessian[place],
            gradient[factors], tuple(
                _ChangePrior.of(wide**2 * same + narrow**2 * own, hessian[place])
                for wide, narrow in _WIDTHS
            ),
        )  # fmt: skip

    def cost(self, snapshot: CalibrationSnapshot) -> tuple[float, float]:
        """-2 log p of the counts, up to a constant, with all changes of a calibration integrated
        out, at the age of the calibration that is best (its evidence; MacKay, Neural Computation 4,
        415, 1992), and the cost of the likeliest changes of a recent one."""
        beside = self.values - (_logarithms(snapshot, self.components) - self.logarithms)
        costs, by_changes = [], []
        for prior in self.priors:
            change = np.linalg.solve(
                self.hessian + prior.precision, self.hessian @ beside - self.gradient
            )
            rest = change - beside
            by_changes.append(float(change @ prior.precision @ change))
            by_counts = float(rest @ self.hessian @ rest + 2.0 * self.gradient @ rest)
            costs.append(by_counts + by_changes[-1] + prior.volume)
        return min(costs), by_changes[0]


_FACTORS = (
    *(fit_parts.RELAXATION, fit_parts.DEPHASING, fit_parts.ERROR, fit_parts.P01, fit_parts.P10),
)
_LEAST_VALUE = 1e-4  # relative to 1, or of a rate to that of relaxation


def _logarithms(
    snapshot: CalibrationSnapshot, components: Sequence[fit_parts.Component]
) -> NDArray[np.float64]:
    """Logarithms of the calibrated values that components are factors of."""
    errors: dict[tuple[int, ...], list[float]] = {}
    for gate in snapshot.gates:
        if gate.error:
            errors.setdefault(tuple(sorted(gate.qubits)), []).append(math.log(gate.error))
    results = []
    for each in components:
        if each.kind == fit_parts.ERROR:
            known = errors.get(each.qubits) or errors.get(()) or [0.0]
            results.append(float(np.mean(known)))
            continue
        qubit = each.qubits[0]
        if each.kind in (fit_parts.P01, fit_parts.P10):
            flips = snapshot.qubits[qubit].confusion or (0.0, 0.0)
            results.append(math.log(max(flips[each.kind == fit_parts.P10], _LEAST_VALUE)))
            continue
        decay, dephasing = fit_parts.base_rates(snapshot, qubit)
        rate = decay if each.kind == fit_parts.RELAXATION else dephasing
        results.append(math.log(max(rate, 0.05 * decay, 1e-12)))
    return np.array(results)


def _renumbered(snapshot: CalibrationSnapshot, moved: dict[int, int]) -> CalibrationSnapshot:
    """Device whose qubit k has the values of qubit moved[k]."""
    back = {value: key for key, value in moved.items()}
    listed = {gate.qubits for gate in snapshot.gates} | {each.qubits for each in snapshot.zz}

    def place(qubits: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers of moved qubits, in the order in which the device lists them."""
        result = tuple(back[qubit] for qubit in qubits)
        return result if result in listed else result[::-1]

    def layer(learned: LayerCalibration) -> LayerCalibration:
        together = [(g.name, place(g.qubits)) for g in learned.gates]
        return msgspec.structs.replace(
            learned, qubits=tuple(back[qubit] for qubit in learned.qubits),
            gates=tuple(LayerGate(name, (pair[0], pair[1])) for name, pair in together),
            generators=tuple(
                msgspec.structs.replace(each, qubits=tuple(back[qubit] for qubit in each.qubits))
                for each in learned.generators
            ),
        )  # fmt: skip

    gates = tuple(msgspec.structs.replace(g, qubits=place(g.qubits)) for g in snapshot.gates)
    zz = tuple(msgspec.structs.replace(each, qubits=place(each.qubits)) for each in snapshot.zz)
    return msgspec.structs.replace(
        snapshot, qubits=tuple(snapshot.qubits[moved[k]] for k in range(snapshot.num_qubits)),
        gates=gates, zz=zz, correlated_readout=(), layers=tuple(map(layer, snapshot.layers)),
    )  # fmt: skip
