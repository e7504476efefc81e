"""Programs of sweeps on a GPU: operations, stages, and the words that the kernels read."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.gpu.devices.device import COMPLEX
from simulators.statevector.planning import tables as t
from simulators.statevector.planning.tables import LANE_WIRES, MOST_CROSS, MOST_WIDTH, SweepTable

# Stages of a sweep: the places of a tile that are in registers, and the operations there.
#
# A GPU keeps a tile in the registers of a block of threads, 2**REGISTERS amplitudes a thread. A
# stage chooses these places of the tile. Operations move amplitude along such places only;
# conditions and phases may read all places. Between two stages the amplitudes pass once through
# shared memory, where index maps (X, CX, SWAP, Toffoli) cost nothing. SWAP_LANE_ROW and plain SWAPs
# rename places.
#
# The stages follow from the sweep table alone, never from parameters.

REGISTERS = 4  # register places of a thread
DENSE, REAL, FLIP, PHASE = range(4)  # kinds of the kernel, see kernels/sweep.cuh
MAP = 9  # done during the exchange through shared memory
_ALL_PLACES = (1 << MOST_WIDTH) - 1
_WORK = {DENSE: 2.0, REAL: 1.0, FLIP: 0.3, PHASE: 0.5, MAP: 0.0}  # benefit in the present stage
_LOOKAHEAD = 60  # operations that determine the places of a stage
_WINDOW = 16  # operations among which a matrix looks for maps to absorb


class PhaseTables(msgspec.Struct, frozen=True):
    """Tables of a PHASE, by the tile's own places; see kernels/phase.cuh."""

    crossing: int  # row bits that choose the table of lanes
    rows: int
    first_term: int
    terms: int
    columns: tuple[int, ...]  # column of each place


class TileOperation(msgspec.Struct, frozen=True):
    """One operation of a sweep, by the tile's own places."""

    kind: int
    places: tuple[int, ...]  # amplitude moves along these; bit k of a matrix' index is places[k]
    mask: int  # condition on places of the tile; of a MAP, the places it reads
    value: int
    outer_mask: int  # condition on the tile's base
    outer_value: int
    at: int = 0  # position of its numbers
    other: int = 0  # for a MAP: the value that is exchanged with `value`
    phase: PhaseTables | None = None
    # Rows and columns of the table's matrix, in the order of the operation's; None: as there.
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None

    @property
    def moves(self) -> int:
        """Mask of the places along which it moves amplitude."""
        return sum(1 << place for place in self.places)

    @property
    def as_map(self) -> tuple[int, int, int]:
        """(mask, value, other) of a MAP or FLIP: places with these two values are exchanged."""
        if self.kind == MAP:
            return self.mask, self.value, self.other
        return self.mask | self.moves, self.value, self.value | self.moves

    @property
    def looks(self) -> int:
        """Mask of the other places that it depends on."""
        return _ALL_PLACES if self.kind == PHASE else self.mask & ~self.moves


class Stage(msgspec.Struct, frozen=True):
    """One stage; its maps are done in the exchange before it."""

    registers: tuple[int, ...]
    maps: tuple[TileOperation, ...]
    operations: tuple[TileOperation, ...]


def tile_operations(plan: SweepTable, number: int) -> list[TileOperation]:
    """Operations of pass `number`, by places that no lane exchange moves."""
    reader = _TableReader(plan)
    first, last = int(plan.starts[number]), int(plan.starts[number + 1])
    for row in plan.ops[first:last].tolist():
        reader.read(row)
    reader.restore()
    return _absorbed(reader.operations)


def _absorbed(operations: list[TileOperation]) -> list[TileOperation]:
    """The same operations, where matrices have absorbed X, CX and other maps of their own places
    that come directly before or after them: their rows or columns are read in another order."""
    result: list[TileOperation] = []
    for op in operations:
        if op.kind in (FLIP, MAP):
            _append_map(op, result)
        elif op.kind in (DENSE, REAL):
            _append_matrix(op, result)
        else:
            result.append(op)
    return result


