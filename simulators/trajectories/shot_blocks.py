"""Outputs of trajectories, blocks of shots, and means over trajectories."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.engine import Request
from simulators.errors import OTHER_ENGINE, Unsupported
from simulators.trajectories.pattern_sampling import ErrorTable

SHOTS_AT_ONCE = 1 << 20
_MOST_ERRORS = 1 << 22  # errors of all shots of a block: 200 MB


def refuse_outputs(request: Request) -> None:
    """Raises Unsupported for outputs that trajectories cannot give."""
    hint = f"trajectories are samples; {OTHER_ENGINE}"
    if "statevector" in request.outputs:
        hint = "its state is mixed: ask for counts or expectation values"
        raise Unsupported("a statevector of a circuit with noise", hint=hint)
    if "gradient" in request.outputs:
        hint = "shift each parameter and ask for expectation values"
        raise Unsupported("a gradient of a circuit with noise", hint=hint)
    if "probabilities" in request.outputs:
        raise Unsupported("exact probabilities of a circuit with noise, by trajectories", hint=hint)
    if request.shots < 1:
        raise Unsupported("an exact result of a circuit with noise, by trajectories", hint=hint)


class Moments:
    """Mean and variance of values that arrive in parts (Chan, Golub and LeVeque, 1983)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._squares = np.zeros(size)

    def add(self, values: NDArray[np.float64]) -> None:
        """Values [shots, size]."""
        count = len(values)
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        total = self.count + count
        step = mean - self.mean
        self.mean = self.mean + step * (count / total)
        self._squares += squares + step**2 * (self.count * count / total)
        self.count = total

    def estimates(self) -> tuple[tuple[float, float], ...]:
        """Mean and standard error of each value."""
        errors = np.sqrt(self._squares / max(1, self.count - 1) / max(1, self.count))
        return tuple(zip(self.mean.tolist(), errors.tolist(), strict=True))


def shot_blocks(
    errors: ErrorTable, shots: int, more_inserts: float = 0.0
) -> Iterator[tuple[int, int]]:
    """First shot and end of each block of shots that are run together. `more_inserts`: mean number
    of those of a shot that are not errors."""
    mean = max(1.0, float(errors.probabilities.sum()) + more_inserts)
    size = max(1, min(SHOTS_AT_ONCE, int(_MOST_ERRORS / mean)))
    for first in range(0, shots, size):
        yield first, min(first + size, shots)
