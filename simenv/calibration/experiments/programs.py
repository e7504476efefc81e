"""Circuits of characterization experiments as flat arrays, built without a circuit object.

A circuit is a list of pieces, one for each qubit or pair that is measured. Pieces have no common
operation, so they run at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments.clifford import CliffordGroup, Step
from simenv.calibration.experiments.native import NativeOperation, NativeSet
from simenv.model.program import PROGRAM_FORMAT, Program

# Rows of the operation table, the same in all circuits.
Z, QUARTER, HALF, ENTANGLER, BARRIER, DELAY, MEASURE = range(7)


class CircuitPiece(msgspec.Struct, frozen=True, eq=False):
    """Operations on one qubit or pair; its qubits are numbered 0 and 1 until it is placed."""

    rows: NDArray[np.uint16]  # [operations]
    qubits: NDArray[np.int64]  # [operands]
    params: NDArray[np.float64]


class PlacedPiece(msgspec.Struct, frozen=True, eq=False):
    """A piece on qubits of the device, which are measured at its end."""

    qubits: tuple[int, ...]
    piece: CircuitPiece


class NativeGateRows:
    """Native gates of a device as rows of the operation table."""

    def __init__(self, gates: NativeSet) -> None:
        half = gates.half or NativeOperation("x")
        entangler = gates.entangler or NativeOperation("cz")
        self.gates = gates
        self._named = {QUARTER: gates.quarter, HALF: half, ENTANGLER: entangler}
        self.names = (
            gates.z, gates.quarter.name, half.name, entangler.name, "barrier", "delay", "measure",
        )  # fmt: skip
        self.arities = np.array(
            [
                (1, 0, 1),
                (1, 0, len(gates.quarter.params)),
                (1, 0, len(half.params)),
                (2, 0, len(entangler.params)),
                (2, 0, 0),
                (1, 0, 1),
                (1, 1, 0),
            ],
            np.uint16,
        )
        self._groups: dict[int, _CliffordWords] = {}

    def z(self, angle_rad: float, qubit: int = 0) -> CircuitPiece:
        """Rotation about Z."""
        return _piece(Z, (qubit,), (angle_rad,))

    def quarter(self, qubit: int = 0) -> CircuitPiece:
        """Quarter turn about X."""
        return _piece(QUARTER, (qubit,), self._named[QUARTER].params)

    def half(self, qubit: int = 0) -> CircuitPiece:
        """Half turn about X; two quarter turns if the device has no half turn."""
        if self.gates.half is None:
            return joined([self.quarter(qubit), self.quarter(qubit)])
        return _piece(HALF, (qubit,), self._named[HALF].params)

    def entangler(self) -> CircuitPiece:
        """The entangling gate on both qubits."""
        return _piece(ENTANGLER, (0, 1), self._named[ENTANGLER].params)

    def barrier(self) -> CircuitPiece:
        """Synchronization of both qubits."""
        return _piece(BARRIER, (0, 1), ())

    def delay(self, duration_ns: float, qubit: int = 0) -> CircuitPiece:
        """Idle time."""
        return _piece(DELAY, (qubit,), (duration_ns,))

    def sequences(
        self, group: CliffordGroup, elements: NDArray[np.int32], *, sync: bool
    ) -> CircuitPiece:
        """Group elements one after another; the number after the last element is the interleaved
        gate. `sync`: a barrier follows each."""
        key = 2 * group.num_qubits + sync
        if key not in self._groups:
            gate = ("half" if group.num_qubits == 1 else "entangler", 0, 0)
            self._groups[key] = _CliffordWords(
                [*group.sequences, (gate,)], self._steps(), sync=sync
            )
        return self._groups[key].piece(elements)

    def _steps(self) -> dict[Step, CircuitPiece]:
        """Piece of each step that a word may have."""
        entries = {
            ("z", qubit, turns): self.z(turns * math.pi / 2.0, qubit)
            for qubit in range(2)
            for turns in range(1, 4)
        }
        entries |= {("quarter", qubit, 0): self.quarter(qubit) for qubit in range(2)}
        return entries | {("entangler", 0, 0): self.entangler(), ("half", 0, 0): self.half()}

    def program(self, placed: Sequence[PlacedPiece], num_qubits: int) -> Program:
        """Build one circuit. Clbits are numbered in the order of the pieces and their qubits."""
        measured = [qubit for each in placed for qubit in each.qubits]
        qubits = [np.array(each.qubits)[each.piece.qubits] for each in placed]
        rows = [each.piece.rows for each in placed]
        params = [each.piece.params for each in placed]
        rows.append(np.full(len(measured), MEASURE, np.uint16))
        return Program(
            format=PROGRAM_FORMAT,
            num_qubits=num_qubits,
            num_clbits=len(measured),
            registers=(("c", len(measured)),),
            names=self.names,
            arities=self.arities.tobytes(),
            ops=np.concatenate(rows).astype(np.uint16).tobytes(),
            qubits=np.concatenate([*qubits, measured]).astype(np.uint16).tobytes(),
            clbits=np.arange(len(measured), dtype=np.uint16).tobytes(),
            params=np.concatenate([*params, []]).astype(np.float64).tobytes(),
        )


def joined(pieces: Sequence[CircuitPiece]) -> CircuitPiece:
    """Pieces one after another on the same qubits."""
    return CircuitPiece(
        np.concatenate([_EMPTY.rows, *(each.rows for each in pieces)]),
        np.concatenate([_EMPTY.qubits, *(each.qubits for each in pieces)]),
        np.concatenate([_EMPTY.params, *(each.params for each in pieces)]),
    )


def _piece(row: int, qubits: tuple[int, ...], params: tuple[float, ...]) -> CircuitPiece:
    return CircuitPiece(
        np.array([row], np.uint16), np.array(qubits, np.int64), np.array(params, np.float64)
    )


_EMPTY = CircuitPiece(np.zeros(0, np.uint16), np.zeros(0, np.int64), np.zeros(0))


class _CliffordWords:
    """Pieces of all elements of a group, concatenated for fast look-up of sequences."""

    def __init__(
        self,
        gate_words: Sequence[Sequence[Step]],
        steps: Mapping[Step, CircuitPiece],
        *,
        sync: bool,
    ) -> None:
        barrier = ((BARRIER,), (0, 1), ()) if sync else ((), (), ())
        parts = {
            step: (each.rows.tolist(), each.qubits.tolist(), each.params.tolist())
            for step, each in steps.items()
        }
        columns: list[list[list[float]]] = [[], [], []]
        for word in gate_words:
            for number, column in enumerate(columns):
                column.append(
                    [value for step in word for value in parts[step][number]]
                    + list(barrier[number])
                )
        self._rows = _RaggedArrays(columns[0], np.dtype(np.uint16))
        self._qubits = _RaggedArrays(columns[1], np.dtype(np.int64))
        self._params = _RaggedArrays(columns[2], np.dtype(np.float64))

    def piece(self, elements: NDArray[np.int32]) -> CircuitPiece:
        """Pieces of these elements, one after another."""
        return CircuitPiece(
            self._rows.taken(elements), self._qubits.taken(elements), self._params.taken(elements)
        )


class _RaggedArrays:
    """Arrays of different lengths, stored in one."""

    def __init__(self, lists: Sequence[Sequence[float]], dtype: np.dtype[Any]) -> None:
        self._sizes = np.array([len(values) for values in lists])
        self._begins = np.cumsum(self._sizes) - self._sizes
        self._values = np.fromiter(chain.from_iterable(lists), dtype)

    def taken(self, indices: NDArray[np.int32]) -> NDArray[Any]:
        """Arrays of these numbers, concatenated."""
        sizes = self._sizes[indices]
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if ends.size else 0
        offsets = np.repeat(self._begins[indices] - (ends - sizes), sizes)
        return np.asarray(self._values[np.arange(total) + offsets])
