"""Row operations of a tile in explicit SIMD code.

A tile in scratch memory has LANES real parts of a row, then LANES imaginary parts; a row is given
by its offset. Each intrinsic takes arrays of float64 or of float32, and computes in that precision.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from simulators.statevector.planning.tables import LANE_WIRES, LANES
from simulators.statevector.tiles.emitter import Emitter, number

_INT = types.int64
_AT_ONCE = 4  # matrix rows whose sums are in registers together
_HELD = 16  # matrix elements that stay in registers for a whole row


@intrinsic  # type: ignore[untyped-decorator]
def load_row(_context: Any, amplitudes: Any, _start: Any, tile: Any, _row: Any) -> Any:
    """Load a row of LANES complex numbers; the first real part is amplitudes[start]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, tile)
        source, target = to.data(signature.args[0], args[0]), to.data(signature.args[2], args[2])
        for v in range(to.per_row):
            re, im = _apart(to, source, args[1], v)
            to.store(re, to.at(target, args[3], v * to.count))
            to.store(im, to.at(target, args[3], LANES + v * to.count))
        return context.get_dummy_value()

    return types.void(amplitudes, _INT, tile, _INT), codegen


def _apart(to: Emitter, source: Any, start: Any, v: int) -> tuple[Any, Any]:
    """Real and imaginary parts of a row's vector v, from memory."""
    first = to.load(to.at(source, start, 2 * v * to.count), aligned=False)
    second = to.load(to.at(source, start, (2 * v + 1) * to.count), aligned=False)
    even = range(0, 2 * to.count, 2)
    return to.shuffled(first, second, even), to.shuffled(first, second, [k + 1 for k in even])


@intrinsic  # type: ignore[untyped-decorator]
def store_row(_context: Any, amplitudes: Any, _start: Any, tile: Any, _row: Any) -> Any:
    """Store a row; the inverse of `load_row`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, tile)
        target, source = to.data(signature.args[0], args[0]), to.data(signature.args[2], args[2])
        for v in range(to.per_row):
            re = to.load(to.at(source, args[3], v * to.count))
            im = to.load(to.at(source, args[3], LANES + v * to.count))
            for half in range(2):
                begin = half * to.count // 2
                lanes = [begin + k // 2 + (k & 1) * to.count for k in range(to.count)]
                pointer = to.at(target, args[1], (2 * v + half) * to.count)
                to.store(to.shuffled(re, im, lanes), pointer, aligned=False)
        return context.get_dummy_value()

    return types.void(amplitudes, _INT, tile, _INT), codegen


@intrinsic  # type: ignore[untyped-decorator]
def prefetch_row(_context: Any, amplitudes: Any, _start: Any) -> Any:
    """Prefetch a row into the cache."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, amplitudes)
        for v in range(2 * to.per_row):
            to.prefetch(to.at(to.data(signature.args[0], args[0]), args[1], v * to.count))
        return context.get_dummy_value()

    return types.void(amplitudes, _INT), codegen


@intrinsic  # type: ignore[untyped-decorator]
def clear_row(_context: Any, tile: Any, _row: Any) -> Any:
    """Set a row to 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, tile)
        for v in range(2 * to.per_row):
            pointer = to.at(to.data(signature.args[0], args[0]), args[1], v * to.count)
            to.store(ir.Constant(to.kind, None), pointer)
        return context.get_dummy_value()

    return types.void(tile, _INT), codegen


def _norm(to: Emitter, parts: list[tuple[Any, Any]]) -> Any:
    """Sum of squares of a row's vectors, in float64."""
    sums: list[Any] = [None, None]
    for pair in zip(*(to.joined(each) for each in zip(*parts, strict=True)), strict=True):
        for k, value in enumerate(pair):
            wide = to.wide(value)
            before = sums[k]
            sums[k] = to.product(wide, wide) if before is None else to.fma(wide, wide, before)
    return to.sum(to.builder.fadd(*sums))


@intrinsic  # type: ignore[untyped-decorator]
def norm_row(_context: Any, tile: Any, _row: Any) -> Any:
    """Sum of a row's squares: float64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, tile)
        data = to.data(signature.args[0], args[0])
        steps = range(0, LANES, to.count)
        load = [[to.load(to.at(data, args[1], at + part)) for part in (0, LANES)] for at in steps]
        return _norm(to, [(re, im) for re, im in load])

    return types.float64(tile, _INT), codegen


@intrinsic  # type: ignore[untyped-decorator]
def norm_stored(_context: Any, amplitudes: Any, _start: Any) -> Any:
    """Sum of the squares of a row in memory, with the same bits as `norm_row`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, amplitudes)
        data = to.data(signature.args[0], args[0])
        return _norm(to, [_apart(to, data, args[1], v) for v in range(to.per_row)])

    return types.float64(amplitudes, _INT), codegen


