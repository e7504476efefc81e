"""Counter-based random numbers: Philox 4x64-10, the same bits as numpy's `Philox` generator.

A uniform number is a function of (seed, binding, draw, shot) alone, so any shot may be drawn in any
order and by any thread (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). The
draw number of an operation depends on the operation and on the iteration counts of the loops around
it.

Engines with a generator of their own run blocks of shots. Shot s belongs to block s // size
whatever the number of shots, so fewer shots are a prefix of more; a block's seed is a function of
(seed, binding, block). The size is BLOCK_SHOTS, or less where the circuit demands it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from simulators.compiler import simd
from simulators.compiler.kernel import device_function, inline_function, kernel
from simulators.engine import SHOTS, RunControl

_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)


_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)


LOOK = (1 << 16) - 1  # blocks between two reads of a control flag: about a millisecond


_SCALE = 2.0**-53


_SHIFT = np.uint64(11)


_1 = np.uint64(1)


@intrinsic  # type: ignore[untyped-decorator]
def _product(_context: Any, _left: Any, _right: Any) -> Any:
    """Upper and lower 64 bits of a 64 x 64 bit product by one instruction; separate products would
    cost two."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, word = ir.IntType(128), ir.IntType(64)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        halves = builder.trunc(builder.lshr(product, wide(64)), word), builder.trunc(product, word)
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), codegen


@inline_function
def block(counter, draw, key0, key1):  # type: ignore[no-untyped-def]
    """Four words: those of shots 4 * (counter - 1) and the three after it."""
    x0, x1, x2, x3 = counter, draw, np.uint64(0), np.uint64(0)
    for _ in range(10):
        h0, l0 = _product(_M0, x0)
        h1, l1 = _product(_M1, x2)
        x0, x1, x2, x3 = h1 ^ x1 ^ key0, l1, h0 ^ x3 ^ key1, l0
        key0 += _W0
        key1 += _W1
    return x0, x1, x2, x3


EIGHT_WORDS = 32  # words of eight blocks


_VECTOR = ir.VectorType(ir.IntType(64), simd.LANES)


def _product_of_eight(builder: Any, constant: int, value: Any) -> tuple[Any, Any]:
    """Upper and lower words of the products of a constant and eight words, from four products of
    halves, for which processors have vector instructions."""

    def splat(number: int) -> Any:
        return ir.Constant(_VECTOR, [ir.Constant(ir.IntType(64), number)] * simd.LANES)

    half, low = splat(32), splat(2**32 - 1)
    first, second = splat(constant & (2**32 - 1)), splat(constant >> 32)
    lower, upper = builder.and_(value, low), builder.lshr(value, half)
    last = builder.mul(lower, first)
    middle = builder.add(builder.mul(upper, first), builder.lshr(last, half))
    other = builder.add(builder.mul(lower, second), builder.and_(middle, low))
    high = builder.add(builder.mul(upper, second), builder.lshr(middle, half))
    high = builder.add(high, builder.lshr(other, half))
    return high, builder.or_(builder.shl(other, half), builder.and_(last, low))


@intrinsic  # type: ignore[untyped-decorator]
def _round(_context: Any, _0: Any, _1: Any, _2: Any, _3: Any, _key0: Any, _key1: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x0, x1, x2, x3, key0, key1 = args
        h0, l0 = _product_of_eight(builder, int(_M0), x0)
        h1, l1 = _product_of_eight(builder, int(_M1), x2)
        first, third = (
            builder.xor(builder.xor(high, word), simd.splat_words(builder, key))
            for high, word, key in ((h1, x1, key0), (h0, x3, key1))
        )
        return context.make_tuple(builder, signature.return_type, (first, l1, third, l0))

    words = types.UniTuple(simd.CHOICE, 4)
    return words(*[simd.CHOICE] * 4, types.uint64, types.uint64), codegen


@inline_function
def eight_next(x0, x1, x2, x3, key0, key1):  # type: ignore[no-untyped-def]
    """Words and keys after one more of the ten rounds of eight blocks, whose words are side by side
    in four vectors."""
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, key0, key1)
    return x0, x1, x2, x3, key0 + _W0, key1 + _W1


