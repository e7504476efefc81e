"""Scope of fits: the calibration that acts on a circuit.

The fit of a device to few circuits describes alike ones alone, of these qubits, pairs, sizes, gates
on a qubit and delays; the others have the noise of the calibration before the fit. Forecasts, runs,
scores and the error ledger decide it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from simulators.circuit.gates import DELAY, DELAY_DT, UNITARY
from simulators.circuit.ir import Circuit

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot, FitScope
    from noise_models.document import Document

DEEPER = 2  # times the gates and delays of a fit: what it says of each holds for more of them
_VIRTUAL = frozenset({"rz", "p", "u1", "z", "s", "sdg", "t", "tdg"})  # without noise or duration
_SHOWN = 12


def in_force(document: Document, circuit: Circuit) -> Document:
    """Calibration that acts on a circuit: a fit, or for a circuit outside the scope of a narrow one
    the calibration before it."""
    scope: FitScope | None = getattr(document, "fitted", None)
    outside: CalibrationSnapshot | None = getattr(document, "outside", None)
    if scope is None or outside is None:
        return document
    return outside if differences(scope, circuit, outside.dt_ns, DEEPER) else document


def most_of_a_qubit(circuit: Circuit, dt_ns: float) -> tuple[int, float]:
    """Most one-qubit gates, without virtual ones, and longest delay in all (ns), on one qubit of a
    circuit. Delays by free parameters are 0."""
    rows = circuit.table.rows[circuit.ops]
    codes, sizes, params = rows[:, 0], rows[:, 1].astype(np.int64), rows[:, 3].astype(np.int64)
    begins = np.cumsum(sizes) - sizes
    is_virtual = np.array([name in _VIRTUAL for name in circuit.table.names], bool)[circuit.ops]
    gates = (codes >= UNITARY) & (sizes == 1) & ~is_virtual
    counts = np.bincount(circuit.qubits[begins[gates]])
    waits = (codes == DELAY) | (codes == DELAY_DT)
    times = circuit.params[(np.cumsum(params) - params)[waits]]
    times = times * np.where(codes[waits] == DELAY_DT, dt_ns, 1.0)
    delays = np.bincount(circuit.qubits[begins[waits]], times)
    return int(counts.max(initial=0)), float(delays.max(initial=0.0))


def differences(
    scope: FitScope, circuit: Circuit, dt_ns: float = 0.0, deeper: int = 1
) -> list[str]:
    """Texts for what a circuit has that none of those of a fit had. `dt_ns`: of the device;
    `deeper`: times their most gates and delays are alike too."""
    rows = circuit.table.rows[circuit.ops]
    sizes, acts, wires = rows[:, 1].astype(np.int64), rows[:, 0] >= UNITARY, circuit.qubits
    used = np.unique(wires[np.repeat(acts, sizes)]).tolist()
    begins = (np.cumsum(sizes) - sizes)[acts & (sizes == 2)]
    has = []
    if len(used) > scope.widest:
        has.append(f"{len(used)} qubits")
    if begins.size > deeper * scope.two_qubit_gates:
        has.append(f"{begins.size} two-qubit gates")
    gates, delay_ns = most_of_a_qubit(circuit, dt_ns)
    if scope.one_qubit_gates is not None and gates > deeper * scope.one_qubit_gates:
        has.append(f"{gates} gates on a qubit alone")
    if scope.delay_ns is not None and delay_ns > deeper * scope.delay_ns:
        has.append(f"delays of {delay_ns:.4g} ns")
    if scope.placed:
        return has
    if others := [str(qubit) for qubit in used if qubit not in scope.qubits]:
        has.append(f"qubits {listed(others)}")
    elif scope.pairs:
        ends = np.sort(np.column_stack((wires[begins], wires[begins + 1])), axis=1)
        acting = set(map(tuple, np.unique(ends, axis=0).tolist()))
        if new := sorted(acting.difference(scope.pairs)):
            has.append(f"gates on {listed(f'{a}-{b}' for a, b in new)}")
    return has


def listed(names: Iterable[str]) -> str:
    """Names in a text, at most _SHOWN."""
    items = list(names)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more