@intrinsic  # type: ignore[untyped-decorator]
def swap_lane(_context: Any, tile: Any, _row: Any, _other: Any, _lane: Any) -> Any:
    """Exchange the lanes of a row that have this bit with those of the other row that have not."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, tile)
        data = to.data(signature.args[0], args[0])
        end = builder.append_basic_block("swapped")
        choice = builder.switch(args[3], end)
        for lane in range(LANE_WIRES):
            block = builder.append_basic_block(f"lane_{lane}")
            choice.add_case(number(lane), block)
            with builder.goto_block(block):
                for part in (0, LANES):
                    _swap(to, data, args[1], args[2], lane, part)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(tile, _INT, _INT, _INT), codegen


def _swap(to: Emitter, data: Any, row: Any, other: Any, lane: int, part: int) -> None:
    bit = 1 << lane
    if bit >= to.count:  # exchange of whole vectors
        for at in (at for at in range(0, LANES, to.count) if not at & bit):
            first, second = to.at(data, row, part + at + bit), to.at(data, other, part + at)
            x, y = to.load(first), to.load(second)
            to.store(y, first)
            to.store(x, second)
        return
    lanes = range(to.count)
    for at in range(0, LANES, to.count):
        first, second = to.at(data, row, part + at), to.at(data, other, part + at)
        x, y = to.load(first), to.load(second)
        to.store(to.shuffled(x, y, [k ^ bit | to.count if k & bit else k for k in lanes]), first)
        to.store(to.shuffled(x, y, [k + to.count if k & bit else k | bit for k in lanes]), second)


def _dense(width: int, *, real: bool) -> Any:
    size = 1 << width

    @intrinsic  # type: ignore[untyped-decorator]
    def apply(
        _context: Any, tile: Any, order: Any, _row: Any, _a: Any, _b: Any, _c: Any, matrices: Any,
        _at: Any,
    ) -> Any:  # fmt: skip
        """The matrix at matrices[at] on the rows row | some of the bits a, b, c; row r begins at
        order[r]."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            to = Emitter(context, builder, tile)
            data, begins = to.data(signature.args[0], args[0]), to.data(signature.args[1], args[1])
            matrix = to.data(signature.args[6], args[6])
            starts = []
            for k in range(size):
                row = args[2]
                for bit in (bit for bit in range(width) if k >> bit & 1):
                    row = builder.or_(row, args[3 + bit])
                starts.append(to.scalar(begins, row))
            entries = _Entries(to, matrix, args[7], size * size, real)
            to.each(number(to.per_row), lambda v: _multiply(to, data, starts, v, entries))
            return context.get_dummy_value()

        return types.void(tile, order, _INT, _INT, _INT, _INT, matrices, _INT), codegen

    return apply


class _Entries:
    """Elements of a matrix in all lanes: a few are loaded once, many where they are needed."""

    def __init__(self, to: Emitter, matrix: Any, at: Any, size: int, real: bool) -> None:
        self._to, self._matrix, self._at = to, matrix, at
        self.parts = 1 if real else 2
        count = size * self.parts
        self._held = [self._load(k) for k in range(count)] if count <= _HELD else []

    def part(self, place: int, part: int) -> Any:
        """Real (0) or imaginary (1) part of one element."""
        at = self.parts * place + part
        return self._held[at] if self._held else self._load(at)

    def _load(self, at: int) -> Any:
        return self._to.splat(self._to.scalar(self._matrix, self._at, at))


def _multiply(to: Emitter, data: Any, starts: list[Any], v: Any, entries: _Entries) -> None:
    """Multiply one vector of each row; sums of a few matrix rows are computed together."""
    begins = [to.builder.add(start, v) for start in starts]
    re = [to.at(data, begin) for begin in begins]
    im = [to.at(data, begin, LANES) for begin in begins]
    x, y = [to.load(pointer) for pointer in re], [to.load(pointer) for pointer in im]
    size = len(starts)
    for first in range(0, size, _AT_ONCE):
        rows = range(first, min(first + _AT_ONCE, size))
        out: dict[int, tuple[Any, Any]] = {}
        for column in range(size):
            for row in rows:
                u = entries.part(row * size + column, 0)
                if column:
                    p, q = out[row]
                    p, q = to.fma(u, x[column], p), to.fma(u, y[column], q)
                else:
                    p, q = to.product(u, x[column]), to.product(u, y[column])
                if entries.parts == 2:
                    w = entries.part(row * size + column, 1)
                    p = to.fma(to.negative(w), y[column], p)
                    q = to.fma(w, x[column], q)
                out[row] = p, q
        for row in rows:
            to.store(out[row][0], re[row])
            to.store(out[row][1], im[row])


