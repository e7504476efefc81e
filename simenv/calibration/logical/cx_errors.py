"""Errors of a transversal CX from wrong predictions of a decoder; pure.

CX acts several times on two patches in product states of one basis, one round after each. What the
memories of both patches do not explain of the wrong predictions are errors of CX: flips of control
and target in that basis. Contrasts are those of `error_rates`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from noise_models.calibration import PauliError
from simenv.calibration.logical.error_rates import MemoryRate


class GateFlips(msgspec.Struct, frozen=True):
    """Probabilities of the flips that a CX leaves in one basis: of the control alone, of the target
    alone, of both."""

    control: float
    target: float
    both: float

    @property
    def parity(self) -> float:
        """Probability that the parity of the two is flipped."""
        return self.control + self.target

    def scaled(self, factor: float) -> GateFlips:
        """Return the flips times a factor; the sum of a distribution stays below 1."""
        total = self.control + self.target + self.both
        factor = min(factor, 0.75 / total) if total else factor
        return GateFlips(self.control * factor, self.target * factor, self.both * factor)


def gate_flips(measured: Sequence[float], expected: Sequence[float]) -> GateFlips:
    """Return the flips that make measured contrasts of (control, target, parity) of the expected
    ones, which memories of the same length have. Probabilities below 0 are errors of sampling, and
    become 0."""
    ratios = [
        min(max(found, 0.0) / known, 1.0) if known > 0.0 else 1.0
        for found, known in zip(measured, expected, strict=True)
    ]
    control, target, parity = ratios  # mean of (-1)^flip of each
    parts = (
        (1.0 - control + target - parity) / 4.0,
        (1.0 + control - target - parity) / 4.0,
        (1.0 - control - target + parity) / 4.0,
    )
    return GateFlips(*(max(part, 0.0) for part in parts))


def cx_flips(
    measured: Sequence[Sequence[float]],
    basis: str,
    ends: tuple[MemoryRate, MemoryRate],
    layouts: Sequence[Sequence[int]],
    least: float,
) -> GateFlips:
    """Return the flips of CX in a basis from two experiments with CX several times, an odd number:
    more often in the second.

    Args:
        measured: contrasts of (control, target, parity) of each experiment.
        ends: memories of control and target.
        layouts: rounds before the first CX and after each, of each experiment.
        least: contrast below which nothing is left.

    What memories do not explain grows with the number of CX: its slope has the errors of CX alone.
    Between one CX and the next the observables target and parity (basis Z) take turns, so that the
    slope has the mean of their errors, and the experiments themselves have the difference.
    """
    excess: list[list[float]] = []
    counts: list[int] = []
    for found, rounds in zip(measured, layouts, strict=True):
        known = expected_contrasts(basis, *ends, rounds)
        if min(*found, *known) < least and excess:
            break  # the first one alone says something
        pairs = zip(found, known, strict=True)
        excess.append([math.log(max(b, least) / max(a, least)) for a, b in pairs])
        counts.append(len(rounds) - 1)
    slope = [each / counts[0] for each in excess[0]]
    if len(excess) > 1:
        more = counts[1] - counts[0]
        slope = [(b - a) / more for a, b in zip(*excess, strict=True)]
    place, other = (1, 2) if basis == "Z" else (0, 2)
    mean = 0.5 * (slope[place] + slope[other])
    difference = sum(each[place] - each[other] for each in excess) / len(excess)
    slope[place], slope[other] = mean + 0.5 * difference, mean - 0.5 * difference
    return gate_flips([math.exp(-max(each, 0.0)) for each in slope], (1.0, 1.0, 1.0))


def expected_contrasts(
    basis: str, control: MemoryRate, target: MemoryRate, rounds: Sequence[int]
) -> tuple[float, float, float]:
    """Return the contrasts of control, target and their parity after CX in a product state of the
    basis, if CX added no errors. `rounds`: before the first CX and after each. Errors of X spread
    from the control to the target, errors of Z from the target to the control."""
    source, changed = (control, target) if basis == "Z" else (target, control)

    def read(rate: MemoryRate) -> float:
        return 1.0 - 2.0 * rate.readout

    def contrast(rate: MemoryRate, count: int) -> float:
        return float((1.0 - 2.0 * rate.error) ** count)

    def spread(both: bool) -> float:
        """Contrast of the changed qubit, or of both: each CX exchanges the two."""
        result = read(changed) * (read(source) if both else 1.0)
        for count in reversed(rounds):
            result *= contrast(changed, count) * (contrast(source, count) if both else 1.0)
            both = not both
        return result

    first, alone, both = read(source) * contrast(source, sum(rounds)), spread(False), spread(True)
    return (first, alone, both) if basis == "Z" else (alone, first, both)


def mean_flips(flips: Sequence[GateFlips]) -> GateFlips:
    """Return the mean of the flips of several pairs."""
    count = max(len(flips), 1)
    return GateFlips(
        sum(each.control for each in flips) / count,
        sum(each.target for each in flips) / count,
        sum(each.both for each in flips) / count,
    )


_LETTERS = {(0, 0): "I", (1, 0): "X", (0, 1): "Z", (1, 1): "Y"}
_NEGLIGIBLE = 1e-12  # probability of a Pauli error that is left out


def gate_paulis(flips: Mapping[str, GateFlips]) -> tuple[PauliError, ...]:
    """Return the Pauli errors of a CX, first letter the control: flips in the basis Z are X parts,
    flips in the basis X are Z parts, independent of one another."""

    def table(each: GateFlips) -> dict[tuple[int, int], float]:
        some = each.control + each.target + each.both
        rest = {(1, 0): each.control, (0, 1): each.target, (1, 1): each.both}
        return {(0, 0): max(1.0 - some, 0.0), **rest}

    results = []
    for (x_first, x_second), x in table(flips["Z"]).items():
        for (z_first, z_second), z in table(flips["X"]).items():
            pauli = _LETTERS[x_first, z_first] + _LETTERS[x_second, z_second]
            if pauli != "II" and x * z > _NEGLIGIBLE:
                results.append(PauliError(pauli, x * z))
    return tuple(sorted(results, key=lambda each: each.pauli))
