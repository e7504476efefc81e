"""A device in the shape of the qhw records: what it is, how its qubits are coupled, what of it was
measured. Pure.

One way for all kinds of devices: what a DeviceInfo does not hold is left out, never made up. Qubits
go by their number as text. Figures are in the units of a Target: seconds, hertz, probabilities.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from simenv.model import EngineInfo
from simenv.model.devices import DeviceInfo, DeviceKind, OperationInfo, QubitInfo
from simenv.qpm.telemetry import QhwCalibration, QhwCoupling, QhwDevice

MOST_EDGES_QUBITS = 256  # beyond, all pairs are more than a host wants to read: see `coupling`
EXTENSION = "simenv"
UNITS = {"duration_unit": "s", "frequency_unit": "Hz"}
_SOURCES = {DeviceKind.HARDWARE: "target", DeviceKind.EMULATED: "emulated-target"}
_RAW = {"included": False}

Plain = dict[str, Any]


def formats(info: DeviceInfo) -> list[str]:
    """Those it takes that can be read here: OpenQASM 3 needs its importer."""
    has_importer = importlib.util.find_spec("qiskit_qasm3_import") is not None
    return [name for name in info.formats if has_importer or name != "openqasm3"]


def device(name: str, info: DeviceInfo, engines: Sequence[EngineInfo]) -> QhwDevice:
    """`name`: the contract's; `engines`: those a circuit may meet there, the main one first."""
    return QhwDevice(
        schema="qhw-device-v1",
        provider=info.provider,
        device=_head(name, info),
        metadata={
            "basis_gates": basis(info),
            "dynamic_circuits": info.dynamic,
            "circuit_formats": formats(info),
            **_metadata(info),
            **({"max_shots": info.max_shots} if info.max_shots else {}),
        },
        extensions={
            EXTENSION: {
                "kind": str(info.kind),
                "model": info.model,
                "gates": [_gate(gate.name, gate.qubits, gate.params) for gate in info.gates],
                "engines": [_engine(engine) for engine in engines],
                **_known({"dt": info.dt_ns * 1e-9}),
            }
        },
        raw=_RAW,
        qubits=[{"id": qubit} for qubit in qubits(info)],
    )


def coupling(name: str, info: DeviceInfo) -> QhwCoupling:
    """All to all beyond MOST_EDGES_QUBITS qubits is told by a word in `extensions`, not by edges.
    Undirected: each pair once; in which directions a gate is, its `supported_loci` tell."""
    pairs = edges(info)
    topology = "all-to-all" if info.all_to_all else "graph"
    listed = not info.all_to_all or info.num_qubits <= MOST_EDGES_QUBITS
    return QhwCoupling(
        schema="qhw-coupling-v1",
        provider=info.provider,
        device=_head(name, info),
        metadata=_metadata(info),
        extensions={EXTENSION: {"topology": topology, "edges_listed": listed}},
        raw=_RAW,
        coupling={
            "nodes": qubits(info),
            "edges": [[str(a), str(b)] for a, b in pairs],
            "directed": info.directed,
            "source": [_SOURCES.get(info.kind, "simulator")],
        },
        operations=_operations(info),
    )


def calibration(name: str, info: DeviceInfo) -> QhwCalibration:
    """What was measured, and how much of it; of an ideal device nothing, because nothing errs."""
    qubits_told = [
        settings for settings in map(_qubit, range(len(info.qubits)), info.qubits) if settings
    ]
    gates_told = [settings for each in info.operations if (settings := _measured(each, info))]
    figures = [*qubits_told, *gates_told]
    measured = [key for settings in figures for key in _FIGURES if key in settings]
    extensions: Plain = {}
    if measured:
        extensions[EXTENSION] = {
            "qubit_metrics": qubits_told,
            "gate_metrics": gates_told,
            **UNITS,
        }
    return QhwCalibration(
        schema="qhw-calibration-v1",
        provider=info.provider,
        device=_head(name, info),
        metadata=_metadata(info),
        extensions=extensions,
        raw=_RAW,
        calibration={
            **_set_id(info),
            **({"timestamp": timestamp(info)} if info.calibrated_s else {}),
            "observation_count": len(measured),
            "quality_metric_count": sum(key in _QUALITIES for key in measured),
            "summaries": _summaries(qubits_told, gates_told),
        },
    )


def edges(info: DeviceInfo) -> list[tuple[int, int]]:
    """Coupled pairs, as in the coupling record."""
    if not info.all_to_all and info.directed:
        return list(info.coupling)
    if not info.all_to_all:
        return sorted({(min(pair), max(pair)) for pair in info.coupling})
    listed = info.num_qubits <= MOST_EDGES_QUBITS
    return list(combinations(range(info.num_qubits), 2)) if listed else []


