"""Waits for the pairs of links, which are random, and what is left of a qubit after one.

A wait W is `herald_ns` times a geometric number of attempts, exponential where that is 0, and
cut at `attempts_max`. A qubit that relaxes at the rate g meanwhile keeps the mean of exp(-g W):

    exponential, mean m             1 / (1 + g m)
    n attempts of the time h        p x / (1 - q x),  x = exp(-g h), q = 1 - p
    at most n attempts              that times (1 - (q x)^n) / (1 - q^n)

Of several waits that overlap, the qubit waits for the last one to end. E[exp(-g max)] is a sum over
sets of waits by inclusion and exclusion: the least of several geometric or exponential waits is
one (Ross, Introduction to Probability Models, section 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import Link
from noise_models.strict_json import NoiseError

MAX_TOGETHER = 16  # waits of different links that overlap: 65,536 sets
_ALIKE = 1e-9  # relative difference of equal times
_NEVER = 1e-9  # probability of more than `attempts_max` attempts that is neglected


class WaitPart(msgspec.Struct, frozen=True):
    """Part of the wait for a link in which a qubit waits. `offset_ns`: of its begin after that of
    the first part; `share`: of the mean wait. The rest of the wait is before or after it."""

    link: Link
    offset_ns: float = 0.0
    share: float = 1.0


def mean_kept(parts: Sequence[WaitPart], rate_per_ns: float) -> float:
    """Return the mean of exp(-rate t) for the time t until the last of some waits ends, from the
    begin of the first. Raises NoiseError for waits that have no closed form together."""
    if rate_per_ns <= 0.0 or not parts:
        return 1.0
    if len(parts) == 1:
        part = parts[0]
        return math.exp(-rate_per_ns * part.offset_ns) * _kept(part, rate_per_ns)
    return _kept_until_last(parts, rate_per_ns)


def _kept(part: WaitPart, rate: float) -> float:
    link, share = part.link, part.share
    if not link.herald_ns:
        return 1.0 / (1.0 + rate * share * link.mean_wait_ns)
    p = link.success
    each = math.exp(-rate * share * link.herald_ns)
    left = (1.0 - p) * each
    result = p * each / (1.0 - left)
    if link.attempts_max:
        most = link.attempts_max
        result *= (1.0 - left**most) / -math.expm1(most * math.log1p(-p))
    return result


def _kept_until_last(parts: Sequence[WaitPart], rate: float) -> float:
    """Mean of exp(-rate t) for the last of several waits. Where their attempts do not end together,
    the time of the attempts that fail is exponential: its variance differs by the part p."""
    for part in parts:
        link, tail = part.link, 0.0
        if link.attempts_max:
            tail = math.exp(link.attempts_max * math.log1p(-link.success))
        if tail > _NEVER:
            text = f"the link of qubits {list(link.pair)} has attempts_max {link.attempts_max},"
            text += f" awaited with {len(parts) - 1} more"
            hint = "leave attempts_max out, or await the links one after the other"
            raise NoiseError(text, hint=hint)
    if len(parts) > MAX_TOGETHER:
        text = f"{len(parts)} links that a qubit awaits at once"
        raise NoiseError(text, hint=f"at most {MAX_TOGETHER}, or await them in turn")
    first = parts[0]
    step = first.share * first.link.herald_ns
    together = step > 0.0 and all(
        abs(each.share * each.link.herald_ns - step) <= _ALIKE * step
        and abs(each.offset_ns - first.offset_ns) <= _ALIKE * step
        for each in parts
    )
    if together:  # attempts end together: the last of some numbers of attempts
        failed, signs = _over_sets([math.log1p(-each.link.success) for each in parts])
        q, x = np.exp(failed), math.exp(-rate * step)
        kept = -float((signs * (1.0 - q) * x / (1.0 - q * x)).sum())
        return math.exp(-rate * first.offset_ns) * kept
    # P(t < T) is 0 until all have begun, and then the product of 1 - exp(-(T - begin) / mean).
    begins = [each.offset_ns + each.share * each.link.herald_ns for each in parts]
    speeds = [1e-9 * (each.link.rate_hz or math.inf) / each.share for each in parts]
    last = max(begins)
    passed, signs = _over_sets(
        [speed * (last - begin) for speed, begin in zip(speeds, begins, strict=True)]
    )
    summed, _ = _over_sets(speeds)
    kept = float((signs * np.exp(-passed) * rate / (rate + summed)).sum())
    return math.exp(-rate * last) * kept


def _over_sets(values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over all sets of some values, and -1.0 for those of odd size, else 1.0."""
    sums, signs = np.zeros(1), np.ones(1)
    for value in values:
        sums, signs = np.concatenate((sums, sums + value)), np.concatenate((signs, -signs))
    return sums, signs
