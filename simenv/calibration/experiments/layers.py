"""Decays of Paulis by layers: cycle benchmarking of gates that act at the same time.

Qubits begin in both eigenstates of a Pauli basis, have a layer an even number of times, and are
read in the same basis; the difference of the two has no part of readout errors that differ. Gates
that are their own inverse take a Pauli P to Q and back, so that the signal of P falls by f_P f_Q
with each two layers, whatever preparation and readout do (Erhard et al., arXiv 1902.08543). With
the rates of a Pauli-Lindblad error, -ln f_P is 2 times the sum of the rates of all generators that
anticommute with P. A decay is (-ln f_P - ln f_Q) / 2; the two parts cannot be told apart.
`recovered_rates` has the rates >= 0 that fit the decays of all Paulis on one qubit and on pairs of
neighbours best, with as much of P as of Q (van den Berg et al., arXiv 2201.09866).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import LayerCalibration, PauliGenerator
from noise_models.channel import from_unitary
from noise_models.layers import pauli_numbers
from simenv.calibration.experiments import plans, programs
from simenv.calibration.experiments.estimators import SIGNAL_ERRORS, Estimate

QUANTITY = "layer_decay"
_NAME = "layer "  # and the layer's number
_BASES = "XYZ"
_PARTS = 1.0, 4.0  # of the number of layers after which the median signal is 1 / e
_MOST_LAYERS = 1_000
_LEAST_DECAY = 1e-5
_ROUNDS = 2_000  # of coordinate descent
# Gates that are their own inverse; bit 0 is the first qubit.
_X, _Y = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]])
_IDLE, _SET = np.diag([1, 0]), np.diag([0, 1])
_SELF_INVERSE = {
    "cx": np.kron(np.eye(2), _IDLE) + np.kron(_X, _SET),
    "cy": np.kron(np.eye(2), _IDLE) + np.kron(_Y, _SET),
    "cz": np.diag([1, 1, 1, -1]),
    "ecr": (np.kron(np.eye(2), _X) - np.kron(_X, _Y)) / math.sqrt(2.0),
    "swap": np.eye(4)[[0, 2, 1, 3]],
}

PauliString = Mapping[int, int]  # number 1-3 (X, Y, Z) of each qubit on which it acts


def title(layer: LayerCalibration) -> str:
    """Gates of a layer, as `cz 0-1, cz 2-3`."""
    return ", ".join(layer.names)


def measurable(
    layers: Iterable[LayerCalibration], entangler: str, qubits: Iterable[int]
) -> tuple[LayerCalibration, ...]:
    """Layers on these qubits whose gates are all the entangling gate of the experiments, which is
    its own inverse; one for each set of gates."""
    results: dict[str, LayerCalibration] = {}
    tested = set(qubits)
    for each in layers:
        names = {gate.name for gate in each.gates}
        if names == {entangler} and entangler in _SELF_INVERSE and tested.issuperset(each.qubits):
            results.setdefault(title(each), each)
    return tuple(results.values())


def neighbours(layer: LayerCalibration) -> list[plans.Pair]:
    """Pairs of a layer's qubits that have a gate or a generator together."""
    pairs = [gate.qubits for gate in layer.gates]
    pairs += [(each.qubits[0], each.qubits[1]) for each in layer.generators if len(each.pauli) == 2]
    return sorted({(min(pair), max(pair)) for pair in pairs})


def decay(layer: LayerCalibration, pauli: PauliString) -> float:
    """Decay of a Pauli by a layer with its rates."""
    exponent = 0.0
    for string in (pauli, _after_gates(layer, pauli)):
        exponent += sum(each.rate for each in layer.generators if _anticommutes(each, string))
    return exponent


def _anticommutes(generator: PauliGenerator, pauli: PauliString) -> bool:
    numbers = pauli_numbers(generator.pauli)
    both = zip(generator.qubits, numbers, strict=True)
    return sum(pauli.get(qubit, number) not in (0, number) for qubit, number in both) % 2 == 1


def _after_gates(layer: LayerCalibration, pauli: PauliString) -> PauliString:
    """Pauli after the gates of a layer, without its sign."""
    result = dict(pauli)
    for gate in layer.gates:
        first, second = gate.qubits
        image = int(_images(gate.name)[result.get(first, 0) + 4 * result.get(second, 0)])
        result[first], result[second] = image & 3, image >> 2
    return {qubit: number for qubit, number in result.items() if number}


