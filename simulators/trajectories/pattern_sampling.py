"""Random errors of all shots, drawn before the run.

A location has an error with a probability that does not depend on the state, so its errors in a
block of shots are found by geometric skipping: the number of shots without an error before the next
one is floor(log(1 - u) / log(1 - p)) (Devroye, Non-Uniform Random Variate Generation, 1986, section
X.2). Skip k of a block of BLOCK shots, which begins at shot b, is draw 2**60 + 2 * location of shot
b + k; the kind of the error is draw 2**60 + 2 * location + 1 of the shot itself. So the errors of a
shot are a function of the noise, the seed, the binding and the shot.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import kernel
from simulators.execution.philox import block, draw_number, uniform, uniforms
from simulators.trajectories import prefix_tree
from simulators.trajectories.noise_table import ErrorPatterns

FIRST_DRAW = 2**60  # number of the draw for the skips of location 0
BLOCK = 1 << 16  # shots
_SPREAD = 6.0  # standard deviations of the number of errors for which memory is reserved


class ErrorTable(msgspec.Struct, frozen=True, eq=False):
    """Probabilities of the errors of each location."""

    probabilities: NDArray[np.float64]  # [locations]: of any error
    inserts: NDArray[np.int64]  # [locations]: first insert; the others follow
    begins: NDArray[np.int64]  # [locations]: begin of their cumulative probabilities in `edges`
    edges: NDArray[np.float64]  # ascending to 1.0, for each kind of location
    draw_ids: NDArray[np.int64]  # [locations]: numbers of their random draws


@kernel("REALS I64 I64 REALS I64 INT INT WORD WORD I64 I64 -> INT", group="trajectories")
def draw_errors(  # type: ignore[no-untyped-def]
    probabilities, first_insert, begins, edges, draw_ids, first, last, seed, binding, shots, inserts
):
    """Draw the errors of shots first .. last - 1, location by location. Returns their number;
    errors beyond the room of the arrays are counted and not written."""
    result = np.int64(0)
    for location in range(probabilities.size):
        p = probabilities[location]
        if p <= 0.0:
            continue
        scale = 0.0 if p >= 1.0 else 1.0 / np.log1p(-p)
        draw = np.uint64(FIRST_DRAW) + np.uint64(2 * draw_ids[location])
        for begin in range(first // BLOCK * BLOCK, last, BLOCK):
            end = min(begin + BLOCK, last)
            shot = np.int64(begin - 1)
            number = np.int64(begin)
            a = b = c = d = np.uint64(0)
            while True:
                lane = number & 3
                if lane == 0 or number == begin:
                    a, b, c, d = block(np.uint64(number >> 2) + np.uint64(1), draw, seed, binding)
                u = uniform(a if lane == 0 else b if lane == 1 else c if lane == 2 else d)
                skip = np.log(1.0 - u) * scale
                if skip >= end - shot - 1:
                    break
                shot += 1 + np.int64(skip)
                number += 1
                if shot < first:
                    continue
                if result < shots.size:
                    at = begins[location]
                    choice = prefix_tree.number_of(seed, binding, draw + np.uint64(1), shot)
                    kind = np.int64(0)
                    while edges[at + kind] <= choice:
                        kind += 1
                    shots[result] = shot
                    inserts[result] = first_insert[location] + kind
                result += 1
    return result


@kernel("I64 I64 INT INT I64 I64 I64", group="trajectories")
def group_by_shot(shots, inserts, count, first, places, ends, entries):  # type: ignore[no-untyped-def]
    """Group the first `count` errors by shot, as ascending places: shot first + i has
    entries[ends[i] : ends[i + 1]]."""
    for k in range(ends.size):
        ends[k] = 0
    for k in range(count):
        ends[shots[k] - first + 1] += 1
    for k in range(1, ends.size):
        ends[k] += ends[k - 1]
    for k in range(count):
        row = shots[k] - first
        entries[ends[row]] = places[inserts[k]]
        ends[row] += 1
    for k in range(ends.size - 1, 0, -1):
        ends[k] = ends[k - 1]
    ends[0] = 0
    for row in range(ends.size - 1):
        for k in range(ends[row] + 1, ends[row + 1]):
            entry = entries[k]
            at = k - 1
            while at >= ends[row] and entries[at] > entry:
                entries[at + 1] = entries[at]
                at -= 1
            entries[at + 1] = entry


def draw_patterns(
    table: ErrorTable, first: int, last: int, key: tuple[int, int], places: NDArray[np.int64]
) -> ErrorPatterns:
    """Errors of shots first .. last - 1 as places; `key`: seed and binding."""
    count = last - first
    mean = float(table.probabilities.sum()) * count
    room = int(mean + _SPREAD * (mean + 1.0) ** 0.5) + 16
    while True:
        shots, inserts = np.empty(room, np.int64), np.empty(room, np.int64)
        num_errors = draw_errors(
            table.probabilities, table.inserts, table.begins, table.edges, table.draw_ids, first,
            last, *key, shots, inserts,
        )  # fmt: skip
        if num_errors <= room:
            break
        room = num_errors
    ends, entries = np.empty(count + 1, np.int64), np.empty(num_errors, np.int64)
    group_by_shot(shots, inserts, num_errors, first, places, ends, entries)
    return ErrorPatterns(entries, ends)


# Draws of locations in runs that come to them one after the other.


def location_draws(
    key: tuple[int, int], number: int, passes: Sequence[int], shots: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Uniforms of the draw `number` of these shots; different in each later pass of a loop."""
    result = np.empty(shots.size)
    uniforms(*key, draw_number(number - 1, passes), shots, result)
    return result
