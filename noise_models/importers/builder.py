"""Builder of a snapshot: each value is set once, with its place in the source."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from noise_models import calibration
from noise_models.importers import convert, gate_names, missing, report
from noise_models.importers.source import Source
from noise_models.snapshot import check, clamps
from noise_models.strict_json import MAX_QUBITS, SnapshotError, check_qubits, short_repr

ImportedSnapshot = tuple[calibration.CalibrationSnapshot, report.ImportReport]
# Values of operations that the snapshot has as values of their qubits.
INSTRUCTIONS = {
    ("measure", "error"): "readout_error",
    ("measure", "duration_ns"): "readout_ns",
    ("reset", "error"): "reset_error",
    ("reset", "duration_ns"): "reset_ns",
}


_ENTRY = re.compile(r"(\w+)\[(\d+)\]\.(\w+)")  # of a list of the snapshot
MAX_ANGLE = 1e6  # of a parameter without bounds beside one that has them


class SnapshotBuilder:
    """Builder of the snapshot of one device. Raises SnapshotError with the place in the source."""

    def __init__(self, source_format: str, num_qubits: int, field: str) -> None:
        if not 1 <= num_qubits <= MAX_QUBITS:
            hint = f"1 to {MAX_QUBITS} are supported"
            raise SnapshotError(field, f"{short_repr(num_qubits)} qubits", hint=hint)
        self.source_format = source_format
        self.num_qubits = num_qubits
        self.recorder = report.Recorder()
        self.values: dict[str, Any] = {}  # fields of the snapshot
        self.natives: dict[str, calibration.NativeGate] = {}
        self.coupling: dict[tuple[int, int], None] = {}
        self._qubits: list[dict[str, float]] = [{} for _ in range(num_qubits)]
        self._gates: dict[tuple[str, tuple[int, ...]], dict[str, float]] = {}
        self._unusable: dict[int, str] = {}  # reason why a qubit does not work
        self._left_out: set[str] = set()
        self._bounds: dict[str, calibration.AngleBounds] = {}
        self._measurable: set[int] | None = None  # None: qubits with a value of their measurement
        self._named: dict[tuple[str, int], dict[str, float]] = {}  # measurements beside `measure`
        self._zz: dict[tuple[int, int], float] = {}
        self._dates: dict[str, str] = {}
        self._gate_dates: dict[tuple[str, tuple[int, ...]], dict[str, str]] = {}
        # Places in the source by list of the snapshot, entry and field.
        self._places: dict[tuple[str, object, str], str] = {}

    def set_qubit(self, qubit: int, name: str, value: float, field: str) -> None:
        """Set a value of one qubit. Raises SnapshotError if it was set before."""
        self.check_qubits((qubit,), field)
        if value == 0.0 and name in ("t1_us", "t2_us"):
            self.recorder.ignored(field, "a time of 0: not measured")
            return
        _set_once(self._qubits[qubit], name, value, field, lambda: f"{name} of qubit {qubit}")
        self._places["qubits", qubit, name] = field
        self.recorder.used(field, f"qubits[*].{name}")

    def has_qubit(self, qubit: int, name: str) -> bool:
        """Return whether this value of a qubit was set."""
        return name in self._qubits[qubit]

    def disable_qubit(self, qubit: int, reason: str) -> None:
        """Take a qubit out of the device; its values stay as given."""
        self._unusable.setdefault(qubit, reason)

    def leave_out(self, gate: str, reason: str) -> None:
        """Report a gate of the source that the snapshot does not have."""
        name = convert.key_text(gate)
        if name not in self._left_out:
            self._left_out.add(name)
            self.recorder.missing(f"gates.{name}", f"left out: {reason}")

    def bound_angles(self, gate: str, bounds: object, field: str) -> None:
        """Set the smallest and largest angle of each parameter of a native gate, from a list with a
        pair or null for each; None: no bounds. Raises SnapshotError."""
        if bounds is None:
            return
        limits: list[tuple[float, float]] = []
        for place, each in convert.items(bounds, field):
            ends = (
                [-MAX_ANGLE, MAX_ANGLE]
                if each is None
                else [convert.number(end, at) for at, end in convert.items(each, place)]
            )
            if len(ends) != 2:
                raise SnapshotError(place, f"{len(ends)} numbers", hint="the least and the largest")
            limits.append((ends[0], ends[1]))
            self.recorder.used(place, "angle_bounds[*]")
        self._bounds[gate] = calibration.AngleBounds(gate, tuple(limits))
        self._places["angle_bounds", gate, "bounds_rad"] = field

    def list_measurement(self, qubits: tuple[int, ...], field: str, name: str = "measure") -> None:
        """List a measurement on these qubits, () for all, whether it has values or not. `name`:
        `measure`, or that of a measurement instruction with a name of its own."""
        self.check_qubits(qubits, field)
        if name != "measure":
            for qubit in qubits or range(self.num_qubits):
                self._named.setdefault((name, qubit), {})
            return
        self._measurable = (self._measurable or set()) | set(qubits or range(self.num_qubits))

    def has_measurement(self, name: str) -> bool:
        """Return whether a measurement with a name of its own was listed on a qubit."""
        return any(each == name for each, _ in self._named)

    def add_frame_change_of_all(self, name: str) -> None:
        """List a gate on all qubits as a change of frame, without error and time."""
        if not any(gate == name for gate, _ in self._gates):
            self._gates[name, ()] = {"error": 0.0, "duration_ns": 0.0}

    def add_gate(self, name: str, qubits: tuple[int, ...], field: str) -> None:
        """Add a gate on these qubits, () for all. Raises SnapshotError if it was added before."""
        self.check_qubits(qubits, field)
        key = name, qubits
        _set_once(self._gates, key, {}, field, lambda: f"{short_repr(name)} on {list(qubits)}")

    def set_gate(
        self, name: str, qubits: tuple[int, ...], key: str, value: float, field: str
    ) -> None:
        """Set a value of a gate, and add the gate if it is new. Raises SnapshotError if it was set
        before."""
        if (name, qubits) not in self._gates:
            self.add_gate(name, qubits, field)

        def what() -> str:
            return f"{key} of {short_repr(name)} on {list(qubits)}"

        _set_once(self._gates[name, qubits], key, value, field, what)
        self._places["gates", (name, qubits), key] = field
        self.recorder.used(field, f"gates[*].{key}")

    def set_operation(
        self, name: str, qubits: tuple[int, ...], key: str, value: float, field: str
    ) -> None:
        """Set `error` or `duration_ns` of a gate; of a measurement or reset, which have them as
        values of their qubits, for each qubit, or for all that have none if `qubits` is ()."""
        target = INSTRUCTIONS.get((name, key))
        if calibration.is_named_measurement(name):
            self.list_measurement(qubits, field, name)
            for qubit in qubits or range(self.num_qubits):
                values = self._named[name, qubit]
                if qubits or key not in values:
                    _set_once(values, key, value, field, lambda: f"{key} of {name} on {qubits}")
                    self._places["measurements", (name, qubit), key] = field
                    self.recorder.used(field, f"measurements[*].{key}")
            return
        if target is None:
            self.set_gate(name, qubits, key, value, field)
            return
        for qubit in qubits or range(self.num_qubits):
            if qubits or not self.has_qubit(qubit, target):
                self.set_qubit(qubit, target, value, field)

    def gate_value(self, name: str, qubits: tuple[int, ...], key: str) -> float | None:
        """Return a value of a gate; None: it was not set."""
        return self._gates.get((name, qubits), {}).get(key)

    def replace_error(self, name: str, qubits: tuple[int, ...], error: float) -> None:
        """Set the error of a gate, which may have one already."""
        self._gates.setdefault((name, qubits), {})["error"] = error

    @property
    def gate_keys(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(name, qubits) of all gates added so far."""
        return tuple(self._gates)

    def set_zz(self, pair: tuple[int, int], rate_khz: float, field: str) -> None:
        """Set the static ZZ rate of two qubits. Raises SnapshotError if it was set before."""
        self.check_qubits(pair, field)
        ordered = (min(pair), max(pair))
        _set_once(self._zz, ordered, rate_khz, field, lambda: f"ZZ of {list(pair)}")
        self._places["zz", ordered, "rate_khz"] = field
        self.recorder.used(field, "zz[*].rate_khz")

    def couple(self, pair: tuple[int, int], field: str) -> None:
        """Add a coupled pair in the direction of its gates."""
        self.check_qubits(pair, field)
        self.coupling[pair] = None

    def couple_pairs(self, pairs: object, field: str, *, directed: bool = True) -> None:
        """Add a list of coupled pairs, as the source has it. Raises SnapshotError."""
        for place, pair in convert.items(pairs, field):
            ends = [convert.qubit_index(each, at) for at, each in convert.items(pair, place)]
            if len(ends) != 2:
                raise SnapshotError(place, f"{len(ends)} qubits", hint="a pair")
            for first, second in (ends,) if directed else (ends, ends[::-1]):
                self.couple((first, second), place)
            self.recorder.used(place, "coupling[*]")

    def couple_gates(self) -> None:
        """Couple the pairs of all two-qubit gates."""
        for gate, qubits in self._gates:
            if len(qubits) == 2:
                self.couple((qubits[0], qubits[1]), gate)

    def copy(
        self,
        value: object,
        target: str,
        field: str,
        read: Callable[[object, str], object] = convert.text,
    ) -> None:
        """Store a value of the source in a field of the snapshot, unless the source lacks it."""
        if value is not None and value != "":
            self.values[target] = read(value, field)
            self.recorder.used(field, target)

    def fields(
        self,
        entry: object,
        place: str,
        table: convert.FieldTable,
        known: Collection[str] = (),
        normal: Callable[[str], str] = str,
    ) -> Iterator[tuple[str, float, str]]:
        """Iterate over (field of the snapshot, value, place) of the keys that a table has, and
        report the others that are not known. A null is a value that was not measured. `normal`: the
        form of a key in the table."""
        for key, value in convert.mapping(entry, place).items():
            at = f"{place}.{convert.key_text(key)}"
            name = normal(key)
            if name in table and value is not None:
                target, conversion = table[name]
                yield target, conversion(value, at), at
            elif name not in table and name not in known:
                self.recorder.unknown(at)

    def ignore_others(
        self, document: Mapping[str, Any], known: Collection[str], prefix: str = ""
    ) -> None:
        """Report the keys of an object that are not known."""
        for key in sorted(document.keys() - set(known)):
            self.recorder.unknown(f"{prefix}{short_repr(key)[1:-1]}")

    def add_native(self, name: str, num_qubits: int, num_params: int | None, field: str) -> None:
        """Add a native gate; `num_params` None: the number of parameters of Qiskit's gate."""
        if num_params is None:
            shape = gate_names.SHAPES.get(name)
            num_params = shape[1] if shape is not None and shape[0] == num_qubits else 0
            if shape is None:
                self.recorder.defaulted(
                    f"native_gates.{name}.num_params", "0: the gate is not one of Qiskit's"
                )
        gate = calibration.NativeGate(name, num_qubits, num_params)
        _set_once(self.natives, name, gate, field, lambda: f"the native gate {short_repr(name)}")

    def date_qubit(self, qubit: int, name: str, when: str) -> None:
        """Set the date of a qubit's value."""
        self._dates[f"qubits[{qubit}].{name}"] = when

    def date_gate(self, name: str, qubits: tuple[int, ...], key: str, when: str) -> None:
        """Set the date of a gate's value."""
        self._gate_dates.setdefault((name, qubits), {})[key] = when

    def check_qubits(self, qubits: tuple[int, ...], field: str) -> None:
        """Raise SnapshotError where a qubit is out of range or given twice."""
        check_qubits(field, qubits, self.num_qubits)

    def finish(self, name: str, source: Source) -> ImportedSnapshot:
        """Build and check the snapshot, and return it with the report. `name`: of the device; "":
        that of its file. Raises SnapshotError."""
        if not name:
            name = source.file_name or self.source_format
            self.recorder.defaulted("name", name)
        self._complete_natives()
        self._mirror()
        unusable, unmeasured = self._absent_qubits()
        for gate, qubits in self._gates:
            if gate in self.natives and len(qubits) == 2:
                self.coupling[qubits[0], qubits[1]] = None
        gates = [
            calibration.GateCalibration(gate, qubits, **values)  # type: ignore[arg-type]
            for (gate, qubits), values in self._gates.items()
        ]
        measured = any(self._qubits)
        self._default_fields(measured)
        result = calibration.CalibrationSnapshot(
            name=name,
            num_qubits=self.num_qubits,
            native_gates=tuple(self.natives.values()),
            coupling=() if self.values.get("all_to_all") else tuple(self.coupling),
            qubits=tuple(
                calibration.QubitCalibration(**each)  # type: ignore[arg-type]
                for each in self._qubits
            )
            if measured
            else (),
            gates=tuple(gates),
            zz=tuple(calibration.ZZCoupling(pair, rate) for pair, rate in self._zz.items()),
            dates=self._all_dates(),
            source_format=self.source_format,
            source_digest=source.digest,
            unusable=unusable,
            unmeasured=unmeasured,
            angle_bounds=tuple(self._bounds.values()),
            measurements=tuple(
                calibration.MeasurementCalibration(each, qubit, **values)
                for (each, qubit), values in self._named.items()
            ),
            **self.values,
        )
        try:
            check(result)
        except SnapshotError as error:
            place = ascii(self._place(error.field))[1:-1]
            if place in ("", error.field):
                raise
            text = f"{error.message.removeprefix(f'{error.field}: ')}, as {error.field} in the"
            raise SnapshotError(place, f"{text} snapshot", hint=error.hint) from None
        missing.report(result, self._unusable, self.recorder)
        for field, note in clamps(result):
            self.recorder.clamped(field, note)
        return result, self.recorder.report(self.source_format)

    def _place(self, field: str) -> str:
        """Return the place in the source of a field of the snapshot; "": it is in none."""
        at = _ENTRY.fullmatch(field)
        if at is None:
            return self.recorder.place(field)
        entries: dict[str, Iterable[object]] = {
            "qubits": range(self.num_qubits),
            "angle_bounds": self._bounds,
            "gates": self._gates,
            "measurements": self._named,
            "zz": self._zz,
        }
        entry = next(itertools.islice(entries.get(at[1], ()), int(at[2]), None), None)
        return self._places.get((at[1], entry, at[3]), "")

    def _complete_natives(self) -> None:
        """Make all measured gates native if the source has no list of native gates."""
        if self.natives:
            return
        for gate, qubits in self._gates:
            if gate not in self.natives:
                arity = len(qubits) or gate_names.SHAPES.get(gate, (1, 0))[0]
                self.add_native(gate, arity, None, gate)
        self.recorder.defaulted("native_gates", "the gates that have calibration data")
        self.add_frame_change()

    def add_frame_change(self) -> None:
        """Add rz to native gates with sx or x, which are calibrated without it."""
        if "rz" not in self.natives and not {"sx", "x"}.isdisjoint(self.natives):
            self.add_native("rz", 1, 1, "rz")
            self.add_frame_change_of_all("rz")
            self.recorder.defaulted("native_gates[*]", "rz: a frame change without error and time")

    def _absent_qubits(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the unusable qubits, and the usable ones without a measurement. A number is no
        qubit if the source has values or gates of others and none of it."""
        named = {qubit for _, qubits in self._gates for qubit in qubits}
        named |= {qubit for qubit, values in enumerate(self._qubits) if values}
        named |= {qubit for _, qubit in self._named}
        named |= self._measurable or set()
        everywhere = any(not qubits and gate != "rz" for gate, qubits in self._gates)
        for qubit in range(self.num_qubits):
            if named and qubit not in named and not everywhere:
                self.disable_qubit(qubit, "the source has no data of it")
        measurable = self._measurable
        if measurable is None:
            measurable = {
                qubit
                for qubit, values in enumerate(self._qubits)
                if not values.keys().isdisjoint(_MEASURED)
            }
        unmeasured = set(range(self.num_qubits)) - measurable - self._unusable.keys()
        return tuple(sorted(self._unusable)), tuple(sorted(unmeasured)) if measurable else ()

    def _mirror(self) -> None:
        """Copy each symmetric gate that has one order of its qubits to the other order."""
        for gate, qubits in self.gate_keys:
            is_pair = gate in calibration.SYMMETRIC and len(qubits) == 2
            if is_pair and (gate, qubits[::-1]) not in self._gates:
                self._gates[gate, qubits[::-1]] = dict(self._gates[gate, qubits])
                if gate in self.natives and (qubits[0], qubits[1]) in self.coupling:
                    self.coupling[qubits[1], qubits[0]] = None
                self.recorder.defaulted(
                    "gates[0]", f"{gate} with its qubits exchanged: the same values"
                )

    def _default_fields(self, measured: bool) -> None:
        """Report each field that the source lacks, with the default that replaces it."""
        said = self.recorder.defaulted
        for field, note in _UNKNOWN.items():
            if not self.values.get(field):
                said(field, note)
        if not measured:
            said("qubits", "nothing was measured: no relaxation and no readout error")
            return
        for name, note in _QUBIT_UNKNOWN.items():
            for values in self._qubits:
                if name not in values and not (name in _READOUT and "readout_error" in values):
                    said(f"qubits[0].{name}", note)
                elif name in _READOUT and name not in values:
                    other = _READOUT[name == "p01"]
                    note = "p01 = p10" if other not in values else f"twice it, less {other}"
                    said(f"qubits[0].{name}", f"readout_error: {note}")
        for gate in self.natives:
            for (other, _), values in self._gates.items():
                if other == gate:
                    for key in ("error", "duration_ns"):
                        if key not in values:
                            said(f"gates[0].{key}", f"0 for {gate}: not measured")
            if not any(other == gate for other, _ in self._gates):
                said("gates", f"{gate} has neither error nor duration")

    def _all_dates(self) -> dict[str, str]:
        """Return the dates that differ from the snapshot's; one for a gate if all its values
        agree."""
        calibrated = self.values.get("calibrated", "")
        entries = {field: when for field, when in self._dates.items() if when != calibrated}
        for index, key in enumerate(self._gates):
            dates = self._gate_dates.get(key, {})
            if len(set(dates.values())) == 1:
                dates = {"": next(iter(dates.values()))}
            for name, when in dates.items():
                if when != calibrated:
                    entries[f"gates[{index}]" + (f".{name}" if name else "")] = when
        return entries


def _set_once(
    table: dict[Any, Any], key: object, value: object, field: str, what: Callable[[], str]
) -> None:
    """Set an entry of a table. Raises SnapshotError, with the name of the entry, if it was set
    before."""
    if key in table:
        raise SnapshotError(field, f"{what()} a second time", hint="remove one of the two")
    table[key] = value


_READOUT = ("p01", "p10")
_MEASURED = ("p01", "p10", "readout_error", "readout_ns")  # values of a qubit with a measurement
_UNKNOWN = {
    "calibrated": "not known",
    "dt_ns": "0: delays in dt are refused",
    "max_shots": "0: no limit of shots",
    "technology": "not known",
    "dynamic": "false: measurements stand at the end of a circuit",
    "feed_forward_ns": "0",
    "rep_delay_ns": "the reset of the qubits, or a value of the technology",
    "overhead_ns": "0",
}
_QUBIT_UNKNOWN = {
    "t1_us": "no relaxation", "t2_us": "no dephasing",
    **dict.fromkeys(_READOUT, "0: no readout error"),
    "readout_ns": "0", "excited": "0: ground state in equilibrium",
    **dict.fromkeys(("reset_error", "reset_ns", "preparation_error"), "0"),
}  # fmt: skip
