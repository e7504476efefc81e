"""Devices and pools in the form of IBM's backends: configuration, properties, status.

The forms are those of `QasmBackendConfiguration` and `BackendProperties` of qiskit-ibm-runtime.
Pure: descriptions in, JSON values out. An unknown figure is left out. A device without a
calibration (an ideal pool) has no properties; its gates name no qubits, which means any.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import msgspec

from simenv.model.availability import Availability, Places
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.model.views import PoolInfo

DEFAULT_SHOTS = 4096  # of the primitives of IBM's service
MAX_CIRCUITS = 1_000  # of one job
CONTROL_FLOW = ("if_else", "for_loop", "while_loop", "switch_case")
# Names in Qiskit's table of standard gates, whose import would cost each gateway 70 MiB.
STANDARD_GATES = frozenset((
    "c3sx", "ccx", "ccz", "ch", "cp", "crx", "cry", "crz", "cs", "csdg", "cswap", "csx", "cu",
    "cu1", "cu3", "cx", "cy", "cz", "dcx", "ecr", "global_phase", "h", "id", "iswap", "p", "r",
    "rcccx", "rccx", "rx", "rxx", "ry", "ryy", "rz", "rzx", "rzz", "s", "sdg", "swap", "sx",
    "sxdg", "t", "tdg", "u", "u1", "u2", "u3", "x", "xx_minus_yy", "xx_plus_yy", "y", "z",
))  # fmt: skip
# Broken devices of a snapshot: the error of a gate is 1 or more.

Plain = dict[str, Any]


class Backend(msgspec.Struct, frozen=True):
    """A pool or a device. `pool` None: a device without a pool of that name."""

    name: str
    info: DeviceInfo
    pool: PoolInfo | None
    waiting: int


def date_of(time_s: float) -> str:
    """ISO 8601 text, in UTC, of seconds since 1970."""
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


def is_simulator(info: DeviceInfo) -> bool:
    """Return whether circuits are not bound to a device's gates and couplings."""
    return info.kind is DeviceKind.IDEAL


def listed(name: str, info: DeviceInfo, pool: PoolInfo | None, queue_length: int) -> Plain:
    """Entry of the list of backends. `pool`: the one of that name; None: a device without a pool of
    its own, which any worker emulates. `queue_length`: waiting tasks."""
    online = pool is None or pool.state in ("up", "starting")
    return {
        "name": name,
        "status": {
            "name": "online" if online else "offline",
            "reason": "available" if pool is None else pool.reason or pool.state,
        },
        "qubits": info.num_qubits,
        "queue_length": queue_length,
        "is_simulator": is_simulator(info),
        "processor_type": _processor(info),
        "performance_metrics": {},
    }


def listed_by_name(name: str) -> Plain:
    """Entry of a device whose calibration no user has asked for: it is not read for a listing.
    `class`: the client finds it by name, and does not list it."""
    online = {"name": "online", "reason": "available"}
    entry = {"name": name, "status": online, "class": "mock", "queue_length": 0}
    return entry | {"is_simulator": False, "processor_type": {}}


def status(info: DeviceInfo, pool: PoolInfo | None, queue_length: int) -> Plain:
    """Answer to a request of a backend's status."""
    online = pool is None or pool.state in ("up", "starting")
    return {
        "state": online,
        "status": "active" if online else "offline",
        "message": "" if pool is None else pool.reason,
        "length_queue": queue_length,
        "backend_version": info.version or "1",
    }


def _processor(info: DeviceInfo) -> Plain:
    return {"family": info.model or info.technology, "revision": info.version or "1"}


