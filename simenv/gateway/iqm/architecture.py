"""Devices in the form of IQM's API: architectures, calibration sets and quality metrics.

The forms are those of `StaticQuantumArchitecture`, `DynamicQuantumArchitecture` and
`ObservationSetWithObservationData` of iqm-station-control-client. Pure: descriptions in, JSON
values out. An unknown figure is left out, and so is a broken gate. Qubit 0 is QB1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import combinations
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo, DeviceKind, OperationInfo, QubitInfo

IDEAL_QUBITS = 20  # of an ideal pool, all pairs of which are listed
# Implementation of each operation: the names in IQM's calibration sets.
IMPLEMENTATIONS = {
    "prx": "drag_crf",
    "cz": "crf",
    "measure": "constant",
    "cc_prx": "prx_composite",
    "reset": "reset_conditional",
}
_NATIVE = {"prx": ("r", 1), "cz": ("cz", 2)}  # gates of simenv, with their qubits
_NAMESPACE = uuid5(NAMESPACE_URL, "urn:simenv:iqm")

Plain = dict[str, Any]
Locus = tuple[int, ...]


def is_offered(info: DeviceInfo) -> bool:
    """Return whether IQM's circuits run on a device as they are: it is ideal, or its native gates
    contain PRX and CZ."""
    natives = {(gate.name, gate.qubits) for gate in info.gates}
    if info.problem or not natives.issuperset(_NATIVE.values()):
        return False
    return info.kind is DeviceKind.IDEAL or info.all_to_all or bool(info.coupling)


def num_qubits(info: DeviceInfo) -> int:
    """Number of qubits that are offered."""
    ideal = info.kind is DeviceKind.IDEAL
    return min(info.num_qubits, IDEAL_QUBITS) if ideal else info.num_qubits


def qubit_name(qubit: int) -> str:
    return f"QB{qubit + 1}"


def computer_id(name: str) -> UUID:
    """Number of a quantum computer."""
    return uuid5(_NAMESPACE, name)


def calibration_id(name: str, calibration: str) -> UUID:
    """Number of the calibration set of a device's calibration."""
    return uuid5(_NAMESPACE, f"{name}/{calibration}")


def metrics_id(name: str, calibration: str) -> UUID:
    """Number of the quality metric set of a device's calibration."""
    return uuid5(_NAMESPACE, f"{name}/{calibration}/metrics")


def loci(info: DeviceInfo) -> dict[str, list[Locus]]:
    """Qubits on which each operation is available. CZ has one entry for both orders of a pair."""
    if info.kind is DeviceKind.IDEAL:
        count = num_qubits(info)
        singles: list[Locus] = [(qubit,) for qubit in range(count)]
        pairs: list[Locus] = list(combinations(range(count), 2))
        result = {"prx": singles, "cz": pairs, "measure": singles, "reset": singles}
    else:
        available = Availability(info)
        named = {"prx": "r", "cz": "cz", "measure": "measure", "reset": "reset"}
        result = {name: list(available.places(gate)) for name, gate in named.items()}
        result["cz"] = [*sorted({tuple(sorted(pair)) for pair in result["cz"]})]
    resets = result.pop("reset")
    if info.dynamic:
        result |= {"cc_prx": result["prx"], "reset": resets}
    return result


def _names(locus: Iterable[int]) -> list[str]:
    return [qubit_name(qubit) for qubit in locus]


def static(name: str, info: DeviceInfo) -> Plain:
    """Static quantum architecture."""
    return {
        "dut_label": info.model or name,
        "qubits": _names(q for q in range(num_qubits(info)) if q not in info.unusable),
        "computational_resonators": [],
        "connectivity": [_names(pair) for pair in loci(info)["cz"]],
    }


def dynamic(name: str, info: DeviceInfo) -> Plain:
    """Dynamic quantum architecture: the loci of each operation."""
    return {
        "calibration_set_id": str(calibration_id(name, info.calibration_id)),
        "qubits": _names(q for q in range(num_qubits(info)) if q not in info.unusable),
        "computational_resonators": [],
        "gates": {
            gate: {
                "implementations": {
                    IMPLEMENTATIONS[gate]: {"loci": [_names(locus) for locus in places]}
                },
                "default_implementation": IMPLEMENTATIONS[gate],
                "override_default_implementation": {},
            }
            for gate, places in loci(info).items()
            if places
        },
    }


