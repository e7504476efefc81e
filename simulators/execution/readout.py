"""Readout error of terminal measurements: one stage for all engines.

Counts: bits of sampled records flip. Shots are visited by geometric skipping at the largest flip
probability of a measurement, and a flip is accepted by the actual bits, so the cost grows with the
number of flips and not of shots. Shots are divided into blocks of 2^16. Uniform j of a block b is
shot b * 2^18 + j of draw 2^59 + k, where k is the measurement's operation, for a correlated group
that of its first measurement; candidate i of a block uses the uniforms 2 i and 2 i + 1. So the
flips of a shot are a function of (seed, binding, shot).

Probabilities: the distribution is multiplied by the confusion matrices.

Expectation values are those of the state, and never contain readout error, as in Aer's estimator.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Readout
from simulators.circuit.analysis.measurements import MeasurementLayout
from simulators.compiler.kernel import I64, REALS, U64, device_function, kernel, record
from simulators.errors import Unsupported
from simulators.execution.philox import block, uniform
from simulators.execution.sampling import Distribution

FIRST_DRAW = 2**59  # draw number of the readout error of operation 0
MAX_BITS = 24  # bits with a readout error in an exact distribution

_BLOCK = 1 << 16  # shots
_COUNTERS = np.uint64(1 << 16)  # Philox blocks of four uniforms in a block of shots
_LEAST = 1e-24  # smaller probabilities are dropped as rounding noise
_1 = np.uint64(1)
_3 = np.uint64(3)


@record
class FlipGroups(NamedTuple):
    """Clbits that are misread, in groups: group g has `clbits[begins[g] : begins[g + 1]]`."""

    draws: U64  # [groups]
    begins: I64  # [groups + 1]
    clbits: I64
    table_begins: I64  # [groups]: into `tables`
    # Of a group of k clbits, from its begin on: entry 2^k s + m is the probability of flip masks
    # 1 .. m if the true bits are s.
    tables: REALS
    bounds: REALS  # [groups]: largest sum of the probabilities of flips


@device_function
def _flip_bit(records, start, seed, binding, draw, clbit, p01, p10, bound, scale):  # type: ignore[no-untyped-def]
    """`flip_records` of one bit. What is rarely predicted, the acceptance, is no branch."""
    end = start + records.shape[0]
    word, shift = clbit >> 6, np.uint64(clbit & 63)
    for b in range(start // _BLOCK, (end + _BLOCK - 1) // _BLOCK):
        shot = np.int64(b) * _BLOCK - 1
        stop = min(end, (np.int64(b) + 1) * _BLOCK)
        counter = np.uint64(b) * _COUNTERS
        while shot < stop:
            counter += _1
            w0, w1, w2, w3 = block(counter, draw, seed, binding)
            first, second = math.log(1.0 - uniform(w0)) * scale, math.log(1.0 - uniform(w2)) * scale
            for half in range(2):
                step = first if half == 0 else second
                if step >= stop - shot:
                    shot = stop
                    break
                shot += 1 + np.int64(step)
                if shot >= stop:
                    break
                if shot < start:
                    continue
                record = records[shot - start, word]
                chosen = uniform(w1 if half == 0 else w3) * bound
                flips = chosen < (p10 if record >> shift & _1 else p01)
                records[shot - start, word] = record ^ np.uint64(flips) << shift


@device_function
def flip_records(records, start, seed, binding, groups):  # type: ignore[no-untyped-def]
    """Flip bits of `records` [n, words] of the shots from `start` on, in place."""
    draws, begins, clbits = groups.draws, groups.begins, groups.clbits
    table_begins, tables, bounds = groups.table_begins, groups.tables, groups.bounds
    end = start + records.shape[0]
    for g in range(draws.size):
        if bounds[g] <= 0.0:
            continue
        scale = 1.0 / math.log1p(-bounds[g]) if bounds[g] < 1.0 else 0.0
        first, last = begins[g], begins[g + 1]
        if last - first == 1:
            at = table_begins[g]
            _flip_bit(
                records, start, seed, binding, draws[g], clbits[first], tables[at + 1],
                tables[at + 3], bounds[g], scale,
            )  # fmt: skip
            continue
        size = np.int64(1) << (last - first)
        for b in range(start // _BLOCK, (end + _BLOCK - 1) // _BLOCK):
            shot = np.int64(b) * _BLOCK - 1
            stop = min(end, (np.int64(b) + 1) * _BLOCK)
            counter = np.uint64(b) * _COUNTERS
            odd = False
            w2 = w3 = np.uint64(0)
            while True:
                if odd:
                    w0, w1 = w2, w3
                else:
                    counter += _1
                    w0, w1, w2, w3 = block(counter, draws[g], seed, binding)
                odd = not odd
                step = math.log(1.0 - uniform(w0)) * scale
                if step >= stop - shot:
                    break
                shot += 1 + np.int64(step)
                if shot >= stop:
                    break
                if shot < start:
                    continue
                row = shot - start
                bits = np.int64(0)
                for j in range(first, last):
                    word = records[row, clbits[j] >> 6]
                    bits |= np.int64(word >> np.uint64(clbits[j] & 63) & _1) << (j - first)
                at = table_begins[g] + bits * size
                chosen = uniform(w1) * bounds[g]
                for mask in range(1, size):
                    if chosen < tables[at + mask]:
                        for j in range(first, last):
                            if mask >> (j - first) & 1:
                                records[row, clbits[j] >> 6] ^= _1 << np.uint64(clbits[j] & 63)
                        break


_flip = kernel("WORDS2 INT WORD WORD FlipGroups", group="noise")(flip_records)


# Draw number, clbits, confusion, and the table of `_cumulated`.
_Group = tuple[int, list[int], NDArray[np.float64], NDArray[np.float64]]


class ReadoutStage(msgspec.Struct, frozen=True, eq=False):
    """Readout error at the terminal measurements of one circuit."""

    groups: FlipGroups
    # Confusion [2^k, 2^k] of each group: row read, column true; (): groups of one bit, from their
    # tables.
    own_confusions: tuple[NDArray[np.float64], ...] = ()

    @property
    def confusions(self) -> tuple[NDArray[np.float64], ...]:
        """Confusion matrices [2^k, 2^k] of the groups: row read, column true."""
        return self.own_confusions or _confusions(self.groups.tables.reshape(-1, 4))

    @classmethod
    def of(
        cls,
        layout: MeasurementLayout,
        readout: Readout | None,
        op_ids: NDArray[np.int64] | None = None,
    ) -> ReadoutStage | None:
        """Make the stage for the terminal measurements of a layout; None if all are exact.
        `readout`: of the qubits of the layout. `op_ids`: numbers of its operations in the whole
        circuit, if the layout is that of a part. A correlated group applies if each of its qubits
        is measured once at the end; otherwise its qubits have their own errors."""
        if readout is None:
            return None
        source, p01, p10 = _sources(readout, layout)
        operations = layout.operations
        if op_ids is not None:
            operations = np.append(op_ids, -1)[operations]
        groups, grouped = _correlated(readout, source, operations)
        size = source.size
        draws, clbits, bounds = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size)
        tables = np.zeros((size, 4))
        count = _single_bits(
            source, operations, grouped, p01, p10, draws, clbits, tables, bounds,
        )  # fmt: skip
        if groups:
            confusions = _confusions(tables[:count])
            rows = zip(draws[:count].tolist(), clbits[:count].tolist(), confusions, strict=True)
            groups += [(draw, [clbit], each, _cumulated(each)) for draw, clbit, each in rows]
            return cls._packed(groups)
        if not count:
            return None
        found = FlipGroups(
            (draws[:count] + FIRST_DRAW).view(np.uint64), np.arange(count + 1), clbits[:count],
            np.arange(0, 4 * count, 4), tables[:count].reshape(-1), bounds[:count],
        )  # fmt: skip
        return cls(found)

    @classmethod
    def _packed(cls, groups: list[_Group]) -> ReadoutStage:
        groups.sort(key=lambda group: group[0])
        begins = np.zeros(len(groups) + 1, np.int64)
        begins[1:] = np.cumsum([len(clbits) for _, clbits, _, _ in groups])
        lengths = np.array([table.size for _, _, _, table in groups])
        packed = FlipGroups(
            np.array([FIRST_DRAW + draw for draw, _, _, _ in groups], np.uint64), begins,
            np.array([clbit for _, clbits, _, _ in groups for clbit in clbits], np.int64),
            np.cumsum(lengths) - lengths,
            np.concatenate([table.ravel() for _, _, _, table in groups]),
            np.array([float(table[:, -1].max()) for _, _, _, table in groups]),
        )  # fmt: skip
        return cls(packed, tuple(confusion for _, _, confusion, _ in groups))

    def flip(self, records: NDArray[np.uint64], first_shot: int, key: tuple[int, int]) -> None:
        """Flip bits of the records of shots first_shot, first_shot + 1, ..., in place. `records`:
        uint64 [n, words], C-contiguous; `key`: seed and binding."""
        _flip(records, first_shot, *key, self.groups)

    def confuse(self, distribution: Distribution) -> Distribution:
        """Distribution of the recorded outcomes. Raises Unsupported for more bits than MAX_BITS."""
        records, probs = distribution
        bits = self.groups.clbits
        if bits.size > MAX_BITS:
            text = f"exact probabilities of {bits.size} bits that are read with errors"
            raise Unsupported(text, hint=f"ask for counts; exact ones are of at most {MAX_BITS}")
        mask = np.zeros(records.shape[1], np.uint64)
        index = np.zeros(len(records), np.int64)
        for number, clbit in enumerate(bits.tolist()):
            word, shift = clbit >> 6, np.uint64(clbit & 63)
            mask[word] |= _1 << shift
            index |= (records[:, word] >> shift & _1).astype(np.int64) << number
        others, row = np.unique(records & ~mask, axis=0, return_inverse=True)
        table = np.zeros((len(others), 1 << bits.size))
        np.add.at(table, (row.reshape(-1), index), probs)
        high = 0
        for confusion in self.confusions:
            size = len(confusion)
            view = table.reshape(len(others), -1, size, 1 << high)
            table = np.einsum("rs,oasb->oarb", confusion, view)
            high += size.bit_length() - 1
        table = table.reshape(len(others), -1)
        where, values = np.nonzero(table > _LEAST)
        result = others[where]
        for number, clbit in enumerate(bits.tolist()):
            bit = (values >> number & 1).astype(np.uint64)
            result[:, clbit >> 6] |= bit << np.uint64(clbit & 63)
        order = np.lexsort(result.T)
        return np.ascontiguousarray(result[order]), table[where, values][order]


@kernel("I64 I64 U8 REALS REALS I64 I64 REALS2 REALS -> INT", group="noise")
def _single_bits(  # type: ignore[no-untyped-def]
    source, operations, grouped, p01, p10, draws, clbits, tables, bounds
):
    """Fill arrays of the clbits that have an error of their own, in the order of their operations;
    returns how many there are. `tables` [clbits, 4]: zeros, see `FlipGroups`."""
    count = 0
    for clbit in range(source.size):
        qubit = source[clbit]
        if qubit < 0 or grouped[clbit] or not (p01[qubit] > 0.0 or p10[qubit] > 0.0):
            continue
        at = count
        while at > 0 and draws[at - 1] > operations[clbit]:
            draws[at], clbits[at], bounds[at] = draws[at - 1], clbits[at - 1], bounds[at - 1]
            tables[at, 1], tables[at, 3] = tables[at - 1, 1], tables[at - 1, 3]
            at -= 1
        draws[at], clbits[at] = operations[clbit], clbit
        tables[at, 1], tables[at, 3] = p01[qubit], p10[qubit]
        bounds[at] = max(p01[qubit], p10[qubit])
        count += 1
    return count


def _sources(
    readout: Readout, layout: MeasurementLayout
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Index of p01 and p10 of each clbit, -1 where none is measured, and both arrays: those of the
    qubits, then those of the measurements that have them of their own."""
    if not readout.own:
        return layout.source, readout.p01, readout.p10
    source, size = layout.source.copy(), len(readout.p01)
    flips = list(readout.own.values())
    number = {operation: size + k for k, operation in enumerate(readout.own)}
    for clbit in np.flatnonzero(source >= 0).tolist():
        source[clbit] = number.get(int(layout.operations[clbit]), source[clbit])
    p01, p10 = np.array(flips).T
    return source, np.concatenate((readout.p01, p01)), np.concatenate((readout.p10, p10))


