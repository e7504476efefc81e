"""Sliced tensor network contraction as a stage: the slices of one circuit over several workers.

The engine `contraction` writes an expectation value as a sum over slices. Each worker contracts a
share of the slices as a task of its own; the sum of the shares is the exact value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import fsum
from typing import Any, SupportsIndex

from simenv.client.results.result import Result
from simenv.client.streams.stages import CircuitPart, SplitCircuit
from simenv.client.submission.arguments import checked_integer
from simenv.errors import OptionError, VersionMismatchError

ENGINE = "contraction"
MAX_SHARES = 1_024  # limit of the engine's option


@dataclass(frozen=True, slots=True)
class SlicedResult:
    """Exact expectation values of a sliced circuit; `parts`: results of the shares.

    The values of a part are partial sums, which its `remark` and `options` state.
    """

    expectations: tuple[float, ...]
    parts: tuple[Result, ...]


class SlicedContraction:
    """A stage that divides the slices of a contraction into shares, each a task, and adds the
    expectation values of the shares.

    `observables`: as in `Client.submit`. `shares`: number of tasks, for example the number of
    workers; a power of two divides slices evenly. `options`: of the engine `contraction`, such as
    `{"width": 24}`. Raises OptionError.
    """

    def __init__(
        self, observables: Any, *, shares: SupportsIndex, options: Mapping[str, float] | None = None
    ) -> None:
        self._observables = observables
        self._shares = checked_integer("shares", shares, 1, MAX_SHARES)
        self._options = dict(options or {})
        for name in ("share", "shares"):
            if name in self._options:
                raise OptionError(
                    f"options of SlicedContraction: {name!r}", hint="the stage sets it itself"
                )

    def split(self, circuit: Any) -> SplitCircuit:
        """Make one task of the circuit for each share."""
        parts = [
            CircuitPart(
                circuit,
                {
                    "engine": ENGINE,
                    "shots": None,
                    "outputs": ("expectation",),
                    "observables": self._observables,
                    "options": {**self._options, "shares": self._shares, "share": share},
                },
            )
            for share in range(self._shares)
        ]
        return SplitCircuit(parts, partial(_summed, self._shares))


def _summed(shares: int, results: Sequence[Result]) -> SlicedResult:
    """Return the sums of the shares. Raises VersionMismatchError if their slices are not those of
    one contraction."""
    slicings = {result.remark.partition("; ")[2] for result in results}
    if shares > 1 and len(slicings) > 1:
        raise VersionMismatchError(
            f"workers divided one contraction into different slices: {', '.join(sorted(slicings))}",
            hint="run all shares in one pool, whose workers have the same packages",
        )
    columns = zip(*(result.expectations for result in results), strict=True)
    return SlicedResult(tuple(map(fsum, columns)), tuple(results))
