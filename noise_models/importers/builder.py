"""Builder of a snapshot: each value is set once, with its place in the source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from noise_models import calibration
from noise_models.importers import convert, gate_names, missing, report
from noise_models.importers.collected import CollectedValues
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


_INCOMPLETE = ("id", "rz", "x")  # gates on one qubit which do not make all others
MAX_ANGLE = 1e6  # of a parameter without bounds beside one that has them


class SnapshotBuilder:
    """Builder of the snapshot of one device. Raises SnapshotError with the place in the source."""

    def __init__(self, source_format: str, num_qubits: int, field: str) -> None:
        if not 1 <= num_qubits <= MAX_QUBITS:
            hint = f"1 to {MAX_QUBITS} are supported"
            raise SnapshotError(field, f"{short_repr(num_qubits)} qubits", hint=hint)
        self.source_format = source_format
        self.num_qubits = num_qubits
        self._tables = tables = CollectedValues(qubits=[{} for _ in range(num_qubits)])
        self.recorder, self.natives = tables.recorder, tables.natives
        self.values, self.coupling = tables.values, tables.coupling
        self._left_out: set[str] = set()

    def set_qubit(self, qubit: int, name: str, value: float, field: str) -> None:
        """Set a value of one qubit. Raises SnapshotError if it was set before."""
        self.check_qubits((qubit,), field)
        if value == 0.0 and name in ("t1_us", "t2_us"):
            self.recorder.ignored(field, "a time of 0: not measured")
            return
        values = self._tables.qubits[qubit]
        _set_once(values, name, value, field, lambda: f"{name} of qubit {qubit}")
        self._tables.places["qubits", qubit, name] = field
        self.recorder.used(field, f"qubits[*].{name}")

    def has_qubit(self, qubit: int, name: str) -> bool:
        """Return whether this value of a qubit was set."""
        return name in self._tables.qubits[qubit]

    def disable_qubit(self, qubit: int, reason: str) -> None:
        """Take a qubit out of the device; its values stay as given."""
        self._tables.unusable.setdefault(qubit, reason)

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
        self._tables.bounds[gate] = calibration.AngleBounds(gate, tuple(limits))
        self._tables.places["angle_bounds", gate, "bounds_rad"] = field

    def list_measurement(self, qubits: tuple[int, ...], field: str, name: str = "measure") -> None:
        """List a measurement on these qubits, () for all, whether it has values or not. `name`:
        `measure`, or that of a measurement instruction with a name of its own."""
        self.check_qubits(qubits, field)
        if name != "measure":
            for qubit in qubits or range(self.num_qubits):
                self._tables.named.setdefault((name, qubit), {})
            return
        listed = set(qubits or range(self.num_qubits))
        self._tables.measurable = (self._tables.measurable or set()) | listed

    def has_measurement(self, name: str) -> bool:
        """Return whether a measurement with a name of its own was listed on a qubit."""
        return any(each == name for each, _ in self._tables.named)

    def add_frame_change_of_all(self, name: str) -> None:
        """List a gate on all qubits as a change of frame, without error and time."""
        if not any(gate == name for gate, _ in self._tables.gates):
            self._tables.gates[name, ()] = {"error": 0.0, "duration_ns": 0.0}

    def add_gate(self, name: str, qubits: tuple[int, ...], field: str) -> None:
        """Add a gate on these qubits, () for all. Raises SnapshotError if it was added before."""
        self.check_qubits(qubits, field)
        gates, key = self._tables.gates, (name, qubits)
        _set_once(gates, key, {}, field, lambda: f"{short_repr(name)} on {list(qubits)}")

    def set_gate(
        self, name: str, qubits: tuple[int, ...], key: str, value: float, field: str
    ) -> None:
        """Set a value of a gate, and add the gate if it is new. Raises SnapshotError if it was set
        before."""
        if (name, qubits) not in self._tables.gates:
            self.add_gate(name, qubits, field)

        def what() -> str:
            return f"{key} of {short_repr(name)} on {list(qubits)}"

        _set_once(self._tables.gates[name, qubits], key, value, field, what)
        self._tables.places["gates", (name, qubits), key] = field
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
                values = self._tables.named[name, qubit]
                if qubits or key not in values:
                    _set_once(values, key, value, field, lambda: f"{key} of {name} on {qubits}")
                    self._tables.places["measurements", (name, qubit), key] = field
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
        return self._tables.gates.get((name, qubits), {}).get(key)

    def replace_error(self, name: str, qubits: tuple[int, ...], error: float) -> None:
        """Set the error of a gate, which may have one already."""
        self._tables.gates.setdefault((name, qubits), {})["error"] = error

    @property
    def gate_keys(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(name, qubits) of all gates added so far."""
        return tuple(self._tables.gates)

    def set_zz(self, pair: tuple[int, int], rate_khz: float, field: str) -> None:
        """Set the static ZZ rate of two qubits. Raises SnapshotError if it was set before."""
        self.check_qubits(pair, field)
        ordered = (min(pair), max(pair))
        _set_once(self._tables.zz, ordered, rate_khz, field, lambda: f"ZZ of {list(pair)}")
        self._tables.places["zz", ordered, "rate_khz"] = field
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
        for gate, qubits in self._tables.gates:
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
        self._tables.dates[f"qubits[{qubit}].{name}"] = when

    def date_gate(self, name: str, qubits: tuple[int, ...], key: str, when: str) -> None:
        """Set the date of a gate's value."""
        self._tables.gate_dates.setdefault((name, qubits), {})[key] = when

    def check_qubits(self, qubits: tuple[int, ...], field: str) -> None:
        """Raise SnapshotError where a qubit is out of range or given twice."""
        check_qubits(field, qubits, self.num_qubits)

    def finish(self, name: str, source: Source) -> ImportedSnapshot:
        """Build and check the snapshot, and return it with the report. `name`: of the device; "":
        that of its file. Raises SnapshotError."""
        tables = self._tables
        if not name:
            name = source.file_name or self.source_format
            self.recorder.defaulted("name", name)
        self._complete_natives()
        tables.mirror()
        unusable, unmeasured = tables.absent_qubits()
        for gate, qubits in tables.gates:
            if gate in self.natives and len(qubits) == 2:
                self.coupling[qubits[0], qubits[1]] = None
        gates = [
            calibration.GateCalibration(gate, qubits, **values)  # type: ignore[arg-type]
            for (gate, qubits), values in tables.gates.items()
        ]
        measured = any(tables.qubits)
        tables.report_defaults()
        result = calibration.CalibrationSnapshot(
            name=name,
            num_qubits=self.num_qubits,
            native_gates=tuple(self.natives.values()),
            fractional_gates=tuple(tables.fractional.values()),
            coupling=() if self.values.get("all_to_all") else tuple(self.coupling),
            qubits=tuple(
                calibration.QubitCalibration(**each)  # type: ignore[arg-type]
                for each in tables.qubits
            )
            if measured
            else (),
            gates=tuple(gates),
            zz=tuple(calibration.ZZCoupling(pair, rate) for pair, rate in tables.zz.items()),
            dates=tables.all_dates(),
            source_format=self.source_format,
            source_digest=source.digest,
            unusable=unusable,
            unmeasured=unmeasured,
            angle_bounds=tuple(tables.bounds.values()),
            measurements=tuple(
                calibration.MeasurementCalibration(each, qubit, **values)
                for (each, qubit), values in tables.named.items()
            ),
            **self.values,
        )
        try:
            check(result)
        except SnapshotError as error:
            place = ascii(tables.place(error.field))[1:-1]
            if place in ("", error.field):
                raise
            text = f"{error.message.removeprefix(f'{error.field}: ')}, as {error.field} in the"
            raise SnapshotError(place, f"{text} snapshot", hint=error.hint) from None
        missing.report(result, tables.unusable, self.recorder)
        for field, note in clamps(result):
            self.recorder.clamped(field, note)
        return result, self.recorder.report(self.source_format)

    def set_fractional(self, bounds: Mapping[str, object]) -> None:
        """Make gates of the source fractional without which the native gates make every circuit.
        `bounds`: their names, with the limits of their angles as `bound_angles` takes them."""
        self._complete_natives()
        listed = {gate for gate, _ in self._tables.gates}.union(self.natives)
        for name in filter(listed.__contains__, bounds):
            size, params = gate_names.SHAPES[name]
            self.bound_angles(name, bounds[name], name)
            names = [gate.name for gate in self.natives.values() if gate.num_qubits == size]
            if set(names).difference(bounds, _INCOMPLETE):
                self.natives.pop(name, None)
                gate = calibration.NativeGate(name, size, params)
                self._tables.fractional[name] = gate
                self.recorder.used(name, "fractional_gates[*]")

    def _complete_natives(self) -> None:
        """Make all measured gates native if the source has no list of native gates."""
        if self.natives:
            return
        for gate, qubits in self._tables.gates:
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


def _set_once(
    table: dict[Any, Any], key: object, value: object, field: str, what: Callable[[], str]
) -> None:
    """Set an entry of a table. Raises SnapshotError, with the name of the entry, if it was set
    before."""
    if key in table:
        raise SnapshotError(field, f"{what()} a second time", hint="remove one of the two")
    table[key] = value
