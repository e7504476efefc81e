"""Importer of IonQ's characterizations, and of Amazon Braket's properties of IonQ's machines.

A characterization is the JSON of IonQ's API (v0.3 and v0.4): `fidelity` with `spam`, `1q` and `2q`,
each a mean or median, and `timing` in seconds. Braket has the same in `ionq_provider_properties`,
alone or as the section `provider` of the device's capabilities, with keys in upper case. All ions
have the same values, and every pair is coupled.
"""

import math
from datetime import UTC, datetime
from typing import Any

from noise_models.importers import convert
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = "ionq"

_QUBITS = {"harmony": 11, "aria": 25, "forte": 36}  # of a machine whose data has no number
_MAX_TIME_S = 1e5  # above it T1 and T2 are in microseconds
# At most, in seconds. The page of a characterization in IonQ's API has T1 10 and T2 1 in an
# example, and names no unit (docs.ionq.com/api-reference/v0.4/backends/get-a-characterization).
# More, up to _MAX_TIME_S, is of no unit that could be told.
_PLAUSIBLE_S = {"t1": 1e4, "t2": 100.0}
_TIMES = {"t1": "t1_us", "t2": "t2_us", "readout": "readout_ns", "reset": "reset_ns"}
_DURATIONS = ("1q", "2q")
_MAX_DURATION_S = 1.0  # of a gate, readout or reset, which take trapped ions 1e-5 to 1e-3 s
_SPAM = "spam"


def recognizes(source: Source) -> bool:
    """Return whether a document, or its section `provider`, has fidelities of 1q, 2q or spam."""
    return any(_section(value) is not None for _, value in source.objects())


