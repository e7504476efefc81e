"""Numbers of draws: which of a shot's random numbers an operation takes, loops included.

Invariant: a number depends on the operation and on how often each loop around it has begun anew,
never on other shots, so that shots may be run in any groups.
"""

from __future__ import annotations

from collections.abc import Sequence

_64 = 2**64 - 1
_62 = 2**62 - 1


def draw_number(operation: int, passes: Sequence[int]) -> int:
    """The draw of a measurement or reset that is not final.

    `passes`: of each loop around it, outermost first, how many passes are behind it. In the first
    pass of all of them it is 1 + operation. Later it is 2**62 plus the low 62 bits of a hash of the
    numbers, one after the other by the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    if not any(passes):
        return 1 + operation
    number = _mixed(operation)
    for done in passes:
        number = _mixed(number ^ done)
    return number & _62 | 1 << 62


def _mixed(number: int) -> int:
    number = (number + 0x9E3779B97F4A7C15) & _64
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _64
    return number ^ (number >> 31)