def _append_map(op: TileOperation, result: list[TileOperation]) -> None:
    """Append a map, or let an earlier matrix absorb it: as rows in another order."""
    for k in reversed(range(max(0, len(result) - _WINDOW), len(result))):
        matrix = result[k]
        if _can_absorb(matrix, op):
            rows = _reordered(op, matrix.places, matrix.rows)
            result[k] = msgspec.structs.replace(matrix, rows=rows)
            return
        if _waits(op, matrix.moves, matrix.looks):
            break
    result.append(op)


def _append_matrix(op: TileOperation, result: list[TileOperation]) -> None:
    """Append a matrix after it has absorbed earlier maps: as columns in another order."""
    moved = looked = 0  # of what comes between
    later: list[TileOperation] = []
    while result and len(later) < _WINDOW:
        last = result.pop()
        if _can_absorb(op, last) and not _waits(last, moved, looked):
            columns = _reordered(last, op.places, op.columns)
            op = msgspec.structs.replace(op, columns=columns)
        else:
            later.append(last)
            moved, looked = moved | last.moves, looked | last.looks
    result += reversed(later)
    result.append(op)


def _can_absorb(matrix: TileOperation, op: TileOperation) -> bool:
    """Whether a matrix without condition has all places of a map. Never of X alone, which is what
    a CX from a qubit of the rank's number has left: columns in another order are added in another
    order, so ranks would differ from one GPU by rounding."""
    if matrix.kind not in (DENSE, REAL) or op.kind not in (FLIP, MAP) or not op.mask:
        return False
    return not (matrix.mask or matrix.outer_mask or op.outer_mask) and not (
        (op.moves | op.mask) & ~matrix.moves
    )


def _reordered(
    op: TileOperation, places: tuple[int, ...], order: tuple[int, ...] | None
) -> tuple[int, ...]:
    """`order` of a matrix' rows or columns after it has absorbed a map."""
    mask, value, other = op.as_map
    moved = sum(1 << k for k, place in enumerate(places) if (value ^ other) >> place & 1)
    result = list(order or range(1 << len(places)))
    for index, own in enumerate(tuple(result)):
        bits = sum((index >> k & 1) << place for k, place in enumerate(places)) & mask
        if bits in (value, other):
            result[index ^ moved] = own
    return tuple(result)


def _waits(op: TileOperation, moved: int, looked: int) -> int:
    """Places that keep an operation from changing its order with others, 0 if there are none;
    `moved`, `looked`: places that these move and depend on."""
    return op.moves & (moved | looked) | op.looks & moved


