"""Value of a Pauli string, with an error that may be stated.

Strings are cut below eps, and what the cuts are worth is not known; values at two eps that agree
are no estimate. Two statements are sound. (a) The cuts of a run are a bound: channels do not
increase the expectation value of what was cut. (b) With unbiased cuts the mean over runs is
unbiased, whatever eps, and its standard error is one. It is multiplied so that three of it cover
what three of a normal distribution do (Student's t), and it is at least a quarter of eps: strings
of weight eps that contribute to every third run only may contribute to none of eight.

eps is divided by 3 until one of these is at most the tolerance, or until a run reaches the limit of
strings. Then the value is not certified: the bound is stated, and the values at three eps.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from simulators.engine import RunControl
from simulators.strings.program import Program
from simulators.strings.propagation import Cuts, Propagated, Propagation

REPLICAS = 8
FIRST_REPLICA = 2**33  # draw of the first replica of string 0, at the first eps
_LEVEL = 48  # bit of a draw from which on is the number of the eps
_STUDENT = 1.510  # 99.73 % of Student's t with 7 degrees of freedom, relative to 3
_LEAST = 0.25  # of eps
_STEP = 3.0  # between two eps
_HOPELESS = (
    12.0  # difference of the first two replicas, in tolerances, at which the others are left
)
_TRIVIAL = 2.0  # bound of an error of a Pauli string
_SMALLEST = 1e-12  # eps
_WIDER = 3.0, 10.0  # factors of eps of the other values of one that is not certified

# What a value rests on: its error is a bound, a standard error of unbiased runs, or a bound above
# the tolerance.
BOUND, UNBIASED, UNKNOWN = range(3)


class StringLimits(msgspec.Struct, frozen=True):
    tolerance: float
    strings: int  # held at once


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
    limits: StringLimits,
    control: RunControl,
) -> Stated:
    """Value of the string with masks (x, z). `key`: seed, binding, number of the string. Raises
    Stopped."""
    seed, binding, number = key
    tolerance = limits.tolerance
    eps = max(tolerance, _SMALLEST)
    level = work = 0

    def run(draw: int | None = None, factor: float = 1.0) -> Propagated:
        nonlocal work
        chosen = None if draw is None else (seed, binding, draw)
        found = arrays.run(program, *string, Cuts(factor * eps, limits.strings, chosen), control)
        work += found.work
        return found

    while True:
        last = run()
        bound = min(last.bound, _TRIVIAL)
        if bound <= tolerance:
            return Stated(last.value, bound, BOUND, last.eps, last.peak, work, last.diagonal)
        first = FIRST_REPLICA + REPLICAS * number + (level << _LEVEL)
        runs = [run(first), run(first + 1)]
        if abs(runs[0].value - runs[1].value) <= _HOPELESS * tolerance:
            runs += [run(first + k) for k in range(2, REPLICAS)]
            found = _mean(runs, work)
            if found.error <= tolerance and found.diagonal:
                return found
        if last.raised or eps / _STEP < _SMALLEST:
            break
        eps /= _STEP
        level += 1
    eps = last.eps
    wider = [run(factor=factor) for factor in _WIDER]
    return Stated(
        last.value, bound, UNKNOWN, eps, last.peak, work, last.diagonal,
        *(number for each in wider for number in (each.eps, each.value)),
    )  # fmt: skip


def _mean(runs: list[Propagated], work: int) -> Stated:
    """Mean of unbiased runs, with its standard error."""
    values = np.array([each.value for each in runs])
    eps = max(each.eps for each in runs)
    spread = _STUDENT * float(values.std(ddof=1)) / math.sqrt(len(runs))
    return Stated(
        float(values.mean()), math.hypot(spread, _LEAST * eps), UNBIASED, eps,
        max(each.peak for each in runs), work, sum(each.diagonal for each in runs),
    )  # fmt: skip
