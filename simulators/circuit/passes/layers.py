"""Layers of a circuit: two-qubit gates that act at the same time and have an error together.

Gates act at the same time if the schedule lets all of them start together, or all of them end
together; barriers around them make it so. A layer of the noise model acts where all its gates act
at the same time and no other gate on two or more qubits acts on any of its qubits meanwhile: what
its neighbours do is part of what was learned. Of several such layers the one with the most gates
acts, of equal ones the first listed; layers that act at the same time have no common qubit. Gates
outside of any layer have their own errors.

The channels of a layer act before its gates, and no waiting qubit of it relaxes or is detuned from
the first start to the last end of these. Gates on one qubit in that time keep the other parts of
their errors; resets and measurements keep all of their channels. The gates of a layer must
therefore be listed one after the other: `layer_order` is such an order of the operations.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.layers import gate_key
from noise_models.model import LayerNoise
from simulators.circuit.arrays import Operands
from simulators.circuit.gates import UNITARY

_SCALE = 1e3  # of times in ns that are rounded, so that sums of the same durations are equal
_ROUNDING_NS = 1e-3  # of times
_LEAST_NS = 1.0  # duration of a two-qubit gate without one: gates of one depth act together


class LayerUse(msgspec.Struct, frozen=True, eq=False):
    """A layer of the noise model at one time of a circuit."""

    layer: LayerNoise
    operations: tuple[int, ...]  # of its gates, ascending


def layer_durations(operands: Operands, durations_ns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Durations by which layers are recognised: a gate on several qubits takes a time."""
    wide = (operands.codes >= UNITARY) & (operands.counts > 1)
    return np.where(wide, np.maximum(durations_ns, _LEAST_NS), durations_ns)


def layer_uses(
    names: Sequence[str],
    operands: Operands,
    start_ns: NDArray[np.float64],
    durations_ns: NDArray[np.float64],
    layers: Iterable[LayerNoise],
) -> list[LayerUse]:
    """Layers that act in a circuit without blocks, in the order of their times. `names`: of the
    operations in the noise model; `durations_ns`: results of `layer_durations`."""
    wide = np.flatnonzero((operands.codes >= UNITARY) & (operands.counts > 1))
    starts = np.rint(start_ns * _SCALE).astype(np.int64)
    ends = np.rint((start_ns + durations_ns) * _SCALE).astype(np.int64)
    found = _Search(names, operands, starts, ends, wide[np.argsort(starts[wide], kind="stable")])
    ordered = sorted(layers, key=lambda layer: -len(layer.gates))
    uses = [use for layer in ordered for use in found.uses_of(layer)]
    begins = starts.tolist()
    return sorted(uses, key=lambda use: (max(begins[k] for k in use.operations), use.operations))


class _Search:
    """Gates on several qubits of a circuit, by time."""

    def __init__(
        self,
        names: Sequence[str],
        operands: Operands,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        wide: NDArray[np.int64],
    ) -> None:
        self._starts, self._ends = begins, stops = starts.tolist(), ends.tolist()
        self._on: dict[int, list[int]] = defaultdict(list)  # operations on a qubit, by start
        self._at: dict[tuple[str, tuple[int, ...]], list[int]] = defaultdict(list)
        self._together: tuple[dict[object, int], dict[object, int]] = ({}, {})
        for k in wide.tolist():
            qubits = operands.qubits(k)
            for qubit in qubits:
                self._on[qubit].append(k)
            key = gate_key(names[k], qubits)
            self._at[key].append(k)
            for table, times in zip(self._together, (begins, stops), strict=True):
                table[key, times[k]] = k
        self._begins = {q: [begins[k] for k in each] for q, each in self._on.items()}
        self._used: set[int] = set()
        self._windows: dict[int, list[tuple[int, int]]] = defaultdict(list)  # ascending, by qubit

    def uses_of(self, layer: LayerNoise) -> Iterable[LayerUse]:
        if not all(gate in self._at for gate in layer.gates):
            return
        first = min(layer.gates, key=lambda gate: len(self._at[gate]))
        for k in self._at[first]:
            for table, times in zip(self._together, (self._starts, self._ends), strict=True):
                keys = [(gate, times[k]) for gate in layer.gates]
                if all(key in table for key in keys):
                    operations = {table[key] for key in keys}
                    if self._take(layer, operations):
                        yield LayerUse(layer, tuple(sorted(operations)))
                        break

    def _take(self, layer: LayerNoise, mine: set[int]) -> bool:
        """Take the gates of a layer that acts on them; False if it does not."""
        low = min(self._starts[k] for k in mine)
        high = max(self._ends[k] for k in mine)
        if not self._used.isdisjoint(mine):
            return False
        for qubit in layer.qubits:
            on = self._on.get(qubit, [])
            at = bisect_left(self._begins.get(qubit, []), high) - 1
            while at >= 0 and self._ends[on[at]] > low:  # operations on a qubit do not overlap
                if on[at] not in mine:
                    return False
                at -= 1
            windows = self._windows[qubit]  # disjoint: the last that begins before `high` decides
            at = bisect_left(windows, (high, high)) - 1
            if at >= 0 and windows[at][1] > low:
                return False
        self._used.update(mine)
        for qubit in layer.qubits:
            insort(self._windows[qubit], (low, high))
        return True