def _correlated(
    readout: Readout, source: NDArray[np.int64], operations: NDArray[np.int64]
) -> tuple[list[_Group], NDArray[np.uint8]]:
    """Groups whose qubits are each measured once at the end, and the clbits of their qubits."""
    groups: list[_Group] = []
    grouped = np.zeros(source.size, np.uint8)
    if not readout.groups:
        return groups, grouped
    bits: dict[int, list[int]] = {}
    for clbit in np.flatnonzero(source >= 0).tolist():
        bits.setdefault(int(source[clbit]), []).append(clbit)
    for group in readout.groups:
        mine = [bits.get(qubit, []) for qubit in group.qubits]
        if all(len(each) == 1 for each in mine):
            clbits = [each[0] for each in mine]
            draw = min(int(operations[clbit]) for clbit in clbits)
            groups.append((draw, clbits, group.confusion, _cumulated(group.confusion)))
            grouped[clbits] = 1
            for qubit in group.qubits:
                bits[qubit] = []
    return groups, grouped


def _confusions(tables: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Confusion matrices of single bits."""
    results = []
    for _, p01, _, p10 in tables.tolist():
        results.append(np.array([[1.0 - p01, p10], [p01, 1.0 - p10]]))
    return tuple(results)


def _cumulated(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative probability of the flip masks 1 .. m, [true, m]."""
    size = len(confusion)
    index = np.arange(size)
    flips = confusion[index[:, None] ^ index, index[:, None]].copy()  # [true, mask]
    flips[:, 0] = 0.0
    return np.cumsum(flips, axis=1)
