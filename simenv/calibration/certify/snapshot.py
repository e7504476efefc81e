"""Snapshots of a device: from its own published figures, and from the experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
    Technology,
    ZZCoupling,
)
from simenv.calibration.experiments.estimators.estimates import Estimate
from simenv.calibration.experiments.procedure import ExperimentResults
from simenv.model.devices import DeviceInfo

_TECHNOLOGIES: tuple[Technology, ...] = (
    "superconducting", "trapped-ion", "neutral-atom", "simulator",
)  # fmt: skip
_SOURCE = "simenv certify"
_LEAST_ZZ_ERRORS = 4.0  # an interaction below this number of standard errors is taken as zero
_LIMIT_ERRORS = 3.0  # standard errors of the limit of a time that is too long to be measured
_GATES = {"error_1q": 1, "error_half": 1, "error_2q": 2}


def published(info: DeviceInfo) -> CalibrationSnapshot:
    """Snapshot of the figures that a device publishes; unknown ones are left out."""
    return CalibrationSnapshot(
        name=info.model or info.name,
        num_qubits=info.num_qubits,
        provider=info.provider,
        technology=next((t for t in _TECHNOLOGIES if t == info.technology), ""),
        version=info.version,
        calibrated=_moment(info.calibrated_s) if info.calibrated_s else "",
        dt_ns=_number(info.dt_ns) or 0.0,
        max_shots=info.max_shots,
        dynamic=info.dynamic,
        all_to_all=info.all_to_all,
        native_gates=tuple(
            NativeGate(gate.name, gate.qubits, gate.params)
            for gate in info.gates
            if gate.qubits > 0
        ),
        coupling=info.coupling,
        qubits=tuple(
            QubitCalibration(
                t1_us=_number(qubit.t1_us),
                t2_us=_number(qubit.t2_us),
                frequency_ghz=_number(qubit.frequency_ghz),
                readout_ns=_number(qubit.readout_ns),
                readout_error=_number(qubit.readout_error),
            )
            for qubit in info.qubits
        ),
        gates=tuple(
            GateCalibration(
                each.name, each.qubits, error=_number(each.error),
                duration_ns=_number(each.duration_ns),
            )
            for each in info.operations
            if each.name not in ("measure", "reset", "delay")
        ),
    )  # fmt: skip


def recovered(
    base: CalibrationSnapshot, measured: ExperimentResults, now_s: float, name: str
) -> CalibrationSnapshot:
    """Snapshot with the measured values in place of those of `base`, which supplies gates,
    couplings and durations. Values that were not measured are kept, and so are times that are too
    long to be measured where they are not below the measured limit."""
    estimates = [each for each in measured.estimates if each.has_signal]
    by_quantity: dict[str, dict[tuple[int, ...], Estimate]] = {}
    for estimate in estimates:
        by_quantity.setdefault(estimate.quantity, {})[estimate.qubits] = estimate
    return msgspec.structs.replace(
        base,
        name=name,
        calibrated=_moment(now_s),
        qubits=_qubits(base, by_quantity),
        gates=_gates(base, measured),
        zz=_interactions(base, by_quantity.get("zz_khz", {})),
        zz_strength=None,
        fitted=None,
        correlated_readout=(),
        dates={},
        source_format=_SOURCE,
        source_digest="",
    )


def _qubits(
    base: CalibrationSnapshot, estimates: Mapping[str, Mapping[tuple[int, ...], Estimate]]
) -> tuple[QubitCalibration, ...]:
    """Measured times and readout. Readout errors include the preparation error, which becomes 0."""
    missing = base.num_qubits - len(base.qubits)
    qubits = []
    for number, qubit in enumerate(base.qubits + (QubitCalibration(),) * missing):
        values: dict[str, float | None] = {}
        for quantity in ("t1_us", "t2_us", "p01", "p10"):
            estimate = estimates.get(quantity, {}).get((number,))
            if estimate is None:
                continue
            low, high = estimate.interval(_LIMIT_ERRORS)
            if math.isfinite(high):
                values[quantity] = estimate.value
            elif (getattr(qubit, quantity) or math.inf) < low:
                values[quantity] = low
        if "p01" in values and "p10" in values:
            values["readout_error"] = 0.5 * ((values["p01"] or 0.0) + (values["p10"] or 0.0))
            values["preparation_error"] = 0.0
        qubits.append(msgspec.structs.replace(qubit, **values))
    return tuple(qubits)


def _gates(base: CalibrationSnapshot, measured: ExperimentResults) -> tuple[GateCalibration, ...]:
    """Entries of measured gates; on pairs in both orders if the base has both."""
    table = {(gate.name, gate.qubits): gate for gate in base.gates}
    coupled = set(base.coupling)
    for estimate in measured.estimates:
        if estimate.quantity not in _GATES or not estimate.has_signal:
            continue
        error = max(estimate.value, 0.0)
        orders = {estimate.qubits, estimate.qubits[::-1]}
        places = [place for place in orders if (estimate.gate, place) in table or place in coupled]
        for place in sorted(places) or [estimate.qubits]:
            key = estimate.gate, place
            entry = table.get(key) or table.get((estimate.gate, ()))
            entry = entry or GateCalibration(estimate.gate, place)
            table[key] = msgspec.structs.replace(
                entry, qubits=place, error=error, over_rotation_rad=None
            )
    for place in measured.dead:
        if len(place) == 2:
            for key, entry in list(table.items()):
                if set(key[1]) == set(place):
                    table[key] = msgspec.structs.replace(entry, error=1.0)
    return tuple(table[key] for key in sorted(table))


def _interactions(
    base: CalibrationSnapshot, estimates: Mapping[tuple[int, ...], Estimate]
) -> tuple[ZZCoupling, ...]:
    """Measured interactions that differ from zero, and those of pairs that were not measured."""
    measured = {tuple(sorted(pair)) for pair in estimates}
    acting = base.acting_zz_khz.items()
    kept = [ZZCoupling(pair, rate) for pair, rate in acting if pair not in measured]
    for (a, b), estimate in sorted(estimates.items()):
        if abs(estimate.value) > _LEAST_ZZ_ERRORS * estimate.std_error:
            kept.append(ZZCoupling((a, b), estimate.value))
    return tuple(kept)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