def layer_order(start_ns: NDArray[np.float64], uses: Sequence[LayerUse]) -> NDArray[np.int64]:
    """Order of the operations by their start times, in which the gates of a layer are listed one
    after the other, at the last start of one of them. Operations on a common qubit keep their
    order: those before a gate of the layer that start with it take no time, and those after it
    start when it has ended."""
    times = np.rint(start_ns * _SCALE).tolist()
    rank = [0] * len(times)
    for number, use in enumerate(uses, 1):
        last = max(times[k] for k in use.operations)
        for k in use.operations:
            times[k], rank[k] = last, number
    return np.lexsort((np.arange(len(times)), np.array(rank), np.array(times)))


def without_layers(
    qubits: NDArray[np.int64],
    end_ns: NDArray[np.float64],
    waits_ns: NDArray[np.float64],
    windows: Mapping[int, Sequence[tuple[float, float]]],
) -> NDArray[np.float64]:
    """Waiting times without their parts in the windows of layers. `windows`: (begin, end) by qubit;
    `end_ns`: end of each waiting time."""
    ordered = {}
    for qubit, each in windows.items():
        begins, ends = zip(*sorted(each), strict=True)
        ordered[qubit] = begins, ends, list(accumulate(ends, max))
    left = []
    for qubit, stop, wait in zip(qubits.tolist(), end_ns.tolist(), waits_ns.tolist(), strict=True):
        rest = wait
        if qubit in ordered:
            start = stop - wait
            begins, ends, latest = ordered[qubit]
            for k in range(bisect_right(latest, start), bisect_left(begins, stop)):
                rest -= max(min(ends[k], stop) - max(begins[k], start), 0.0)
        left.append(max(rest, 0.0))
    return np.array(left, np.float64)


def operations_within(
    operands: Operands,
    start_ns: NDArray[np.float64],
    durations_ns: NDArray[np.float64],
    windows: Mapping[int, Sequence[tuple[float, float]]],
) -> NDArray[np.int64]:
    """Gates on one qubit that act in a window of it. `windows`: (begin, end) by qubit, disjoint."""
    ordered = {qubit: sorted(each) for qubit, each in windows.items()}
    results = []
    single = np.flatnonzero((operands.codes >= UNITARY) & (operands.counts == 1))
    for k, qubit in zip(
        single.tolist(), operands.wires[operands.first[single]].tolist(), strict=True
    ):
        begin, end = float(start_ns[k]), float(start_ns[k] + durations_ns[k])
        at = bisect_right(ordered.get(qubit, []), (begin + _ROUNDING_NS, math.inf)) - 1
        if at >= 0 and end <= ordered[qubit][at][1] + _ROUNDING_NS:
            results.append(k)
    return np.array(results, np.int64)


def layer_windows(
    uses: Sequence[LayerUse], start_ns: NDArray[np.float64], durations_ns: NDArray[np.float64]
) -> dict[int, list[tuple[float, float]]]:
    """First start and last end of the gates of each layer, by qubit."""
    result: dict[int, list[tuple[float, float]]] = defaultdict(list)
    begins, ends = start_ns.tolist(), (start_ns + durations_ns).tolist()
    for use in uses:
        begin, end = min(begins[k] for k in use.operations), max(ends[k] for k in use.operations)
        for qubit in use.layer.qubits:
            result[qubit].append((begin, end))
    return dict(result)


def before_layers(
    uses: Sequence[LayerUse], after: NDArray[np.int64], num_operations: int
) -> NDArray[np.int64]:
    """Operations that channels on waiting qubits follow: what ends at a gate of a layer acts before
    the channels of the layer. The gates of each are listed one after the other."""
    place = np.arange(-1, num_operations)  # of what follows operation k - 1
    for use in uses:
        first, last = use.operations[0], use.operations[-1]
        place[first + 1 : last + 1] = first - 1
    return place[after + 1]
