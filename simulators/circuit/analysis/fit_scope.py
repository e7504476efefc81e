"""Scope of fits: the calibration that acts on a circuit.

The fit of a device to few circuits describes alike ones alone, of these qubits, pairs and sizes;
the others have the noise of the calibration before the fit. Forecasts, runs, scores and the error
ledger decide it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot, FitScope
    from noise_models.document import Document

DEEPER = 2  # times the two-qubit gates of a fit: what it says of each gate holds for more of them
_SHOWN = 12


def in_force(document: Document, circuit: Circuit) -> Document:
    """Calibration that acts on a circuit: a fit, or for a circuit outside the scope of a narrow one
    the calibration before it."""
    scope: FitScope | None = getattr(document, "fitted", None)
    outside: CalibrationSnapshot | None = getattr(document, "outside", None)
    if scope is None or outside is None or not differences(scope, circuit, DEEPER):
        return document
    return outside


def differences(scope: FitScope, circuit: Circuit, deeper: int = 1) -> list[str]:
    """Texts for what a circuit has that none of those of a fit had. `deeper`: times their most
    two-qubit gates are alike too."""
    rows = circuit.table.rows[circuit.ops]
    sizes, gates, wires = rows[:, 1].astype(np.int64), rows[:, 0] >= UNITARY, circuit.qubits
    used = np.unique(wires[np.repeat(gates, sizes)]).tolist()
    begins = (np.cumsum(sizes) - sizes)[gates & (sizes == 2)]
    has = []
    if len(used) > scope.widest:
        has.append(f"{len(used)} qubits")
    if begins.size > deeper * scope.two_qubit_gates:
        has.append(f"{begins.size} two-qubit gates")
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
