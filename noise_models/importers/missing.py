"""Report of what an imported device does not have: qubits, pairs, gates, calibrations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from noise_models.calibration import CalibrationSnapshot, GateCalibration
from noise_models.importers.report import Recorder

_SHOWN = 12


def report(snapshot: CalibrationSnapshot, reasons: Mapping[int, str], recorder: Recorder) -> None:
    """Report the fields of the source that were left out, the qubits that are unusable, have no
    measurement or no relaxation, the coupled pairs without a gate, the places without a gate that
    others have, and the gates without calibration. `reasons`: why a qubit is unusable. The lines
    stand first in a report."""
    if snapshot.analog is not None:
        for title in snapshot.analog.uncalibrated:
            recorder.missing("noise", f"not calibrated, it acts as perfect: {title}")
        return
    same: dict[str, list[int]] = {}
    for qubit in snapshot.unusable:
        same.setdefault(reasons.get(qubit, "unusable"), []).append(qubit)
    for reason, qubits in same.items():
        recorder.missing("qubits", f"{_numbers(qubits)} unusable: {reason}", len(qubits))
    if snapshot.unmeasured:
        note = f"{_numbers(snapshot.unmeasured)}: no measurement"
        recorder.missing("qubits", note, len(snapshot.unmeasured))
    for field, note, count in _qubit_figures(snapshot):
        recorder.missing(field, note, count)
    if names := snapshot.untimed_gates:
        note = f"no duration of {', '.join(names)}: T1 and T2 do not act while they run"
        recorder.missing("durations", note, len(names))
    sizes = {gate.num_qubits for gate in snapshot.native_gates}
    for size, word in ((1, "one qubit"), (2, "two qubits")):
        if size not in sizes and size <= snapshot.num_qubits - len(snapshot.unusable):
            recorder.missing("gates", f"no gate on {word}")
    usable = [(q,) for q in range(snapshot.num_qubits) if q not in set(snapshot.unusable)]
    entries: dict[str, dict[tuple[int, ...], GateCalibration]] = {}
    for gate in snapshot.gates:
        entries.setdefault(gate.name, {})[gate.qubits] = gate
    if ends := {qubit for pair in snapshot.coupled for qubit in pair}:
        alone = [q for (q,) in usable if q not in ends]
        if alone:
            note = f"{_numbers(alone)}: no gate on two qubits works there"
            recorder.missing("coupling", note, len(alone))
    wide = [gate.name for gate in snapshot.native_gates if gate.num_qubits == 2]
    listed = {qubits for name in wide for qubits in entries.get(name, {})}
    pairs = {(min(pair), max(pair)) for pair in snapshot.coupling}
    if listed and () not in listed and all(name in entries for name in wide):
        lacking = [pair for pair in sorted(pairs) if not {pair, pair[::-1]} & listed]
        if lacking:
            recorder.missing("coupling", f"{_places(lacking)}: no gate on them", len(lacking))
    for native in snapshot.all_gates:
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


def _qubit_figures(snapshot: CalibrationSnapshot) -> Iterator[tuple[str, str, int]]:
    """Iterate over (field, note, count) of what was measured on none or not on all qubits. A device
    without any data is ideal and has nothing to report."""
    if not (snapshot.gates or snapshot.qubits):
        return
    usable = [q for q in range(snapshot.num_qubits) if q not in set(snapshot.unusable)]
    qubits = dict(enumerate(snapshot.qubits))
    known = {
        "measure": {q for q, each in qubits.items() if each.confusion is not None},
        "T1": {q for q, each in qubits.items() if each.t1_us is not None},
        "T2": {q for q, each in qubits.items() if each.t2_us is not None},
    }
    effects = {
        "measure": ("error", "outcomes are read exactly"),
        "T1": ("value", "they do not relax"),
        "T2": ("value", "they do not dephase beyond T1"),
    }
    for field, (word, effect) in effects.items():
        measured = known[field]
        lacking = [q for q in usable if q not in measured]
        if field == "measure":
            lacking = [q for q in lacking if q not in set(snapshot.unmeasured)]
        if not measured.intersection(usable):
            yield field, f"no {word} on any qubits: {effect}", 1
        elif lacking:
            yield field, f"no {word} on {_numbers(lacking)}: {effect}", len(lacking)
    for state, figure in enumerate(("p01", "p10")):
        exact = [q for q in usable if q in qubits and qubits[q].state_without_readout == state]
        if exact:
            note = f"no {figure} on {_numbers(exact)}: {state} is read exactly"
            yield "measure", note, len(exact)


def _numbers(qubits: Collection[int]) -> str:
    return _places([(qubit,) for qubit in qubits])


def _places(places: Collection[tuple[int, ...]]) -> str:
    shown = ["-".join(map(str, place)) or "all qubits" for place in list(places)[:_SHOWN]]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return ", ".join(shown) + more
