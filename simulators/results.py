"""Results of a run: `BindingResult` for one binding, `EngineResult` for all of a request."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

_REMARKS = 4  # distinct remarks of a sweep that are kept


class BindingResult(msgspec.Struct, frozen=True):
    """Result of one binding; fields of outputs that were not requested stay empty.

    An outcome is one row of `outcome_width` bytes, little-endian, clbit 0 in bit 0 of byte 0.
    """

    outcome_width: int = 0  # 1, 2, 4, 8, or ceil(bits / 8) beyond 64 bits
    outcomes: bytes = b""  # distinct outcomes, ascending
    counts: bytes = b""  # uint32, as many
    # Exact distribution over the clbits; over the qubits if the circuit measures nothing.
    probability_outcomes: bytes = b""  # rows as above, of width `probability_width`
    probability_width: int = 0
    probabilities: bytes = b""  # float64, as many
    statevector: NDArray[np.complexfloating] | None = None  # [2**n], qubit 0 = lowest index bit
    expectations: tuple[tuple[float, float], ...] = ()  # (value, standard error) an observable
    truncation: float = 0.0
    remark: str = ""  # e.g. "12 branches"
    gradients: NDArray[np.float64] | None = None  # [observables, slots]
    # uint8 [shots, ceil(clbits / 8)]: clbit c of each shot in bit c % 8 of byte c // 8
    memory: bytes = b""
    amplitudes: NDArray[np.complexfloating] | None = None  # [strings], of the request's bits


class EngineResult(msgspec.Struct, frozen=True):
    """Results of all rows of the request's bindings, row after row in each array.

    Fields as in BindingResult; rows may differ in their number of outcomes.
    """

    count: int = 1  # rows
    outcome_width: int = 0
    outcomes: bytes = b""
    counts: bytes = b""
    rows: bytes = b""  # uint32 [count]: distinct outcomes of each row; b"": one row has them all
    probability_outcomes: bytes = b""
    probability_width: int = 0
    probabilities: bytes = b""
    probability_rows: bytes = b""  # uint32 [count], as `rows`
    statevector: NDArray[np.complexfloating] | None = None  # [count, 2**n]
    expectations: bytes = b""  # float64 [count, observables, 2]: value, standard error
    truncation: float = 0.0  # largest of the rows
    remark: str = ""
    gradients: bytes = b""  # float64 [count, observables, slots]: of values, by free parameters
    memory: bytes = b""  # uint8 [count, shots, ceil(clbits / 8)]
    amplitudes: NDArray[np.complexfloating] | None = None  # [count, strings]

    @classmethod
    def joined(cls, results: Sequence[BindingResult]) -> EngineResult:
        """Join the results of engines that run one binding after the other; at least one."""
        count, first = len(results), results[0]
        states = [row.statevector for row in results if row.statevector is not None]
        chosen = [row.amplitudes for row in results if row.amplitudes is not None]
        rows = probability_rows = b""
        if count > 1:
            rows = _sizes([len(row.counts) // 4 for row in results])
            probability_rows = _sizes([len(row.probabilities) // 8 for row in results])
        return cls(
            count,
            first.outcome_width,
            b"".join([row.outcomes for row in results]),
            b"".join([row.counts for row in results]),
            rows,
            b"".join([row.probability_outcomes for row in results]),
            first.probability_width,
            b"".join([row.probabilities for row in results]),
            probability_rows,
            _stacked(states),
            np.array([row.expectations for row in results], np.float64).tobytes()
            if first.expectations
            else b"",
            max(row.truncation for row in results),
            ", ".join(list(dict.fromkeys(row.remark for row in results if row.remark))[:_REMARKS]),
            b"".join([row.gradients.tobytes() for row in results if row.gradients is not None]),
            first.memory if count == 1 else b"".join([row.memory for row in results]),
            _stacked(chosen),
        )

    def row(self, k: int) -> BindingResult:
        """Result of row k."""
        first, last = _part(self.rows, k, len(self.counts) // 4)
        low, high = _part(self.probability_rows, k, len(self.probabilities) // 8)
        width, wide = self.outcome_width, self.probability_width
        size = len(self.memory) // self.count
        return BindingResult(
            width,
            self.outcomes[first * width : last * width],
            self.counts[4 * first : 4 * last],
            self.probability_outcomes[low * wide : high * wide],
            wide,
            self.probabilities[8 * low : 8 * high],
            None if self.statevector is None else self.statevector[k],
            self._estimates(k),
            self.truncation,
            self.remark,
            self._gradients(k),
            self.memory[k * size : (k + 1) * size],
            None if self.amplitudes is None else self.amplitudes[k],
        )

    def _estimates(self, k: int) -> tuple[tuple[float, float], ...]:
        if not self.expectations:
            return ()
        table = np.frombuffer(self.expectations).reshape(self.count, -1, 2)
        return tuple((value, error) for value, error in table[k].tolist())

    def _gradients(self, k: int) -> NDArray[np.float64] | None:
        if not self.gradients:
            return None
        observables = len(self.expectations) // (16 * self.count)
        table: NDArray[np.float64] = np.frombuffer(self.gradients)
        row: NDArray[np.float64] = table.reshape(self.count, observables, -1)[k]
        return row


def _sizes(lengths: list[int]) -> bytes:
    return np.array(lengths, np.uint32).tobytes() if any(lengths) else b""


def _part(sizes: bytes, k: int, total: int) -> tuple[int, int]:
    """Begin and end of row k of a ragged array."""
    if not sizes:
        return 0, total
    ends = np.frombuffer(sizes, np.uint32)
    first = int(ends[:k].sum())
    return first, first + int(ends[k])


def _stacked(states: list[NDArray[np.complexfloating]]) -> NDArray[np.complexfloating] | None:
    """Amplitudes as [rows, n]; a single state, which may fill the memory, is not copied."""
    if not states:
        return None
    return states[0].reshape(1, -1) if len(states) == 1 else np.stack(states)
