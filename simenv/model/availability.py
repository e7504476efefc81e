"""What a device has: the qubits and pairs on which each operation acts.

One rule for all readers of a DeviceInfo: what its data lists exists, and nothing else. An operation
that is listed with qubits acts on these alone; one that is listed for all, or not at all, on every
usable qubit or coupled pair. A gate of error 1 is listed and does not work.
"""

from __future__ import annotations

from functools import reduce
from itertools import permutations

from simenv.model.views import DeviceInfo, OperationInfo

_CODED = (1, 2, 3)  # qubits of the gates whose places are checked
BROKEN = 1.0  # the error of a gate that does not work
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

    def is_everywhere(self, name: str) -> bool:
        """Return whether the operation acts on every usable qubit or coupled pair."""
        listed = self._listed.get(name)
        return listed is None or () in listed

    def is_unlimited(self, name: str) -> bool:
        """Return whether the operation acts on all qubits of the device, in every order."""
        size = self._sizes.get(name, 1)
        listed = self._listed.get(name, {})
        return (
            self.is_everywhere(name)
            and not self._unusable
            and (size != 2 or self.info.all_to_all)
            and not any(each.error >= BROKEN for each in listed.values())
        )

    def codes(self) -> dict[str, list[int]]:
        """Return the places of each operation that is not unlimited, as the numbers of their
        qubits in base `num_qubits`, the first qubit leading."""
        names = ("measure", "reset", "delay", *self._sizes)
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

    def _all(self, name: str) -> list[tuple[int, ...]]:
        size = self._sizes.get(name, 1)
        if size == 1:
            return [(qubit,) for qubit in self.usable]
        if size != 2:
            return []
        return list(permutations(self.usable, 2) if self.info.all_to_all else self.info.coupling)