def qubits(info: DeviceInfo) -> list[str]:
    """Their names."""
    return [str(number) for number in range(info.num_qubits)]


def basis(info: DeviceInfo) -> list[str]:
    """Its gates of a fixed number of qubits."""
    return [gate.name for gate in info.gates if gate.qubits > 0]


def timestamp(info: DeviceInfo) -> str:
    """When it was calibrated, ISO 8601 in UTC."""
    return datetime.fromtimestamp(info.calibrated_s, UTC).isoformat()


# --- parts of the records -------------------------------------------------------------------------


def _head(name: str, info: DeviceInfo) -> Plain:
    ideal = info.kind is DeviceKind.IDEAL  # its model is an engine, which has no name of its own
    head = {
        "id": name,
        "name": name if ideal else info.model or name,
        "provider_device_id": name if ideal else info.model,
        "version": info.version,
        "technology": info.technology,
    }
    return {
        **{key: value for key, value in head.items() if value},
        "num_qubits": info.num_qubits,
    }


def _metadata(info: DeviceInfo) -> Plain:
    return {"ideal": info.kind is DeviceKind.IDEAL, **_set_id(info)}


def _set_id(info: DeviceInfo) -> Plain:
    return {"calibration_set_id": info.calibration_id} if info.calibration_id else {}


def _gate(name: str, arity: int, params: int) -> Plain:
    return {"name": name, "arity": arity, "params": params}


def _engine(engine: EngineInfo) -> Plain:
    return {
        "name": engine.name,
        "summary": engine.summary,
        "num_qubits": engine.max_qubits,
        "outputs": list(engine.outputs),
        "precisions": list(engine.precisions),
        "dynamic_circuits": engine.dynamic,
        "clifford_only": engine.clifford,
    }


def _operations(info: DeviceInfo) -> list[Plain]:
    """Gates, measurement and reset, with the qubits each is for where it is not for all alike."""
    arity = {gate.name: gate.qubits for gate in info.gates if gate.qubits > 0}
    loci: dict[str, list[list[str]]] = {}
    for each in info.operations:
        loci.setdefault(each.name, []).append([str(qubit) for qubit in each.qubits])
    for name, places in loci.items():
        if places[0] or name in ("measure", "reset"):  # one without qubits is no gate
            arity.setdefault(name, len(places[0]) or 1)
    if not info.operations and info.num_qubits:
        arity |= {"measure": 1, **({"reset": 1} if info.dynamic else {})}
    return [
        {"name": name, "arity": count, **_loci(loci.get(name, []))} for name, count in arity.items()
    ]


def _loci(places: list[list[str]]) -> Plain:
    return {"supported_loci": places} if places and all(places) else {}


# --- figures --------------------------------------------------------------------------------------

_QUALITIES = ("readout_error", "error")
_FIGURES = ("t1", "t2", "frequency", "readout_duration", "duration", *_QUALITIES)


def _qubit(number: int, info: QubitInfo) -> Plain:
    """{} where nothing of it is known."""
    measured = _known(
        {
            "t1": info.t1_us * 1e-6,
            "t2": info.t2_us * 1e-6,
            "frequency": info.frequency_ghz * 1e9,
            "readout_error": info.readout_error,
            "readout_duration": info.readout_ns * 1e-9,
        }
    )
    return {"qubit": str(number), **measured} if measured else {}


def _measured(each: OperationInfo, info: DeviceInfo) -> Plain:
    """{} where nothing of it is known, or where it stands with the qubits."""
    if each.name == "measure" and info.qubits:
        return {}
    measured = _known(
        {"error": each.error, "fidelity": 1.0 - each.error, "duration": each.duration_ns * 1e-9}
    )
    locus = [str(qubit) for qubit in each.qubits]
    return {"operation": each.name, "locus": locus, **measured} if measured else {}


def _known(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _summaries(qubits_told: list[Plain], gates_told: list[Plain]) -> Plain:
    entries = {
        name: _summary(settings[name] for settings in qubits_told if name in settings)
        for name in ("t1", "t2", "readout_error")
    }
    for name in dict.fromkeys(settings["operation"] for settings in gates_told):
        same = [settings for settings in gates_told if settings["operation"] == name]
        entries[f"{name}_error"] = _summary(
            settings["error"] for settings in same if "error" in settings
        )
    return {name: summary for name, summary in entries.items() if summary}


def _summary(values: Iterable[float]) -> dict[str, float]:
    there = list(values)
    if not there:
        return {}
    return {
        "count": len(there),
        "min": min(there),
        "median": statistics.median(there),
        "max": max(there),
    }
