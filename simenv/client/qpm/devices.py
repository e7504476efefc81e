"""Records of devices, and snapshots of capacity and queue, in the contract's terms. Pure.

Records have the qhw schemas: identity, coupling graph and calibration. All kinds of devices are
treated alike: a value that a DeviceInfo lacks is left out of the record. Qubits are named by their
number as text. Figures have the units of a Qiskit Target: seconds, hertz, probabilities.

Counts and estimates of a snapshot cover the whole device, that is, the tasks of all callers. Held
tasks wait for a worker or for credits; in-flight tasks are assigned to workers. A lifecycle event
has the contract's name; `details` has simenv's own name of the event.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import msgspec

from simenv import model
from simenv.client.qpm.requests import ALLOCATION
from simenv.model.devices import DeviceInfo, DeviceKind, OperationInfo, QubitInfo, TermInfo
from simenv.model.paradigms import (
    ANNEALING,
    ANNEALING_HINT,
    ANNEALING_REASON,
    FORMATS,
    PULSER,
    paradigms_of,
)
from simenv.qpm import answers, telemetry_answers

MOST_EDGES_QUBITS = 256  # all-to-all devices of more qubits list no edges: see `coupling`
EXTENSION = "simenv"
UNITS = {"duration_unit": "s", "frequency_unit": "Hz"}
_SOURCES = {DeviceKind.HARDWARE: "target", DeviceKind.EMULATED: "emulated-target"}
_RAW = {"included": False}

Plain = dict[str, Any]


def formats(info: DeviceInfo) -> list[str]:
    """Formats that the device takes and this process can read: OpenQASM 3 needs its importer, a
    pulse sequence pulser."""
    return [name for name in info.formats if not _unreadable(name)]


_PACKAGES = {  # of a format: the module that reads it, and the command that installs that
    "openqasm3": ("qiskit_qasm3_import", "pip install 'simenv[qasm3]'"),
    PULSER: ("pulser", "pip install 'simenv[analog]'"),
}


def _unreadable(name: str) -> str:
    """Return the command that installs what reads a format in this process; "": it is there."""
    module, command = _PACKAGES.get(name, ("", ""))
    return command if module and importlib.util.find_spec(module) is None else ""


def paradigms(infos: Mapping[str, DeviceInfo]) -> Plain:
    """Paradigms of programs with their formats, and the libraries (pools) that run them. `missing`:
    the command that installs what a pool, or this QPM (""), lacks for them."""
    result: Plain = {}
    for name, own in FORMATS.items():
        takes = {pool: set(own).intersection(formats(info)) for pool, info in infos.items()}
        present = [each for each in own if any(each in found for found in takes.values())]
        entry: Plain = {"libraries": [pool for pool in takes if takes[pool]], "formats": present}
        missing = {
            pool: command
            for pool, info in infos.items()
            for each, command in info.missing_formats
            if each in own
        }
        offered = {each for info in infos.values() for each in info.formats}
        for command in filter(None, map(_unreadable, offered.intersection(own))):
            missing[""] = command
        if missing:
            entry["missing"] = missing
        result[name] = entry
    result[ANNEALING] |= {"reason": ANNEALING_REASON, "hint": ANNEALING_HINT}
    return result


def device(
    name: str, info: DeviceInfo, engines: Sequence[model.EngineInfo]
) -> telemetry_answers.QhwDevice:
    """Build the `qhw-device-v1` record. `name`: the contract's name; `engines`: engines that may
    run a circuit there, the main one first."""
    return telemetry_answers.QhwDevice(
        schema="qhw-device-v1", provider=info.provider, device=_head(name, info),
        metadata={
            "basis_gates": basis(info),
            "dynamic_circuits": info.dynamic,
            "circuit_formats": formats(info),
            "paradigms": paradigms_of(formats(info)),
            **_metadata(info),
            **({"max_shots": info.max_shots} if info.max_shots else {}),
        },
        extensions={
            EXTENSION: {
                "kind": str(info.kind),
                "model": info.model,
                "gates": [_gate(gate.name, gate.qubits, gate.params) for gate in info.gates],
                "engines": [_engine(engine) for engine in engines],
                **_logical(info),
                **_analog(info),
                **_without_nan({"dt": info.dt_ns * 1e-9}),
            }
        },
        raw=_RAW, qubits=[{"id": qubit} for qubit in qubits(info)],
    )  # fmt: skip


def coupling(name: str, info: DeviceInfo) -> telemetry_answers.QhwCoupling:
    """Build the `qhw-coupling-v1` record. An all-to-all device of more than MOST_EDGES_QUBITS
    qubits lists no edges; `extensions` states its topology. An undirected graph lists each pair
    once; `supported_loci` gives the directions of each gate."""
    pairs = edges(info)
    topology = "all-to-all" if info.all_to_all else "graph"
    listed = not info.all_to_all or info.num_qubits <= MOST_EDGES_QUBITS
    return telemetry_answers.QhwCoupling(
        schema="qhw-coupling-v1", provider=info.provider, device=_head(name, info),
        metadata=_metadata(info),
        extensions={EXTENSION: {"topology": topology, "edges_listed": listed, **_modules(info)}},
        raw=_RAW,
        coupling={
            "nodes": qubits(info),
            "edges": [[str(a), str(b)] for a, b in pairs],
            "directed": info.directed,
            "source": [_SOURCES.get(info.kind, "simulator")],
        },
        operations=_operations(info),
    )  # fmt: skip


def calibration(name: str, info: DeviceInfo) -> telemetry_answers.QhwCalibration:
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
        extensions[EXTENSION] = {"qubit_metrics": qubits_told, "gate_metrics": gates_told, **UNITS}
    if info.analog is not None:
        told = [_term(term) for term in info.terms]
        measured = [entry["name"] for entry in told]
        extensions[EXTENSION] = {
            "analog_metrics": told, "not_calibrated": list(info.analog.uncalibrated),
        }  # fmt: skip
    return telemetry_answers.QhwCalibration(
        schema="qhw-calibration-v1", provider=info.provider, device=_head(name, info),
        metadata=_metadata(info), extensions=extensions, raw=_RAW,
        calibration={
            **_set_id(info),
            **({"timestamp": timestamp(info)} if info.calibrated_s else {}),
            "observation_count": len(measured),
            "quality_metric_count": sum(key in _QUALITIES for key in measured),
            "summaries": _summaries(qubits_told, gates_told),
        },
    )  # fmt: skip


def _term(term: TermInfo) -> Plain:
    """A quantity of all atoms of a device."""
    value = term.values[0] if len(term.values) == 1 else list(term.values)
    return {"name": term.name, "title": term.title, "unit": term.unit, "value": value}


def _analog(info: DeviceInfo) -> Plain:
    """Machine of a device of neutral atoms, as pulser writes it, and its times; {} for gates."""
    if info.analog is None:
        return {}
    return {
        "analog": {
            "pulser_device": info.analog.device,
            "shot": info.analog.shot_ns * 1e-9,
            "overhead": info.analog.overhead_ns * 1e-9,
            "time_unit": "s",
        }
    }


def _modules(info: DeviceInfo) -> Plain:
    """Modules and links of a device; {} for one QPU. The pairs of links are edges too."""
    if not info.modules:
        return {}
    modules = [
        {
            "name": each.name,
            "nodes": [str(qubit) for qubit in each.qubits],
            "communication": [str(qubit) for qubit in each.communication],
        }
        for each in info.modules
    ]
    links = [
        {
            "edge": [str(qubit) for qubit in each.pair],
            "fidelity": each.fidelity,
            "wait": each.wait_ns * 1e-9,
            "latency": each.latency_ns * 1e-9,
        }
        for each in info.links
    ]
    return {"modules": modules, "links": links, "link_units": {"wait": "s", "latency": "s"}}


def _logical(info: DeviceInfo) -> Plain:
    """Code and chip of logical qubits; {} for physical ones."""
    if info.logical is None:
        return {}
    record = msgspec.to_builtins(msgspec.structs.asdict(info.logical))
    return {"logical": {name: value for name, value in record.items() if value is not None}}


def edges(info: DeviceInfo) -> list[tuple[int, int]]:
    """Coupled pairs (a, b), as in the coupling record."""
    if not info.all_to_all and info.directed:
        return list(info.coupling)
    if not info.all_to_all:
        return sorted({(min(pair), max(pair)) for pair in info.coupling})
    listed = info.num_qubits <= MOST_EDGES_QUBITS
    return list(combinations(range(info.num_qubits), 2)) if listed else []


def qubits(info: DeviceInfo) -> list[str]:
    """Names of the usable qubits: their numbers as text."""
    return [str(number) for number in range(info.num_qubits) if number not in info.unusable]


def basis(info: DeviceInfo) -> list[str]:
    """Names of the gates that act on a fixed number of qubits."""
    return [gate.name for gate in info.gates if gate.qubits > 0]


def timestamp(info: DeviceInfo) -> str:
    """Time of the calibration, ISO 8601 in UTC."""
    return datetime.fromtimestamp(info.calibrated_s, UTC).isoformat()


def _head(name: str, info: DeviceInfo) -> Plain:
    ideal = info.kind is DeviceKind.IDEAL  # its model is an engine, which has no name of its own
    head = {
        "id": name,
        "name": name if ideal else info.model or name,
        "provider_device_id": name if ideal else info.model,
        "version": info.version,
        "technology": info.technology,
    }
    return {**{key: value for key, value in head.items() if value}, "num_qubits": info.num_qubits}


def _metadata(info: DeviceInfo) -> Plain:
    return {"ideal": info.kind is DeviceKind.IDEAL, **_set_id(info)}


def _set_id(info: DeviceInfo) -> Plain:
    return {"calibration_set_id": info.calibration_id} if info.calibration_id else {}


def _gate(name: str, arity: int, params: int) -> Plain:
    return {"name": name, "arity": arity, "params": params}


def _engine(engine: model.EngineInfo) -> Plain:
    return {
        "name": engine.name, "summary": engine.summary, "num_qubits": engine.max_qubits,
        "outputs": list(engine.outputs), "precisions": list(engine.precisions),
        "dynamic_circuits": engine.dynamic, "clifford_only": engine.clifford,
    }  # fmt: skip


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
    middle = statistics.median(there)
    return {"count": len(there), "min": min(there), "median": middle, "max": max(there)}


ACTIVE = "active"
CONFIDENCE = "observed-controller-state"
ESTIMATED = "estimated"


class DeviceSnapshot(msgspec.Struct, frozen=True):
    """State of a device at `now_ns`. `room`: units of its admission policy that are not reserved,
    None if unlimited. `begins`: True if the device is neither paused nor draining."""

    target_id: str
    device_id: str
    access_class: str
    now_ns: int
    service: model.ServiceInfo
    pools: tuple[model.PoolInfo, ...]
    target: model.TargetInfo
    admission: dict[str, Any]  # its admission policy, as it is configured
    room: int | None
    begins: bool

    @property
    def scheduler(self) -> dict[str, Any]:
        """Queue policy of the device, with its options."""
        return {"policy_name": self.target.policy, "options": dict(self.target.options)}

    @property
    def policies(self) -> dict[str, Any]:
        """Policies on which wait estimates depend."""
        return {"scheduler": self.scheduler, "admission": self.admission}

    @property
    def is_available(self) -> bool:
        """True if a circuit that is submitted now would start in its turn."""
        return self.begins and is_available(self.pools)


def begins(target: model.TargetInfo, overall: model.TargetInfo) -> bool:
    """Return whether the device starts tasks. A pause or drain of all devices (`overall`) applies
    to each."""
    return target.state == overall.state == ACTIVE


def is_available(pools: Sequence[model.PoolInfo]) -> bool:
    """Return whether a pool can run a circuit. A pool that is starting, or starts on demand,
    can."""
    return any(pool.state != "quarantined" for pool in pools)


def hosts(info: model.ServiceInfo) -> list[str]:
    """Nodes on which the workers of the pools run; before the first worker: all nodes."""
    own = {name for pool in info.pools for name in pool.nodes}
    return [node.name for node in info.nodes if node.name in own or not own]


def pool(info: model.PoolInfo) -> dict[str, Any]:
    """Summary of one pool."""
    names = ("name", "engine", "state", "reason", "workers", "busy", "waiting")
    return {name: getattr(info, name) for name in names}


_AllocationNames = tuple[str, str, str, str, str]


def allocations(infos: Iterable[model.ReservationInfo]) -> list[answers.SchedulerAllocation]:
    """Live reservations by the allocation of a batch scheduler that they name; without those that
    name neither an allocation nor a job."""
    groups: dict[_AllocationNames, list[model.ReservationInfo]] = {}
    for info in infos:
        scheduler, cluster, allocation = (dict(info.metadata).get(name, "") for name in ALLOCATION)
        names = (scheduler, cluster, allocation, info.job, info.user or info.owner)
        if allocation or info.job:
            groups.setdefault(names, []).append(info)
    return [_allocation(names, group) for names, group in groups.items()]


def _allocation(
    names: _AllocationNames, group: list[model.ReservationInfo]
) -> answers.SchedulerAllocation:
    tasks = sum(info.parked + info.waiting + info.running for info in group)
    states = [info.state for info in group]
    state = model.ReservationState.ACTIVE if model.ReservationState.ACTIVE in states else states[0]
    return answers.SchedulerAllocation(
        *names, state=state.upper(), active_tasks=tasks, active_task_count=tasks,
        workload_kind=group[0].workload_kind, created_at_ns=min(info.created_ns for info in group),
    )  # fmt: skip


def capacity(seen: DeviceSnapshot, scope_id: str | None) -> telemetry_answers.CapacitySnapshot:
    return telemetry_answers.CapacitySnapshot(
        **_load(seen), scope_id=scope_id, scheduler_queue_depth=seen.target.queued,
        active_reservation_count=seen.target.reservations,
        available_capacity=_available_capacity(seen), scheduler_policy=seen.scheduler,
        device_available=seen.is_available, confidence=CONFIDENCE,
        telemetry=telemetry_answers.Visibility("capacity-snapshot", seen.access_class),
    )  # fmt: skip


def queue(seen: DeviceSnapshot) -> telemetry_answers.QueueMetrics:
    target = seen.target
    return telemetry_answers.QueueMetrics(
        **_load(seen), scheduler_depth=target.queued, active_task_count=target.running,
        selected_task_count=target.sent, provider_inflight_count=target.running,
        dispatch_limits={"max_inflight": target.max_inflight}, policy_state=seen.policies,
        wait_estimate=wait(seen), estimated_start=start(seen),
        telemetry=telemetry_answers.Visibility("queue-metrics", seen.access_class),
    )  # fmt: skip


def _load(seen: DeviceSnapshot) -> Plain:
    """Fields that both snapshots have."""
    target, names = seen.target, ("target_id", "device_id", "access_class")
    return {
        **{name: getattr(seen, name) for name in names},
        "timestamp_ns": seen.now_ns,
        "pending_qtask_count": target.parked,
        "scheduler_task_count": target.queued + target.sent + target.running,
        "held_capacity": held(target),
        "in_flight_capacity": in_flight(seen),
        "estimated_queued_device_time": queued_time(seen),
    }


def held(target: model.TargetInfo) -> telemetry_answers.WorkBlock:
    """Waiting tasks. Parked tasks hold no capacity: they are counted as pending."""
    return _block(target.queued, target.queued_ns, target.held)


def in_flight(seen: DeviceSnapshot) -> telemetry_answers.WorkBlock:
    """Tasks that are assigned to workers."""
    expected_ns = round(1e3 * sum(pool.held_us for pool in seen.pools))
    return _block(seen.target.sent + seen.target.running, expected_ns, seen.target.in_flight)


def wait(seen: DeviceSnapshot) -> telemetry_answers.WaitEstimate:
    """Estimated wait of a circuit that is submitted now, ns."""
    return _forecast(seen, "wait", 0)


def start(seen: DeviceSnapshot) -> telemetry_answers.WaitEstimate:
    """Estimated start of a circuit that is submitted now, ns since 1970."""
    return _forecast(seen, "start", seen.now_ns)


def queued_time(seen: DeviceSnapshot) -> telemetry_answers.WaitEstimate:
    """Expected work of the waiting tasks on one slot, ns."""
    return _estimate(seen, "queued-device-time", seen.target.queued_ns)


def _forecast(seen: DeviceSnapshot, kind: str, since_ns: int) -> telemetry_answers.WaitEstimate:
    if seen.target.wait_ns < 0:
        return telemetry_answers.unavailable(kind, seen.now_ns, seen.policies)
    return _estimate(seen, kind, since_ns + seen.target.wait_ns)


def _estimate(seen: DeviceSnapshot, kind: str, estimated_ns: int) -> telemetry_answers.WaitEstimate:
    return telemetry_answers.WaitEstimate(
        True, kind, None, seen.now_ns, ESTIMATED, seen.policies, estimated_ns
    )


def _block(count: int, expected_ns: int, units: model.HeldCapacity) -> telemetry_answers.WorkBlock:
    return telemetry_answers.WorkBlock(count, expected_ns, units.units, units.credits, units.rate)


def _available_capacity(seen: DeviceSnapshot) -> telemetry_answers.AvailableCapacity:
    info, name = seen.service, seen.admission["name"]
    return telemetry_answers.AvailableCapacity(
        slots=info.slots - info.slots_granted,
        workers=sum(pool.workers - pool.busy for pool in seen.pools),
        memory_bytes=sum(node.memory_bytes - node.memory_granted for node in info.nodes),
        credits=seen.room if name == "credit" else None,
        rate_units=seen.room if name == "rate" else None,
    )


OTHER_EVENT = "service-state-change"
_NAMES = {
    "service.started": "service-restart", "service.listens": "service-registration",
    "service.resumed": "service-recovered", "service.draining": "service-shutdown-requested",
    "service.stopped": "service-deregistration", "allocation.ends": "service-shutdown-requested",
    "device.described": "binding-attached", "device.paused": "scheduler-paused",
    "device.resumed": "scheduler-resumed", "device.draining": "scheduler-draining",
    "device.ordered": "scheduler-policy-change",
    "device.bounded": "scheduler-dispatch-limits-change", "worker.lost": "peer-lost",
    "worker.killed": "service-timeout", "worker.ready": "service-recovered",
    "node.lost": "peer-lost", "node.back": "service-recovered", "pool.resumed": "service-recovered",
    "task.requeued": "reconciliation", "journal.damaged": "reconciliation-fault",
    "journal.dropped": "reconciliation-fault", "task.damaged": "reconciliation-fault",
    "result.damaged": "reconciliation-fault", "history.removed": "retention-purge",
}  # fmt: skip


def lifecycle(target_id: str, event: model.Event) -> telemetry_answers.LifecycleEvent:
    """Convert an event of the service into a lifecycle event of `target_id`."""
    return telemetry_answers.LifecycleEvent(
        event=_NAMES.get(event.kind, OTHER_EVENT), target_id=target_id,
        timestamp_ns=round(event.time_s * 1e9), reason=event.message or None,
        details={"kind": event.kind, "subject": event.subject, "seq": event.seq}, source="simenv",
    )  # fmt: skip
