"""Cost of compiled circuits, by which one of several compilations is chosen.

Pure, and a function of circuits and device alone: a bound of the work counts gates, never seconds.
The cost is the expected number of errors of the gates on two qubits. Of compilations that it hardly
tells apart, the one with the fewest layers of such gates is taken, which is what its simulation
costs; of equal ones the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo

ENTANGLERS = frozenset(("cx", "cz", "ecr"))  # one of each is written as one of each other
MOST_GATES = 4_000  # on two qubits, in the first compilation of a circuit that is compiled again
_FURTHER = (2, 3)  # levels of Qiskit's transpiler
_DIVIDING = frozenset(("barrier", "delay", "measure", "reset"))  # no gates are joined over one
_UNKNOWN = 1e-2  # error of a gate on two qubits that was not measured
_ALIKE = 1.02  # ratio of expected errors


def further_levels(circuit: Any, compiled: Any) -> tuple[int, ...]:
    """Return the levels at which a circuit may have fewer gates on two qubits than a first
    compilation: none if that has one for each pair of qubits that gates act on in succession, or if
    it is too long."""
    gates = _pair_gates(compiled)
    if len(gates) > MOST_GATES or len(gates) <= _least_gates(circuit):
        return ()
    return _FURTHER


def _pair_gates(circuit: Any) -> list[tuple[str, tuple[int, ...]]]:
    numbers = {qubit: index for index, qubit in enumerate(circuit.qubits)}
    return [
        (each.name, tuple(numbers[qubit] for qubit in each.qubits))
        for each in circuit.data
        if len(each.qubits) == 2 and each.name != "barrier"
    ]


def _least_gates(circuit: Any) -> int:
    """Return the number of blocks of gates on one pair of qubits, between which no gate acts with
    another qubit, and no barrier, measurement or reset on one of them."""
    last: dict[Any, tuple[Any, ...]] = {}
    count = 0
    for each in circuit.data:
        qubits = each.qubits
        if each.name in _DIVIDING:
            last |= dict.fromkeys(qubits, ())
            continue
        if len(qubits) < 2:
            continue
        count += any(set(last.get(qubit, ())) != set(qubits) for qubit in qubits)
        last |= dict.fromkeys(qubits, qubits)
    return count


class Costs:
    """Costs of circuits that are compiled for one device."""

    def __init__(self, info: DeviceInfo) -> None:
        info = Availability(info).with_fractional
        available = Availability(info)
        self._errors = {
            (gate.name, qubits): each.error
            for gate in info.gates
            if gate.qubits == 2
            for qubits, each in available.places(gate.name).items()
            if each is not None and not math.isnan(each.error)
        }

    def cheapest(self, compiled: Sequence[Any]) -> int:
        """Return the number of the cheapest circuit."""
        if len(compiled) == 1:
            return 0
        costs = [self.of(each) for each in compiled]
        least = min(errors for errors, _ in costs)
        return min(
            (k for k, (errors, _) in enumerate(costs) if errors <= _ALIKE * least),
            key=lambda k: (costs[k][1], costs[k][0], k),
        )

    def of(self, circuit: Any) -> tuple[float, int]:
        """Return the expected errors, -log of the probability that none occurs, and the layers of
        gates on two qubits."""
        errors, layers = 0.0, dict[int, int]()
        for name, qubits in _pair_gates(circuit):
            errors -= math.log1p(-min(self._errors.get((name, qubits), _UNKNOWN), 0.999))
            depth = 1 + max(layers.get(qubit, 0) for qubit in qubits)
            layers |= dict.fromkeys(qubits, depth)
        return errors, max(layers.values(), default=0)
