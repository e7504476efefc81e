"""Device records in the qhw schemas: identity, coupling graph and calibration. Pure.

All kinds of devices are treated alike: a value that a DeviceInfo lacks is left out of the record.
Qubits are named by their number as text. Figures have the units of a Qiskit Target: seconds, hertz,
probabilities.
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

MOST_EDGES_QUBITS = 256  # all-to-all devices of more qubits list no edges: see `coupling`
EXTENSION = "simenv"
UNITS = {"duration_unit": "s", "frequency_unit": "Hz"}
_SOURCES = {DeviceKind.HARDWARE: "target", DeviceKind.EMULATED: "emulated-target"}
_RAW = {"included": False}

Plain = dict[str, Any]


def formats(info: DeviceInfo) -> list[str]:
    """Circuit formats that the device takes and this process can read: OpenQASM 3 needs its
    importer."""
    has_importer = importlib.util.find_spec("qiskit_qasm3_import") is not None
    return [name for name in info.formats if has_importer or name != "openqasm3"]


def device(name: str, info: DeviceInfo, engines: Sequence[EngineInfo]) -> QhwDevice:
    """Build the `qhw-device-v1` record. `name`: the contract's name; `engines`: engines that may
    run a circuit there, the main one first."""
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
                **_without_nan({"dt": info.dt_ns * 1e-9}),
            }
        },
        raw=_RAW,
        qubits=[{"id": qubit} for qubit in qubits(info)],
    )


def coupling(name: str, info: DeviceInfo) -> QhwCoupling:
    """Build the `qhw-coupling-v1` record. An all-to-all device of more than MOST_EDGES_QUBITS
    qubits lists no edges; `extensions` states its topology. An undirected graph lists each pair
    once; `supported_loci` gives the directions of each gate."""
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
    """Build the `qhw-calibration-v1` record: measured figures and their count. The record of an
    ideal device has none."""
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
    """Coupled pairs (a, b), as in the coupling record."""
    if not info.all_to_all and info.directed:
        return list(info.coupling)
    if not info.all_to_all:
        return sorted({(min(pair), max(pair)) for pair in info.coupling})
    listed = info.num_qubits <= MOST_EDGES_QUBITS
    return list(combinations(range(info.num_qubits), 2)) if listed else []


def qubits(info: DeviceInfo) -> list[str]:
    """Names of the qubits: their numbers as text."""
    return [str(number) for number in range(info.num_qubits)]


def basis(info: DeviceInfo) -> list[str]:
    """Names of the gates that act on a fixed number of qubits."""
    return [gate.name for gate in info.gates if gate.qubits > 0]


def timestamp(info: DeviceInfo) -> str:
    """Time of the calibration, ISO 8601 in UTC."""
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
    """Gates, measurement and reset. `supported_loci` is present where not all qubits are treated
    alike."""
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
    """Measured figures of a qubit; {} if there are none."""
    measured = _without_nan(
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
    """Measured figures of an operation; {} if there are none, or if the qubit's record holds
    them."""
    if each.name == "measure" and info.qubits:
        return {}
    measured = _without_nan(
        {"error": each.error, "fidelity": 1.0 - each.error, "duration": each.duration_ns * 1e-9}
    )
    locus = [str(qubit) for qubit in each.qubits]
    return {"operation": each.name, "locus": locus, **measured} if measured else {}


def _without_nan(figures: dict[str, float]) -> dict[str, float]:
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
