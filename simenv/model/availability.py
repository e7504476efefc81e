"""What a device has: the qubits and pairs on which each operation acts.

One rule for all readers of a DeviceInfo: what its data lists exists, and nothing else. An operation
that is listed with qubits acts on these alone; one that is listed for all, or not at all, on every
usable qubit or coupled pair. A gate of error 1 is listed and does not work.
"""

from __future__ import annotations

from functools import cached_property, reduce
from itertools import permutations

import msgspec

from simenv.model.devices import DeviceInfo, OperationInfo
from simenv.model.program import is_measurement

_CODED = (1, 2, 3)  # qubits of the gates whose places are checked
BROKEN = 1.0  # the error of a gate that does not work
ALIKE = 0.45  # least mean error of a measurement that hardly tells 0 from 1
Places = dict[tuple[int, ...], OperationInfo | None]  # qubits -> figures; None: no figures


class Availability:
    """Places of the operations of one device."""

    def __init__(self, info: DeviceInfo) -> None:
        self.info = info
        unusable = frozenset(info.unusable)
        self.usable = tuple(q for q in range(info.num_qubits) if q not in unusable)
        self._unusable = unusable
        self._sizes = {gate.name: gate.qubits for gate in info.gates}
        self._listed: dict[str, Places] = {}
        for each in info.operations:
            self._listed.setdefault(each.name, {})[each.qubits] = each
        # Measurement instructions with names of their own, such as `measure_2`.
        self.measurements = tuple(
            name for name in self._listed if is_measurement(name) and name != "measure"
        )

    def is_everywhere(self, name: str) -> bool:
        """Return whether the operation acts on every usable qubit or coupled pair."""
        listed = self._listed.get(name)
        if listed is None:
            return name == "measure" or not is_measurement(name)
        return () in listed

    def is_unlimited(self, name: str) -> bool:
        """Return whether the operation acts on all qubits of the device, in every order."""
        size = self._sizes.get(name, 1)
        broken = any(each.name == name and each.error >= BROKEN for each in self.info.operations)
        everywhere = self.is_everywhere(name) and not self._unusable
        return everywhere and not broken and (size != 2 or self.info.all_to_all)

    def codes(self) -> dict[str, list[int]]:
        """Return the places of each operation that is not unlimited, as the numbers of their
        qubits in base `num_qubits`, the first qubit leading."""
        names = ("measure", *self.measurements, "reset", "delay", *self._sizes)
        width = self.info.num_qubits
        return {
            name: [reduce(lambda code, q: code * width + q, place) for place in self.places(name)]
            for name in dict.fromkeys(names)
            if not self.is_unlimited(name) and self._sizes.get(name, 1) in _CODED
        }

    def places(self, name: str) -> Places:
        """Qubits on which a native gate, `measure`, `reset` or `delay` acts, in the order of the
        data; without those where it does not work."""
        listed = self._listed.get(name, {})
        default = listed.get(())
        if self.is_everywhere(name):
            found = {qubits: listed.get(qubits, default) for qubits in self._all(name)}
            found |= {qubits: each for qubits, each in listed.items() if len(qubits) > 2}
        else:
            found = dict(listed)
        return {
            qubits: each
            for qubits, each in found.items()
            if (each is None or not each.error >= BROKEN) and self._unusable.isdisjoint(qubits)
        }

    def problem(self, name: str, qubits: tuple[int, ...]) -> str:
        """Reason why an operation of the device does not act on these qubits; "": it does."""
        missing = sorted(self._unusable.intersection(qubits))
        if missing:
            return f"device {self.info.name} has no usable qubit {missing[0]}"
        listed = self._listed.get(name, {})
        each = listed.get(qubits, listed.get(()))
        if each is not None and each.error >= BROKEN:
            return f"the calibration of device {self.info.name} says that it does not work there"
        if qubits in self.places(name):
            return ""
        pairs = self.info.coupling
        if len(qubits) == 2 and qubits not in pairs and not self.info.all_to_all:
            order = " in this order" if qubits[::-1] in pairs else ""
            return f"device {self.info.name} does not couple these{order}"
        return f"device {self.info.name} has no {name} there"

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Coupled pairs on which a gate on two qubits works, all if the device lists no gates on
        two qubits."""
        if not self.info.coupling:
            return ()
        wide = [name for name, size in self._sizes.items() if size == 2]
        working = {qubits for name in wide for qubits in self.places(name)}
        return tuple(pair for pair in self.info.coupling if pair in working or not wide)

    @cached_property
    def misread(self) -> tuple[int, ...]:
        """Qubits whose `measure` hardly tells 0 from 1. They exist; no compilation chooses them
        where there are others."""
        found = self.places("measure").items()
        return tuple(place[0] for place, each in found if each is not None and each.error >= ALIKE)

    @cached_property
    def well_read(self) -> DeviceInfo:
        """The device with the qubits of `misread` among those that are not usable."""
        unusable = tuple(sorted((*self.info.unusable, *self.misread)))
        return msgspec.structs.replace(self.info, unusable=unusable)

    def is_complete(self, qubit: int) -> bool:
        """Return whether a qubit has a measurement, every native gate on one qubit, and a reset if
        the device is dynamic."""
        return qubit in self._complete

    @cached_property
    def _complete(self) -> frozenset[int]:
        singles = (name for name, size in self._sizes.items() if size == 1)
        others = ("measure", "reset") if self.info.dynamic else ("measure",)
        places = (self.places(name) for name in (*others, *singles))
        result = frozenset(self.usable)
        return result.intersection(*({place[0] for place in each} for each in places))

    @cached_property
    def with_fractional(self) -> DeviceInfo:
        """The device with its fractional gates among the native ones."""
        if not self.info.fractional_gates:
            return self.info
        gates = self.info.gates + self.info.fractional_gates
        return msgspec.structs.replace(self.info, gates=gates, fractional_gates=())

    @cached_property
    def on_full_pairs(self) -> DeviceInfo:
        """The device without the pairs on which not every gate on two qubits works."""
        wide = [set(self.places(name)) for name, size in self._sizes.items() if size == 2]
        full = set.intersection(*wide) if wide else set()
        return msgspec.structs.replace(
            self.info,
            coupling=tuple(pair for pair in self.info.coupling if pair in full),
            operations=tuple(
                each
                for each in self.info.operations
                if len(each.qubits) != 2 or each.qubits in full
            ),
        )

    @cached_property
    def inside_modules(self) -> DeviceInfo:
        """The device without the gates that make pairs of links: these are no gates that a
        compilation may use."""
        linked = {frozenset(each.pair) for each in self.info.links}
        if not linked:
            return self.info
        return msgspec.structs.replace(
            self.info,
            coupling=tuple(pair for pair in self.info.coupling if frozenset(pair) not in linked),
            operations=tuple(
                each for each in self.info.operations if frozenset(each.qubits) not in linked
            ),
            gates=tuple(each for each in self.info.gates if not self._links_alone(each.name)),
        )

    def _links_alone(self, name: str) -> bool:
        """Return whether all places of a gate are links."""
        linked = {frozenset(each.pair) for each in self.info.links}
        places = self._listed.get(name, {})
        return bool(places) and all(frozenset(each) in linked for each in places)

    @cached_property
    def complete(self) -> DeviceInfo:
        """The device without gates on two qubits one of which is not complete: no compilation leads
        a circuit over these."""
        if len(self._complete) == self.info.num_qubits:
            return self.info
        kept = self._complete.issuperset
        return msgspec.structs.replace(
            self.info,
            coupling=tuple(pair for pair in self.info.coupling if kept(pair)),
            operations=tuple(
                each for each in self.info.operations if len(each.qubits) < 2 or kept(each.qubits)
            ),
        )

    @cached_property
    def _parts(self) -> tuple[tuple[int, ...], ...]:
        """Complete qubits in parts that gates connect, each qubit but the first of a part with one
        before it."""
        neighbours: dict[int, set[int]] = {qubit: set() for qubit in sorted(self._complete)}
        for name, size in self._sizes.items():
            for first, second in self.places(name) if size == 2 else ():
                if self._complete.issuperset((first, second)):
                    neighbours[first].add(second)
                    neighbours[second].add(first)
        seen: set[int] = set()
        parts = []
        for start in neighbours:
            part = [start] if start not in seen else []
            for qubit in part:
                fresh = sorted(neighbours[qubit] - seen - {start})
                seen.add(qubit)
                seen.update(fresh)
                part += fresh
            if part:
                parts.append(tuple(part))
        return tuple(parts)

    @cached_property
    def most_connected(self) -> int:
        """Number of qubits of the largest part that gates connect."""
        return max(map(len, self._parts), default=0)

    @cached_property
    def by_connection(self) -> tuple[int, ...]:
        """Complete qubits, those of the smallest parts first."""
        return tuple(qubit for part in sorted(self._parts, key=len) for qubit in part)

    @cached_property
    def not_connected(self) -> tuple[int, ...]:
        """Qubits outside the largest part that gates connect."""
        largest = max(self._parts, key=len, default=())
        return tuple(sorted(set(range(self.info.num_qubits)).difference(largest)))

    def connected(self, count: int) -> tuple[int, ...]:
        """Return complete qubits that gates connect, each with one before it; () if the device has
        less than `count` such."""
        parts = (part for part in self._parts if len(part) >= count)
        return next(parts, ())[:count]

    def _all(self, name: str) -> list[tuple[int, ...]]:
        size = self._sizes.get(name, 1)
        if size == 1:
            return [(qubit,) for qubit in self.usable]
        if size != 2:
            return []
        return list(permutations(self.usable, 2) if self.info.all_to_all else self.info.coupling)
