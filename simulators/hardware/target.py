"""Description of a device, read from its Qiskit Target, as a plain value.

No value is guessed and no network is used: values that a Target does not state are NaN, "" or 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qiskit.circuit import Gate
from qiskit.transpiler import Target

from simulators.hardware.jobs import max_shots
from simulators.hardware.transpile import is_dynamic

UNKNOWN = math.nan
_WORD_CHARS = 200
_TECHNOLOGIES = {  # technology by package of the provider
    "qiskit_ibm_runtime": "superconducting",
    "iqm": "superconducting",
    "qiskit_ionq": "trapped-ion",
    "qiskit_aqt_provider": "trapped-ion",
}


@dataclass(frozen=True, slots=True)
class QubitFigures:
    """Figures of one qubit."""

    t1_us: float
    t2_us: float
    frequency_ghz: float
    readout_error: float  # a probability
    readout_ns: float


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """Figures of one operation on one tuple of qubits; (): the same on all of them."""

    name: str
    qubits: tuple[int, ...]
    error: float
    duration_ns: float


@dataclass(frozen=True, slots=True)
class TargetGate:
    """Gate of a Target, by name."""

    name: str
    qubits: int
    params: int


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """Target in plain numbers. `all_to_all`: `coupling` is empty and stands for every pair."""

    num_qubits: int  # 0: any number
    gates: tuple[TargetGate, ...]
    all_to_all: bool
    directed: bool
    coupling: tuple[tuple[int, int], ...]
    operations: tuple[OperationFigures, ...]  # measure, reset and control flow among them
    qubits: tuple[QubitFigures, ...]  # (): no qubit has figures
    dynamic: bool
    dt_ns: float


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """Machine: its Target, and the other facts of its backend."""

    model: str  # name of the machine
    provider: str
    version: str
    technology: str
    max_shots: int  # largest number of shots of one run
    calibration_id: str  # "": none is known
    calibrated_s: float  # seconds since 1970; 0: not known
    target: TargetFigures


def describe(backend: Any, target: Target) -> MachineDescription:
    """Description of a Qiskit BackendV2 from its Target."""
    calibration_id, calibrated_s = _calibration(backend)
    return MachineDescription(
        model=_word(getattr(backend, "name", "")) or type(backend).__name__,
        provider=_provider(backend),
        version=_word(getattr(backend, "backend_version", "")),
        technology=_word(getattr(backend, "technology", "")) or _technology(backend),
        max_shots=max_shots(backend),
        calibration_id=calibration_id,
        calibrated_s=calibrated_s,
        target=figures(target),
    )


def figures(target: Target) -> TargetFigures:
    """Read a Target; seconds become ns and us, Hz become GHz."""
    count = target.num_qubits or 0
    pairs, everywhere = _pairs(target)
    every_pair = count > 1 and len(pairs) == count * (count - 1)
    all_to_all = everywhere or every_pair or count == 1
    return TargetFigures(
        num_qubits=count,
        gates=_gates(target),
        all_to_all=all_to_all,
        directed=not all_to_all and any((b, a) not in pairs for a, b in pairs),
        coupling=() if all_to_all else tuple(sorted(pairs)),
        operations=_operations(target),
        qubits=_qubits(target, count),
        dynamic=is_dynamic(target),
        dt_ns=_scaled(target.dt, 1e9),
    )


def _pairs(target: Target) -> tuple[set[tuple[int, int]], bool]:
    """Coupled pairs in the direction of their gates; True if a gate acts on any two qubits."""
    pairs: set[tuple[int, int]] = set()
    for name in target.operation_names:
        placed = target[name]
        if None in placed:
            operation = target.operation_from_name(name)
            if isinstance(operation, Gate) and operation.num_qubits == 2:
                return set(), True
            continue
        pairs |= {(qubits[0], qubits[1]) for qubits in placed if len(qubits) == 2}
    return pairs, False


def _gates(target: Target) -> tuple[TargetGate, ...]:
    results = [(name, target.operation_from_name(name)) for name in target.operation_names]
    return tuple(
        TargetGate(name, gate.num_qubits, len(gate.params))
        for name, gate in results
        if isinstance(gate, Gate)
    )


def _operations(target: Target) -> tuple[OperationFigures, ...]:
    return tuple(
        OperationFigures(
            name,
            () if qubits is None else tuple(qubits),
            _scaled(getattr(properties, "error", None)),
            _scaled(getattr(properties, "duration", None), 1e9),
        )
        for name in target.operation_names
        for qubits, properties in target[name].items()
    )


def _qubits(target: Target, count: int) -> tuple[QubitFigures, ...]:
    """Figures of each qubit; () if neither the qubits nor their readout have any."""
    settings = target.qubit_properties or [None] * count
    readout = target["measure"] if "measure" in target.operation_names else {}
    results = []
    for qubit in range(count):
        measured = None if None in readout else readout.get((qubit,))
        results.append(
            QubitFigures(
                t1_us=_scaled(getattr(settings[qubit], "t1", None), 1e6),
                t2_us=_scaled(getattr(settings[qubit], "t2", None), 1e6),
                frequency_ghz=_scaled(getattr(settings[qubit], "frequency", None), 1e-9),
                readout_error=_scaled(getattr(measured, "error", None)),
                readout_ns=_scaled(getattr(measured, "duration", None), 1e9),
            )
        )
    has_figures = any(
        not math.isnan(figure)
        for qubit in results
        for figure in (
            *(qubit.t1_us, qubit.t2_us, qubit.frequency_ghz),
            *(qubit.readout_error, qubit.readout_ns),
        )
    )
    return tuple(results) if has_figures else ()


def _scaled(value: Any, factor: float = 1.0) -> float:
    is_number = isinstance(value, int | float) and not math.isnan(value)
    return float(value) * factor if is_number else UNKNOWN  # one NaN object: equality of figures


def _calibration(backend: Any) -> tuple[str, float]:
    """Id and time of the last calibration, if the backend keeps properties."""
    properties = getattr(backend, "properties", None)
    try:
        result = properties() if callable(properties) else properties
        when = getattr(result, "last_update_date", None)
    except Exception:  # noqa: BLE001  # a backend may raise anything; it works without
        return "", 0.0
    if not isinstance(when, datetime):
        return "", 0.0
    return when.isoformat(), when.timestamp()


def _provider(backend: Any) -> str:
    provider = getattr(backend, "provider", None)
    named = _word(getattr(provider, "name", "")) if provider is not None else ""
    return named or type(backend).__module__.partition(".")[0]


def _technology(backend: Any) -> str:
    """Technology, if all machines of the provider are of one kind; "": not known."""
    roots = [kind.__module__.partition(".")[0] for kind in type(backend).__mro__]
    return next((_TECHNOLOGIES[root] for root in roots if root in _TECHNOLOGIES), "")


def _word(value: object) -> str:
    return value[:_WORD_CHARS] if isinstance(value, str) else ""