def calibration_set(name: str, info: DeviceInfo) -> Plain:
    """Calibration set: durations of the gates, and frequencies of the qubits. Those of an ideal
    pool have none."""
    number = calibration_id(name, info.calibration_id)
    return _observation_set("calibration-set", number, None, name, info, _settings(info))


def quality_metrics(name: str, info: DeviceInfo) -> Plain:
    """Quality metric set: coherence times of the qubits, fidelities of gates and measurements."""
    described = calibration_id(name, info.calibration_id)
    number = metrics_id(name, info.calibration_id)
    return _observation_set(
        "quality-metric-set", number, described, name, info, _metrics(info)
    )  # fmt: skip


Figure = tuple[str, float, str]  # name, value, unit


def _settings(info: DeviceInfo) -> Iterator[Figure]:
    for qubit, figures in enumerate(info.qubits):
        at = qubit_name(qubit)
        yield f"controllers.{at}.drive.frequency", figures.frequency_ghz * 1e9, "Hz"
        yield f"gates.measure.constant.{at}.duration", figures.readout_ns * 1e-9, "s"
    for gate, locus, each in _measured(info):
        place = f"{gate}.{IMPLEMENTATIONS[gate]}.{'__'.join(_names(locus))}"
        yield f"gates.{place}.duration", each.duration_ns * 1e-9, "s"


def _metrics(info: DeviceInfo) -> Iterator[Figure]:
    for qubit, figures in enumerate(info.qubits):
        yield from _of_qubit(f"{qubit_name(qubit)}", figures)
    for gate, locus, each in _measured(info):
        place = f"{gate}.{IMPLEMENTATIONS[gate]}.{'__'.join(_names(locus))}"
        method = "rb" if gate == "prx" else "irb"
        yield f"metrics.{method}.{place}.fidelity", 1.0 - each.error, ""


def _of_qubit(at: str, figures: QubitInfo) -> Iterator[Figure]:
    model = f"characterization.model.{at}"
    yield f"{model}.t1_time", figures.t1_us * 1e-6, "s"
    if math.isfinite(figures.t2_star_us):
        yield f"{model}.t2_time", figures.t2_star_us * 1e-6, "s"
        yield f"{model}.t2_echo_time", figures.t2_us * 1e-6, "s"
    else:
        yield f"{model}.t2_time", figures.t2_us * 1e-6, "s"
    yield f"metrics.ssro.measure.constant.{at}.fidelity", 1.0 - figures.readout_error, ""


def _measured(info: DeviceInfo) -> Iterator[tuple[str, Locus, OperationInfo]]:
    """Gates with measured figures, at their loci."""
    figures = {(each.name, each.qubits): each for each in info.operations}
    places = loci(info)
    for gate, (native, _) in _NATIVE.items():
        for locus in places[gate]:
            found = figures.get((native, locus)) or figures.get((native, locus[::-1]))
            if found is not None:
                yield gate, locus, found


def _observation_set(
    kind: str, number: UUID, described: UUID | None, name: str, info: DeviceInfo,
    figures: Iterable[Figure],
) -> Plain:  # fmt: skip
    date = datetime.fromtimestamp(info.calibrated_s, UTC).isoformat()
    label = info.model or name
    known = [figure for figure in figures if not math.isnan(figure[1])]
    return {
        "observation_set_id": str(number),
        "observation_set_type": kind,
        "describes_id": described and str(described),
        "invalid": False,
        "dut_label": label,
        "created_timestamp": date,
        "end_timestamp": date,
        "observation_ids": list(range(1, len(known) + 1)),
        "observations": [
            {
                "observation_id": place,
                "dut_field": field,
                "value": value,
                "unit": unit,
                "uncertainty": None,
                "invalid": False,
                "created_timestamp": date,
                "modified_timestamp": date,
                "dut_label": label,
                "source": {"type": "specification_source"},
                "tags": [],
            }
            for place, (field, value, unit) in enumerate(known, 1)
        ],
    }
