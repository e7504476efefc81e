"""Sliced tensor network contraction as a stage: the slices of one circuit over several workers.

The engine `contraction` writes an expectation value, or an amplitude, as a sum over slices. Each
worker contracts a share of the slices as a task of its own; the sum of the shares is the exact
value. Amplitudes that need no slices are divided among the workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import fsum
from typing import Any, SupportsIndex

from simenv.client.results.result import Result
from simenv.client.streams.stages import CircuitPart, SplitCircuit
from simenv.errors import OptionError, VersionMismatchError
from simenv.model.task_rules import checked_integer

ENGINE = "contraction"
MAX_SHARES = 1_024  # limit of the engine's option
_OUTPUTS = {"observables": "expectation", "amplitudes": "amplitudes"}


@dataclass(frozen=True, slots=True)
class SlicedResult:
    """Exact expectation values and amplitudes of a sliced circuit; `parts`: results of the shares.

    The values of a part are partial sums, which its `remark` and `options` state.
    """

    expectations: tuple[float, ...]
    parts: tuple[Result, ...]
    amplitudes: Mapping[str, complex] = field(default_factory=dict)


class SlicedContraction:
    """A stage that divides the slices of a contraction into shares, each a task, and adds the
    expectation values and amplitudes of the shares.

    `observables`, `amplitudes`: as in `Client.submit`, one of them at least. `shares`: number of
    tasks, for example the number of workers; a power of two divides slices evenly. `options`: of
    the engine `contraction`, such as `{"width": 24}`. Raises OptionError.
    """

    def __init__(
        self,
        observables: Any = None,
        *,
        shares: SupportsIndex,
        amplitudes: Sequence[str] | str | None = None,
        options: Mapping[str, float] | None = None,
    ) -> None:
        requested = {"observables": observables, "amplitudes": amplitudes}
        self._requested = {name: each for name, each in requested.items() if each is not None}
        if not self._requested:
            raise OptionError(
                "SlicedContraction of nothing", hint='observables="ZZ", or amplitudes=["00"]'
            )
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
                    "outputs": tuple(_OUTPUTS[name] for name in self._requested),
                    **self._requested,
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
    values: tuple[float, ...] = ()
    if results[0].has("expectations"):
        columns = zip(*(result.expectations for result in results), strict=True)
        values = tuple(map(fsum, columns))
    amplitudes: dict[str, complex] = {}
    if results[0].has("amplitudes"):
        tables = [result.amplitudes for result in results]
        amplitudes = {text: sum(table[text] for table in tables) for text in tables[0]}
    return SlicedResult(values, tuple(results), amplitudes)
