"""Native form of programs on a device: its gates on its couplings, and the limits of its angles."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.model import NO_GATES, OWNERS, Program, is_measurement
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo

TOLERANCE = 1e-9  # rad, of a limit of an angle


class NativeForm:
    """Check whether programs consist of operations that a device has, where it has them; fractional
    gates are among them."""

    def __init__(self, info: DeviceInfo) -> None:
        info = Availability(info).with_fractional
        self._num_qubits = info.num_qubits
        self._dynamic = info.dynamic
        available = Availability(info)
        self._native = {gate.name: gate.qubits for gate in info.gates}
        self._native |= dict.fromkeys(available.measurements, 1)
        codes = available.codes()
        self._places = {name: np.array(each, np.int64) for name, each in codes.items()}
        self._limits = {each.gate: np.array(each.bounds_rad) for each in info.angle_limits}

    def is_refused(self, program: Program) -> bool:
        """Return whether the program has conditions or loops and the device has no dynamic
        circuits, or a measurement of a name that the device lacks."""
        if not self._dynamic and not set(OWNERS).isdisjoint(program.names):
            return True
        named = (each for each in program.names if is_measurement(each) and each != "measure")
        return any(name not in self._native for name in named)

    def fits(self, program: Program) -> bool:
        """Return whether the device has all operations of the program on its qubits."""
        if program.num_qubits > self._num_qubits:
            return False
        arities = np.frombuffer(program.arities, np.uint16)[0::3].astype(np.int64)
        for name, size in zip(program.names, arities.tolist(), strict=True):
            if name not in NO_GATES and self._native.get(name) != size:
                return False
        ops = np.frombuffer(program.ops, np.uint16)
        sizes = arities[ops]
        starts = np.cumsum(sizes) - sizes
        qubits = np.frombuffer(program.qubits, np.uint16).astype(np.int64)
        for row, (name, size) in enumerate(zip(program.names, arities.tolist(), strict=True)):
            places = self._places.get(name)
            if places is None:
                continue
            at = starts[ops == row]
            codes = qubits[at]
            for k in range(1, size):
                codes = codes * self._num_qubits + qubits[at + k]
            if not np.isin(codes, places).all():
                return False
        return not self._limits or self._is_within(program, ops)

    def _is_within(self, program: Program, ops: NDArray[np.uint16]) -> bool:
        """Return whether all angles that are numbers are within the device's limits."""
        counts = np.frombuffer(program.arities, np.uint16)[2::3].astype(np.int64)[ops]
        starts = np.cumsum(counts) - counts
        params = np.frombuffer(program.params, np.float64)
        free = np.zeros(params.size, np.bool_)
        if program.num_slots:
            free[np.frombuffer(program.slots, np.int32).reshape(-1, 2)[:, 0]] = True
        for row, name in enumerate(program.names):
            for number, (low, high) in enumerate(self._limits.get(name, ())):
                at = starts[ops == row] + number
                angles = params[at][~free[at]]
                outside = (angles < low - TOLERANCE) | (angles > high + TOLERANCE)
                if outside.any():
                    return False
        return True


