"""Random numbers, and the sampling of basis states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from simulators.circuit.ir import num_words, outcome_width
from simulators.compiler import simd
from simulators.compiler.kernel import device_function, inline_function, kernel
from simulators.engine import SHOTS, RunControl

# Counter-based random numbers: Philox 4x64-10, the same bits as numpy's `Philox` generator.
#
# A uniform number is a function of (seed, binding, draw, shot) alone, so any shot may be drawn in
# any order and by any thread (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
# The draw number of an operation depends on the operation and on the iteration counts of the loops
# around it.
#
# Engines with a generator of their own run blocks of shots. Shot s belongs to block s // size
# whatever the number of shots, so fewer shots are a prefix of more; a block's seed is a function of
# (seed, binding, block). The size is BLOCK_SHOTS, or less where the circuit demands it.

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


# Sampling of basis states, and packing of outcomes; shared by the engines.
#
# A record is a row of uint64 words, clbit c in bit c % 64 of word c // 64. Packed outcomes are
# distinct, ascending as unsigned integers, and little-endian. Bit-packed rows have bit b in bit b %
# 8 of byte b // 8. Sampling from a dense state vector is inverse-CDF sampling (seed contract, draw
# 0), so a seed gives the counts of the statevector engine, up to rounding.


def gather(indices: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Records [indices, words] in which clbit c reads bit source[c] of the index; -1 reads 0."""
    records = np.zeros((indices.size, num_words(source.size)), np.uint64)
    write(records, indices, source)
    return records


def write(
    records: NDArray[np.uint64], indices: NDArray[np.int64], source: NDArray[np.int64]
) -> None:
    """Write bit source[c] of each index into clbit c of its record; -1 leaves clbit c alone. Bits
    that keep their places are copied at once; others are looked up in a table, eight at a time."""
    for word in range(records.shape[1]):
        column = records[:, word]
        bits: dict[int, int] = {}  # record bit by index bit
        for c, bit in enumerate(source[64 * word : 64 * word + 64].tolist()):
            if bit >= 0:
                bits[bit] = bits.get(bit, 0) | 1 << c
        wanted = np.uint64(sum(bits.values()))
        column &= ~wanted
        if all(bit < 64 and mask == 1 << bit for bit, mask in bits.items()):
            column |= indices.view(np.uint64) & wanted
            continue
        for first in range(0, max(bits, default=-1) + 1, 8):
            table = np.zeros(256, np.uint64)
            for k in range(8):
                table[1 << k : 2 << k] = table[: 1 << k] | np.uint64(bits.get(first + k, 0))
            column |= table[(indices >> first) & 255]


_TABULATED = 1 << 16  # records below this are counted in a table, not sorted


