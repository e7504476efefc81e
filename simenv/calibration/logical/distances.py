"""Comparison of a code's distances on one chip: Lambda, and errors that are too rare to sample.

Patches of smaller distances are the corners of a larger patch, so that their qubits are those of
the large one (Google Quantum AI, arXiv 2207.06431).
"""

from __future__ import annotations

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.logical.cx_errors import GateFlips
from simenv.calibration.logical.error_rates import (
    MemoryRate,
    extrapolated,
    suppression,
)
from simenv.calibration.logical.experiments import (
    Memories,
    PatchOn,
    Run,
    gate_experiments,
    measured_flips,
    memories,
    memory_experiments,
    patch_of,
)
from simenv.calibration.logical.options import EncodeOptions
from simenv.calibration.logical.patch_chip import corners, patch_chip, places
from simenv.calibration.logical.surface_code import BASES, rotated

_LEAST = 3  # distance
_LEAST_LARGE = 5  # distance of the larger of two codes that Lambda compares
Rates = dict[str, MemoryRate]  # by basis of the memory


class Distances:
    """Rates of patches of several distances on one chip, each sampled at its first use."""

    def __init__(
        self,
        chip: CalibrationSnapshot,
        own: PatchOn,
        options: EncodeOptions,
        sampled: Memories,
        run: Run,
    ) -> None:
        """`chip`: without bad qubits. `own`: the first patch of the device. `sampled`: the memories
        of all its patches."""
        self._chip, self._options, self._run = chip, options, run
        self._sampled = sampled
        self._rates: dict[int, Rates] = {}
        self._top = max(options.distance, _LEAST_LARGE)
        if self._top == options.distance:
            first = Memories(sampled.counts[:1], sampled.round_ns)
            self._rates[self._top] = first.pooled()
            self._large = own
        else:
            self._rates[options.distance] = sampled.pooled()
            code = rotated(self._top)
            placed = [] if options.placement == "drawn" else places(chip, code, 1)
            self._large = patch_of(patch_chip(chip, code, placed, 1, options.seed), code, 0)

    def suppression(self) -> tuple[float, float] | None:
        """Return Lambda of errors of X and of Z, from the two largest distances whose errors are
        frequent enough; a lower limit if only those of distance 3 are. None: not even those, or
        nothing is left of the logical qubit."""
        large = self._largest()
        small_rates, large_rates = self._at(large - 2), self._at(large)
        if not _resolved(small_rates) or self.lost():
            return None
        x, z = (suppression(small_rates[b].error, large_rates[b].error) for b in BASES)
        return x, z

    def lost(self) -> tuple[int, ...]:
        """Return the distances of Lambda at which nothing is left after the longer memory."""
        large = self._largest()
        return tuple(
            d for d in (large - 2, large) if any(each.lost for each in self._at(d).values())
        )

    def extrapolated(self) -> tuple[Rates, bool]:
        """Return rates of the device's distance whose errors are too rare, and whether they follow
        from Lambda; else they are upper limits."""
        factors, large = self.suppression(), self._largest()
        steps = (self._options.distance - large) // 2
        if factors is None or steps <= 0:
            return self._sampled.pooled(), False
        results: Rates = {}
        for basis, factor in zip(BASES, factors, strict=True):
            rate = self._at(large)[basis]
            error = extrapolated(rate.error, factor, steps)
            readout = extrapolated(rate.readout, factor, steps) if rate.readout else 0.0
            results[basis] = MemoryRate(error, readout, resolved=False)
        return results, True

    def scaled_flips(self, wanted: Rates) -> dict[str, GateFlips]:
        """Return the flips of CX at the device's distance: those of two drawn patches of the
        largest distance whose errors are frequent enough, times the ratio of the memories'
        errors."""
        distance = self._largest()
        if not _resolved(self._at(distance)):
            distance -= 2
        code, by = rotated(distance), self._options.gates_decoded_by
        chip = patch_chip(self._chip, code, [], 2, self._options.seed)
        control, target = patch_of(chip, code, 0), patch_of(chip, code, 1)
        own = memory_experiments(code, (control, target), by)
        outcomes = self._run([*own, *gate_experiments(code, [(control, target)], by)])
        both = memories(code, outcomes[: len(own)])
        (flips,) = measured_flips(outcomes[len(own) :], [(0, 1)], both.rates(), distance)
        rates = both.pooled()
        return {b: flips[b].scaled(wanted[b].error / rates[b].error) for b in BASES}

    def _largest(self) -> int:
        """Return the largest distance from 5 whose errors are frequent enough; else 5."""
        distance = self._top
        while distance > _LEAST_LARGE and not _resolved(self._at(distance)):
            distance -= 2
        return distance

    def _at(self, distance: int) -> Rates:
        found = self._rates.get(distance)
        if found is None:
            code, large = rotated(distance), rotated(self._top)
            at = corners(large, code) if distance < self._top else [tuple(range(large.num_qubits))]
            patches = [
                PatchOn(self._large.chip, tuple(self._large.qubits[qubit] for qubit in place))
                for place in at
            ]
            outcomes = self._run(memory_experiments(code, patches, self._options.decoder))
            found = self._rates[distance] = memories(code, outcomes).pooled()
        return found


def _resolved(rates: Rates) -> bool:
    return all(each.resolved for each in rates.values())