class _TableReader:
    """Reader of the rows of a table; it tracks the amplitude bit that the table calls place k."""

    def __init__(self, plan: SweepTable) -> None:
        self.operations: list[TileOperation] = []
        self._width = plan.width
        self._at = list(range(plan.width))

    def read(self, row: list[int]) -> None:
        """Read the next operation."""
        if row[t.OUTER_VALUE] & ~row[t.OUTER_MASK]:  # never: see `distributed.executor.local_table`
            return
        kind = row[t.KIND]
        mask, value = self._places(row[t.ROW_MASK]), self._places(row[t.ROW_VALUE])
        outer = (row[t.OUTER_MASK], row[t.OUTER_VALUE])
        if kind == t.SWAP_LANE_ROW:
            self._rename(self._at[row[t.A]], self._at[LANE_WIRES + row[t.B]])
        elif kind == t.PERMUTE_ROWS:
            self._permutation(mask, value, self._places(row[t.ROW_OTHER]), outer)
        elif kind == t.PHASE:
            tables = self._phase_tables(row)
            self.operations.append(
                TileOperation(PHASE, (), mask, value, *outer, at=row[t.AT], phase=tables)
            )
        else:
            is_real = kind > t.REAL
            wires = kind - (t.REAL if is_real else t.DENSE)
            places = tuple(self._at[LANE_WIRES + row[t.A + k]] for k in range(wires))
            built = REAL if is_real else DENSE
            self.operations.append(TileOperation(built, places, mask, value, *outer, at=row[t.AT]))

    def restore(self) -> None:
        """Append exchanges that return renamed bits to their own places."""
        for place in range(self._width):
            other = self._at[place]
            if other != place:
                both = 1 << place | 1 << other
                self.operations.append(
                    TileOperation(MAP, (place, other), both, 1 << place, 0, 0, other=1 << other)
                )
                self._rename(place, other)

    def _places(self, rows: int) -> int:
        bits = range(self._width - LANE_WIRES)
        return sum(1 << self._at[LANE_WIRES + bit] for bit in bits if rows >> bit & 1)

    def _rename(self, a: int, b: int) -> None:
        first, second = self._at.index(a), self._at.index(b)
        self._at[first], self._at[second] = b, a

    def _permutation(self, mask: int, value: int, other: int, outer: tuple[int, int]) -> None:
        moved = tuple(place for place in range(MOST_WIDTH) if (value ^ other) >> place & 1)
        is_swap = len(moved) == 2 and mask == value ^ other and value and other
        if is_swap and not outer[0]:
            self._rename(*moved)
        elif len(moved) == 1:
            bit = 1 << moved[0]
            self.operations.append(TileOperation(FLIP, moved, mask & ~bit, value & ~bit, *outer))
        else:
            self.operations.append(TileOperation(MAP, moved, mask, value, *outer, other=other))

    def _phase_tables(self, row: list[int]) -> PhaseTables:
        crossing = [bit for bit in range(MOST_WIDTH) if row[t.CROSS] >> bit & 1]
        columns = [0] * self._width
        for place in range(self._width):
            bit = place - LANE_WIRES
            column = 1 << place << 32 if bit < 0 else 1 << bit
            if bit in crossing:
                column |= 1 << (LANE_WIRES + crossing.index(bit)) << 32
            columns[self._at[place]] = column
        rows = 1 << (self._width - LANE_WIRES)
        terms = row[t.FIRST_TERM], row[t.TERMS]
        return PhaseTables(len(crossing), rows, *terms, tuple(columns))


def divide_into_stages(
    operations: list[TileOperation], width: int, num_low: int
) -> tuple[Stage, ...]:
    """Stages of a sweep, chosen greedily: each stage is the one with the most benefit before the
    next exchange. The first and the last stage keep the `num_low` lowest places out of registers,
    so that neighbouring threads have neighbours in memory."""
    everywhere, above = _register_sets(width, 0), _register_sets(width, num_low)
    top = tuple(range(width - REGISTERS, width))
    chosen, done, left = _best_stage(operations, above, top)
    results = [Stage(chosen, (), tuple(done))]
    while left:
        maps, left = _split(left, lambda op: op.kind in (MAP, FLIP))
        chosen, done, rest = _best_stage(left, everywhere, results[-1].registers)
        if not rest and chosen[0] < num_low:  # another choice may make this stage the last one
            other, more, remaining = _best_stage(left, above, top)
            if not remaining:
                chosen, done, rest = other, more, remaining
        results.append(Stage(chosen, tuple(maps), tuple(done)))
        left = rest
    if results[-1].registers[0] < num_low:
        results.append(Stage(top, (), ()))
    return tuple(results)


@functools.cache
def _register_sets(width: int, lowest: int) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
    """All sets of register places from `lowest` on, and their masks."""
    sets = list(itertools.combinations(range(lowest, width), REGISTERS))
    return sets, np.array([sum(1 << place for place in each) for each in sets], np.int64)


def _best_stage(
    operations: list[TileOperation],
    candidates: tuple[list[tuple[int, ...]], NDArray[np.int64]],
    otherwise: tuple[int, ...],
) -> tuple[tuple[int, ...], list[TileOperation], list[TileOperation]]:
    """Best set of registers, the operations that are done with them, and the remaining ones."""
    sets, masks = candidates
    moved, looked, worth = np.zeros_like(masks), np.zeros_like(masks), np.zeros(masks.size)
    for op in operations[:_LOOKAHEAD]:
        moves, looks = op.moves, op.looks
        able = (moved | looked) & moves | moved & looks | moves & ~masks
        if op.kind == MAP:
            able |= 1
        waits = able != 0
        worth += np.where(waits, 0.0, _WORK[op.kind] * 2.0 ** len(op.places))
        moved |= np.where(waits, moves, 0)
        looked |= np.where(waits, looks, 0)
    best = int(np.argmax(worth)) if worth.size else 0
    chosen = sets[best] if worth.size and worth[best] > 0.0 else otherwise
    mask = sum(1 << place for place in chosen)
    done, left = _split(operations, lambda op: op.kind != MAP and not op.moves & ~mask)
    return chosen, done, left


