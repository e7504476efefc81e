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
    """Operations of one layer; `firsts`: segments that begin from a known value alone; `sliced`:
    those whose values are fixed, to that of bit j of a slice's number for the j-th."""

    firsts: tuple[int, ...]
    code: tuple[int, ...]
    sliced: tuple[int, ...] = ()


class Program(msgspec.Struct, frozen=True):
    layers: tuple[Layer, ...]
    widest: int  # axes of the largest tensor
    kept: int  # values of all R of a layer that are kept at once, at most
    values: float  # values of all tensors that are passed over, for one shot
    slices: int = 0  # log2 of the slices of a shot

    def tensor_bytes(self, itemsize: int) -> int:
        """Bytes of the tensors; `itemsize`: of the real parts of one value, of all lanes."""
        return 2 * itemsize * ((1 << self.widest) + self.kept)


@functools.lru_cache(maxsize=2)
def program_of(lines: Structure, order: tuple[int, ...], slices: int = 0) -> Program:
    """Compile the layers of lines that are taken in this order. Bindings of a circuit share it.
    `slices`: log2 of the slices into which hidden values divide a shot: each slice has its own
    tensors, and the amplitudes of a draw are the sums over all slices."""
    compiler = _Compiler(lines, order)
    layers = [compiler.layer(k, slices) for k in range(1, lines.num_layers + 1)]
    values = compiler.values * 2.0**slices
    return Program(tuple(layers), compiler.widest, compiler.kept, values, slices)


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
        self._compiler.count(self.axes, int(new is not None))
        places = [self.axes.index(a) for a in table if a != new]
        code = [MULTIPLY, len(self.axes), int(new is not None), len(places), *places]
        self._code += code + self._factors(factors, table)
        if new is not None:
            self.axes.append(new)

    def sum(self, axis: Axis, factors: list[Factor]) -> None:
        """Sum over an axis, after multiplication by factors that depend on it alone."""
        self._compiler.count(self.axes)
        self._code += [SUM, len(self.axes), self.axes.index(axis), *self._factors(factors, [axis])]
        self.axes.remove(axis)

    def select(self, axis: Axis) -> None:
        """Take the part with the known value of an axis."""
        self._compiler.count(self.axes)
        self._code += [SELECT, len(self.axes), self.axes.index(axis), axis]
        self.axes.remove(axis)

    def scale(self) -> None:
        self._compiler.count(self.axes)
        self._code += [SCALE, len(self.axes)]

    def _factors(self, factors: list[Factor], table: list[Axis]) -> list[int]:
        code = [len(factors)]
        for kind, number, *segments in factors:
            code += [kind, number]
            code += [a if a < 0 else table.index(a) if a in table else ~a for a in segments]
        return code


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
        self._sliced: tuple[int, ...] = ()
        self._peak: list[Axis] = []  # axes of the widest tensor of the layer

    def count(self, axes: list[Axis], more: int = 0) -> None:
        size = len(axes) + more
        self.widest = max(self.widest, size)
        self.values += 2.0**size
        if size > len(self._peak):
            self._peak = [*axes, *[-1] * more]

    def layer(self, k: int, slices: int) -> Layer:
        """Compile a layer. Of the hidden values that are drawn in no line of it, those of its
        widest tensor are sliced that have the longest lives in the order of the lines."""
        before = self.widest, self.kept, self.values
        self._sliced = ()
        while True:
            self._peak = []
            result = self._layer(k)
            last = {*self._last}
            choices = [axis for axis in self._peak if axis >= 0 and axis not in last]
            if len(self._sliced) == slices or not choices:
                return result
            self.widest, self.kept, self.values = before
            self._sliced = (*self._sliced, max(choices, key=self._life))

    def _life(self, segment: int) -> int:
        """Lines between the first and the last one that have gates with a segment."""
        places = [self._place[self._line_of[other]] for _, other in self._of_segment[segment]]
        places.append(self._place[self._line_of[segment]])
        return max(places) - min(places)

    def _layer(self, k: int) -> Layer:
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
        return Layer(firsts, tuple(code), self._sliced)

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
        return is_last or segment == self._lines.first[n] or segment in self._sliced

    def _scalars(self, n: int) -> list[Factor]:
        """Factors of a line that depend on sliced values and on known ones of the line alone, but
        for those of an old last value that is hidden once it is drawn."""
        first, last = self._lines.first[n], self._last[n]
        known = {first, *self._sliced}
        if not self._drawn[n]:
            known.add(last)
        return [
            (UNITARY, s, s, s - 1)
            for s in range(first + 1, last + 1)
            if s in known and s - 1 in known and not {s, s - 1}.isdisjoint(self._sliced)
        ]

    def _last_scalars(self, n: int) -> list[Factor]:
        """Factors of the last value of a line and sliced values of others; none of the first."""
        last = self._last[n]
        if last == self._lines.first[n]:
            return []
        return [
            (PAIR, number, *self._lines.pairs[number])
            for number, other in self._of_segment[last]
            if other in self._sliced
        ]

    def _common_scalars(self) -> list[Factor]:
        """Factors of sliced values and first ones, or of sliced ones alone."""
        result = []
        for number, ends in enumerate(self._lines.pairs):
            sliced = [segment in self._sliced for segment in ends]
            firsts = [s == self._lines.first[self._line_of[s]] for s in ends]
            if any(sliced) and all(a or b for a, b in zip(sliced, firsts, strict=True)):
                result.append((PAIR, number, *ends))
        return result

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
                self.count(right.axes)
                room += 1 << len(right.axes)
        self.kept = max(self.kept, room)
        return kept

    def _take_right(self, right: _Tensor, n: int) -> None:
        """Sum over the hidden values of a line with its old last value."""
        first, last, place = self._lines.first[n], self._last[n], self._place[n]
        if last in right.axes:
            right.select(last)
        scalars = self._scalars(n) + self._last_scalars(n)
        if self._drawn[n] and last - 1 in self._sliced:
            scalars.append((UNITARY, last, last, last - 1))
        right.multiply(scalars)
        for s in range(last - 1, first, -1):
            if s in self._sliced:
                continue
            after = s + 1 == last or s + 1 in self._sliced
            factors = [(UNITARY, s + 1, s + 1, s)] if after else []
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
            if s - 1 > first and s - 1 not in self._sliced:
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
        left.multiply(self._common_scalars())
        self._included = set[Axis]()
        for at in range(most + 1):
            n = self._order[at]
            last = self._last[n]
            left.multiply(self._scalars(n))
            if not self._drawn[n]:
                left.multiply(self._last_scalars(n))
            for s in self._hidden(n, new=True):
                if s in self._sliced:
                    continue
                self._open_left(left, n, s)
                self._close_left(left, n, s)
            if self._drawn[n] and self._hidden_at_draw(n):
                where, axes = kept.get(at + 1, (-1, []))
                places = [left.axes.index(a) for a in axes]
                code += [
                    DRAW, len(left.axes), left.axes.index(last), last + 1, where, len(places),
                    *places,
                ]  # fmt: skip
                self.count(left.axes)
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
        if (s + 1 == last and not self._drawn[n]) or s + 1 in self._sliced:
            factors.append((UNITARY, s + 1, s + 1, s))
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
        after = axis + 1
        opens = after < self._last[n] + self._drawn[n] and after not in self._sliced
        if opens and after not in left.axes:
            done = done and not self._is_waiting(after, at, within)
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