def _section(document: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return (prefix of places, object) with the fidelities; None: there are none."""
    for prefix, each in (("", document), ("provider.", document.get("provider"))):
        if not isinstance(each, dict):
            continue
        fidelity = each.get("fidelity")
        if isinstance(fidelity, dict) and {*_DURATIONS, _SPAM} & set(map(str.lower, fidelity)):
            return prefix, each
    return None


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the values to a snapshot. Raises SnapshotError. Fidelities of gates are average ones;
    that of preparation and measurement together is taken as that of the measurement."""
    document = source.only_object("a characterization is one JSON file")
    found = _section(document)
    if found is None:
        raise SnapshotError("fidelity", "missing", hint="an object with 1q, 2q and spam")
    prefix, section = found
    paradigm = convert.mapping(document.get("paradigm", {}), "paradigm")
    machine = convert.text(document.get("backend") or "", "backend")
    label = machine or convert.text(document.get("deviceName") or "", "deviceName")
    builder = _device(document, paradigm, label)
    gate = _two_qubit_gate(builder, paradigm, label)
    _fidelities(builder, section["fidelity"], f"{prefix}fidelity", gate)
    _timing(builder, section.get("timing"), f"{prefix}timing", gate)
    service = convert.mapping(document.get("service", {}), "service")
    shots = service.get("shotsRange")
    if isinstance(shots, list) and len(shots) == 2:
        builder.copy(shots[1], "max_shots", "service.shotsRange[1]", convert.integer)
    builder.ignore_others(document, _KNOWN)
    if prefix:
        builder.ignore_others(section, _SECTION, prefix)
    return builder.finish(name or label, source)


_SECTION = {"braketSchemaHeader", "fidelity", "timing"}
_KNOWN = {
    *("backend", "date", "qubits", "connectivity", "paradigm", "provider", "service"),
    *("deviceName", *_SECTION),
}


def _device(document: dict[str, Any], paradigm: dict[str, Any], label: str) -> SnapshotBuilder:
    """Begin the snapshot with the number of qubits, the pairs and the date."""
    machine = next((each for each in _QUBITS if each in label.lower()), "")
    counts = [
        ("qubits", document.get("qubits")),
        ("paradigm.qubitCount", paradigm.get("qubitCount")),
    ]
    at, count = next((each for each in counts if each[1] is not None), ("backend", None))
    if count is None and not machine:
        hint = "add a number of qubits: qubits"
        raise SnapshotError("qubits", "missing, and no machine of a known size is named", hint=hint)
    number = _QUBITS[machine] if count is None else convert.integer(count, at)
    builder = SnapshotBuilder(NAME, number, at)
    if count is None:
        builder.recorder.defaulted("num_qubits", f"{number}: those of IonQ {machine.title()}")
    else:
        builder.recorder.used(at, "num_qubits")
    builder.values.update(provider="IonQ", technology="trapped-ion")
    date = document.get("date")
    if isinstance(date, int | float) and not isinstance(date, bool):
        seconds = convert.number(date, "date")
        seconds = seconds / 1e3 if seconds > 1e11 else seconds  # some answers have milliseconds
        try:
            date = datetime.fromtimestamp(seconds, UTC).isoformat()
        except (OverflowError, OSError, ValueError):
            raise SnapshotError("date", f"{short_repr(date)} is not a date") from None
    builder.copy(date, "calibrated", "date")
    _couple(builder, document, paradigm)
    return builder


def _couple(builder: SnapshotBuilder, document: dict[str, Any], paradigm: dict[str, Any]) -> None:
    connectivity = convert.mapping(paradigm.get("connectivity", {}), "paradigm.connectivity")
    full = builder.num_qubits * (builder.num_qubits - 1) // 2
    pairs: set[frozenset[int]] = set()
    for place, pair in convert.items(document.get("connectivity") or [], "connectivity"):
        ends = convert.qubit_tuple(pair, place)
        builder.check_qubits(ends, place)
        if len(ends) != 2:
            raise SnapshotError(place, f"{len(ends)} qubits", hint="a pair")
        pairs.add(frozenset(ends))
    if pairs and len(pairs) < full:
        builder.couple_pairs(document["connectivity"], "connectivity", directed=False)
        return
    builder.values["all_to_all"] = True
    if pairs or connectivity.get("fullyConnected") is True:
        place = "connectivity" if pairs else "paradigm.connectivity"
        builder.recorder.used(place, "all_to_all")
    else:
        builder.recorder.defaulted("coupling", "every pair, as in IonQ's machines")


def _two_qubit_gate(builder: SnapshotBuilder, paradigm: dict[str, Any], label: str) -> str:
    """Add the native gates; return that on two qubits: `rzz` of Forte, else `rxx`, which the
    Moelmer-Soerensen gate MS is apart from changes of frame."""
    listed = convert.items(paradigm.get("nativeGateSet") or [], "paradigm.nativeGateSet")
    named = {convert.text(each, at).lower() for at, each in listed}
    gate = "rzz" if "zz" in named or "forte" in label.lower() else "rxx"
    for each in ("rz", "r", gate):
        builder.add_native(each, 2 if each == gate else 1, None, each)
    builder.add_frame_change_of_all("rz")
    if named:
        builder.recorder.used("paradigm.nativeGateSet", f"native_gates: rz, r, {gate}")
    else:
        builder.recorder.defaulted("native_gates", f"rz, r, {gate}")
    return gate


def _fidelities(builder: SnapshotBuilder, entries: Any, at: str, gate: str) -> None:
    for key, entry in convert.mapping(entries, at).items():
        place = f"{at}.{convert.key_text(key)}"
        lower = key.lower()
        if lower not in (*_DURATIONS, _SPAM):
            builder.recorder.unknown(place, is_noise=True)
            continue
        values = convert.mapping(entry, place)
        which = next((each for each in ("median", "mean") if values.get(each) is not None), "")
        if not which:
            builder.recorder.ignored(place, "neither mean nor median: not measured")
            continue
        error = convert.infidelity(values[which], f"{place}.{which}")
        builder.ignore_others(values, (which,), f"{place}.")
        if lower == _SPAM:
            for qubit in range(builder.num_qubits):
                builder.set_qubit(qubit, "readout_error", error, f"{place}.{which}")
        else:
            name = "r" if lower == "1q" else gate
            qubits = () if lower == "1q" or builder.values.get("all_to_all") else None
            for pair in builder.coupling if qubits is None else ((),):
                builder.set_gate(name, pair, "error", error, f"{place}.{which}")


def _timing(builder: SnapshotBuilder, entries: Any, at: str, gate: str) -> None:
    timing = convert.mapping(entries or {}, at)
    coherence = [value for key, value in timing.items() if key.lower() in ("t1", "t2")]
    # T1 and T2 have one unit: either of the two shows it.
    in_microseconds = any(
        isinstance(each, int | float) and _MAX_TIME_S < each < math.inf for each in coherence
    )
    for key, value in timing.items():
        place = f"{at}.{convert.key_text(key)}"
        lower = key.lower()
        if lower not in _TIMES and lower not in _DURATIONS:
            builder.recorder.unknown(place, is_noise=True)
            continue
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            builder.recorder.ignored(place, "null or not finite: not measured")
            continue
        seconds = convert.number(value, place)
        if not in_microseconds and seconds > _PLAUSIBLE_S.get(lower, math.inf):
            hint = "give T1 and T2 in seconds; from microseconds: divided by 1e6"
            text = f"{seconds:g} is implausible in seconds, and may be in microseconds"
            raise SnapshotError(place, text, hint=hint)
        if lower not in ("t1", "t2") and seconds > _MAX_DURATION_S:
            hint = f"in seconds, at most {_MAX_DURATION_S:g}"
            raise SnapshotError(place, f"{seconds:g} s is implausible", hint=hint)
        if lower in _DURATIONS:
            name = "r" if lower == "1q" else gate
            keys = [each for each in builder.gate_keys if each[0] == name] or [(name, ())]
            for each, qubits in keys:
                builder.set_gate(each, qubits, "duration_ns", seconds * 1e9, place)
            continue
        if lower in ("t1", "t2") and in_microseconds:
            note = "T1 and T2 in seconds are implausible: taken as microseconds"
            builder.recorder.clamped(place, f"{seconds:g}: {note}")
            seconds /= 1e6
        target = _TIMES[lower]
        scale = 1e6 if target.endswith("_us") else 1e9
        for qubit in range(builder.num_qubits):
            builder.set_qubit(qubit, target, seconds * scale, place)