def distinct(records: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Distinct records in ascending order, and for each record its index among them."""
    if records.shape[1] == 1:
        result, inverse = np.unique(records[:, 0], return_inverse=True)
        return result.reshape(-1, 1), inverse
    order = np.lexsort(records.T)  # the last word is the most significant: lexsort's first key
    ordered = records[order]
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(order), np.intp)
    inverse[order] = np.cumsum(fresh) - 1
    return ordered[fresh], inverse


def tally(
    records: NDArray[np.uint64], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Distinct records, ascending, with their numbers of occurrence, or the sums of their
    weights."""
    if weights is None and records.shape[1] == 1 and len(records):
        ordered = records[:, 0]
        if int(ordered.max()) < min(_TABULATED, 4 * ordered.size):
            sums = np.bincount(ordered.view(np.int64))
            values = np.flatnonzero(sums)
            return values.astype(np.uint64).reshape(-1, 1), sums[values].astype(np.float64)
        if (ordered[1:] < ordered[:-1]).any():
            ordered = np.sort(ordered)
        begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        counts = np.diff(begins, append=ordered.size)
        return ordered[begins].reshape(-1, 1), counts.astype(np.float64)
    result, inverse = distinct(records)
    return result, np.bincount(inverse, weights, len(result)).astype(np.float64)


def pack(records: NDArray[np.uint64], num_bits: int) -> tuple[bytes, int]:
    """Packed outcomes of records, and their width in bytes."""
    width = outcome_width(num_bits)
    if width <= 8:
        return records[:, 0].astype(f"<u{width}").tobytes(), width
    raw = np.ascontiguousarray(records).view(np.uint8)
    return np.ascontiguousarray(raw[:, :width]).tobytes(), width


def outcome_records(
    counts: Mapping[int, int], num_bits: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Records of outcomes that are integers, and the number of shots of each."""
    return records_of(counts, num_bits), np.fromiter(counts.values(), np.int64, len(counts))


def records_of(outcomes: Iterable[int], num_bits: int) -> NDArray[np.uint64]:
    """Records [outcomes, words] of outcomes that are integers, in their order."""
    size = 8 * num_words(num_bits)
    data = b"".join([outcome.to_bytes(size, "little") for outcome in outcomes])
    return np.frombuffer(data, "<u8").reshape(-1, num_words(num_bits))


def unpack(outcomes: bytes, width: int) -> list[int]:
    """Packed outcomes as integers."""
    return [
        int.from_bytes(outcomes[at : at + width], "little") for at in range(0, len(outcomes), width)
    ]


_FLUSH_ROWS = 1 << 16  # pending records of `Counts`


def select(
    rows: NDArray[np.uint8], source: NDArray[np.int64], identical: bool = False
) -> NDArray[np.uint64]:
    """Records [shots, words] whose bit c is bit source[c] of the bit-packed rows; -1 reads 0.
    `identical`: source[c] is c for each bit of a row, and there are no other bits."""
    if identical:
        padded = np.zeros((len(rows), 8 * num_words(source.size)), np.uint8)
        padded[:, : rows.shape[1]] = rows
        return padded.view("<u8")
    return select_bits(np.unpackbits(rows, axis=1, bitorder="little"), source)


def select_bits(bits: NDArray[np.uint8], source: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Records as `select`, from rows that have one byte for each bit."""
    chosen = np.zeros((len(bits), 64 * num_words(source.size)), np.uint8)
    read = np.flatnonzero(source >= 0)
    chosen[:, read] = bits[:, source[read]]
    return np.packbits(chosen, axis=1, bitorder="little").view("<u8")


class Counts:
    """Distinct records and the number of shots of each, accumulated in batches."""

    def __init__(self, num_bits: int) -> None:
        self._num_bits = num_bits
        self._wide: Counter[bytes] | None = Counter() if num_words(num_bits) > 1 else None
        self._records = np.zeros((0, num_words(num_bits)), np.uint64)
        self._sums = np.zeros(0)
        self._pending: list[NDArray[np.uint64]] = []
        self._num_pending = 0

    def add(self, records: NDArray[np.uint64], counts: NDArray[np.int64] | None = None) -> None:
        """Add records [n, words] of `counts` shots each; None: of one shot each."""
        if self._wide is not None:
            data, size = records.tobytes(), 8 * records.shape[1]
            keys = [data[at : at + size] for at in range(0, len(data), size)]
            if counts is None:
                self._wide.update(keys)
            else:
                for key, count in zip(keys, counts.tolist(), strict=True):
                    self._wide[key] += count
        elif counts is not None:
            self._merge(*tally(records, counts.astype(np.float64)))
        else:
            self._pending.append(records)
            self._num_pending += len(records)
            if self._num_pending >= max(_FLUSH_ROWS, len(self._records)):
                self._flush()

    def packed(self) -> tuple[int, bytes, bytes]:
        """Width, packed outcomes and their uint32 counts."""
        if self._wide is not None:
            keys = sorted(self._wide, key=lambda record: record[::-1])
            self._records = np.frombuffer(b"".join(keys), "<u8").reshape(
                -1, num_words(self._num_bits)
            )
            self._sums = np.fromiter((self._wide[key] for key in keys), np.float64, len(keys))
        self._flush()
        outcomes, width = pack(self._records, self._num_bits)
        return width, outcomes, self._sums.astype(np.uint32).tobytes()

    def _flush(self) -> None:
        if self._pending:
            records = self._pending
            self._merge(*tally(records[0] if len(records) == 1 else np.concatenate(records)))
            self._pending, self._num_pending = [], 0

    def _merge(self, records: NDArray[np.uint64], sums: NDArray[np.float64]) -> None:
        if len(self._records):
            records = np.concatenate((self._records, records))
            records, sums = tally(records, np.concatenate((self._sums, sums)))
        self._records, self._sums = records, sums


class Memory:
    """Records of all shots, in order."""

    def __init__(self, num_bits: int) -> None:
        self._bytes = shot_bytes(num_bits)
        self._parts: list[bytes] = []

    def add(self, records: NDArray[np.uint64]) -> None:
        """Add the records [n, words] of the next shots."""
        raw = np.ascontiguousarray(records).view(np.uint8)
        self._parts.append(raw[:, : self._bytes].tobytes())

    def packed(self) -> bytes:
        """Bit-packed records, uint8 [shots, ceil(bits / 8)]."""
        return b"".join(self._parts)


def shot_bytes(num_bits: int) -> int:
    """Bytes of one shot in the output `memory`."""
    return -(-num_bits // 8)


State = NDArray[np.complexfloating]
Distribution = tuple[NDArray[np.uint64], NDArray[np.float64]]  # records, ascending; probabilities

# Smaller probabilities are rounding noise of amplitudes that are zero, and are dropped.
_NOISE = {"complex128": 1e-24, "complex64": 1e-14}
_SHOTS_AT_ONCE = 1 << 18


def odds_of(state: State) -> NDArray[np.float64]:
    """Probability |a|^2 of each amplitude: float64 [2**n]."""
    result = np.square(state.real, dtype=np.float64)
    result += np.square(state.imag, dtype=np.float64)
    return result


def sample(
    state: State, source: NDArray[np.int64], shots: int, key: tuple[int, int]
) -> Iterator[NDArray[np.uint64]]:
    """Records of the shots in batches; bit c reads qubit source[c], -1 reads 0."""
    edges = np.cumsum(odds_of(state))
    for first in range(0, shots, _SHOTS_AT_ONCE):
        shot_ids = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
        draws = np.empty(shot_ids.size)
        uniforms(*key, 0, shot_ids, draws)
        indices = np.searchsorted(edges, draws * edges[-1], side="right")
        yield gather(np.minimum(indices, edges.size - 1), source)


def distribution(state: State, source: NDArray[np.int64] | None) -> Distribution:
    """Exact distribution of these bits; of all qubits if `source` is None."""
    num_qubits = state.size.bit_length() - 1
    probs = odds_of(state)
    probs /= probs.sum()
    wires = np.arange(num_qubits) if source is None else np.unique(source[source >= 0])
    table = probs.reshape((2,) * num_qubits)
    away = tuple(num_qubits - 1 - q for q in range(num_qubits) if q not in set(wires.tolist()))
    table = table.sum(axis=away).reshape(-1)
    values = np.flatnonzero(table > _NOISE[state.dtype.name])
    if source is None:
        return values.astype(np.uint64).reshape(-1, 1), table[values]
    place = np.full(num_qubits + 1, -1)  # the last entry is for -1
    place[wires] = np.arange(wires.size)
    records = gather(values, place[source])
    order = np.lexsort(records.T) if num_words(source.size) > 1 else np.argsort(records[:, 0])
    return records[order], table[values][order]


def means(state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Expectation values <state|P|state> of Pauli strings (x, z), for a normalised state."""
    places = np.arange(state.size)
    result = np.empty(len(strings))
    for number, (x, z) in enumerate(strings):
        partner = places ^ x
        signs = 1.0 - 2.0 * (np.bitwise_count(partner & z) & 1)
        total = complex(np.sum(state.conj() * state[partner] * signs, dtype=complex))
        result[number] = (total * 1j ** ((x & z).bit_count() % 4)).real
    return result
