"""Outputs of final states: counts, exact distributions, expectation values.

Over MPI ranks the root rank alone holds the results; the others take part in the sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.errors import TooManyBranches
from simulators.execution.pauli_sums import FIRST_TERM
from simulators.execution.rng import uniforms
from simulators.execution.sampling import pack, tally, write
from simulators.statevector.dynamic.branches import MAX_ROWS, Branches
from simulators.statevector.program import Program


class Tally:
    """Distinct records and their sums, added to in pieces."""

    def __init__(self, num_words: int) -> None:
        self.records = np.zeros((0, num_words), np.uint64)
        self.sums = np.zeros(0)

    def add(self, records: NDArray[np.uint64], weights: NDArray[np.float64] | None) -> None:
        """Count these records, by weight or once each."""
        found, sums = tally(records, weights)
        if not len(self.records):
            self.records, self.sums = found, sums
            return
        self.records, self.sums = tally(
            np.concatenate((self.records, found)), np.concatenate((self.sums, sums))
        )

    def counts(self, num_clbits: int) -> tuple[bytes, int, bytes]:
        """Counts as in a result: outcomes, their width, number of each."""
        return *pack(self.records, num_clbits), self.sums.astype(np.uint32).tobytes()

    def odds(self, num_clbits: int) -> tuple[bytes, int, bytes]:
        """The same with probabilities."""
        return *pack(self.records, num_clbits), self.sums.tobytes()


def count(schedule: Program, key: tuple[int, int], branches: Branches, into: Tally) -> None:
    """Sample the final measurements of each branch's shots and count the records."""
    alike = len(branches) == 1 and bool((branches.records == branches.records[:1]).all())
    records = sampled(schedule, key, branches, ordered=not alike)
    if branches.ensemble.states.is_root:
        into.add(records, None)


def sampled(
    schedule: Program, key: tuple[int, int], branches: Branches, *, ordered: bool
) -> NDArray[np.uint64]:
    """The records of all shots after the final measurements; not `ordered` in any order."""
    records = branches.records.copy()
    if (schedule.source >= 0).any():
        indices = branches.ensemble.sample(
            branches.states,
            branches.branch_of,
            key,
            branches.shots_or_weights.astype(np.int64, copy=False),
            draw=schedule.draw,
            ordered=ordered,
        )
        write(records, indices, schedule.source)
    return records


def exact(schedule: Program, branches: Branches, into: Tally) -> None:
    """Add the exact distribution over the classical records."""
    wires = np.array(sorted(schedule.final_qubits), np.int64)
    place = {int(qubit): k for k, qubit in enumerate(wires)}
    source = np.array([place.get(int(q), -1) for q in schedule.source], np.int64)
    states = branches.ensemble.states
    for state, records, tags in branches.each():
        values, odds = states.distribution(branches.ensemble.state(state), wires)
        if values.size * tags.size > MAX_ROWS:
            raise TooManyBranches(
                f"more than {MAX_ROWS} distinct classical records",
                hint="ask for counts with shots instead of exact probabilities",
            )
        if not states.is_root:
            continue
        records = np.repeat(records, values.size, axis=0)
        write(records, np.tile(values, tags.size), source)
        into.add(records, np.outer(tags, odds / odds.sum()).ravel())


def over_qubits(
    branches: Branches, num_qubits: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The exact distribution over all qubits: basis states and probabilities."""
    wires = np.arange(num_qubits)
    ensemble, states = branches.ensemble, branches.ensemble.states
    if len(branches) == 1:
        values, odds = states.distribution(ensemble.state(int(branches.states[0])), wires)
        return values, odds / odds.sum()
    table = np.zeros(1 << num_qubits if states.is_root else 0)
    for state, _, tags in branches.each():
        values, odds = states.distribution(ensemble.state(state), wires)
        if states.is_root:
            table[values] += odds / odds.sum() * tags.sum()
    values = np.flatnonzero(table)
    return values, table[values]


def values_exact(branches: Branches, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Expectation value of each string over the mixture of branches."""
    ensemble = branches.ensemble
    values = np.zeros(len(strings))
    for state, _, tags in branches.each():
        values += tags.sum() * ensemble.states.expectations(ensemble.state(state), strings)
    return values


def add_signs(
    key: tuple[int, int],
    branches: Branches,
    strings: list[tuple[int, int]],
    into: NDArray[np.float64],
) -> None:
    """into[t] += the sum over the branches' shots of string t's sampled values, +1 or -1."""
    ensemble = branches.ensemble
    for state, _, tags in branches.each():
        values = ensemble.states.expectations(ensemble.state(state), strings)
        if not ensemble.states.is_root:
            continue
        shots = tags.astype(np.int64, copy=False)
        draws = np.empty(shots.size)
        for t, value in enumerate(values.tolist()):
            uniforms(*key, FIRST_TERM + t, shots, draws)
            into[t] += 2.0 * np.count_nonzero(draws < 0.5 * (1.0 + value)) - shots.size