def configuration(name: str, info: DeviceInfo) -> Plain:
    """Configuration of a backend: gates, couplings, limits and clock."""
    result: Plain = {
        "backend_name": name,
        "backend_version": info.version or "1",
        "n_qubits": info.num_qubits,
        "gates": _gates(info),
        "local": False,
        "simulator": is_simulator(info),
        "conditional": info.dynamic,
        "open_pulse": False,
        "memory": True,
        "max_shots": info.max_shots,
        "max_experiments": MAX_CIRCUITS,
        "coupling_map": None if is_simulator(info) else [list(pair) for pair in _pairs(info)],
        "dynamic_reprate_enabled": False,
        "credits_required": False,
        "online_date": date_of(info.calibrated_s),
        "description": f"{info.num_qubits} qubits, {info.technology}, of a simenv environment",
        "processor_type": _processor(info),
        "meas_levels": [2],
        "meas_map": [list(range(info.num_qubits))],
        "multi_meas_enabled": True,
        "supported_features": ["qasm3", "dynamic_circuits"] if info.dynamic else [],
        "timing_constraints": {},
        "quantum_volume": None,
    }
    names = [gate["name"] for gate in result["gates"]]
    others = ("reset", *CONTROL_FLOW) if info.dynamic else ()
    result["basis_gates"] = names
    own = Availability(info).measurements
    result["supported_instructions"] = [*names, "measure", *own, "delay", *others]
    if own:
        result["instruction_signatures"] = [
            {"name": each, "num_qubits": 1, "num_clbits": 1, "parameters": []} for each in own
        ]
    if info.dt_ns and not math.isnan(info.dt_ns):
        result["dt"] = result["dtm"] = info.dt_ns
    return result


def _shown(info: DeviceInfo) -> DeviceInfo:
    """The device as compilers may use it."""
    return Availability(Availability(info).inside_modules).complete


def _pairs(info: DeviceInfo) -> list[tuple[int, int]]:
    if info.all_to_all:
        return list(permutations(range(info.num_qubits), 2))
    return list(_shown(info).coupling)


def _natives(info: DeviceInfo) -> dict[str, Places]:
    """Gates that Qiskit knows, each with the qubits that have it and its figures there; broken ones
    are left out, and those on two qubits one of which lacks another gate. A figure of a gate
    without qubits is that of all places."""
    info = _shown(Availability(info).with_fractional)
    available = Availability(info)
    names = [gate.name for gate in info.gates if gate.name in STANDARD_GATES]
    result = {name: available.places(name) for name in names}
    for name in (*available.measurements, "reset"):
        if any(each.name == name for each in info.operations):
            result[name] = available.places(name)
    return result


def _gates(info: DeviceInfo) -> list[Plain]:
    natives = {} if is_simulator(info) else _natives(info)
    gates = []
    for gate in Availability(info).with_fractional.gates:
        if gate.name not in STANDARD_GATES:
            continue
        parameters = [f"p{number}" for number in range(gate.params)]
        entry: Plain = {"name": gate.name, "parameters": parameters, "qasm_def": ""}
        if not is_simulator(info):
            entry["coupling_map"] = [list(qubits) for qubits in natives[gate.name]]
        gates.append(entry)
    return gates


def properties(name: str, info: DeviceInfo) -> Plain | None:
    """Measured properties of a backend's qubits and gates; None if nothing was measured."""
    if is_simulator(info) or not (info.qubits or info.operations):
        return None
    date = date_of(info.calibrated_s)

    def values(*figures: tuple[str, str, float]) -> list[Plain]:
        return [
            {"date": date, "name": label, "unit": unit, "value": value}
            for label, unit, value in figures
            if not math.isnan(value)
        ]

    qubits = [
        values(
            ("T1", "us", qubit.t1_us),
            ("T2", "us", qubit.t2_us),
            ("frequency", "GHz", qubit.frequency_ghz),
            ("readout_error", "", qubit.readout_error),
            ("readout_length", "ns", qubit.readout_ns),
        )
        for qubit in info.qubits
    ] or [[] for _ in range(info.num_qubits)]
    for qubit in info.unusable:
        qubits[qubit].append({"date": date, "name": "operational", "unit": "", "value": 0})
    gates = [
        {
            "qubits": list(places),
            "gate": gate,
            "name": gate + "_".join(map(str, places)),
            "parameters": values(
                ("gate_error", "", each.error), ("gate_length", "ns", each.duration_ns)
            ),
        }
        for gate, found in _natives(info).items()
        for places, each in found.items()
        if each is not None
    ]
    return {
        "backend_name": name,
        "backend_version": info.version or "1",
        "last_update_date": date,
        "qubits": qubits,
        "gates": gates,
        "general": [],
        "calibration_id": info.calibration_id,
    }
