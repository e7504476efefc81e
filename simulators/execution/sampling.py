"""Sampling of basis states from a dense state vector.

Sampling is inverse-CDF sampling (seed contract, draw 0), so a seed gives the counts of the
statevector engine, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import num_words
from simulators.execution.packing import gather
from simulators.execution.philox import uniforms

State = NDArray[np.complexfloating]
Distribution = tuple[NDArray[np.uint64], NDArray[np.float64]]  # records, ascending; probabilities

# Smaller probabilities are rounding noise of amplitudes that are zero, and are dropped.
_NOISE = {"complex128": 1e-24, "complex64": 1e-14}
_SHOTS_AT_ONCE = 1 << 18


def odds_of(state: State) -> NDArray[np.float64]:
    """Probability |a|^2 of each amplitude: float64 [2**n]."""
    result = np.square(state.real, dtype=np.float64)
    result += np.square(state.imag, dtype=np.float64)
    return result


def sample(
    state: State, source: NDArray[np.int64], shots: int, key: tuple[int, int]
) -> Iterator[NDArray[np.uint64]]:
    """Records of the shots in batches; bit c reads qubit source[c], -1 reads 0."""
    edges = np.cumsum(odds_of(state))
    for first in range(0, shots, _SHOTS_AT_ONCE):
        shot_ids = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
        draws = np.empty(shot_ids.size)
        uniforms(*key, 0, shot_ids, draws)
        indices = np.searchsorted(edges, draws * edges[-1], side="right")
        yield gather(np.minimum(indices, edges.size - 1), source)


def distribution(state: State, source: NDArray[np.int64] | None) -> Distribution:
    """Exact distribution of these bits; of all qubits if `source` is None."""
    num_qubits = state.size.bit_length() - 1
    probs = odds_of(state)
    probs /= probs.sum()
    wires = np.arange(num_qubits) if source is None else np.unique(source[source >= 0])
    table = probs.reshape((2,) * num_qubits)
    away = tuple(num_qubits - 1 - q for q in range(num_qubits) if q not in set(wires.tolist()))
    table = table.sum(axis=away).reshape(-1)
    values = np.flatnonzero(table > _NOISE[state.dtype.name])
    if source is None:
        return values.astype(np.uint64).reshape(-1, 1), table[values]
    place = np.full(num_qubits + 1, -1)  # the last entry is for -1
    place[wires] = np.arange(wires.size)
    records = gather(values, place[source])
    order = np.lexsort(records.T) if num_words(source.size) > 1 else np.argsort(records[:, 0])
    return records[order], table[values][order]


def means(state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Expectation values <state|P|state> of Pauli strings (x, z), for a normalised state."""
    places = np.arange(state.size)
    result = np.empty(len(strings))
    for number, (x, z) in enumerate(strings):
        partner = places ^ x
        signs = 1.0 - 2.0 * (np.bitwise_count(partner & z) & 1)
        total = complex(np.sum(state.conj() * state[partner] * signs, dtype=complex))
        result[number] = (total * 1j ** ((x & z).bit_count() % 4)).real
    return result