def _split(
    operations: list[TileOperation], admits: Callable[[TileOperation], bool]
) -> tuple[list[TileOperation], list[TileOperation]]:
    """Admitted operations that can be done now, in order, and the remaining ones."""
    moved = looked = 0
    done: list[TileOperation] = []
    left: list[TileOperation] = []
    for op in operations:
        if admits(op) and not _waits(op, moved, looked):
            done.append(op)
        else:
            moved |= op.moves
            looked |= op.looks
            left.append(op)
    return done, left


# Program of a sweep kernel: the words of each pass, and the order of its numbers.
#
# See kernels/sweep.cuh for the format. Programs depend on the sweep table alone, so they are made
# and uploaded once for a structure; a binding brings its numbers.

# Lowest places of a tile that are thread bits, so that a request of global memory is lines of 128
# bytes; and number of neighbouring places of which at most one chooses a bank of shared memory.
LOW_PLACES = {"double": 3, "single": 4}
# As in kernels/phase.cuh and kernels/sweep.cuh.
_PRODUCTS_BYTES = 384
_PASS_WORDS, _HEADER_WORDS, _STAGE_WORDS, _OPERATION_WORDS, _PHASE_WORDS = 8000, 6, 2, 5, 2
_COLUMN_BITS = 8  # bits of a thread's number
_COLUMNS = _COLUMN_BITS + REGISTERS
_MOST_WIRES = 64


class PassProgram(msgspec.Struct, frozen=True, eq=False):
    """One sweep, or part of one. `matrices`: its part of the kernel's numbers that follows the code
    in constant memory; `live`: wires that may be 1 in an amplitude that is not 0 after it; is_last:
    the sweep ends with it."""

    code: NDArray[np.uint64]
    matrices: slice
    tile_bits: int  # 2**tile_bits tiles are visited
    live: int
    is_last: bool


