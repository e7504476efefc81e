"""Scope of fits: the calibration that acts on a circuit.

A fit describes circuits like those that it was judged on: of these qubits, pairs and widths, and at
most DEEPER times as deep, as long in time, and of as many gates of each kind. The others have the
noise of the calibration before the fit. Forecasts, runs, scores and the error ledger decide it
here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from simulators.circuit.gates import DELAY, DELAY_DT, MEASURE, RESET, UNITARY
from simulators.circuit.ir import Circuit

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot, FitScope
    from noise_models.document import Document

# Times the gates, depth and duration of the circuits of a fit. Each fit is judged on its deepest
# circuits by shallower ones (`folds_of`); of twice the gates, nothing was shown.
DEEPER = 1.5
ONE_QUBIT = "one-qubit gates"  # all together: compilers choose between them
_VIRTUAL = frozenset({"rz", "p", "u1", "z", "s", "sdg", "t", "tdg"})  # without noise or duration
_SHOWN = 12


class ActingCalibration(msgspec.Struct, frozen=True, eq=False):
    """Calibration that acts on a circuit. `outside`: what the circuit has that no circuit of the
    fit had, for which the calibration before the fit acts; (): the device's own does."""

    document: Document
    outside: tuple[str, ...] = ()


def acting(document: Document, circuit: Circuit) -> ActingCalibration:
    """Calibration that acts on a circuit: a fit, or for a circuit outside its scope the calibration
    before it."""
    scope: FitScope | None = getattr(document, "fitted", None)
    before: CalibrationSnapshot | None = getattr(document, "outside", None)
    if scope is None or before is None:
        return ActingCalibration(document)
    found = differences(scope, circuit, before, DEEPER)
    return ActingCalibration(before, tuple(found)) if found else ActingCalibration(document)


def outside_text(outside: Iterable[str]) -> str:
    """Warning about a circuit on which the calibration before the fit acts."""
    return (
        f"the circuit has {', '.join(outside)}, more than any circuit of the device's fit: its"
        " noise is that of the calibration before the fit"
    )


def in_force(document: Document, circuit: Circuit) -> Document:
    """`acting`, the calibration alone."""
    return acting(document, circuit).document


class CircuitSize(msgspec.Struct, frozen=True):
    """Size of a circuit on a device, without virtual gates. Blocks count once."""

    gates: tuple[tuple[str, int], ...]  # gates of several qubits and measurements by name, others
    depth: int  # of gates
    duration_ns: float  # with measurements, resets and delays, as soon as possible

    @staticmethod
    def of(circuit: Circuit, device: CalibrationSnapshot | None) -> CircuitSize:
        """Size of a circuit; `device`: with the durations, None: 0. Delays by free parameters
        are 0."""
        times, names, rows = _durations(device), circuit.table.names, circuit.table.rows
        dt_ns = 0.0 if device is None else device.dt_ns
        counts: Counter[str] = Counter()
        depth, end_ns = [0] * circuit.num_qubits, [0.0] * circuit.num_qubits
        wires, values = circuit.qubits.tolist(), circuit.params.tolist()
        kinds = [(int(row[0]), int(row[1]), int(row[3])) for row in rows.tolist()]
        at = param = 0
        for op in circuit.ops.tolist():
            code, size, params = kinds[op]
            qubits = tuple(wires[at : at + size])
            time = values[param] if code in (DELAY, DELAY_DT) else 0.0
            at, param = at + size, param + params
            if not size or (code < UNITARY and code not in (DELAY, DELAY_DT, MEASURE, RESET)):
                continue
            name = names[op]
            if name in _VIRTUAL:
                continue
            if code in (DELAY, DELAY_DT):
                time *= dt_ns if code == DELAY_DT else 1.0
            else:
                if code != RESET:
                    counts[name if size > 1 or code == MEASURE else ONE_QUBIT] += 1
                time = times.get((name, qubits), times.get((name, ()), 0.0))
            layer = max(depth[q] for q in qubits) + (code >= UNITARY)
            end = max(end_ns[q] for q in qubits) + time
            for q in qubits:
                depth[q], end_ns[q] = layer, end
        ordered = tuple(sorted(counts.items()))
        return CircuitSize(ordered, max(depth, default=0), max(end_ns, default=0.0))


def _durations(device: CalibrationSnapshot | None) -> dict[tuple[str, tuple[int, ...]], float]:
    """Durations of gates, in both orders of their qubits, measurements and resets, ns."""
    if device is None:
        return {}
    results: dict[tuple[str, tuple[int, ...]], float] = {}
    for gate in device.gates:
        time_ns = gate.duration_ns or 0.0
        results.setdefault((gate.name, gate.qubits[::-1]), time_ns)
        results[gate.name, gate.qubits] = time_ns
    for k, qubit in enumerate(device.qubits):
        results["measure", (k,)] = qubit.readout_ns or 0.0
        results["reset", (k,)] = qubit.reset_ns or 0.0
    return results


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
    scope: FitScope,
    circuit: Circuit,
    device: CalibrationSnapshot | None = None,
    deeper: float = 1.0,
) -> list[str]:
    """Texts for what a circuit has that none of those of a fit had. `device`: with the durations;
    `deeper`: times their gates, depth and durations are alike too."""
    rows = circuit.table.rows[circuit.ops]
    sizes, acts, wires = rows[:, 1].astype(np.int64), rows[:, 0] >= UNITARY, circuit.qubits
    used = np.unique(wires[np.repeat(acts, sizes)]).tolist()
    begins = (np.cumsum(sizes) - sizes)[acts & (sizes == 2)]
    has = []
    if len(used) > scope.widest:
        has.append(f"{len(used)} qubits")
    if begins.size > deeper * scope.two_qubit_gates:
        has.append(f"{begins.size} two-qubit gates")
    gates, delay_ns = most_of_a_qubit(circuit, 0.0 if device is None else device.dt_ns)
    if scope.one_qubit_gates is not None and gates > deeper * scope.one_qubit_gates:
        has.append(f"{gates} gates on a qubit alone")
    if scope.delay_ns is not None and delay_ns > deeper * scope.delay_ns:
        has.append(f"delays of {delay_ns:.4g} ns")
    if not has and scope.depth is not None:  # so that the walk is no longer than such circuits
        has += _larger(scope, CircuitSize.of(circuit, device), deeper)
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


def _larger(scope: FitScope, size: CircuitSize, deeper: float) -> list[str]:
    """Texts for depth, duration and numbers of gates above those of a fit."""
    has = []
    if scope.depth is not None and size.depth > deeper * scope.depth:
        has.append(f"depth {size.depth}")
    if scope.duration_ns is not None and size.duration_ns > deeper * scope.duration_ns + 1.0:
        has.append(f"a duration of {size.duration_ns:.4g} ns")
    most = dict(scope.gates)
    return has + [f"{n} {name}" for name, n in size.gates if n > deeper * most.get(name, 0)]


def listed(names: Iterable[str]) -> str:
    """Names in a text, at most _SHOWN."""
    items = list(names)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more
