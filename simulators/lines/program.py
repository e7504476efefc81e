"""Program of the sweeps: the operations on the tensors of each layer, for a block of shots.

Layer k redraws the values of lines whose unitary is in it. The amplitude of a shot's bits is a sum
over the hidden values of each line, those of segments that have ended. Lines are taken in one order
(`order`). R[i], the sum over the hidden values of the lines from i on, with the old last values, is
built from the end of the order once; L, the same for the lines before i with the new last values,
from its begin. At a line that is drawn its old last value becomes hidden too, L and R give its two
amplitudes, and its new value is drawn (Bravyi, Gosset, Liu, Phys. Rev. Lett. 128, 220503, 2022). So
a layer costs two contractions, whatever the number of its gates.

A diagonal gate between a hidden value in L and the last value of a line that is not yet taken is a
factor of L, which is exchanged when that line is drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from simulators.lines.lowering import Structure

# Operations, as rows of integers: their code, the number of axes of the tensor, and operands.
MULTIPLY, SUM, SELECT, KEEP, DRAW, SCALE, BEGIN = range(7)
# Kinds of factors, each followed by a number and two selectors: of a unitary [value, value before],
# of a diagonal gate, of its inverse. A selector: axis of the table that is made (0: the new axis or
# the one that is summed), or ~segment, whose value is known.
UNITARY, PAIR, INVERSE = range(3)
SCALE_EVERY = 4  # lines between two normalizations

TABLE_AXES = 6  # of the table by which a tensor is multiplied, at most

Axis = int  # the segment whose value it has
# Kind, number of the unitary or gate, its segments; ~segment: its value is the known one, though it
# is an axis too.
Factor = tuple[int, int, int, int]


class Layer(msgspec.Struct, frozen=True):
    """Operations of one layer; `firsts`: segments that begin from a known value alone."""

    firsts: tuple[int, ...]
    code: tuple[int, ...]


class Program(msgspec.Struct, frozen=True):
    layers: tuple[Layer, ...]
    widest: int  # axes of the largest tensor
    kept: int  # values of all R of a layer that are kept at once, at most
    values: float  # values of all tensors that are passed over, for one shot


@functools.lru_cache(maxsize=8)
def program_of(lines: Structure, order: tuple[int, ...]) -> Program:
    """Compile the layers of lines that are taken in this order. Bindings of a circuit share it."""
    compiler = _Compiler(lines, order)
    layers = [compiler.layer(k) for k in range(1, lines.num_layers + 1)]
    return Program(tuple(layers), compiler.widest, compiler.kept, compiler.values)


class _Tensor:
    """Axes of a tensor, the lowest bit of an index first, and the code that makes it."""

    def __init__(self, compiler: _Compiler, code: list[int]) -> None:
        self.axes: list[Axis] = []
        self._compiler, self._code = compiler, code
        code += [BEGIN]

    def multiply(self, factors: list[Factor], new: Axis | None = None) -> None:
        """Multiply by factors; `new`: an axis that the product has in addition."""
        part: list[Factor] = []
        table: list[Axis] = [] if new is None else [new]
        for factor in factors:
            more = self._tabulated(factor, table)
            if part and len(table) + len(more) > TABLE_AXES:
                self._multiply(part, table, new)
                new, part, table = None, [], []
                more = self._tabulated(factor, table)
            table += more
            part.append(factor)
        if part:
            self._multiply(part, table, new)

    def _tabulated(self, factor: Factor, table: list[Axis]) -> list[Axis]:
        return [a for a in unique(factor[2:]) if a in self.axes and a not in table]

    def _multiply(self, factors: list[Factor], table: list[Axis], new: Axis | None) -> None:
        self._count(len(self.axes) + (new is not None))
        places = [self.axes.index(a) for a in table if a != new]
        code = [MULTIPLY, len(self.axes), int(new is not None), len(places), *places]
        self._code += code + self._factors(factors, table)
        if new is not None:
            self.axes.append(new)

    def sum(self, axis: Axis, factors: list[Factor]) -> None:
        """Sum over an axis, after multiplication by factors that depend on it alone."""
        self._count(len(self.axes))
        self._code += [SUM, len(self.axes), self.axes.index(axis), *self._factors(factors, [axis])]
        self.axes.remove(axis)

    def select(self, axis: Axis) -> None:
        """Take the part with the known value of an axis."""
        self._count(len(self.axes))
        self._code += [SELECT, len(self.axes), self.axes.index(axis), axis]
        self.axes.remove(axis)

    def scale(self) -> None:
        self._count(len(self.axes))
        self._code += [SCALE, len(self.axes)]

    def _factors(self, factors: list[Factor], table: list[Axis]) -> list[int]:
        code = [len(factors)]
        for kind, number, *segments in factors:
            code += [kind, number]
            code += [a if a < 0 else table.index(a) if a in table else ~a for a in segments]
        return code

    def _count(self, axes: int) -> None:
        self._compiler.count(axes)


class _Compiler:
    def __init__(self, lines: Structure, order: Sequence[int]) -> None:
        self._lines, self._order = lines, list(order)
        self._place = {line: at for at, line in enumerate(order)}
        self._line_of = np.repeat(np.arange(len(lines.first) - 1), np.diff(lines.first)).tolist()
        self._of_segment: list[list[tuple[int, int]]] = [[] for _ in lines.layers]
        for number, (one, two) in enumerate(lines.pairs):
            self._of_segment[one].append((number, two))
            self._of_segment[two].append((number, one))
        self.widest = self.kept = 0
        self.values = 0.0

    def count(self, axes: int) -> None:
        self.widest = max(self.widest, axes)
        self.values += 2.0**axes

    def layer(self, k: int) -> Layer:
        first, layers = self._lines.first, self._lines.layers
        # Last segment of each line before this layer, and whether it is drawn in it.
        self._last = [
            max(s for s in range(first[n], first[n + 1]) if layers[s] < k)
            for n in range(len(first) - 1)
        ]
        self._drawn = [
            s + 1 < first[n + 1] and layers[s + 1] == k for n, s in enumerate(self._last)
        ]
        begun = [n for n, d in enumerate(self._drawn) if d and not self._hidden_at_draw(n)]
        firsts = tuple(self._last[n] + 1 for n in begun)
        code: list[int] = []
        wanted = [self._place[n] for n, d in enumerate(self._drawn) if d and n not in set(begun)]
        if wanted:
            kept = self._suffixes(min(wanted), max(wanted), code)
            self._prefixes(max(wanted), kept, code)
        return Layer(firsts, tuple(code))

    def _hidden_at_draw(self, n: int) -> bool:
        """Return whether the last value of a line is no known beginning."""
        return self._last[n] > self._lines.first[n]

    def _hidden(self, n: int, *, new: bool) -> range:
        """Hidden segments of a line before its draw, or after it."""
        last = self._last[n] + (new and self._drawn[n])
        return range(self._lines.first[n] + 1, last)

    def _is_active(self, segment: int) -> bool:
        return segment <= self._last[self._line_of[segment]]

    def _stays_known(self, segment: int) -> bool:
        """Return whether the value of an active segment is known before and after its line's
        draw."""
        n = self._line_of[segment]
        is_last = segment == self._last[n] and not self._drawn[n]
        return is_last or segment == self._lines.first[n]

    def _suffixes(
        self, least: int, most: int, code: list[int]
    ) -> dict[int, tuple[int, list[Axis]]]:
        """Code for R[i] with least < i <= most + 1; returns where each is kept, and its axes."""
        right = _Tensor(self, code)
        kept: dict[int, tuple[int, list[Axis]]] = {}
        room = 0
        for at in range(len(self._order) - 1, least, -1):
            self._take_right(right, self._order[at])
            if at % SCALE_EVERY == 0:
                right.scale()
            if at <= most + 1:
                kept[at] = room, list(right.axes)
                code += [KEEP, len(right.axes), room]
                self.count(len(right.axes))
                room += 1 << len(right.axes)
        self.kept = max(self.kept, room)
        return kept

    def _take_right(self, right: _Tensor, n: int) -> None:
        """Sum over the hidden values of a line with its old last value."""
        first, last, place = self._lines.first[n], self._last[n], self._place[n]
        if last in right.axes:
            right.select(last)
        for s in range(last - 1, first, -1):
            factors = [(UNITARY, last, last, s)] if s + 1 == last else []
            opened: list[tuple[Axis, Factor]] = []
            for number, other in self._of_segment[s]:
                if not self._is_active(other):
                    continue
                p = self._line_of[other]
                factor = (PAIR, number, *self._lines.pairs[number])
                if self._place[p] > place:  # a line on the right: known, or summed with it
                    if other == self._last[p] or self._stays_known(other):
                        factors.append(factor)
                elif self._stays_known(other) or other in right.axes:
                    factors.append(factor)
                else:
                    opened.append((other, factor))
            if s in right.axes:
                right.multiply(factors)
            else:
                right.multiply(factors, new=s)
            for axis, factor in opened:
                if axis in right.axes:
                    right.multiply([factor])
                else:
                    right.multiply([factor], new=axis)
            # (s, s - 1) is multiplied before s is summed.
            if s - 1 > first:
                if s - 1 in right.axes:
                    right.multiply([(UNITARY, s, s, s - 1)])
                else:
                    right.multiply([(UNITARY, s, s, s - 1)], new=s - 1)
                right.sum(s, [])
            else:
                right.sum(s, [(UNITARY, s, s, s - 1)])

    def _prefixes(
        self, most: int, kept: dict[int, tuple[int, list[Axis]]], code: list[int]
    ) -> None:
        left = _Tensor(self, code)
        self._included = set[Axis]()
        for at in range(most + 1):
            n = self._order[at]
            last = self._last[n]
            hidden = self._hidden(n, new=True)
            for s in hidden:
                self._open_left(left, n, s)
                self._close_left(left, n, s)
            if self._drawn[n] and self._hidden_at_draw(n):
                where, axes = kept.get(at + 1, (-1, []))
                places = [left.axes.index(a) for a in axes]
                code += [
                    DRAW, len(left.axes), left.axes.index(last), last + 1, where, len(places),
                    *places,
                ]  # fmt: skip
                self.count(len(left.axes))
                self._included.add(last)
                self._finish(left, last, [(UNITARY, last + 1, last + 1, last)], at)
            for s in list(left.axes):
                self._finish(left, s, [], at)
            if at % SCALE_EVERY == 0 and left.axes:
                left.scale()

    def _open_left(self, left: _Tensor, n: int, s: int) -> None:
        """Multiply by the factors of a hidden value of a line that is taken."""
        place, last = self._place[n], self._last[n]
        factors = [(UNITARY, s, s, s - 1)]
        if s + 1 == last and not self._drawn[n]:
            factors.append((UNITARY, last, last, s))
        was_known = s == last  # it is drawn now: its old last value
        for number, other in self._of_segment[s]:
            if not self._is_active(other):
                continue
            p = self._line_of[other]
            factor = (PAIR, number, *self._lines.pairs[number])
            if self._place[p] > place:
                if other == self._last[p] or self._stays_known(other):
                    factors.append(factor)
                continue
            if other in left.axes:
                factors.append(factor)
                if was_known:
                    one, two = self._lines.pairs[number]
                    known = (~one if one == s else one), (~two if two == s else two)
                    factors.append((INVERSE, number, *known))
            else:
                factors.append(factor)
        left.multiply(factors, new=s)

    def _close_left(self, left: _Tensor, n: int, s: int) -> None:
        """Sum over values whose factors are all there, after a hidden value was opened."""
        for axis in list(left.axes):
            if axis != s:
                self._finish(left, axis, [], self._place[n], within=s)

    def _finish(
        self,
        left: _Tensor,
        axis: Axis,
        factors: list[Factor],
        at: int,
        within: int | None = None,
    ) -> None:
        """Sum over a value if all its factors are there, those given here included, else multiply
        by these. `within`: the last segment opened of the line at `at`, if it has more."""
        n = self._line_of[axis]
        is_last = axis == self._last[n] and self._drawn[n]
        done = not is_last or axis in self._included  # the factor of the draw
        if axis + 1 < self._last[n] + self._drawn[n] and axis + 1 not in left.axes:
            done = done and not self._is_waiting(axis + 1, at, within)
        for _, other in self._of_segment[axis]:
            if done and self._is_active(other):
                p = self._line_of[other]
                place = self._place[p]
                if place > at:
                    done = self._stays_known(other)
                elif place == at and within is not None:
                    done = not (other > within and other < self._last[p] + self._drawn[p])
        if done:
            left.sum(axis, factors)
        elif factors:
            left.multiply(factors)

    def _is_waiting(self, segment: int, at: int, within: int | None) -> bool:
        """Return whether a hidden segment has not been opened yet."""
        place = self._place[self._line_of[segment]]
        return place > at or (place == at and within is not None and segment > within)


def unique(values: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(values))
