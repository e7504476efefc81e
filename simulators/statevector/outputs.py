"""Outputs of final states: counts, exact distributions, expectation values.

Over MPI ranks only the root rank holds the results; the others take part in the sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.errors import TooManyBranches
from simulators.execution.pauli_sums import FIRST_TERM
from simulators.execution.rng import uniforms
from simulators.execution.sampling import Distribution, tally, write
from simulators.statevector.dynamic.branches import MAX_ROWS, Branches
from simulators.statevector.program import Program


def sample(
    program: Program, key: tuple[int, int], branches: Branches, *, ordered: bool
) -> NDArray[np.uint64]:
    """Records of all shots after the final measurements; in any order unless `ordered`."""
    records = branches.records.copy()
    source = program.layout.source
    if (source >= 0).any():
        indices = branches.ensemble.sample(
            branches.states,
            branches.branch_of,
            key,
            branches.shots_or_weights.astype(np.int64, copy=False),
            draw=program.draw,
            ordered=ordered,
        )
        write(records, indices, source)
    return records


def over_clbits(program: Program, branches: Branches) -> Distribution:
    """The exact distribution over the classical records."""
    source = program.layout.source
    read = source >= 0
    wires = np.unique(source[read])
    source = np.where(read, np.searchsorted(wires, source), -1)
    total: Distribution = branches.records[:0], np.zeros(0)
    states = branches.ensemble.states
    for state, records, tags in branches.each():
        values, probs = states.distribution(branches.ensemble.state(state), wires)
        if values.size * tags.size > MAX_ROWS:
            raise TooManyBranches(
                f"more than {MAX_ROWS} distinct classical records",
                hint="ask for counts with shots instead of exact probabilities",
            )
        if not states.is_root:
            continue
        records = np.repeat(records, values.size, axis=0)
        write(records, np.tile(values, tags.size), source)
        result = tally(records, np.outer(tags, probs / probs.sum()).ravel())
        if len(total[0]):
            result = tally(*(np.concatenate(pair) for pair in zip(total, result, strict=True)))
        total = result
    return total


def over_qubits(branches: Branches, num_qubits: int) -> Distribution:
    """The exact distribution over all qubits."""
    wires = np.arange(num_qubits)
    ensemble, states = branches.ensemble, branches.ensemble.states
    if len(branches) == 1:
        values, probs = states.distribution(ensemble.state(int(branches.states[0])), wires)
        return values.astype(np.uint64).reshape(-1, 1), probs / probs.sum()
    table = np.zeros(1 << num_qubits if states.is_root else 0)
    for state, _, tags in branches.each():
        values, probs = states.distribution(ensemble.state(state), wires)
        if states.is_root:
            table[values] += probs / probs.sum() * tags.sum()
    values = np.flatnonzero(table)
    return values.astype(np.uint64).reshape(-1, 1), table[values]


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
    """Add to into[t] the sum over the branches' shots of string t's sampled values, +1 or -1."""
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