class BindingFolder:
    """Rewrites rzz whose angle is a slot with values outside the device's limits. rz and rx about
    it get angles of their own for each binding, by the identities of `fold_rzz`."""

    def __init__(self, program: Program, rows: NDArray[np.float64], native: Container[str]) -> None:
        """`rows` [K, slots]: values of the slots; `native`: names of the device's gates."""
        self._program, self._rows = program, rows
        self._has_rx = "rx" in native
        self._names, self._arities = list(program.names), bytearray(program.arities)
        self._table: dict[str, int] = {}
        self._columns = [*rows.T]
        self._of: dict[int, tuple[int, int, int]] = {}  # of a slot: those of rzz, rz, rx; -1: none
        self._ops: list[int] = []
        self._qubits: list[int] = []
        self._params: list[float] = []
        self._slots: list[tuple[int, int]] = []

    def folded(self, low: float, high: float) -> tuple[Program, NDArray[np.float64]]:
        """Return the program with each rzz from `low` to `high`, and the values of its slots."""
        program = self._program
        sizes = np.frombuffer(program.arities, np.uint16).reshape(-1, 3).tolist()
        qubits = np.frombuffer(program.qubits, np.uint16).tolist()
        params = np.frombuffer(program.params, np.float64).tolist()
        given = np.frombuffer(program.slots, np.int32).tolist()
        slots = dict(zip(given[0::2], given[1::2], strict=True))
        outside = (self._rows < low - TOLERANCE) | (self._rows > high + TOLERANCE)
        beyond: NDArray[np.bool_] = np.any(outside, axis=0)
        q = p = 0
        for row in np.frombuffer(program.ops, np.uint16).tolist():
            width, _, count = sizes[row]
            mine = qubits[q : q + width]
            slot = slots.get(p, -1) if program.names[row] == "rzz" else -1
            if slot >= 0 and beyond[slot]:
                self._fold(slot, mine)
            else:
                self._add(
                    row, mine, params[p : p + count], [slots.get(p + k) for k in range(count)]
                )
            q, p = q + width, p + count
        changed = msgspec.structs.replace(
            program,
            names=tuple(self._names),
            arities=bytes(self._arities),
            ops=np.array(self._ops, np.uint16).tobytes(),
            qubits=np.array(self._qubits, np.uint16).tobytes(),
            params=np.array(self._params).tobytes(),
            num_slots=len(self._columns),
            slots=np.array(self._slots, np.int32).tobytes(),
        )
        return changed, np.ascontiguousarray(np.column_stack(self._columns))

    def _fold(self, slot: int, qubits: list[int]) -> None:
        angle, turn, flip = self._slots_of(slot)
        for qubit in qubits if turn >= 0 else ():
            self._gate("rz", [qubit], turn)
        for part in (False, True):
            if flip >= 0 and self._has_rx:
                self._gate("rx", qubits[:1], flip)
            elif flip >= 0:  # rx(a) = rz(pi/2) sx rz(a + pi) sx rz(pi/2)
                for name, middle in (("rz", -1), ("sx", -1), ("rz", flip), ("sx", -1), ("rz", -1)):
                    self._gate(name, qubits[:1], middle)
            if not part:
                self._gate("rzz", qubits, angle)

    def _slots_of(self, slot: int) -> tuple[int, int, int]:
        if slot not in self._of:
            turned = np.remainder(self._rows[:, slot] + math.pi, 2.0 * math.pi) - math.pi
            wide = np.abs(turned) > math.pi / 2
            turned -= np.where(wide, np.copysign(math.pi, turned), 0.0)
            negative = turned < 0.0
            base = 0.0 if self._has_rx else math.pi
            self._of[slot] = (
                self._column(np.abs(turned)),
                self._column(math.pi * wide) if wide.any() else -1,
                self._column(base + math.pi * negative) if negative.any() else -1,
            )
        return self._of[slot]

    def _column(self, values: NDArray[Any]) -> int:
        self._columns.append(values)
        return len(self._columns) - 1

    def _gate(self, name: str, qubits: list[int], slot: int) -> None:
        """Append a gate with one angle or none; `slot` -1: its angle is pi / 2."""
        has_angle = name != "sx"
        if name not in self._table:
            self._table[name] = len(self._names)
            self._names.append(name)
            self._arities += np.array([len(qubits), 0, has_angle], np.uint16).tobytes()
        angles = [math.pi / 2 if slot < 0 else 0.0] if has_angle else []
        self._add(self._table[name], qubits, angles, [slot if slot >= 0 else None] * len(angles))

    def _add(
        self, row: int, qubits: list[int], params: list[float], slots: list[int | None]
    ) -> None:
        self._ops.append(row)
        self._qubits += qubits
        for value, slot in zip(params, slots, strict=True):
            if slot is not None:
                self._slots.append((len(self._params), slot))
            self._params.append(value)
