"""Checks of measured counts against a calibration, before a fit.

Counts whose bits are in another order, that belong to other circuits, or that were measured on
other qubits than the file says can be fitted, but the result says nothing. Each check compares the
predictions of the calibration as the file has them with the same predictions of such a mistake, on
the circuits whose distribution is exact (`Sample`). It needs a difference that is large beside what
shots and a wrong calibration explain: a calibration that is merely old passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec
import networkx
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot, LayerCalibration, LayerGate
from simenv.calibration import accept, judge
from simenv.calibration.data import CountsRecord
from simenv.calibration.fit.observations import DeviceCompiler, histogram
from simenv.calibration.score import Prediction, Predictor, measured_bits
from simenv.worker.noise import gates_of

LEAST_SHOTS = 750  # of all circuits together
MOST_CIRCUITS = 60  # that are compared
_MOST_BITS = 10
_LEAST_CIRCUITS = 4  # different ones, for a comparison of rows
_LEAST_APART = 0.05  # squared Hellinger distance of predictions that tell circuits apart
_LEAST_EXPECTED = 0.02  # of fidelity, by which right counts would tell the circuits apart
_LEAST_TOLD = 0.2  # of the difference between circuits that right counts would show
_ORDER_GAIN = 0.02  # of mean fidelity, by another order of bits
_ORDER_SHARE = 0.7  # of what the fidelity lacks to its ceiling, by another order
_RELABELLED_SHARE = 0.7  # of what the fidelity lacks to its ceiling, by other qubits
_RELABELLED_GAIN = 0.001  # of mean fidelity
_MOST_RELABELLED = 24


class Sample(msgspec.Struct, frozen=True, eq=False):
    """Circuit with its predicted distribution and its measured frequencies, both [2^bits]."""

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
    if found := _unfit(records, snapshot):
        return found
    compiler = DeviceCompiler(snapshot)
    predictor = Predictor(snapshot, compiler=compiler, most_work=most_work)
    circuits = accept.held_out_circuits(records, [0] * len(records), {})
    chosen = np.linspace(0, len(circuits) - 1, min(len(circuits), MOST_CIRCUITS)).astype(int)
    samples = [
        sample
        for k in chosen.tolist()
        if (sample := _sample(circuits[k].record, predictor.prediction(circuits[k].record)))
    ]
    if not samples:
        return ""
    return _order(samples) or _rows(samples) or _relabelled(samples, snapshot, compiler)


def _sample(record: CountsRecord, prediction: Prediction | None) -> Sample | None:
    if prediction is None or prediction.samples or prediction.num_bits > _MOST_BITS:
        return None
    bits = tuple(measured_bits(prediction))
    measured = histogram(record.counts, bits) / record.shots
    return Sample(record, prediction.probabilities, measured, bits)


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


def _order(samples: Sequence[Sample]) -> str:
    """Order or inversion of the bits of the widest circuits of one set of clbits."""
    bits = max((each.bits for each in samples), key=lambda b: (len(b), b))
    chosen = [each for each in samples if each.bits == bits]
    if len(chosen) < 2:
        return ""
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
    gained = _mean((reached - before).tolist(), chosen)
    lacking = float(np.mean([each.ceiling for each in chosen])) - float(before.mean())
    if not gained.is_above or gained.mean < max(_ORDER_GAIN, _ORDER_SHARE * lacking):
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
    elsewhere: list[tuple[Sample, Sample]] = []
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
            best = int(np.argmax(fidelities))
            if each.own < each.ceiling - 0.2 and fidelities[best] > each.own + 0.15:
                elsewhere.append((each, others[best]))
    if len(set(bodies)) < _LEAST_CIRCUITS or float(np.mean(expected)) < _LEAST_EXPECTED:
        return ""
    ratio = float(np.sum(told) / np.sum(expected))
    if ratio < _LEAST_TOLD:
        return (
            "the counts do not tell the circuits apart: they fit the prediction for their own"
            f" circuit as well as for others ({ratio:.0%} of the difference that is expected);"
            " rows in another order, or counts of noise alone"
        )
    if len(elsewhere) >= max(2, 0.1 * len(told)):
        each, other = elsewhere[0]
        return (
            f"the counts of {len(elsewhere)} of {len(told)} circuits fit another circuit better:"
            f" those of {each.record.label} fit {other.record.label}"
        )
    return ""


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
    """Another numbering of the used qubits, with the same couplings."""
    runs = [compiler.run_of(each.record) for each in samples]
    if any(run.was_placed for run in runs):
        return ""
    used = sorted({q for run in runs for q in run.circuit.qubits.tolist()})
    graph = networkx.Graph([pair for pair in snapshot.coupling if set(pair) <= set(used)])
    graph.add_nodes_from(used)
    own = [each.own for each in samples]
    lacking = float(np.mean([each.ceiling for each in samples])) - float(np.mean(own))
    matches = itertools.islice(networkx.vf2pp_all_isomorphisms(graph, graph), _MOST_RELABELLED)
    best, text = 0.0, ""
    for match in matches:
        moved = {qubit: match.get(qubit, qubit) for qubit in range(snapshot.num_qubits)}
        if all(key == value for key, value in moved.items()):
            continue
        predictor = Predictor(_renumbered(snapshot, moved), compiler=compiler)
        found = [predictor.prediction(each.record) for each in samples]
        values = [
            each.fidelity(prediction.probabilities) if prediction else mine
            for each, prediction, mine in zip(samples, found, own, strict=True)
        ]
        gained = _mean((np.array(values) - np.array(own)).tolist(), samples)
        least = max(best, _RELABELLED_GAIN, _RELABELLED_SHARE * lacking)
        if gained.is_above and gained.mean > least:
            best = gained.mean
            listed = ", ".join(f"{a} as {b}" for a, b in moved.items() if a != b)
            text = (
                "the counts fit the calibration better with other numbers of the qubits"
                f" ({listed}): mean fidelity higher by {gained.text}"
            )
    return text


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