@functools.lru_cache(maxsize=64)
def _images(name: str) -> NDArray[np.int64]:
    """Number of the Pauli to which a gate on two qubits takes each of the 16."""
    ptm = from_unitary(np.asarray(_SELF_INVERSE[name], np.complex128)).ptm
    return np.asarray(np.abs(ptm).argmax(axis=0), np.int64)


def circuits(
    number: int,
    layer: LayerCalibration,
    alphabet: programs.NativeGateRows,
    num_qubits: int,
    shots: int,
) -> Iterable[plans.PlannedCircuit]:
    """Circuits of a layer: disjoint pairs of neighbours are prepared and read together, in each of
    9 bases and from each of 4 states, which share the shots. `arm`: number of the bases, plus 9
    times that of the state."""
    typical = sorted(decay(layer, each) for each in _strings(layer))
    middle = max(typical[len(typical) // 2], _LEAST_DECAY)
    depths = sorted({2 * max(1, round(min(part / middle, _MOST_LAYERS) / 2)) for part in _PARTS})
    rest = list(neighbours(layer))
    alone = sorted(set(layer.qubits).difference(*rest))
    while rest or alone:
        places: list[tuple[int, ...]] = [(qubit,) for qubit in alone]
        alone = []
        for pair in list(rest):
            if not any(set(pair) & set(place) for place in places):
                places.append(pair)
                rest.remove(pair)
        for depth, arm in itertools.product((0, *depths), range(36)):
            yield _circuit(number, layer, alphabet, num_qubits, places, depth, arm, -(-shots // 4))


def _circuit(
    number: int,
    layer: LayerCalibration,
    alphabet: programs.NativeGateRows,
    num_qubits: int,
    places: Sequence[tuple[int, ...]],
    depth: int,
    arm: int,
    shots: int,
) -> plans.PlannedCircuit:
    measured = [qubit for place in places for qubit in place]
    qubits = [*measured, *(qubit for qubit in layer.qubits if qubit not in measured)]
    place_of = {qubit: k for k, qubit in enumerate(qubits)}
    bases = {qubit: _BASES[arm // 3**k % 3] for place in places for k, qubit in enumerate(place)}
    flipped = [
        alphabet.half(place_of[qubit])
        for place in places
        for k, qubit in enumerate(place)
        if arm // 9 >> k & 1
    ]
    turns = [(place_of[qubit], basis) for qubit, basis in bases.items() if basis != "Z"]
    prepared = [
        piece
        for k, basis in turns
        for piece in (
            alphabet.quarter(k),
            *([alphabet.z(math.pi / 2, k)] if basis == "X" else []),
        )
    ]
    read = [
        piece
        for k, basis in turns
        for piece in (
            *([alphabet.z(-math.pi / 2, k)] if basis == "X" else []),
            alphabet.quarter(k),
        )
    ]
    last = len(qubits)
    aligned = [alphabet.barrier(k) for k in range(1, last)] * 2
    gates = [
        _on(alphabet.entangler(), [place_of[qubit] for qubit in gate.qubits])
        for gate in layer.gates
    ]
    piece = programs.joined([*flipped, *prepared, *aligned, *([*gates, *aligned] * depth), *read])
    placed = programs.PlacedPiece(tuple(qubits), piece, len(measured))
    points = tuple(
        plans.ExperimentSetting(f"{_NAME}{number}", place, float(depth), arm) for place in places
    )
    return plans.PlannedCircuit(alphabet.program([placed], num_qubits), shots, points)


def _on(piece: programs.CircuitPiece, qubits: Sequence[int]) -> programs.CircuitPiece:
    """A piece on other qubits of its place."""
    return programs.CircuitPiece(piece.rows, np.array(qubits)[piece.qubits], piece.params)


def _strings(layer: LayerCalibration) -> list[PauliString]:
    """All Paulis on one qubit of a layer, and on a pair of neighbours."""
    singles = [{qubit: k} for qubit in layer.qubits for k in (1, 2, 3)]
    both = [
        {first: j, second: k}
        for first, second in neighbours(layer)
        for j, k in itertools.product((1, 2, 3), repeat=2)
    ]
    return [*singles, *both]


def estimates(counts: plans.Counts, layers: Sequence[LayerCalibration]) -> list[Estimate]:
    """Decays of all Paulis that were measured; `gate` has their letters and the layer."""
    # (layer, qubits, letters) -> depth -> parity sum and shots
    signals: dict[tuple[int, tuple[int, ...], str], dict[float, list[float]]] = {}
    for point, tally in counts.items():
        if not point.experiment.startswith(_NAME):
            continue
        number = int(point.experiment.removeprefix(_NAME))
        letters = "".join(_BASES[point.arm // 3**k % 3] for k in range(len(point.qubits)))
        index = np.arange(tally.size)
        for chosen in range(1, tally.size):
            sign = 1 - 2 * (np.bitwise_count(index & chosen) & 1).astype(np.int64)
            sign *= 1 - 2 * ((point.arm // 9 & chosen).bit_count() & 1)
            parts = [k for k in range(len(point.qubits)) if chosen >> k & 1]
            key = (
                number,
                tuple(point.qubits[k] for k in parts),
                "".join(letters[k] for k in parts),
            )
            total = signals.setdefault(key, {}).setdefault(point.x, [0.0, 0.0])
            total[0] += float(sign @ tally)
            total[1] += float(tally.sum())
    return [
        _estimate(qubits, f"{letters} in {title(layers[number])}", depths)
        for (number, qubits, letters), depths in sorted(signals.items())
    ]


def _estimate(qubits: tuple[int, ...], gate: str, depths: Mapping[float, list[float]]) -> Estimate:
    """Decay by a weighted line through the logarithms of the signals. Weights are those of the
    signals that a first line predicts, as a weight by the observed one would favour large ones."""
    rows = []
    for depth, (total, shots) in sorted(depths.items()):
        signal = abs(total) / shots
        if signal <= SIGNAL_ERRORS / math.sqrt(shots):
            break
        rows.append((depth, signal, shots))
    if len(rows) < 2:
        return Estimate(QUANTITY, qubits, math.inf, math.inf, gate=gate)
    x, signal, shots = np.array(rows).T
    predicted = signal
    for _ in range(3):
        weights = shots * predicted**2 / np.maximum(1.0 - predicted**2, 1.0 / shots)
        center = (weights @ x) / weights.sum()
        spread = float(weights @ (x - center) ** 2)
        slope = float(weights @ ((x - center) * np.log(signal))) / spread
        level = float(weights @ np.log(signal)) / float(weights.sum())
        predicted = np.minimum(np.exp(level + slope * (x - center)), 1.0)
    return Estimate(QUANTITY, qubits, -slope, 1.0 / math.sqrt(spread), gate=gate)


def claimed(layers: Iterable[LayerCalibration], estimate: Estimate) -> float | None:
    """Decay that the layer of an estimate has; None: there is no such layer."""
    letters, _, name = estimate.gate.partition(" in ")
    layer = next((each for each in layers if title(each) == name), None)
    if layer is None:
        return None
    return decay(layer, dict(zip(estimate.qubits, pauli_numbers(letters), strict=True)))


def recovered_rates(layer: LayerCalibration, found: Sequence[Estimate]) -> LayerCalibration:
    """A layer with the rates that fit the decays of its Paulis best, by least squares with rates
    that are not negative (coordinate descent). The decays of P and of its image are one value, so
    that rates which only differ there are made equal."""
    strings = _strings(layer)
    generators = [
        PauliGenerator("".join("IXYZ"[k] for k in each.values()), tuple(each), 0.0)
        for each in strings
    ]
    name, rows, targets, weights = title(layer), [], [], []
    for each in found:
        letters, _, own = each.gate.partition(" in ")
        if own == name and each.has_signal:
            pauli = dict(zip(each.qubits, pauli_numbers(letters), strict=True))
            image = _after_gates(layer, pauli)
            rows.append(
                [
                    float(_anticommutes(g, pauli)) + float(_anticommutes(g, image))
                    for g in generators
                ]
            )
            targets.append(each.value)
            weights.append(1.0 / each.std_error)
    matrix = np.array(rows) * np.array(weights)[:, None]
    gram, linear = matrix.T @ matrix, matrix.T @ (np.array(targets) * weights)
    rates = np.zeros(len(generators))
    diagonal = np.maximum(gram.diagonal(), 1e-300)
    for _ in range(_ROUNDS):
        for k in range(rates.size):
            rates[k] = max(0.0, rates[k] + (linear[k] - gram[k] @ rates) / diagonal[k])
    kept = tuple(
        PauliGenerator(each.pauli, each.qubits, float(rate))
        for each, rate in zip(generators, rates, strict=True)
        if rate > 0.0
    )
    return LayerCalibration(layer.gates, layer.qubits, kept, source="simenv certify")
