"""Final density matrix of one binding, and the outputs that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import MeasurementLayout
from simulators.circuit.ir import words
from simulators.densitymatrix.execute import Branches, distribution
from simulators.execution import sampling
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey
from simulators.execution.rng import uniforms
from simulators.execution.sampling import Distribution, tally

_SHOTS_AT_ONCE = 1 << 18
_LEAST = 1e-15  # probabilities below this are rounding errors of zero


class MixedState(FinalState):
    """The states of a circuit at its end, one for each classical record.

    The outcome of a shot is one draw, number 0 of the seed contract, from the joint distribution
    of records and basis states; readout errors before the end are part of it.
    """

    def __init__(
        self,
        num_qubits: int,
        layout: MeasurementLayout,
        evolve: Callable[[bool], Branches],
        padded: int,
    ) -> None:
        """`evolve(keep)`: the branches, `keep` where the final state is looked at; of states on
        `padded` qubits."""
        self.num_qubits = num_qubits
        self._layout = layout
        self._evolve = evolve
        self._padded = padded
        self._branches = 0

    def _joint(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Record of each branch, and probabilities [branches, 2^n]."""
        branches = self._evolve(False)
        self._branches = len(branches)
        found = distribution(branches, self._padded)
        size = 8 * words(self._layout.source.size)
        data = b"".join(record.to_bytes(size, "little") for record in found.records)
        records = np.frombuffer(data, "<u8").reshape(len(found.records), -1)
        return records, found.odds[:, : 1 << self.num_qubits]

    def sample(self, shots: int, key: SeedKey, draw: int = 0) -> Iterator[Batch]:
        """See `FinalState`; in the order of the shots. `draw`: number of the draw."""
        records, odds = self._joint()
        table = _CumulativeTable(odds)
        mask = (1 << self.num_qubits) - 1
        for first in range(0, shots, _SHOTS_AT_ONCE):
            numbers = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
            draws = np.empty(numbers.size)
            uniforms(*key, draw, numbers, draws)
            indices = table.outcomes(draws)
            if len(records) == 1:
                yield sampling.gather(indices, self._layout.source), None
                continue
            found = records[indices >> self.num_qubits]
            sampling.write(found, indices & mask, self._layout.source)
            yield found, None

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        records, odds = self._joint()
        odds = odds / odds.sum()
        row, index = np.nonzero(odds > _LEAST)
        weights = odds[row, index]
        if not self._layout.measures:
            return index.astype(np.uint64).reshape(-1, 1), weights
        found = records[row]
        sampling.write(found, index, self._layout.source)
        return tally(found, weights)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`: entries of the vector."""
        branches = self._evolve(True)
        self._branches = len(branches)
        places = [
            sum(_DIGITS[x >> q & 1, z >> q & 1] << 2 * q for q in range(self.num_qubits))
            for x, z in strings
        ]
        total = sum(float(state[0]) for state in branches.values())
        found = np.zeros(len(strings))
        for state in branches.values():
            found += state[places]
        return np.clip(found / total, -1.0, 1.0)

    @property
    def remark(self) -> str:  # type: ignore[override]  # known once it has run
        """Number of classical records, where there are several."""
        return f"{self._branches} branches" if self._branches > 1 else ""


class CombinedState(FinalState):
    """States of components that nothing connects: the bits of a shot are joined."""

    def __init__(self, num_qubits: int, pieces: Sequence[tuple[MixedState, int]]) -> None:
        """`pieces`: each with the number of its draw."""
        self.num_qubits = num_qubits
        self._pieces = pieces

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """See `FinalState`; in the order of the shots."""
        batches = [state.sample(shots, key, draw) for state, draw in self._pieces]
        for parts in zip(*batches, strict=True):
            records = parts[0][0]
            for more, _ in parts[1:]:
                records |= more
            yield records, None


class _CumulativeTable:
    """Inverse of a cumulative distribution; `cells` equal parts of [0, 1) are looked up first, and
    only draws in a part with several outcomes are searched for (Chen and Asau, 1974)."""

    def __init__(self, odds: NDArray[np.float64]) -> None:
        self._edges = np.cumsum(odds)
        self._cells = 1 << max(10, (8 * self._edges.size - 1).bit_length())
        bounds = np.arange(self._cells + 1) / self._cells * self._edges[-1]
        found = np.minimum(np.searchsorted(self._edges, bounds, side="right"), odds.size - 1)
        self._first = found[:-1]
        self._is_sure = found[:-1] == found[1:]

    def outcomes(self, draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Outcome of each draw in [0, 1): the first whose cumulative probability is above it."""
        cells = (draws * self._cells).astype(np.int64)
        found: NDArray[np.int64] = self._first[cells]
        open_ = np.flatnonzero(~self._is_sure[cells])
        values = draws[open_] * self._edges[-1]
        places = np.searchsorted(self._edges, values, side="right")
        found[open_] = np.minimum(places, self._edges.size - 1)
        return found


_DIGITS = {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}
