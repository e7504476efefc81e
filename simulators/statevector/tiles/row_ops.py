"""Row operations of a tile, and the emitter of their SIMD code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from simulators.statevector.planning.tables import LANE_WIRES, LANES

# LLVM IR emitter for SIMD code of one register width; `row_ops` is written with it.
#
# Vectors have 64 bytes with AVX-512 and 32 bytes elsewhere: AVX2 has 16 registers, and a two-qubit
# matrix needs 16 vectors at a time. Products and sums are fused (fma) only where written so, and
# sums of lanes follow the wide order, so results depend neither on the compiler nor on the width.

_WIDE_BYTES, _NARROW_BYTES = 64, 32


def vector_bytes(features: Mapping[str, bool]) -> int:
    """Bytes of a vector on a processor with these features, as LLVM names them."""
    return _WIDE_BYTES if features.get("avx512f") else _NARROW_BYTES


VECTOR_BYTES = vector_bytes(binding.get_host_cpu_features())
_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def number(value: int) -> Any:
    """A constant."""
    return ir.Constant(_I64, value)


class Emitter:
    """Emitter of one kernel's instructions, for arrays with the element type of `like`."""

    def __init__(self, context: Any, builder: Any, like: Any) -> None:
        self.context, self.builder = context, builder
        single = like.dtype == types.float32
        self.element = ir.FloatType() if single else ir.DoubleType()
        self._bits = 32 if single else 64
        self.count = 8 * VECTOR_BYTES // self._bits
        self.summed = 8 * _WIDE_BYTES // self._bits  # lanes of a wide sum
        self.per_row = LANES // self.count
        self.kind = ir.VectorType(self.element, self.count)

    def data(self, array_type: Any, array: Any) -> Any:
        """Address of an array's first number."""
        return cgutils.create_struct_proxy(array_type)(self.context, self.builder, array).data

    def at(self, data: Any, index: Any, more: int = 0) -> Any:
        place = self.builder.add(index, number(more)) if more else index
        return self.builder.bitcast(self.builder.gep(data, [place]), self.kind.as_pointer())

    def load(self, pointer: Any, *, aligned: bool = True) -> Any:
        return self.builder.load(pointer, align=VECTOR_BYTES if aligned else self._bits // 8)

    def store(self, value: Any, pointer: Any, *, aligned: bool = True) -> None:
        self.builder.store(value, pointer, align=VECTOR_BYTES if aligned else self._bits // 8)

    def scalar(self, data: Any, index: Any, more: int = 0) -> Any:
        place = self.builder.add(index, number(more)) if more else index
        return self.builder.load(self.builder.gep(data, [place]))

    def splat(self, value: Any) -> Any:
        """Vector with the same number in all lanes."""
        none = ir.Constant(self.kind, ir.Undefined)
        vector = self.builder.insert_element(none, value, ir.Constant(_I32, 0))
        return self.shuffled(vector, none, [0] * self.count)

    def shuffled(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        """Vector whose lane k is lane order[k] of both vectors, concatenated."""
        lanes = ir.Constant(ir.VectorType(_I32, len(order)), list(order))
        return self.builder.shuffle_vector(a, b, lanes)

    def negative(self, value: Any) -> Any:
        """Return -value; no instruction if an fma absorbs it."""
        return self.builder.fneg(value)

    def product(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c, rounded once."""
        kind = a.type
        bits = 64 if isinstance(kind.element, ir.DoubleType) else 32
        name = f"llvm.fma.v{kind.count}f{bits}"
        shape = ir.FunctionType(kind, [kind, kind, kind])
        function = cgutils.get_or_insert_function(self.builder.module, shape, name)
        return self.builder.call(function, [a, b, c])

    def times(self, x: Any, y: Any, u: Any, v: Any) -> tuple[Any, Any]:
        """Return (x + iy) * (u + iv)."""
        re = self.fma(self.negative(y), v, self.product(x, u))
        return re, self.fma(x, v, self.product(y, u))

    def sum(self, value: Any) -> Any:
        """Sum of all lanes of a vector of float64, added in pairs."""
        size = value.type.count
        while size > 1:
            size //= 2
            none = ir.Constant(value.type, ir.Undefined)
            halves = [self.shuffled(value, none, [k + at for k in range(size)]) for at in (0, size)]
            value = self.builder.fadd(*halves)
        return self.builder.extract_element(value, ir.Constant(_I32, 0))

    def joined(self, values: Sequence[Any]) -> list[Any]:
        """Vectors of `summed` lanes, with the lanes of these vectors in order."""
        results = list(values)
        while results[0].type.count < self.summed:
            lanes = range(2 * results[0].type.count)
            pairs = zip(results[0::2], results[1::2], strict=True)
            results = [self.shuffled(a, b, lanes) for a, b in pairs]
        return results

    def wide(self, value: Any) -> Any:
        """Convert a vector's numbers to float64."""
        if self._bits == 64:
            return value
        return self.builder.fpext(value, ir.VectorType(ir.DoubleType(), value.type.count))

    def prefetch(self, pointer: Any) -> None:
        """Prefetch a cache line; a hint."""
        byte = ir.IntType(8).as_pointer()
        shape = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self.builder.module, shape, "llvm.prefetch.p0")
        hints = [ir.Constant(_I32, value) for value in (0, 3, 1)]
        self.builder.call(function, [self.builder.bitcast(pointer, byte), *hints])

    def each(self, count: Any, body: Callable[[Any], None]) -> None:
        """Call body(start) for `count` vectors, as a loop."""
        with cgutils.for_range(self.builder, count) as loop:
            body(self.builder.mul(loop.index, number(self.count)))


# Row operations of a tile in explicit SIMD code.
#
# A tile in scratch memory has LANES real parts of a row, then LANES imaginary parts; a row is given
# by its offset. Each intrinsic takes arrays of float64 or of float32, and computes in that
# precision.

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
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = Emitter(context, builder, amplitudes)
        for v in range(2 * to.per_row):
            to.prefetch(to.at(to.data(signature.args[0], args[0]), args[1], v * to.count))
        return context.get_dummy_value()

    return types.void(amplitudes, _INT), codegen


@intrinsic  # type: ignore[untyped-decorator]
def clear_row(_context: Any, tile: Any, _row: Any) -> Any:
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