class SweepProgram(msgspec.Struct, frozen=True, eq=False):
    """All sweeps of a table for one precision. `taken`: int64 [even number], the position in the
    table's numbers of each number of the kernel."""

    precision: str
    width: int
    passes: tuple[PassProgram, ...]
    taken: NDArray[np.int64]
    terms: NDArray[np.uint64]

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 1 << (self.width - REGISTERS)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the tile, or the tables of a PHASE."""
        tables = (1 << (self.width - LANE_WIRES)) + (1 << (LANE_WIRES + MOST_CROSS))
        return _PRODUCTS_BYTES + COMPLEX[self.precision].itemsize * max(1 << self.width, tables)


def encode_sweeps(plan: SweepTable, precision: str) -> SweepProgram:
    passes: list[PassProgram] = []
    taken: list[NDArray[np.int64]] = []
    count = 0
    for number in range(len(plan.live)):
        wires = plan.places[number, : plan.width].tolist()
        inside = sum(1 << wire for wire in wires)
        outside = int(plan.live[number]) & ~inside & (1 << plan.num_wires) - 1
        gaps = [wire for wire in range(plan.num_wires) if not outside >> wire & 1]
        tile_bits = outside.bit_count()
        parts = _parts(tile_operations(plan, number))
        for operations in parts:
            stages = divide_into_stages(operations, plan.width, LOW_PLACES[precision])
            words, positions, num_matrices = _encoded(stages, wires, precision, count)
            head = [plan.width, len(stages), tile_bits, len(gaps)]
            size = _HEADER_WORDS + len(gaps) + len(words)
            code = [*head, size + size % 2, count, *gaps, *words, *[0] * (size % 2)]
            assert len(code) + num_matrices <= _PASS_WORDS
            matrices, live = slice(count, count + num_matrices), outside | inside
            is_last = operations is parts[-1]
            passes.append(
                PassProgram(np.array(code, np.uint64), matrices, tile_bits, live, is_last)
            )
            taken += positions
            count += sum(each.size for each in positions)
    if not count:  # the kernel reads one
        taken = [np.zeros(2, np.int64)]
    terms = plan.terms.ravel() if plan.terms.size else np.zeros(2, np.uint64)
    return SweepProgram(precision, plan.width, tuple(passes), np.concatenate(taken), terms)


def _parts(operations: list[TileOperation]) -> list[list[TileOperation]]:
    """Operations of a sweep, divided so that the program of each part fits into PASS."""
    room = _PASS_WORDS - _HEADER_WORDS - _MOST_WIRES - 2 * _STAGE_WORDS - 4 * _COLUMNS
    parts: list[list[TileOperation]] = [[]]
    left = room
    for op in operations:
        words = _STAGE_WORDS + _COLUMNS + _OPERATION_WORDS + _num_matrix_floats(op)
        words += _PHASE_WORDS + _COLUMNS if op.phase else 0
        if words > left:
            parts.append([])
            left = room
        left -= words
        parts[-1].append(op)
    return parts


def _encoded(
    stages: tuple[Stage, ...], wires: list[int], precision: str, first: int
) -> tuple[list[int], list[NDArray[np.int64]], int]:
    """Words of the columns and stages; positions in the table's numbers, first those of all
    matrices; and how many numbers the matrices have. `wires`: of the places; `first`: position of
    the matrices among the kernel's numbers."""
    matrices = [op for stage in stages for op in stage.operations if op.kind in (DENSE, REAL)]
    phases = [op for stage in stages for op in stage.operations if op.phase is not None]
    positions = [*map(_matrix_positions, matrices), *map(_phase_positions, phases)]
    num_matrices = sum(each.size for each in positions[: len(matrices)])
    ends = np.cumsum([0, *(each.size for each in positions)]).tolist()
    at = {id(op): end for op, end in zip(matrices, ends, strict=False)}
    at |= {id(op): first + end for op, end in zip(phases, ends[len(matrices) :], strict=False)}
    low, width = LOW_PLACES[precision], len(wires)
    index = [1 << wire for wire in wires]
    words = [
        word
        for stage in (stages[0], stages[-1])
        for word in _columns(index, stage.registers, _thread_places(stage.registers, width, 0))
    ]
    for k, stage in enumerate(stages):
        banks = 0 if k in (0, len(stages) - 1) else low
        threads = _thread_places(stage.registers, width, banks)
        words += _stage_words(stage, threads, functools.partial(_position, precision))
        for op in stage.operations:
            words += _operation_words(op, stage.registers, threads, at.get(id(op), 0))
    return words, positions, num_matrices


def _columns(values: Sequence[int], registers: Sequence[int], threads: Sequence[int]) -> list[int]:
    """Values of the places, in the order of a thread's bits and of the registers."""
    padding = [0] * (_COLUMN_BITS - len(threads))
    return [*(values[place] for place in threads), *padding, *(values[p] for p in registers)]


def _position(precision: str, j: int) -> int:
    """Position of an amplitude in the buffer, in bytes; see `swizzled` in kernels/sweep.cuh."""
    low = LOW_PLACES[precision]
    other = functools.reduce(operator.xor, (j >> k for k in range(low, MOST_WIDTH + 1, low)))
    return (j ^ other & (1 << low) - 1) * COMPLEX[precision].itemsize


