"""Cache of the programs of tapes, by everything they depend on.

Invariant: tapes that differ in their angles alone are bindings of one program.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pennylane as qml
from numpy.typing import NDArray

from simenv.frontends.pennylane.encoder import AngleTable, CircuitWriter, TapeCircuit
from simenv.frontends.pennylane.gates import is_carried, is_gate
from simenv.frontends.pennylane.measurements import MeasuredBasis
from simenv.model import Program

MAX_PROGRAMS = 1_024


@dataclass(frozen=True)
class TapeProgram:
    """A program and the sources of its slots. `key`: everything it depends on."""

    key: tuple[Any, ...]
    program: Program
    angles: AngleTable


class TapeProgramCache:
    """Programs of one device. Not thread-safe."""

    def __init__(self) -> None:
        self._programs: OrderedDict[tuple[Any, ...], TapeProgram] = OrderedDict()

    def plain(self, tape: Any, circuit: TapeCircuit) -> TapeProgram:
        """Program of a tape's operations without measurements at the end."""
        return self._kept((circuit.key, None), tape, circuit, (), (), {})

    def measured(self, tape: Any, circuit: TapeCircuit, basis: MeasuredBasis) -> TapeProgram:
        """Program with measurements in a basis at its end."""
        gates = _decomposed(basis.gates)
        first = len(circuit.values)
        angles = [float(value) for gate in gates if is_gate(gate) for value in gate.data]
        fixed = {first + k: angle for k, angle in enumerate(angles)}
        key = (circuit.key, basis.key)
        return self._kept(key, tape, circuit, gates, tuple(basis.letters), fixed)

    def differentiated(
        self, tape: Any, circuit: TapeCircuit, free: frozenset[int], values: NDArray[np.float64]
    ) -> TapeProgram:
        """Program with the values numbered in `free` as slots, and the others as constants."""
        fixed = {k: float(values[k]) for k in range(len(values)) if k not in free}
        key = (circuit.key, tuple(fixed.items()))
        return self._kept(key, tape, circuit, (), (), fixed)

    def shadowed(self, tape: Any, circuit: TapeCircuit, wires: Sequence[Any]) -> TapeProgram:
        """Program that rotates each of these wires into a Pauli basis and measures it; it has three
        further values for each wire, the angles of `u`."""
        with qml.QueuingManager.stop_recording():
            turns = [qml.U3(0.0, 0.0, 0.0, wires=wire) for wire in wires]
        key = (circuit.key, "shadow", tuple(wires))
        return self._kept(key, tape, circuit, turns, tuple(wires), {})

    def _kept(
        self,
        key: tuple[Any, ...],
        tape: Any,
        circuit: TapeCircuit,
        gates: Sequence[Any],
        wires: tuple[Any, ...],
        fixed: dict[int, float],
    ) -> TapeProgram:
        result = self._programs.get(key)
        if result is not None:
            self._programs.move_to_end(key)
            return result
        writer = CircuitWriter(circuit.order, fixed)
        writer.operations(tape.operations)
        writer.operations(gates)
        result = self._programs[key] = TapeProgram(key, *writer.program(wires))
        if len(self._programs) > MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return result


def _decomposed(gates: Sequence[Any]) -> list[Any]:
    """Diagonalising gates as gates of the table or matrices: their angles are constants."""
    results: list[Any] = []
    for gate in gates:
        if is_carried(gate):
            results.append(gate)
        else:
            with qml.QueuingManager.stop_recording():
                results += _decomposed(gate.decomposition())
    return results
