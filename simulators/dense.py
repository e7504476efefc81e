"""From a whole state as an array to samples and distributions, in plain numpy; shared by engines
that get theirs from a library.

Sampling is the house's inverse sampling (seed contract, draw 0), so a seed gives the counts that
the statevector engine finds, up to rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.bits import Counts
from simulators.circuit.ir import words
from simulators.philox import uniforms
from simulators.sampling import gather, pack

State = NDArray[np.complexfloating]

# Probabilities below these are rounding noise of amplitudes that are zero, and are left out.
_NOISE = {"complex128": 1e-24, "complex64": 1e-14}
_SHOTS_AT_ONCE = 1 << 18


def odds_of(state: State) -> NDArray[np.float64]:
    """|a|^2 of each amplitude: float64 [2**n]."""
    found = np.square(state.real, dtype=np.float64)
    found += np.square(state.imag, dtype=np.float64)
    return found


def counts(
    state: State, source: NDArray[np.int64], shots: int, key: tuple[int, int]
) -> tuple[int, bytes, bytes]:
    """(width, outcomes, counts) of bits of which bit c reads qubit source[c]; -1 reads 0."""
    edges = np.cumsum(odds_of(state))
    found = Counts(source.size)
    for first in range(0, shots, _SHOTS_AT_ONCE):
        numbers = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
        draws = np.empty(numbers.size)
        uniforms(*key, 0, numbers, draws)
        indices = np.searchsorted(edges, draws * edges[-1], side="right")
        records = gather(np.minimum(indices, edges.size - 1), source)
        raw = np.ascontiguousarray(records).view(np.uint8)
        found.add(np.ascontiguousarray(raw[:, : found.width]))
    return found.width, *found.packed()


def distribution(state: State, source: NDArray[np.int64] | None) -> tuple[int, bytes, bytes]:
    """(width, outcomes, probabilities) of such bits; of all qubits where `source` is None."""
    num_qubits = state.size.bit_length() - 1
    odds = odds_of(state)
    odds /= odds.sum()
    wires = np.arange(num_qubits) if source is None else np.unique(source[source >= 0])
    table = odds.reshape((2,) * num_qubits)
    away = tuple(num_qubits - 1 - q for q in range(num_qubits) if q not in set(wires.tolist()))
    table = table.sum(axis=away).reshape(-1)
    values = np.flatnonzero(table > _NOISE[state.dtype.name])
    if source is None:
        records = values.astype(np.uint64).reshape(-1, 1)
        outcomes, width = pack(records, num_qubits)
        return width, outcomes, table[values].tobytes()
    place = np.full(num_qubits + 1, -1)  # the last one is where -1 reads
    place[wires] = np.arange(wires.size)
    records = gather(values, place[source])
    order = np.lexsort(records.T) if words(source.size) > 1 else np.argsort(records[:, 0])
    outcomes, width = pack(records[order], source.size)
    return width, outcomes, table[values][order].tobytes()


def means(state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
    """<state|P|state> of each Pauli string (x, z), of a normalised state."""
    places = np.arange(state.size)
    found = np.empty(len(strings))
    for number, (x, z) in enumerate(strings):
        partner = places ^ x
        signs = 1.0 - 2.0 * (np.bitwise_count(partner & z) & 1)
        total = complex(np.sum(state.conj() * state[partner] * signs, dtype=complex))
        found[number] = (total * 1j ** ((x & z).bit_count() % 4)).real
    return found