@inline_function
def eight_begun(counter, key0, key1):  # type: ignore[no-untyped-def]
    """Words and keys of eight blocks of draw 0, from `counter` on, after two rounds."""
    none = simd.words_from(np.uint64(0), np.uint64(0))
    x0, x1, x2, x3, key0, key1 = eight_next(
        simd.words_from(counter, _1), none, none, none, key0, key1
    )
    return eight_next(x0, x1, x2, x3, key0, key1)


@inline_function
def store_eight(words, x0, x1, x2, x3):  # type: ignore[no-untyped-def]
    """words[8 * w + k] = word w of block k."""
    simd.store(words, np.uint64(0), x0)
    simd.store(words, np.uint64(8), x1)
    simd.store(words, np.uint64(16), x2)
    simd.store(words, np.uint64(24), x3)


@inline_function
def uniform(word):  # type: ignore[no-untyped-def]
    """Number in [0, 1) from a word."""
    return np.float64(np.int64(word >> _SHIFT)) * _SCALE  # signed: one instruction on any processor


@device_function
def shot_uniform(shot, draw, seed, binding):  # type: ignore[no-untyped-def]
    """Number in [0, 1) of one shot, that of `uniforms`."""
    a, b, c, d = block(np.uint64(shot // 4 + 1), np.uint64(draw), seed, binding)
    lane = shot & 3
    return uniform(a if lane == 0 else b if lane == 1 else c if lane == 2 else d)


@device_function
def count_below(limit, draw, shots, seed, binding, control):  # type: ignore[no-untyped-def]
    """Number of the uniforms of shots 0 .. shots - 1 that are below `limit`; incomplete if the
    control flag is set meanwhile."""
    result = np.int64(0)
    for k in range(shots // 4):
        if not k & LOOK and control[0]:
            break
        a, b, c, d = block(np.uint64(k) + _1, draw, seed, binding)
        result += (uniform(a) < limit) + (uniform(b) < limit)
        result += (uniform(c) < limit) + (uniform(d) < limit)
    if shots & 3:
        a, b, c, _ = block(np.uint64(shots // 4) + _1, draw, seed, binding)
        result += uniform(a) < limit
        result += (shots & 3) > 1 and uniform(b) < limit
        result += (shots & 3) > 2 and uniform(c) < limit
    return result


@kernel("WORD WORD WORD I64 REALS", group="small")
def uniforms(seed, binding, draw, shots, out):  # type: ignore[no-untyped-def]
    """Fill out[k] with the uniform of shot shots[k] (float64 in [0, 1)); cheapest in ascending
    order."""
    last = np.int64(-1)
    a = b = c = d = np.uint64(0)
    for k in range(shots.size):
        number = shots[k] // 4
        if number != last:
            a, b, c, d = block(np.uint64(number) + _1, draw, seed, binding)
            last = number
        lane = shots[k] & 3
        word = a if lane == 0 else b if lane == 1 else c if lane == 2 else d
        out[k] = uniform(word)


_64 = 2**64 - 1


_62 = 2**62 - 1


def draw_number(operation: int, passes: Sequence[int]) -> int:
    """Draw number of a measurement or reset that is not final. `passes`: number of finished passes
    of each surrounding loop, outermost first. In the first pass of all of them the draw is 1 +
    operation. Later it is 2**62 plus the low 62 bits of a hash of the numbers, combined by the
    finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
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


BLOCK_SHOTS = 1024


_DOMAIN = 1  # third word of the counter: 0 in all draws of the seed contract


_BITS = 62  # libraries take signed 64-bit seeds, and count up from them


def block_seed(seed: int, binding: int, block: int) -> int:
    """Seed of one block, by Philox 4x64-10 with key (seed, binding)."""
    key = np.array([seed, binding], np.uint64)  # a list would become doubles
    bits = np.random.Philox(key=key, counter=[0, block, _DOMAIN, 0])
    return int(bits.random_raw()) >> (64 - _BITS)


def blocks(
    shots: int, seed: int, binding: int, control: RunControl, size: int = BLOCK_SHOTS
) -> Iterator[tuple[int, int]]:
    """Yield (seed, shots wanted) of each block, after a read of the control flag; count them as
    progress."""
    control.expect(shots, SHOTS)
    for block, first in enumerate(range(0, shots, size)):
        control.check()
        wanted = min(size, shots - first)
        yield block_seed(seed, binding, block), wanted
        control.advance(SHOTS, wanted)
