"""Rows of bindings of one small circuit, thousands in one compiled call; see `lanes`.

Invariant: what is found for a row is a function of the circuit, that row, its number in the sweep,
the seed and the shots, never of the other rows; `small.count` alone gives the same counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators import expectation
from simulators.circuit.ir import Circuit, outcome_width
from simulators.control import Control
from simulators.engine import PauliSum, Request
from simulators.results import EngineResult
from simulators.statevector import lanes
from simulators.statevector.lanes import COUNTS, EXPECTATION, PROBABILITIES
from simulators.vectors import LANES

OUTPUTS = {"counts": COUNTS, "probabilities": PROBABILITIES, "expectation": EXPECTATION}

_ROOM = 1 << 16  # outcomes found in one call of the kernel; more rows go in several
_NO_BINDINGS = np.empty((1, 0))
_NO_SLOTS = np.empty(0, np.int32)


class _Strings:
    """The strings of a list of observables as the kernel reads them."""

    def __init__(self, observables: tuple[PauliSum, ...], num_qubits: int) -> None:
        terms = expectation.terms(observables, num_qubits)
        factors = [1j ** ((x & z).bit_count() % 4) for x, z in terms]
        sizes = [len(item.labels) for item in observables]
        self.observables = observables
        self.num_qubits = num_qubits
        self.masks = np.array(terms, np.uint64).reshape(-1, 2)
        self.factors = np.array([(f.real, -f.imag) for f in factors]).reshape(-1, 2)
        self.coefficients = np.concatenate([np.zeros(0), *[o.coefficients for o in observables]])
        self.ends = np.cumsum([0, *sizes])
        self.means = np.empty(LANES * len(terms))


_NONE = _Strings((), 0)


class Batch:
    """Room for the kernel, made once; used by one thread at a time."""

    def __init__(self) -> None:
        self._buffer = lanes.scratch()
        self._outcomes = np.empty(8 * (_ROOM + 1), np.uint8)
        self._values = np.empty(_ROOM + 1, np.uint32)
        self._likely = np.empty(8 * (_ROOM + 1), np.uint8)
        self._odds = np.empty(_ROOM + 1)
        self._strings = _NONE

    def run(self, circuit: Circuit, request: Request, control: Control) -> EngineResult | int:
        """All rows; ELSEWHERE, NOTHING or STOPPED as `small.count` says.

        For outputs that are in OUTPUTS, at most SMALL_QUBITS qubits and MAX_CLBITS clbits.
        """
        table = _NO_BINDINGS if request.bindings is None else request.bindings
        total = len(table)
        outputs = 0
        for output in request.outputs:
            outputs |= OUTPUTS[output]
        strings = self._of(request, circuit) if outputs & EXPECTATION else _NONE
        slot_of = _slots(circuit)
        width = outcome_width(circuit.num_clbits)
        measures = circuit.clbits_data != b""
        wide = width if measures else outcome_width(circuit.num_qubits)
        size = 1 << circuit.num_qubits
        most = size if outputs & PROBABILITIES else max(1, min(size, request.shots))
        step = max(LANES, _ROOM // most & -LANES)
        found, possible = (
            np.empty(min(step, total), np.uint32),
            np.empty(min(step, total), np.uint32),
        )
        estimates = np.empty((total, len(strings.ends) - 1, 2))
        parts: list[list[bytes]] = [[], [], [], [], [], []]
        for first in range(0, total, step):
            rows = table[first : first + step]
            state = lanes.run(
                self._buffer, circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits,
                circuit.params, slot_of, rows, control.flag, circuit.num_qubits,
                circuit.num_clbits, width, wide, request.shots, request.seed,
                request.binding + first, outputs, strings.masks, strings.factors,
                strings.coefficients, strings.ends, strings.means, self._outcomes, self._values,
                found, self._likely, self._odds, possible, estimates[first : first + step],
            )  # fmt: skip
            if state < 0:
                return int(state)
            count = len(rows)
            if outputs & COUNTS:
                many = int(found[:count].sum())
                parts[0].append(self._outcomes[: many * width].tobytes())
                parts[1].append(self._values[:many].tobytes())
                parts[2].append(found[:count].tobytes())
            if outputs & PROBABILITIES:
                many = int(possible[:count].sum())
                parts[3].append(self._likely[: many * wide].tobytes())
                parts[4].append(self._odds[:many].tobytes())
                parts[5].append(possible[:count].tobytes())
        outcomes, values, sizes, likely, odds, possibles = (b"".join(part) for part in parts)
        return EngineResult(
            count=total,
            outcome_width=width if outputs & COUNTS else 0,
            outcomes=outcomes,
            counts=values,
            rows=sizes if total > 1 else b"",
            probability_outcomes=likely,
            probability_width=wide if outputs & PROBABILITIES else 0,
            probabilities=odds,
            probability_rows=possibles if total > 1 else b"",
            expectations=estimates.tobytes(),
        )

    def _of(self, request: Request, circuit: Circuit) -> _Strings:
        known = self._strings
        if known.observables is not request.observables or known.num_qubits != circuit.num_qubits:
            known = self._strings = _Strings(request.observables, circuit.num_qubits)
        return known


def _slots(circuit: Circuit) -> NDArray[np.int32]:
    """Of each parameter its slot, or -1; empty if all are fixed."""
    if not circuit.slots_data:
        return _NO_SLOTS
    found = np.full(circuit.params.size, -1, np.int32)
    found[circuit.slots[0::2]] = circuit.slots[1::2]
    return found