dense_1, dense_2, dense_3 = (_dense(width, real=False) for width in (1, 2, 3))
real_1, real_2, real_3 = (_dense(width, real=True) for width in (1, 2, 3))


@intrinsic  # type: ignore[untyped-decorator]
def scale_row(_context: Any, tile: Any, _row: Any, factors: Any, _at: Any) -> Any:
    """Multiply the row by the complex number at factors[at]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, tile)
        data, scalars = to.data(signature.args[0], args[0]), to.data(signature.args[2], args[2])
        u, v = (to.splat(to.scalar(scalars, args[3], part)) for part in (0, 1))
        for at in range(0, LANES, to.count):
            re, im = to.at(data, args[1], at), to.at(data, args[1], LANES + at)
            x, y = to.times(to.load(re), to.load(im), u, v)
            to.store(x, re)
            to.store(y, im)
        return context.get_dummy_value()

    return types.void(tile, _INT, factors, _INT), codegen


@intrinsic  # type: ignore[untyped-decorator]
def scale_row_by_lane(
    _context: Any, tile: Any, _row: Any, factors: Any, _at: Any, table: Any, _start: Any
) -> Any:
    """Multiply the row as `scale_row`, and each lane by its own number: LANES real parts from
    table[start], then LANES imaginary ones."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, tile)
        data, scalars = to.data(signature.args[0], args[0]), to.data(signature.args[2], args[2])
        lanes = to.data(signature.args[4], args[4])
        u, v = (to.splat(to.scalar(scalars, args[3], part)) for part in (0, 1))
        for at in range(0, LANES, to.count):
            c = to.load(to.at(lanes, args[5], at), aligned=False)
            d = to.load(to.at(lanes, args[5], LANES + at), aligned=False)
            re, im = to.at(data, args[1], at), to.at(data, args[1], LANES + at)
            x, y = to.times(to.load(re), to.load(im), *to.times(c, d, u, v))
            to.store(x, re)
            to.store(y, im)
        return context.get_dummy_value()

    return types.void(tile, _INT, factors, _INT, table, _INT), codegen


def _pairs(to: Emitter, x: Any, re: Any, im: Any) -> Any:
    """Product of complex numbers (re, im, re, im, ...) and others, each of which is in two
    lanes."""
    none = ir.Constant(to.kind, ir.Undefined)
    swapped = to.shuffled(x, none, [k ^ 1 for k in range(to.count)])
    sign = ir.Constant(to.kind, [1.0 if k & 1 else -1.0 for k in range(to.count)])
    return to.fma(swapped, to.product(im, sign), to.product(x, re))


@intrinsic  # type: ignore[untyped-decorator]
def complex_scale(
    _context: Any,
    into: Any,
    _to: Any,
    values: Any,
    _first: Any,
    scalars: Any,
    _second: Any,
    _count: Any,
) -> Any:
    """Set into[to + k] = values[first + k] * scalars[second], for `count` numbers: complex ones in
    pairs (re, im), in whole vectors."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, into)
        target, source, by = (to.data(signature.args[k], args[k]) for k in (0, 2, 4))
        u, v = (to.splat(to.scalar(by, args[5], part)) for part in (0, 1))

        def one_vector(at: Any) -> None:
            x = to.load(to.at(source, builder.add(args[3], at)), aligned=False)
            pointer = to.at(target, builder.add(args[1], at))
            to.store(_pairs(to, x, u, v), pointer, aligned=False)

        to.each(builder.sdiv(args[6], number(to.count)), one_vector)
        return context.get_dummy_value()

    return types.void(into, _INT, values, _INT, scalars, _INT, _INT), codegen


@intrinsic  # type: ignore[untyped-decorator]
def complex_multiply(
    _context: Any, into: Any, _to: Any, values: Any, _first: Any, _count: Any
) -> Any:
    """Multiply into[to + k] by values[first + k], in the form of `complex_scale`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, into)
        target, source = to.data(signature.args[0], args[0]), to.data(signature.args[2], args[2])
        none = ir.Constant(to.kind, ir.Undefined)
        even = [k & ~1 for k in range(to.count)]

        def one_vector(at: Any) -> None:
            pointer = to.at(target, builder.add(args[1], at))
            y = to.load(to.at(source, builder.add(args[3], at)), aligned=False)
            re, im = to.shuffled(y, none, even), to.shuffled(y, none, [k | 1 for k in even])
            to.store(_pairs(to, to.load(pointer, aligned=False), re, im), pointer, aligned=False)

        to.each(builder.sdiv(args[4], number(to.count)), one_vector)
        return context.get_dummy_value()

    return types.void(into, _INT, values, _INT, _INT), codegen
