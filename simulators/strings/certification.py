"""Value of a Pauli string, with an error that may be stated.

Strings are cut below eps, and what the cuts are worth is not known; values at two eps that agree
are no estimate. Two statements are sound. (a) The cuts of a run are a bound: channels do not
increase the expectation value of what was cut. (b) With unbiased cuts the mean over runs is
unbiased, whatever eps, and its standard error is one. It is multiplied so that three of it cover
what three of a normal distribution do (Student's t), and it is at least a quarter of eps: strings
of weight eps that contribute to every third run only may contribute to none of eight.

eps is lowered until one of these is at most the tolerance, or until a run reaches the limit of
strings. Then the value is not certified: the bound is stated, and the values at three eps.

The tolerance is that of an observable, relative to the sum of the magnitudes of its coefficients.
Bounds of its strings add up; standard errors, which are independent, by their squares, so that the
strings of a long sum need fewer runs than one string alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import Options, builtin_card
from simulators.engine import RunControl
from simulators.strings.program import Program
from simulators.strings.propagation import Cuts, Propagated, Propagation

K = TypeVar("K", bound=Hashable)

REPLICAS = 8
FIRST_REPLICA = 2**33  # draw of the first replica of string 0, at the first eps
_LEVEL = 48  # bit of a draw from which on is the number of the eps
_STUDENT = 1.510  # 99.73 % of Student's t with 7 degrees of freedom, relative to 3
_LEAST = 0.25  # of eps
# The next eps, if an error is so much above the tolerance: the ratio to this power, within limits.
_POWER, _LEAST_STEP, _LARGEST_STEP = 1.3, 2.0, 27.0
# Numbers of runs after which their error is looked at, and the error, relative to the target,
# beyond which the others are left.
_CHECKS = (2, 3.0), (4, 1.7), (REPLICAS, 1.0)
_LARGEST = 0.1  # standard error of a string of a sum
_TRIVIAL = 2.0  # bound of an error of a Pauli string
_SMALLEST = 1e-12  # eps
_WIDER = 3.0, 10.0  # factors of eps of the other values of one that is not certified

# What a value rests on: its error is a bound, a standard error of unbiased runs, or a bound above
# the tolerance.
BOUND, UNBIASED, UNKNOWN = range(3)


class StringLimits(msgspec.Struct, frozen=True):
    tolerance: float
    strings: int  # held at once

    @classmethod
    def of(cls, settings: Options) -> StringLimits:
        """Those of the options of engine `pauli`."""
        card = builtin_card("pauli")
        values = (card.value(settings, name) for name in ("tolerance", "strings"))
        return cls(float(next(values)), max(1, int(next(values))))


class ErrorTarget(msgspec.Struct, frozen=True):
    """Largest errors of a string: a bound, and a standard error."""

    bound: float
    error: float


def targets(
    strings: Sequence[K], owners: NDArray[np.int64], weights: NDArray[np.float64], tolerance: float
) -> dict[K, ErrorTarget]:
    """Target of each string so that all observables are within the tolerance. `owners`, `weights`:
    the observable and the coefficient of each string, which may repeat."""
    sizes = np.abs(weights)
    ones, squares = np.bincount(owners, sizes), np.bincount(owners, sizes * sizes)
    counts = np.bincount(owners, sizes > 0.0)
    # Of a sum, half for the bounds and half for the standard errors.
    parts = np.where(counts > 1, 0.5, 1.0) * tolerance
    errors = np.minimum(parts * ones / np.sqrt(np.maximum(squares, 1e-300)), _LARGEST)
    result: dict[K, ErrorTarget] = {}
    for string, owner, size in zip(strings, owners.tolist(), sizes.tolist(), strict=True):
        known = result.get(string, ErrorTarget(_TRIVIAL, _TRIVIAL))
        if size > 0.0:
            bound, error = float(parts[owner]), float(errors[owner])
            known = ErrorTarget(min(known.bound, bound), min(known.error, max(error, bound)))
        result[string] = known
    return result


class Stated(msgspec.Struct, frozen=True):
    """Value of a string; all fields are numbers, so that ranks can exchange them."""

    value: float
    error: float
    basis: int
    eps: float  # at the end of the last run
    peak: int  # strings
    work: int  # strings that the steps of all runs passed over
    diagonal: int = 1  # strings of I and Z at the end; 0: nothing contributed
    # Of `UNKNOWN`: two larger eps, and the values there.
    second_eps: float = 0.0
    second_value: float = 0.0
    third_eps: float = 0.0
    third_value: float = 0.0

    @classmethod
    def of(cls, row: list[float]) -> Stated:
        """From the fields, all as float64."""
        value, error, basis, eps, *others = row
        counts = map(int, others[:3])
        return cls(value, error, int(basis), eps, *counts, *others[3:])


def certified(
    arrays: Propagation,
    program: Program,
    string: tuple[int, int],
    key: tuple[int, int, int],
    target: ErrorTarget,
    most: int,
    control: RunControl,
    *,
    most_work: float = math.inf,
) -> Stated:
    """Value of the string with masks (x, z). `key`: seed, binding, number of the string; `most`:
    strings held at once; `most_work`: that steps may pass over. Raises Stopped."""
    seed, binding, number = key
    eps = max(target.error, _SMALLEST)
    level = work = 0

    def run(draw: int | None = None, factor: float = 1.0) -> Propagated:
        nonlocal work
        chosen = None if draw is None else (seed, binding, draw)
        found = arrays.run(program, *string, Cuts(factor * eps, most, chosen), control)
        work += found.work
        return found

    while True:
        last = run()
        bound = min(last.bound, _TRIVIAL)
        if bound <= target.bound:
            return Stated(last.value, bound, BOUND, last.eps, last.peak, work, last.diagonal)
        first = FIRST_REPLICA + REPLICAS * number + (level << _LEVEL)
        runs: list[Propagated] = []
        for count, limit in _CHECKS:
            if work > most_work:
                return Stated(last.value, bound, UNKNOWN, last.eps, last.peak, work)
            runs += [run(first + k) for k in range(len(runs), count)]
            found = _mean(runs, work)
            if found.error > limit * target.error:
                break
        else:
            if found.diagonal:
                return found
        if last.raised or eps <= _SMALLEST:
            break
        step = (found.error / target.error) ** _POWER
        eps = max(_SMALLEST, eps / min(max(step, _LEAST_STEP), _LARGEST_STEP))
        level += 1
    eps = last.eps
    wider = [run(factor=factor) for factor in _WIDER]
    return Stated(
        last.value, bound, UNKNOWN, eps, last.peak, work, last.diagonal,
        *(number for each in wider for number in (each.eps, each.value)),
    )  # fmt: skip


def _mean(runs: list[Propagated], work: int) -> Stated:
    """Mean of unbiased runs, with the standard error that all of them would have."""
    values = np.array([each.value for each in runs])
    eps = max(each.eps for each in runs)
    spread = _STUDENT * float(values.std(ddof=1)) / math.sqrt(REPLICAS)
    return Stated(
        float(values.mean()), math.hypot(spread, _LEAST * eps), UNBIASED, eps,
        max(each.peak for each in runs), work, sum(each.diagonal for each in runs),
    )  # fmt: skip
