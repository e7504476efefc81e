"""Report of what an imported device does not have: qubits, pairs, gates, calibrations."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from noise_models.calibration import CalibrationSnapshot, GateCalibration
from noise_models.importers.reading import Recorder

_SHOWN = 12


def report(snapshot: CalibrationSnapshot, reasons: Mapping[int, str], recorder: Recorder) -> None:
    """Report the qubits that are unusable or have no measurement, the coupled pairs without a gate,
    the places without a gate that others have, and the gates without calibration. `reasons`: why a
    qubit is unusable. The lines stand first in a report."""
    same: dict[str, list[int]] = {}
    for qubit in snapshot.unusable:
        same.setdefault(reasons.get(qubit, "unusable"), []).append(qubit)
    for reason, qubits in same.items():
        recorder.missing("qubits", f"{_numbers(qubits)} unusable: {reason}", len(qubits))
    if snapshot.unmeasured:
        note = f"{_numbers(snapshot.unmeasured)}: no measurement"
        recorder.missing("qubits", note, len(snapshot.unmeasured))
    has_data = snapshot.gates or snapshot.qubits
    if has_data and not any(qubit.confusion for qubit in snapshot.qubits):
        recorder.missing("measure", "no error on any qubits: outcomes are read exactly")
    usable = [(q,) for q in range(snapshot.num_qubits) if q not in set(snapshot.unusable)]
    entries: dict[str, dict[tuple[int, ...], GateCalibration]] = {}
    for gate in snapshot.gates:
        entries.setdefault(gate.name, {})[gate.qubits] = gate
    wide = [gate.name for gate in snapshot.native_gates if gate.num_qubits == 2]
    listed = {qubits for name in wide for qubits in entries.get(name, {})}
    pairs = {(min(pair), max(pair)) for pair in snapshot.coupling}
    if listed and () not in listed and all(name in entries for name in wide):
        lacking = [pair for pair in sorted(pairs) if not {pair, pair[::-1]} & listed]
        if lacking:
            recorder.missing("coupling", f"{_places(lacking)}: no gate on them", len(lacking))
    for native in snapshot.native_gates:
        found = entries.get(native.name, {})
        if native.name in snapshot.uncalibrated_gates:
            note = "no error on any qubits: it acts without one"
            recorder.missing(f"gates.{native.name}", note)
        if found and () not in found:
            absent: list[tuple[int, ...]] = []
            if native.num_qubits == 1:
                absent = [each for each in usable if each not in found]
            elif native.num_qubits == 2:
                absent = [pair for pair in sorted(pairs) if not {pair, pair[::-1]} & found.keys()]
            if absent:
                note = f"not on {_places(absent)}"
                recorder.missing(f"gates.{native.name}", note, len(absent))
        partly = [q for q, each in found.items() if each.error is None]
        if partly and native.name not in snapshot.uncalibrated_gates:
            note = f"listed without an error on {_places(sorted(partly))}"
            recorder.missing(f"gates.{native.name}", note, len(partly))
        broken = sorted(
            q for q, each in found.items() if each.error is not None and each.error >= 1
        )
        if broken:
            note = f"does not work on {_places(broken)}"
            recorder.missing(f"gates.{native.name}", note, len(broken))


def _numbers(qubits: Collection[int]) -> str:
    return _places([(qubit,) for qubit in qubits])


def _places(places: Collection[tuple[int, ...]]) -> str:
    shown = ["-".join(map(str, place)) or "all qubits" for place in list(places)[:_SHOWN]]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return ", ".join(shown) + more
