"""Rotated surface code in stim, written from the textbook, with the noise of a calibrated chip.

The reference for devices of logical qubits: no code of simenv is used but the calibration's values.
Checks of X and of Z are measured by CX from and to an ancilla (Fowler et al., Phys. Rev. A 86,
032324; the order of the CX is that of Tomita and Svore, arXiv 1404.3747). A CX is a cz between H of
its target, two H in a row are none, and an H is one `sx` between turns about Z, which take no time.
All gates of a layer take as long as the longest; then ancillas are measured and reset, while data
qubits wait.

Noise: relaxation and dephasing of every qubit over each layer as Pauli errors (the twirl of
amplitude damping and of pure dephasing), what is left of a gate's error as depolarization, flips of
readout, of reset, and of preparation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pymatching
import stim

ORDER = {"X": ((0, 0), (0, 1), (1, 0), (1, 1)), "Z": ((0, 0), (1, 0), (0, 1), (1, 1))}


class Chip:
    """Values of a calibration snapshot by qubit of the patch."""

    def __init__(self, snapshot: Any, qubits: Sequence[int]) -> None:
        """Set up. `qubits`: of the chip, for each data qubit by rows, then each ancilla."""
        self._qubits = [snapshot.qubits[q] for q in qubits]
        self._number = list(qubits)
        self._gates = {}
        for gate in snapshot.gates:
            self._gates[gate.name, frozenset(gate.qubits)] = gate

    def gate(self, name: str, *qubits: int) -> Any:
        """Entry of a gate on qubits of the patch."""
        places = frozenset(self._number[q] for q in qubits)
        return self._gates.get((name, places)) or self._gates[name, frozenset()]

    def qubit(self, qubit: int) -> Any:
        """Values of a qubit of the patch."""
        return self._qubits[qubit]

    def waiting(self, qubit: int, time_ns: float) -> tuple[float, float, float]:
        """Probabilities of X, Y and Z by relaxation and dephasing over a time."""
        own = self._qubits[qubit]
        t1, t2 = 1e3 * own.t1_us, 1e3 * min(own.t2_us, 2.0 * own.t1_us)
        x = 0.25 * -math.expm1(-time_ns / t1)
        return x, x, max(0.5 * -math.expm1(-time_ns / t2) - x, 0.0)

    def rest(self, name: str, qubits: Sequence[int]) -> float:
        """Probability of a Pauli error by depolarization: the error of the gate without the
        relaxation of its qubits."""
        gate, size = self.gate(name, *qubits), len(qubits)
        stays = math.prod(1.0 - sum(self.waiting(q, gate.duration_ns)) for q in qubits)
        wanted = 1.0 - (gate.error or 0.0) * (1.0 + 0.5**size)  # process fidelity
        # (1 - p) s + (p / (4^n - 1)) (1 - s) = wanted
        part = 1.0 / (4**size - 1)
        return max(float((stays - wanted) / (stays - part * (1.0 - stays))), 0.0)


class _Builder:
    """Circuit in layers. Every qubit of the patch that a layer leaves out waits for it."""

    def __init__(self, chip: Chip, count: int) -> None:
        self.circuit, self._chip, self._every = stim.Circuit(), chip, range(count)
        self.time_ns = 0.0

    def _relax(self, time_ns: float, qubits: Iterable[int]) -> None:
        for qubit in qubits:
            self.circuit.append("PAULI_CHANNEL_1", [qubit], self._chip.waiting(qubit, time_ns))
        self.time_ns += time_ns
        self.circuit.append("TICK")

    def hadamards(self, qubits: Sequence[int]) -> None:
        """H on some qubits."""
        if not qubits:
            return
        self.circuit.append("H", qubits)
        for qubit in qubits:
            self.circuit.append("DEPOLARIZE1", [qubit], self._chip.rest("sx", [qubit]))
        self._relax(max(self._chip.gate("sx", q).duration_ns for q in qubits), self._every)

    def cz(self, pairs: Sequence[tuple[int, int]]) -> None:
        """cz on some pairs."""
        for pair in pairs:
            self.circuit.append("CZ", pair)
            self.circuit.append("DEPOLARIZE2", pair, self._chip.rest("cz", pair))
        self._relax(max(self._chip.gate("cz", *p).duration_ns for p in pairs), self._every)

    def measured(self, qubits: Sequence[int]) -> None:
        """Measurement of some qubits."""
        for qubit in qubits:
            own = self._chip.qubit(qubit)
            self.circuit.append("X_ERROR", [qubit], 0.5 * (own.p01 + own.p10))
            self.circuit.append("M", [qubit])
        time_ns = max(self._chip.qubit(q).readout_ns for q in qubits)
        self._relax(time_ns, [q for q in self._every if q not in set(qubits)])

    def reset(self, qubits: Sequence[int], error: str) -> None:
        """Reset of some qubits; `error`: field of the calibration that says how often in |1>."""
        for qubit in qubits:
            self.circuit.append("R", [qubit])
            self.circuit.append("X_ERROR", [qubit], getattr(self._chip.qubit(qubit), error) or 0.0)
        waiting = [q for q in self._every if q not in set(qubits)]
        time_ns = max(self._chip.qubit(q).reset_ns or 0.0 for q in qubits)
        if waiting:
            self._relax(time_ns, waiting)


def checks(distance: int) -> list[tuple[str, list[int | None]]]:
    """Kind of each check, and its data qubits (by rows) in the order of the CX; None: beyond the
    edge. Checks of X end at the upper and lower edges, checks of Z at the others."""
    found = []
    for row in range(-1, distance):
        for column in range(-1, distance):
            kind = "X" if (row + column) % 2 else "Z"
            corners: list[int | None] = []
            for down, right in ORDER[kind]:
                r, c = row + down, column + right
                is_inside = 0 <= r < distance and 0 <= c < distance
                corners.append(r * distance + c if is_inside else None)
            count = sum(each is not None for each in corners)
            at_edge = row in (-1, distance - 1) if kind == "X" else column in (-1, distance - 1)
            if count == 4 or (count == 2 and at_edge):
                found.append((kind, corners))
    return found


def memory(snapshot: Any, qubits: Sequence[int], distance: int, basis: str, rounds: int) -> Any:
    """Memory experiment, and the time of a round in ns. `qubits`: of the chip, data qubits by rows,
    then the ancilla of each of `checks`."""
    stabilizers = checks(distance)
    size, data = distance**2 + len(stabilizers), list(range(distance**2))
    ancillas = list(range(distance**2, size))
    built = _Builder(Chip(snapshot, qubits), size)
    built.reset(range(size), "preparation_error")
    if basis == "X":
        built.hadamards(data)
    begun_ns = built.time_ns
    count = len(stabilizers)
    for number in range(rounds):
        # H of the ancillas of X, and of the targets of each CX; two in a row are none. A data qubit
        # changes its basis when a check needs the other one.
        turned, layers = set(ancillas), []
        needed = set(ancillas)
        for step in range(4):
            pairs = []
            for ancilla, (kind, corners) in zip(ancillas, stabilizers, strict=True):
                qubit = corners[step]
                if qubit is not None:
                    pairs.append((ancilla, qubit))
                    needed = needed | {qubit} if kind == "X" else needed - {qubit}
            layers.append(((needed ^ turned) if step else needed, pairs))
            turned = set(needed)
        for before, pairs in layers:
            built.hadamards(sorted(before))
            built.cz(pairs)
        built.hadamards(sorted(turned))
        built.measured(ancillas)
        for place, (kind, _) in enumerate(stabilizers):
            now = stim.target_rec(place - count)
            if number:
                built.circuit.append("DETECTOR", [now, stim.target_rec(place - 2 * count)])
            elif kind == basis:
                built.circuit.append("DETECTOR", [now])
        built.reset(ancillas, "reset_error")
    round_ns = (built.time_ns - begun_ns) / rounds
    if basis == "X":
        built.hadamards(data)
    built.measured(data)
    first = -len(data)
    for place, (kind, corners) in enumerate(stabilizers):
        if kind == basis:
            own = [stim.target_rec(first + q) for q in corners if q is not None]
            last = stim.target_rec(first - count + place)
            built.circuit.append("DETECTOR", [last, *own])
    line = range(distance) if basis == "Z" else range(0, distance**2, distance)
    logical = [stim.target_rec(first + q) for q in line]
    built.circuit.append("OBSERVABLE_INCLUDE", logical, 0)
    return built.circuit, round_ns


def wrong(circuit: stim.Circuit, shots: int, seed: int) -> int:
    """Shots of which minimum-weight perfect matching predicts the observable wrongly."""
    model = circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    matching = pymatching.Matching.from_detector_error_model(model)
    events, flips = circuit.compile_detector_sampler(seed=seed).sample(
        shots, separate_observables=True
    )
    return int(np.count_nonzero(matching.decode_batch(events)[:, 0] != flips[:, 0]))
