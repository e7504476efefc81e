"""Outcomes of measured clbits, and the values of PennyLane's measurements of them.

One table serves exact probabilities and counts of shots: distinct outcomes and the weight of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pennylane as qml
from numpy.typing import NDArray
from pennylane.measurements import (
    CountsMP,
    ExpectationMP,
    ProbabilityMP,
    SampleMP,
    VarianceMP,
)

from simenv.errors import OptionError

Bits = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OutcomeTable:
    """Distinct outcomes with weights. `bits`: uint8 [k, clbits], a row for each distinct outcome,
    clbit 0 first; `weights`: float64 [k], exact probabilities or numbers of shots; `shots`: intp
    [shots], the row of each shot in order, or None for probabilities."""

    bits: Bits
    weights: Floats
    shots: NDArray[np.intp] | None = None

    @staticmethod
    def of(distribution: dict[str, float], clbits: int) -> OutcomeTable:
        """Make a table from the outcomes of a result: clbit 0 is rightmost."""
        letters = np.frombuffer("".join(distribution).encode(), np.uint8).reshape(-1, clbits)
        weights = np.fromiter(distribution.values(), np.float64, len(distribution))
        return OutcomeTable(letters[:, ::-1] - ord("0"), weights)

    @staticmethod
    def of_memory(memory: NDArray[np.uint8], clbits: int) -> OutcomeTable:
        """Make a table from the packed bits of each shot of a result."""
        packed, shots, counts = np.unique(memory, axis=0, return_inverse=True, return_counts=True)
        bits = np.unpackbits(packed, axis=1, count=clbits, bitorder="little")
        return OutcomeTable(bits, counts.astype(np.float64), shots.ravel())

    def part(self, low: int, high: int) -> OutcomeTable:
        """Table of the shots low .. high - 1."""
        assert self.shots is not None  # only ordered tables are cut
        shots = self.shots[low:high]
        weights = np.bincount(shots, minlength=len(self.bits)).astype(np.float64)
        return OutcomeTable(self.bits, weights, shots)

    def postselected(self, wanted: Sequence[tuple[int, int]]) -> OutcomeTable:
        """Table of the outcomes with these bits: (clbit, value)."""
        if not wanted:
            return self
        clbits = [clbit for clbit, _ in wanted]
        valid = np.all(self.bits[:, clbits] == [value for _, value in wanted], axis=1)
        shots = None if self.shots is None else self.shots[valid[self.shots]]
        return OutcomeTable(self.bits, np.where(valid, self.weights, 0.0), shots)

    def indices(self, clbits: Sequence[int]) -> NDArray[np.int64]:
        """Index of each outcome, int64 [k]: the number that these clbits spell, the first one most
        significant. Raises OptionError for more than 62 clbits."""
        if len(clbits) > 62:
            raise OptionError(
                f"outcomes of {len(clbits)} wires have no index of 64 bits",
                hint="measure fewer wires, or take samples",
            )
        powers = 1 << np.arange(len(clbits), dtype=np.int64)[::-1]
        result: NDArray[np.int64] = self.bits[:, list(clbits)].astype(np.int64) @ powers
        return result

    def parity(self, clbits: Sequence[int]) -> float:
        """Mean of the product of Paulis Z on these clbits."""
        signs = 1.0 - 2.0 * (self.bits[:, list(clbits)].sum(axis=1) & 1)
        total = self.weights.sum()
        return float(self.weights @ signs / total) if total else np.nan


def measured_value(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> Any:
    """Value of a measurement process for these outcomes. `clbits`: those of its wires or
    mid-circuit measurements, in order. nan if no shot is left."""
    if isinstance(measurement, CountsMP):
        return _counts(measurement, table, clbits)
    if isinstance(measurement, SampleMP):
        return _samples(measurement, table, clbits)
    total = table.weights.sum()
    if isinstance(measurement, ProbabilityMP):
        weights = np.bincount(table.indices(clbits), table.weights, minlength=1 << len(clbits))
        return weights / total if total else np.full_like(weights, np.nan)
    if isinstance(measurement, ExpectationMP | VarianceMP):
        values = _eigenvalues(measurement, table, clbits)
        if not total:
            return np.float64(np.nan)
        mean = table.weights @ values / total
        if isinstance(measurement, ExpectationMP):
            return mean
        deviations = np.real(values) - np.real(mean)  # PennyLane's variances are real
        return np.float64(table.weights @ deviations**2 / total)
    wires = qml.wires.Wires(measurement.wires)
    return measurement.process_samples(_shots(table, clbits), wires)


def _eigenvalues(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> Floats:
    """Eigenvalue of each outcome [k]: float64, or complex128 of an operator that is not
    Hermitian."""
    values = _spectrum(measurement)
    if not clbits:
        return np.full(len(table.bits), np.squeeze(values))
    return values[table.indices(clbits)]


def _spectrum(measurement: Any) -> Floats:
    """Eigenvalue of each string of bits, real if all imaginary parts are rounding."""
    result: Floats = np.real_if_close(np.asarray(measurement.eigvals(), dtype=complex))
    return result


def _shots(table: OutcomeTable, clbits: Sequence[int]) -> NDArray[np.int64]:
    """Bits of each shot in order, int64 [shots, clbits]."""
    assert table.shots is not None
    result: NDArray[np.int64] = table.bits[:, list(clbits)].astype(np.int64)[table.shots]
    return result


def _has_values(measurement: Any) -> bool:
    """Return whether the outcomes are values, rather than strings of bits."""
    single = measurement.mv is not None and not isinstance(measurement.mv, list)
    return single or measurement.obs is not None or measurement._eigvals is not None


def _samples(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> Any:
    if not _has_values(measurement):
        result: Any = _shots(table, clbits)
    else:
        assert table.shots is not None
        result = _eigenvalues(measurement, table, clbits)[table.shots]
    dtype = measurement._dtype
    return result if dtype is None else result.astype(dtype)


def _counts(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> dict[Any, Any]:
    if _has_values(measurement):
        values = _eigenvalues(measurement, table, clbits)
        keys, places = np.unique(values, return_inverse=True)
        counts = np.bincount(places, table.weights, minlength=len(keys)).astype(np.int64)
        entries = {key: number for key, number in zip(keys, counts, strict=True) if number}
        if measurement.all_outcomes:
            every = np.unique(_spectrum(measurement))
            return {key: entries.get(key, np.int64(0)) for key in every}
        return entries
    chosen = table.bits[:, list(clbits)] + ord("0")
    strings = np.ascontiguousarray(chosen).view(f"S{len(clbits)}").ravel()
    keys, places = np.unique(strings, return_inverse=True)
    counts = np.bincount(places, table.weights, minlength=len(keys)).astype(np.int64)
    named = {
        key.decode(): number for key, number in zip(keys.tolist(), counts, strict=True) if number
    }
    if measurement.all_outcomes:
        width = len(clbits)
        strings_of_all = (f"{k:0{width}b}" for k in range(1 << width))
        return {key: named.get(key, np.int64(0)) for key in strings_of_all}
    return named
