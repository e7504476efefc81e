"""Sampling of error patterns, and the outcomes of their shots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import kernel
from simulators.engine import Request
from simulators.errors import Unsupported
from simulators.execution.sampling import block, draw_number, uniform, uniforms
from simulators.trajectories import prefix_tree
from simulators.trajectories.noise_table import ErrorPatterns, SortedPatterns

# Random errors of all shots, drawn before the run, and their order for the walk.
#
# A location has an error with a probability that does not depend on the state, so its errors in a
# block of shots are found by geometric skipping: the number of shots without an error before the
# next one is floor(log(1 - u) / log(1 - p)) (Devroye, Non-Uniform Random Variate Generation, 1986,
# section X.2). Skip k of a block of BLOCK shots, which begins at shot b, is draw 2**60 + 2 *
# location of shot b + k; the kind of the error is draw 2**60 + 2 * location + 1 of the shot itself.
# So the errors of a shot are a function of the noise, the seed, the binding and the shot.

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


@kernel("I64 I64 INT I64 I64 I64 I64 I64 I64", group="trajectories")
def sort_rows(ends, entries, places, begins, terminated, order, other, sizes, counts):  # type: ignore[no-untyped-def]
    """Sort rows of ascending places lexicographically, with a row after its own extensions: by the
    last column first, like a radix sort of strings of different lengths. terminated[begins[row] :]:
    the row, and `places` at its end. sizes: int64 [longest + 2], counts: int64 [places + 1], order,
    other: int64 [rows]."""
    rows = ends.size - 1
    for k in range(sizes.size):
        sizes[k] = 0
    for row in range(rows):
        begins[row] = ends[row] + row
        for k in range(ends[row], ends[row + 1]):
            terminated[k + row] = entries[k]
        terminated[ends[row + 1] + row] = places
        sizes[ends[row + 1] - ends[row] + 1] += 1
    for k in range(1, sizes.size):  # sizes[s]: rows that are shorter than s
        sizes[k] += sizes[k - 1]
    for row in range(rows):  # rows by length, each in its order, from the end of `other`
        size = ends[row + 1] - ends[row]
        other[sizes[size]] = row
        sizes[size] += 1
    for k in range(sizes.size - 1, 0, -1):
        sizes[k] = sizes[k - 1]
    sizes[0] = 0
    # by_length: other[sizes[s] : sizes[s + 1]] has length s; `order` is filled from its front.
    active = np.int64(0)
    for depth in range(sizes.size - 3, -1, -1):
        low, high = sizes[depth + 1], sizes[depth + 2]
        for k in range(counts.size):
            counts[k] = 0
        for k in range(active):
            counts[terminated[begins[order[k]] + depth] + 1] += 1
        for k in range(low, high):
            counts[terminated[begins[other[k]] + depth] + 1] += 1
        for k in range(1, counts.size):
            counts[k] += counts[k - 1]
        # Rows longer than depth + 1 are order[:active]; those of that length come after them. The
        # sorted ones go to the end of `other`, where no shorter row is.
        base = low
        total = active + high - low
        for k in range(low, high):
            order[active + k - low] = other[k]
        for k in range(total):
            row = order[k]
            place = terminated[begins[row] + depth]
            other[base + counts[place]] = row
            counts[place] += 1
        for k in range(total):
            order[k] = other[base + k]
        active = total
    for k in range(sizes[0], sizes[1]):
        order[active + k - sizes[0]] = other[k]


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


def sort_places(patterns: ErrorPatterns, places: int) -> SortedPatterns:
    """Rows of ascending places below `places`, sorted."""
    rows = patterns.count
    deepest = int(np.diff(patterns.ends).max(initial=0))
    begins, order, other = (np.empty(rows, np.int64) for _ in range(3))
    terminated = np.empty(patterns.entries.size + rows, np.int64)
    sort_rows(
        patterns.ends, patterns.entries, places, begins, terminated, order, other,
        np.empty(deepest + 2, np.int64), np.empty(places + 2, np.int64),
    )  # fmt: skip
    return SortedPatterns(terminated, begins, order, deepest, places)


# Draws of locations in runs that come to them one after the other.


def location_draws(
    key: tuple[int, int], number: int, passes: Sequence[int], shots: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Uniforms of the draw `number` of these shots; different in each later pass of a loop."""
    result = np.empty(shots.size)
    uniforms(*key, draw_number(number - 1, passes), shots, result)
    return result


# Outputs of trajectories, blocks of shots, and means over trajectories.

SHOTS_AT_ONCE = 1 << 20
_MOST_ERRORS = 1 << 22  # errors of all shots of a block: 200 MB


def refuse_outputs(request: Request) -> None:
    """Raises Unsupported for outputs that trajectories cannot give."""
    hint = "engine='densitymatrix' gives it exactly, where its qubits fit into memory"
    if "statevector" in request.outputs:
        hint = "its state is mixed: ask for counts or expectation values"
        raise Unsupported("a statevector of a circuit with noise", hint=hint)
    if "gradient" in request.outputs:
        hint = "shift each parameter and ask for expectation values"
        raise Unsupported("a gradient of a circuit with noise", hint=hint)
    if "probabilities" in request.outputs:
        raise Unsupported("exact probabilities of a circuit with noise, by trajectories", hint=hint)
    if request.shots < 1:
        raise Unsupported("an exact result of a circuit with noise, by trajectories", hint=hint)


class Moments:
    """Mean and variance of values that arrive in parts (Chan, Golub and LeVeque, 1983)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._squares = np.zeros(size)

    def add(self, values: NDArray[np.float64]) -> None:
        """Values [shots, size]."""
        count = len(values)
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        total = self.count + count
        step = mean - self.mean
        self.mean = self.mean + step * (count / total)
        self._squares += squares + step**2 * (self.count * count / total)
        self.count = total

    def estimates(self) -> tuple[tuple[float, float], ...]:
        """Mean and standard error of each value."""
        errors = np.sqrt(self._squares / max(1, self.count - 1) / max(1, self.count))
        return tuple(zip(self.mean.tolist(), errors.tolist(), strict=True))


def shot_blocks(
    errors: ErrorTable, shots: int, more_inserts: float = 0.0
) -> Iterator[tuple[int, int]]:
    """First shot and end of each block of shots that are run together. `more_inserts`: mean number
    of those of a shot that are not errors."""
    mean = max(1.0, float(errors.probabilities.sum()) + more_inserts)
    size = max(1, min(SHOTS_AT_ONCE, int(_MOST_ERRORS / mean)))
    for first in range(0, shots, size):
        yield first, min(first + size, shots)