def _stage_words(
    stage: Stage, threads: tuple[int, ...], position: Callable[[int], int]
) -> list[int]:
    """Words of a stage and its maps. `position`: of an index in the buffer, linear."""
    maps, width = stage.maps, len(threads) + REGISTERS
    affine = all(_is_affine(op) and (not op.outer_mask or _is_shift(op)) for op in maps)
    read, origin = [1 << place for place in range(width)], 0
    words: list[int] = []
    if affine:
        inner = [op.as_map for op in maps if not op.outer_mask]
        origin = _mapped(0, inner)
        read = [_mapped(each, inner) ^ origin for each in read]
        before: list[tuple[int, int, int]] = []
        for op in maps:
            mask, value, other = op.as_map
            if op.outer_mask:
                moved = _mapped(value ^ other, before) ^ _mapped(0, before)
                words += [position(moved), op.outer_mask, op.outer_value]
            else:
                before.append(op.as_map)
    else:
        for op in maps:
            mask, value, other = op.as_map
            words += [mask | value << 16 | other << 32, op.outer_mask, op.outer_value]
    columns = [
        1 << place | position(1 << place) << 16 | position(each) << 32
        for place, each in enumerate(read)
    ]
    head = [len(words) // 3 | affine << 32 | position(origin) << 40, len(stage.operations)]
    return [*head, *_columns(columns, stage.registers, threads), *words]


def _mapped(j: int, maps: Sequence[tuple[int, int, int]]) -> int:
    """The place from which `j` is read after all maps."""
    for mask, value, other in reversed(maps):
        if j & mask in (value, other):
            j ^= value ^ other
    return j


def _is_shift(op: TileOperation) -> bool:
    """Whether a map is X on one place, without a condition on others."""
    mask, value, other = op.as_map
    return mask == value ^ other and mask.bit_count() == 1


def _is_affine(op: TileOperation) -> bool:
    """Whether a map is linear over GF(2), but for a constant: X, CX, SWAP; not Toffoli."""
    conditions = (op.mask & ~op.moves).bit_count()
    return conditions <= 1 if len(op.places) == 1 else not conditions and len(op.places) == 2


def _thread_places(registers: tuple[int, ...], width: int, banks: int) -> tuple[int, ...]:
    """Places of a thread's bits. The first `banks` of them choose different banks."""
    free = [place for place in range(width) if place not in registers]
    first: list[int] = []
    for place in free:
        if len(first) < banks and all(place % banks != other % banks for other in first):
            first.append(place)
    return (*first, *(place for place in free if place not in first))


def _operation_words(
    op: TileOperation, registers: tuple[int, ...], threads: tuple[int, ...], at: int
) -> list[int]:
    inside = sum(1 << place for place in registers)
    own_mask, own_value = (
        sum((bits >> place & 1) << k for k, place in enumerate(registers))
        for bits in (op.mask, op.value)
    )
    condition = (op.mask & ~inside) | own_mask << 16
    condition |= (op.value & ~inside) << 32 | own_value << 48
    head = [condition, op.outer_mask, op.outer_value, at]
    if op.phase is None:
        chosen = sum(1 << registers.index(place) for place in op.places)
        return [op.kind | chosen << 8, *head]
    tables = op.phase
    kind = PHASE | tables.crossing << 16 | tables.rows << 32
    columns = _columns(tables.columns, registers, threads)
    return [kind, *head, tables.terms | LANE_WIRES << 32, tables.first_term, *columns]


def _num_matrix_floats(op: TileOperation) -> int:
    return {DENSE: 2, REAL: 1}.get(op.kind, 0) << 2 * len(op.places)


def _matrix_positions(op: TileOperation) -> NDArray[np.int64]:
    """Positions of a matrix' numbers: in its index the lowest register comes first."""
    index = np.arange(1 << len(op.places))
    own = np.zeros_like(index)
    for k, place in enumerate(op.places):
        own |= (index >> sum(other < place for other in op.places) & 1) << k
    rows, columns = (index if each is None else np.array(each) for each in (op.rows, op.columns))
    block = np.arange(_num_matrix_floats(op)).reshape(index.size, index.size, -1)
    positions: NDArray[np.int64] = op.at + block[np.ix_(rows[own], columns[own])].ravel()
    return positions


def _phase_positions(op: TileOperation) -> NDArray[np.int64]:
    """Positions of the tables of rows and of lanes, and of the factors of terms."""
    assert op.phase is not None
    tables = 2 * op.phase.rows + (2 << LANE_WIRES << op.phase.crossing)
    return np.arange(op.at, op.at + tables + 2 * op.phase.terms)
