"""Importer of IQM quality metric sets: observations named like `metrics.rb.prx.*.QB1.fidelity`.

Names are `metrics.METHOD.GATE.IMPLEMENTATION.LOCUS.METRIC` and
`characterization.model.COMPONENT.QUANTITY` or `COMPONENT.QUANTITY`, with suffixes after a colon.
Times are in seconds.
"""

import math
import re
from typing import Any

from noise_models.importers import convert, gate_names, report
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = "iqm"

_COMPONENT = re.compile(r"QB(\d{1,6})", re.ASCII)
_RAMSEY = "t2_star_us"  # T2 without an echo; of a qubit that has no other, its T2
_CHARACTERIZATION = {  # quantity: (field, rank); the lowest rank of a field is used
    "t1_time": ("t1_us", 0),
    "t2_echo_time": ("t2_us", 0),
    "t2_time": (_RAMSEY, 0),
}
_READOUT = {"error_0_to_1": "p01", "error_1_to_0": "p10", "fidelity": "readout_error"}
# Probabilities that a measurement leaves the state as it is (quantum non-demolition).
_STAYS = {"qndness_0": "measure_excitation", "qndness_1": "measure_decay"}
_RANK_METHOD = {"irb": 0, "rb": 1}  # interleaved benchmarking measures the gate itself


def recognizes(source: Source) -> bool:
    """Return whether a document has a list of observations, or a mapping `metrics` of their
    names."""
    return any(_observations(value) is not None for value in source.documents.values())


def _observations(document: Any) -> list[tuple[str, str, Any, dict[str, Any]]] | None:
    """Return (place, name, value, entry) of all observations; None: the document has none."""
    if isinstance(document, dict) and isinstance(document.get("metrics"), dict):
        entries = [
            (f"metrics[{short_repr(name)}]", name, entry)
            for name, entry in document["metrics"].items()
        ]
    elif isinstance(document, dict) and isinstance(document.get("observations"), list):
        entries = [
            (f"observations[{k}]", entry.get("dut_field"), entry)
            for k, entry in enumerate(document["observations"])
            if isinstance(entry, dict)
        ]
        if len(entries) < len(document["observations"]):
            raise SnapshotError("observations", "an entry is not an object")
    else:
        return None
    results = []
    for place, name, entry in entries:
        if not isinstance(entry, dict) or "value" not in entry:
            raise SnapshotError(place, "an observation without a value")
        results.append((place, convert.text(name, f"{place}.dut_field"), entry["value"], entry))
    return results


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert one quality metric set to a snapshot. Raises SnapshotError."""
    if len(source.documents) != 1 or source.tables:
        raise SnapshotError("files", "a quality metric set is one JSON file")
    document = next(iter(source.documents.values()))
    observations = _observations(document)
    if observations is None:
        raise SnapshotError("observations", "missing", hint="a list with dut_field and value")
    places = {int(number) for _, each, _, _ in observations for number in _COMPONENT.findall(each)}
    builder = SnapshotBuilder(NAME, max(places, default=0), "observations")
    builder.values.update(provider="IQM", technology="superconducting")
    when = document.get("end_timestamp") or document.get("quality_metric_set_end_timestamp")
    builder.copy(when, "calibrated", "end_timestamp")
    chosen: dict[tuple[Any, ...], tuple[tuple[int, str], str, float]] = {}
    for place, each, value, entry in observations:
        _choose(builder, chosen, place, each, value, entry)
    for key, (_, place, number) in chosen.items():
        if key[0] == "qubit":
            if key[2] == _RAMSEY and (*key[:2], "t2_us") not in chosen:
                key = *key[:2], "t2_us"
            builder.set_qubit(key[1], key[2], number, place)
        else:
            builder.set_gate(key[1], key[2], "error", number, place)
            if len(key[2]) == 2:
                builder.couple(key[2], place)
                builder.couple(key[2][::-1], place)
    for gate, arity in {gate: len(qubits) for gate, qubits in builder.gate_keys}.items():
        builder.add_native(gate, arity, None, gate)
    label = document.get("dut_label") or document.get("quantum_computer") or ""
    return builder.finish(name or convert.text(label, "dut_label"), source)


def _choose(
    builder: SnapshotBuilder,
    chosen: dict[tuple[Any, ...], tuple[tuple[int, str], str, float]],
    place: str,
    name: str,
    value: Any,
    entry: dict[str, Any],
) -> None:
    """Keep the best observation of each value: by its method, then by the order of names."""
    at = f"{place}.value"
    path, _, suffixes = name.partition(":")
    parts = path.split(".")
    kind = ".".join(parts[:3])[:60] if name.isascii() and name.isprintable() else "(other)"
    if entry.get("invalid") is True:
        builder.recorder.ignored(f"observations.{kind}", "marked as invalid")
        return
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        builder.recorder.ignored(f"observations.{kind}", "null or not finite: not measured")
        return
    target: tuple[Any, ...] | None = None
    rank, number = 0, 0.0
    is_of_component = len(parts) == 2 or (len(parts) == 4 and parts[0] == "characterization")
    if is_of_component and parts[-1] in _CHARACTERIZATION:
        qubit = _COMPONENT.fullmatch(parts[-2])
        if qubit:
            field, rank = _CHARACTERIZATION[parts[-1]]
            target = ("qubit", _index(qubit[1], place), field)
            number = _number(value, at) * 1e6
            if entry.get("unit") not in (None, "", "s"):
                raise SnapshotError(f"{place}.unit", f"{short_repr(entry['unit'])}", hint="s")
    elif len(parts) == 6 and parts[0] == "metrics":
        _, method, gate, _, locus, metric = parts
        qubits = [_COMPONENT.fullmatch(each) for each in locus.split("__")]
        all_qubits = all(qubits)
        indices = tuple(_index(each[1], place) for each in qubits if each)
        if all_qubits and method.endswith("ssro") and metric in _READOUT and len(indices) == 1:
            target = ("qubit", indices[0], _READOUT[metric])
            rank = 0 if method == "ssro" and gate == "measure" else 1
            inputs = convert.probability(_number(value, at), at)
            number = convert.infidelity(inputs, at) if metric == "fidelity" else inputs
        elif all_qubits and method == "qndness" and metric in _STAYS and len(indices) == 1:
            target = ("qubit", indices[0], _STAYS[metric])
            number = 1.0 - convert.probability(_number(value, at), at)
        elif all_qubits and method in _RANK_METHOD and metric == "fidelity" and gate != "clifford":
            target = ("gate", gate_names.qiskit_name(gate), indices)
            rank = _RANK_METHOD[method]
            number = convert.infidelity(_number(value, at), at)
    if target is None:
        if len(parts) in (2, 6) or parts[0] in ("metrics", "characterization", "controllers"):
            builder.recorder.ignored(f"observations.{kind}", "not used by the noise model")
        else:  # no name of IQM's
            builder.recorder.unknown(f"observations.{kind}", is_noise=report.looks_like_noise(path))
        return
    order = (rank, ".".join(parts) + suffixes)
    if target in chosen:
        builder.recorder.ignored(f"observations.{kind}", "another measurement of the same figure")
    if target not in chosen or order < chosen[target][0]:
        chosen[target] = (order, at, number)


def _index(digits: str, place: str) -> int:
    """Return the number of a qubit: QB1 is qubit 0."""
    number = int(digits) - 1
    if number < 0:
        raise SnapshotError(place, "qubit QB0", hint="components begin at QB1")
    return number


def _number(value: Any, at: str) -> float:
    """Return a number; some exports write it as text."""
    return convert.parsed_number(value, at) if isinstance(value, str) else convert.number(value, at)
