"""Execution of planned circuits as ordinary tasks; counts by measured point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.errors import SimenvError
from simenv.model.program import Program

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task

TASKS_AT_ONCE = 200  # tasks of one submit


class ExperimentSetting(msgspec.Struct, frozen=True):
    """Setting of one qubit or pair in one circuit."""

    experiment: str
    qubits: tuple[int, ...]
    x: float  # delay in ns, or length of a sequence
    arm: int = 0
    repeat: int = 0  # number of a random sequence
    gates: float = 0.0  # gates under test in the circuit


class PlannedCircuit(msgspec.Struct, frozen=True):
    """Circuit with the points whose qubits its clbits measure, in order."""

    program: Program
    shots: int
    points: tuple[ExperimentSetting, ...]


Counts = dict[
    ExperimentSetting, NDArray[np.int64]
]  # counts of outcomes [2^qubits]; bit 0 is the first qubit


class CircuitRunner(Protocol):
    """Interface of objects that run circuits."""

    def run(self, circuits: Sequence[PlannedCircuit]) -> Counts:
        """Run circuits; return the counts of all points."""


class PoolRunner:
    """Runs circuits as tasks of an environment, verbatim on an emulated device."""

    def __init__(self, client: Client, where: dict[str, Any], max_shots: int, seed: int) -> None:
        """Set up. `where`: options of the submit that name the device or pool."""
        self._client = client
        self._where = where
        self._max_shots = max_shots
        self._seed = seed
        self.circuits = 0
        self.shots = 0
        self.device_s = 0.0  # time of all tasks on the device, where it is known

    def run(self, circuits: Sequence[PlannedCircuit]) -> Counts:
        """Run circuits as `CircuitRunner.run`. A circuit with more shots than the device takes is
        submitted several times.

        Raises SimenvError of a refused or failed task.
        """
        groups: dict[int, list[PlannedCircuit]] = defaultdict(list)
        for circuit in circuits:
            left = circuit.shots
            while left > 0:
                part = min(left, self._max_shots)
                groups[part].append(circuit)
                left -= part
        waiting: list[tuple[Task, PlannedCircuit]] = []
        for shots, members in groups.items():
            for first in range(0, len(members), TASKS_AT_ONCE):
                chunk = members[first : first + TASKS_AT_ONCE]
                seeds = [self._seed + self.circuits + k for k in range(len(chunk))]
                programs = [each.program for each in chunk]
                tasks = self._client.submit_many(
                    programs, shots=shots, seed=seeds, name="certify", **self._where
                )
                waiting += zip(tasks, chunk, strict=True)
                self.circuits += len(chunk)
                self.shots += shots * len(chunk)
        entries: Counts = {}
        try:
            for task, circuit in waiting:
                result = task.result()
                self.device_s += result.device_time_s or 0.0
                add(entries, circuit.points, result.outcomes, result.outcome_counts)
        except BaseException:  # also an interrupt: no task stays in the queue
            with suppress(SimenvError):
                self._client.cancel([task for task, _ in waiting])
            raise
        return entries


def merge(totals: Counts, more: Counts) -> None:
    """Add `more` to the counts of equal points."""
    for point, tally in more.items():
        totals[point] = totals[point] + tally if point in totals else tally


def add(
    totals: Counts,
    points: Sequence[ExperimentSetting],
    outcomes: NDArray[np.unsignedinteger[Any]],
    counts: NDArray[np.uint32],
) -> None:
    """Add the marginal counts of each point. `outcomes`: integers [k], or bytes [k, width]."""
    weights = counts.astype(np.float64)
    clbit = 0
    for point in points:
        index = np.zeros(len(outcomes), np.int64)
        for k in range(len(point.qubits)):
            index |= _bit(outcomes, clbit + k) << k
        clbit += len(point.qubits)
        size = 1 << len(point.qubits)
        tally = np.bincount(index, weights, size).astype(np.int64)
        totals[point] = totals[point] + tally if point in totals else tally


def _bit(outcomes: NDArray[np.unsignedinteger[Any]], clbit: int) -> NDArray[np.int64]:
    if outcomes.ndim == 2:
        column, shift = outcomes[:, clbit >> 3], clbit & 7
    else:
        column, shift = outcomes, clbit
    return (column.astype(np.uint64) >> np.uint64(shift) & np.uint64(1)).astype(np.int64)
