"""Code inside kernels: SIMD values, views on buffers, and masks of qubits."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array, populate_array
from numpy.typing import NDArray

from simulators.compiler.kernel import device_function

# SIMD values in kernels: eight float64, in one vector register or two.
#
# Values of type VECTOR exist inside kernels only and support +, -, *. A product and a sum are
# contracted into one instruction only by `add_product` and `subtract_product`; elsewhere each lane
# has the same bits as the scalar arithmetic.

LANES = 8
SHORTS = 32  # uint16 in as many bytes

_F64, _I64, _I32, _I16 = ir.DoubleType(), *(ir.IntType(bits) for bits in (64, 32, 16))
_VECTOR, _WORDS = (ir.VectorType(kind, LANES) for kind in (_F64, _I64))
_NUMBERS = {types.float64: _F64, types.float32: ir.FloatType()}


def bytes_of_registers(cpu: str, features: str) -> int:
    """Bytes of the largest vector registers of a processor that numba describes to LLVM so."""
    for size, level, feature in ((64, "x86-64-v4", "+avx512f"), (32, "x86-64-v3", "+avx2")):
        if cpu == level or feature in features.split(","):
            return size
    return 16


@intrinsic  # type: ignore[untyped-decorator]
def register_bytes(_context: Any) -> Any:
    """`bytes_of_registers` of the processor that the kernel is compiled for: a constant."""

    def codegen(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        _, cpu, features = context.codegen().magic_tuple()
        return ir.Constant(_I64, bytes_of_registers(cpu, features))

    return types.int64(), codegen


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="Vector")


class _Lanes(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="Lanes")


VECTOR = _Vector()
CHOICE = _Lanes()  # mask with all bits of a lane set, or none


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WORDS)


def _arithmetic(function: Callable[[Any, Any], Any], emit: str) -> None:
    @infer_global(function)
    class _Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, _kws: Any) -> Any:
            return signature(VECTOR, VECTOR, VECTOR) if args == (VECTOR, VECTOR) else None

    @lower_builtin(function, VECTOR, VECTOR)  # type: ignore[untyped-decorator]
    def _lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return getattr(builder, emit)(*args)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


def _fused(*, negative: bool) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def multiply_add(_context: Any, _one: Any, _two: Any, _three: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            shape = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
            name = f"llvm.fma.v{LANES}f64"
            function = cgutils.get_or_insert_function(builder.module, shape, name)
            factor = builder.fneg(args[0]) if negative else args[0]
            return builder.call(function, [factor, args[1], args[2]])

        return VECTOR(VECTOR, VECTOR, VECTOR), codegen

    return multiply_add


# one * two + three, and three - one * two, each rounded once.
add_product, subtract_product = _fused(negative=False), _fused(negative=True)


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    zero = ir.Constant(_I32, 0)
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), value, zero)
    lanes = ir.Constant(ir.VectorType(_I32, kind.count), None)
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), lanes)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, to: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def load(_context: Any, array: Any, _index: Any) -> Any:
    """array[index : index + 8] of float64 or float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if signature.args[0].dtype == types.float32:
            narrow = ir.VectorType(ir.FloatType(), LANES)
            pointer = _address(context, builder, signature.args[0], args[0], args[1], narrow)
            return builder.fpext(builder.load(pointer, align=4), _VECTOR)
        pointer = _address(context, builder, signature.args[0], args[0], args[1], _VECTOR)
        return builder.load(pointer, align=8)

    return VECTOR(array, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store(_context: Any, array: Any, _index: Any, value: Any) -> Any:
    """array[index : index + 8] = value: float64 or float32, or uint64 of words in lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[2]
        if signature.args[0].dtype == types.float32:
            vector = builder.fptrunc(vector, ir.VectorType(ir.FloatType(), LANES))
        pointer = _address(context, builder, signature.args[0], args[0], args[1], vector.type)
        builder.store(vector, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.uint64, CHOICE if value == CHOICE else VECTOR), codegen


def splat_words(builder: Any, word: Any) -> Any:
    """Vector with the same word in all lanes, inside an intrinsic."""
    return _splat(builder, word, _WORDS)


@intrinsic  # type: ignore[untyped-decorator]
def words_from(_context: Any, _first: Any, _step: Any) -> Any:
    """Words in lanes, of the type of masks: first + k * step in lane k."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        lane_ids = ir.Constant(_WORDS, [ir.Constant(_I64, k) for k in range(LANES)])
        steps = builder.mul(_splat(builder, args[1], _WORDS), lane_ids)
        return builder.add(_splat(builder, args[0], _WORDS), steps)

    return CHOICE(types.uint64, types.uint64), codegen


_HALF = ir.VectorType(_F64, LANES // 2)


@intrinsic  # type: ignore[untyped-decorator]
def load_halves(_context: Any, array: Any, _low: Any, _high: Any) -> Any:
    """array[low : low + 4] and array[high : high + 4] of float64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        halves = []
        for index in args[1:]:
            pointer = _address(context, builder, signature.args[0], args[0], index, _HALF)
            halves.append(builder.load(pointer, align=8))
        lanes = [ir.Constant(_I32, k) for k in range(LANES)]
        return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, LANES), lanes))

    return VECTOR(array, types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_halves(_context: Any, array: Any, _low: Any, _high: Any, _value: Any) -> Any:
    """array[low : low + 4], array[high : high + 4] = halves of the value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for half, index in enumerate(args[1:3]):
            begin = half * LANES // 2
            order = [ir.Constant(_I32, begin + k) for k in range(LANES // 2)]
            lanes = ir.Constant(ir.VectorType(_I32, LANES // 2), order)
            part = builder.shuffle_vector(args[3], ir.Constant(_VECTOR, ir.Undefined), lanes)
            pointer = _address(context, builder, signature.args[0], args[0], index, _HALF)
            builder.store(part, pointer, align=8)
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64, VECTOR), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fill_short(_context: Any, array: Any, _index: Any, _value: Any) -> Any:
    """array[index : index + SHORTS] of uint16 = value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(_I16, SHORTS)
        pointer = _address(context, builder, signature.args[0], args[0], args[1], kind)
        builder.store(_splat(builder, builder.trunc(args[2], _I16), kind), pointer, align=2)
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def splat(_context: Any, _value: Any) -> Any:
    """Vector with the same number in all lanes."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], _VECTOR)

    return VECTOR(types.float64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def where(_context: Any, _mask: Any, _value: Any) -> Any:
    """Mask of the lanes whose number, under `mask`, is `value`."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        lane_ids = ir.Constant(_WORDS, [ir.Constant(_I64, k) for k in range(LANES)])
        masked = builder.and_(lane_ids, _splat(builder, args[0], _WORDS))
        chosen = builder.icmp_unsigned("==", masked, _splat(builder, args[1], _WORDS))
        return builder.sext(chosen, _WORDS)

    return CHOICE(types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def choose(_context: Any, _choice: Any, _yes: Any, _no: Any) -> Any:
    """Select lane by lane `yes` where the mask is set, else `no`. It uses bitwise operations:
    without mask registers a `select` would be several times as slow."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        yes, no = (builder.bitcast(value, _WORDS) for value in args[1:])
        changed = builder.and_(builder.xor(yes, no), args[0])
        return builder.bitcast(builder.xor(changed, no), _VECTOR)

    return VECTOR(CHOICE, VECTOR, VECTOR), codegen


def _exchange(step: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def exchanged(_context: Any, _value: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            order = [ir.Constant(_I32, k ^ step) for k in range(LANES)]
            lanes = ir.Constant(ir.VectorType(_I32, LANES), order)
            return builder.shuffle_vector(args[0], ir.Constant(_VECTOR, ir.Undefined), lanes)

        return VECTOR(VECTOR), codegen

    return exchanged


# Lane k becomes lane k ^ 1, k ^ 2, k ^ 4.
exchange_1, exchange_2, exchange_4 = _exchange(1), _exchange(2), _exchange(4)


def _copied(step: int, *, upper: bool) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def copied(_context: Any, _value: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            order = [k | step if upper else k & ~step for k in range(LANES)]
            lanes = ir.Constant(ir.VectorType(_I32, LANES), order)
            return builder.shuffle_vector(args[0], ir.Constant(_VECTOR, ir.Undefined), lanes)

        return VECTOR(VECTOR), codegen

    return copied


# Lane k becomes lane k & ~step; lane k | step.
lower_1, lower_2, lower_4 = (_copied(step, upper=False) for step in (1, 2, 4))
upper_1, upper_2, upper_4 = (_copied(step, upper=True) for step in (1, 2, 4))


@intrinsic  # type: ignore[untyped-decorator]
def at_most(_context: Any, _value: Any, _limit: Any) -> Any:
    """Number of lanes that are <= limit: int64."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        below = builder.fcmp_ordered("<=", args[0], _splat(builder, args[1], _VECTOR))
        byte = builder.bitcast(below, ir.IntType(8))
        return builder.zext(builder.ctpop(byte), _I64)

    return types.int64(VECTOR, types.float64), codegen


# Sines and cosines, for numbers and for vectors by the same instructions, so with the same bits.
#
# The angle is reduced by multiples of pi / 2 in three parts, of 33, 33 and 53 bits (Cody and
# Waite); the polynomials are those of fdlibm's __kernel_sin and __kernel_cos. The error is below
# 1 ulp.

REDUCED = 2.0**19  # the product of a part and the number of quarter turns is exact up to here
_QUARTERS = 2.0 / math.pi
_INTEGER = 1.5 * 2.0**52  # sums with it are rounded to an integer, which is in their lowest bits
_PI_2 = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
_SINE = (
    *(1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06),
    *(-1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01),
)
_COSINE = (
    *(-1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07),
    *(2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02),
)


@intrinsic  # type: ignore[untyped-decorator]
def cosine_sine(_context: Any, angle: Any) -> Any:
    """Cosine and sine of an angle in radians of at most REDUCED, or of eight."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (x,) = args
        wide = x.type == _VECTOR
        name = f"llvm.fma.v{LANES}f64" if wide else "llvm.fma.f64"
        shape = ir.FunctionType(x.type, [x.type] * 3)
        fused = cgutils.get_or_insert_function(builder.module, shape, name)
        kind = _WORDS if wide else _I64

        def real(number: float) -> Any:
            return ir.Constant(x.type, [ir.Constant(_F64, number)] * LANES if wide else number)

        def word(number: int) -> Any:
            return ir.Constant(kind, [ir.Constant(_I64, number)] * LANES if wide else number)

        def fma(one: Any, two: Any, three: Any) -> Any:
            return builder.call(fused, [one, two, three])

        def polynomial(factors: tuple[float, ...], at: Any) -> Any:
            result = real(factors[0])
            for factor in factors[1:]:
                result = fma(result, at, real(factor))
            return result

        rounded = fma(x, real(_QUARTERS), real(_INTEGER))
        number = builder.fsub(rounded, real(_INTEGER))
        turned = builder.fneg(number)
        rest = fma(turned, real(_PI_2[0]), x)  # exact
        part = builder.fmul(number, real(_PI_2[1]))  # exact
        first = builder.fsub(rest, part)
        lost = builder.fsub(builder.fsub(rest, first), part)
        part = builder.fsub(builder.fmul(number, real(_PI_2[2])), lost)
        y = builder.fsub(first, part)  # y + tail: the reduced angle
        tail = builder.fsub(builder.fsub(first, y), part)
        z = builder.fmul(y, y)
        cube = builder.fmul(z, y)
        half = builder.fmul(real(0.5), tail)
        inner = builder.fsub(half, builder.fmul(cube, polynomial(_SINE[:-1], z)))
        inner = builder.fsub(builder.fmul(z, inner), tail)
        sine = builder.fsub(y, builder.fsub(inner, builder.fmul(cube, real(_SINE[-1]))))
        square = builder.fmul(real(0.5), z)
        near = builder.fsub(real(1.0), square)
        inner = builder.fmul(z, builder.fmul(z, polynomial(_COSINE, z)))
        inner = builder.fsub(inner, builder.fmul(y, tail))
        inner = builder.fadd(builder.fsub(builder.fsub(real(1.0), near), square), inner)
        cosine = builder.fadd(near, inner)
        quarters = builder.bitcast(rounded, kind)
        odd_quarter = builder.sub(word(0), builder.and_(quarters, word(1)))
        sine, cosine = builder.bitcast(sine, kind), builder.bitcast(cosine, kind)
        changed = builder.and_(builder.xor(sine, cosine), odd_quarter)
        sign, top = builder.and_(quarters, word(2)), word(62)
        next_sign = builder.and_(builder.add(quarters, word(1)), word(2))
        sine = builder.xor(builder.xor(sine, changed), builder.shl(sign, top))
        cosine = builder.xor(builder.xor(cosine, changed), builder.shl(next_sign, top))
        results = builder.bitcast(cosine, x.type), builder.bitcast(sine, x.type)
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(angle, 2)(angle), codegen


@intrinsic  # type: ignore[untyped-decorator]
def odd(_context: Any, _word: Any) -> Any:
    """1 if the word has an odd number of ones, else 0: int64."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.and_(builder.ctpop(args[0]), ir.Constant(_I64, 1))

    return types.int64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_context: Any, array: Any, _index: Any) -> Any:
    """Begin to load the cache line of an entry of a contiguous array, by its flat index."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, number = ir.IntType(8), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number, number, number])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0i8")
        pointer = _address(context, builder, signature.args[0], args[0], args[1], byte)
        constants = [ir.Constant(number, value) for value in (1, 3, 1)]  # to write, keep, of data
        builder.call(function, [pointer, *constants])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(_context: Any, _word: Any) -> Any:
    """Number of the lowest bit of a word that is not 0: int64."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


def _every_second(first: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def taken(_context: Any, array: Any, _index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.VectorType(_NUMBERS[signature.args[0].dtype], LANES)
            size = kind.element.get_abi_size(context.target_data)
            halves = []
            for half in range(2):
                at = builder.add(args[1], ir.Constant(_I64, half * LANES))
                pointer = _address(context, builder, signature.args[0], args[0], at, kind)
                halves.append(builder.load(pointer, align=size))
            order = [ir.Constant(_I32, first + 2 * k) for k in range(LANES)]
            lanes = ir.Constant(ir.VectorType(_I32, LANES), order)
            result = builder.shuffle_vector(*halves, lanes)
            return result if kind == _VECTOR else builder.fpext(result, _VECTOR)

        return VECTOR(array, types.uint64), codegen

    return taken


# Every second of 16 numbers from array[index] on, float64 or float32: real or imaginary parts of
# complex numbers.
reals_of, imags_of = _every_second(0), _every_second(1)


@intrinsic  # type: ignore[untyped-decorator]
def store_both(_context: Any, array: Any, _index: Any, _re: Any, _im: Any) -> Any:
    """Store eight complex numbers into array[index : index + 16]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(_NUMBERS[signature.args[0].dtype], LANES)
        size = kind.element.get_abi_size(context.target_data)
        parts = [part if kind == _VECTOR else builder.fptrunc(part, kind) for part in args[2:]]
        for half in range(2):
            begin = half * LANES // 2
            order = [ir.Constant(_I32, begin + k // 2 + (k & 1) * LANES) for k in range(LANES)]
            mixed = builder.shuffle_vector(*parts, ir.Constant(ir.VectorType(_I32, LANES), order))
            at = builder.add(args[1], ir.Constant(_I64, half * LANES))
            pointer = _address(context, builder, signature.args[0], args[0], at, kind)
            builder.store(mixed, pointer, align=size)
        return context.get_dummy_value()

    return types.void(array, types.uint64, VECTOR, VECTOR), codegen


# Typed views on one byte buffer, inside kernels.
#
# Each array argument costs the caller of a kernel as much as ten numbers, so scratch memory is one
# buffer that the kernel divides. There are no checks: the buffer must be large enough and aligned.

_INT64 = ir.IntType(64)
_LINE_BYTES = 64


def aligned(size_bytes: int) -> NDArray[np.uint8]:
    """Buffer that begins at a cache line."""
    raw = np.zeros(size_bytes + _LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % _LINE_BYTES
    return raw[start : start + size_bytes]


def _cut(element: Any, *, readonly: bool = False) -> Any:
    """An intrinsic (buffer, byte, count) -> array of `element`."""
    size = element.bitwidth // 8
    array_type = types.Array(element, 1, "C", readonly=readonly)

    @intrinsic  # type: ignore[untyped-decorator]
    def cut(_context: Any, buffer: Any, _byte: Any, _count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
            array = make_array(array_type)(context, builder)
            pointer = builder.gep(data, [args[1]])
            populate_array(
                array,
                data=builder.bitcast(pointer, context.get_data_type(element).as_pointer()),
                shape=(args[2],),
                strides=(ir.Constant(_INT64, size),),
                itemsize=ir.Constant(_INT64, size),
                meminfo=None,
            )
            return array._getvalue()

        return array_type(buffer, types.int64, types.int64), codegen

    return cut


as_reals = _cut(types.float64)
as_words = _cut(types.uint64)
as_numbers = _cut(types.int64)
as_tallies = _cut(types.uint32)
as_short = _cut(types.uint16)


@device_function
def take_numbers(scratch, count):  # type: ignore[no-untyped-def]
    """Return the first `count` int64 of a buffer of bytes, and the rest of the buffer."""
    return as_numbers(scratch, 0, count), scratch[8 * count :]


@device_function
def take_reals(scratch, count):  # type: ignore[no-untyped-def]
    """Return the first `count` float64 of a buffer of bytes, and the rest of the buffer."""
    return as_reals(scratch, 0, count), scratch[8 * count :]


@device_function
def take_bytes(scratch, count):  # type: ignore[no-untyped-def]
    """Return the first `count` bytes of a buffer, and the rest."""
    return scratch[:count], scratch[count:]


# Views of received bytes, as U16 and F64.
read_short = _cut(types.uint16, readonly=True)
read_reals = _cut(types.float64, readonly=True)


@intrinsic  # type: ignore[untyped-decorator]
def put_word(_context: Any, buffer: Any, _byte: Any, _word: Any) -> Any:
    """buffer[byte : byte + 8] = the word, little-endian, at any address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), _INT64.as_pointer())
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.uint64), codegen


# Bit operations on qubit masks, inside kernels: int64, since no state has 63 qubits.


@device_function
def count(mask):  # type: ignore[no-untyped-def]
    """Number of set bits."""
    result = 0
    while mask:
        mask &= mask - 1
        result += 1
    return result


@device_function
def lowest(mask):  # type: ignore[no-untyped-def]
    """Lowest wire of a nonempty set."""
    result = 0
    while not mask & 1:
        mask >>= 1
        result += 1
    return result


@device_function
def mapped(mask, to):  # type: ignore[no-untyped-def]
    """Image of a set under to[wire]."""
    result = 0
    while mask:
        result |= 1 << to[lowest(mask)]
        mask &= mask - 1
    return result
