"""Classical shadows: each shot in a random Pauli basis, which is a binding of one program.

Shots of the same basis are one row of a sweep; rows with equal numbers of shots are one sweep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simenv.frontends.pennylane.programs import TapeProgram
from simenv.frontends.pennylane.sweeps import MEMORY, Run, SweepBatch

_RIGHT = math.pi / 2
# Angles of `u` that rotate X, Y and Z into Z.
_ANGLES = np.array([[_RIGHT, 0.0, math.pi], [_RIGHT, 0.0, _RIGHT], [0.0, 0.0, 0.0]])


@dataclass(frozen=True)
class ShadowRun:
    """Runs of one shadow measurement. `recipes`: int [shots, wires], the Pauli of each shot: 0 X, 1
    Y, 2 Z; `basis`: number of the basis of each shot; `runs`: for each copy, the run and row of
    each basis."""

    recipes: NDArray[np.int64]
    basis: NDArray[np.intp]
    runs: list[list[tuple[Run, int]]]

    @staticmethod
    def added(
        batch: SweepBatch,
        program: TapeProgram,
        rows: NDArray[np.float64],
        seed: Any,
        wires: int,
        shots: int,
    ) -> ShadowRun:
        """Add the rows of a shadow to the batch. Recipes are drawn as PennyLane draws them: the
        same seed gives the same recipes."""
        recipes = np.random.RandomState(seed).randint(0, 3, size=(shots, wires))
        bases, basis, counts = np.unique(recipes, axis=0, return_inverse=True, return_counts=True)
        basis = basis.ravel()
        angles = _ANGLES[bases].reshape(len(bases), 3 * wires)
        runs: list[list[tuple[Run, int]]] = []
        for values in rows:
            of_basis: dict[int, tuple[Run, int]] = {}
            for count in np.unique(counts).tolist():
                chosen = np.flatnonzero(counts == count)
                before = np.tile(values, (len(chosen), 1))
                table = np.hstack([before, angles[chosen]])
                run = batch.add(program, table, MEMORY, shots=count)
                of_basis |= {number: (run, row) for row, number in enumerate(chosen.tolist())}
            runs.append([of_basis[number] for number in range(len(bases))])
        return ShadowRun(recipes, basis, runs)

    def outcome(self, copy: int) -> NDArray[np.int8]:
        """Bits and recipes, int8 [2, shots, wires]."""
        shots, wires = self.recipes.shape
        bits = np.empty((shots, wires), np.int8)
        for number, (run, row) in enumerate(self.runs[copy]):
            table = run.table(row)
            assert table.shots is not None
            bits[self.basis == number] = table.bits[table.shots, -wires:]
        return np.stack([bits, self.recipes.astype(np.int8)])
