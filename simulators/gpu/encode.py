"""Program of a sweep kernel: the words of each pass, and the order of its numbers.

See kernels/sweep.cuh for the format. Programs depend on the sweep table alone, so they are made and
uploaded once for a structure; a binding brings its numbers.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.gpu.devices.protocol import COMPLEX
from simulators.gpu.stages import (
    DENSE,
    FLIP,
    PHASE,
    REAL,
    REGISTERS,
    Stage,
    TileOperation,
    divide_into_stages,
    tile_operations,
)
from simulators.statevector.planning.tables import LANE_WIRES, MOST_CROSS, SweepTable

# Lowest places of a tile that are thread bits, so that a request of global memory is lines of 128
# bytes; and number of neighbouring places of which at most one chooses a bank of shared memory.
LOW_PLACES = {"double": 3, "single": 4}
_PRODUCTS_BYTES = 384  # for the products of a PHASE's terms, see kernels/phase.cuh
_WORD = (1 << 64) - 1


class PassProgram(msgspec.Struct, frozen=True, eq=False):
    """One sweep. `live`: wires that may be 1 in an amplitude that is not 0 after it."""

    code: NDArray[np.uint64]
    tile_bits: int  # 2**tile_bits tiles are visited
    live: int


class SweepProgram(msgspec.Struct, frozen=True, eq=False):
    """All sweeps of a table for one precision.

    `taken`: int64 [even number], the position in the table's numbers of each number of the kernel.
    """

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

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""
        pass_bytes = sum(each.code.nbytes for each in self.passes)
        return pass_bytes + self.taken.nbytes + self.terms.nbytes


def encode_sweeps(plan: SweepTable, precision: str) -> SweepProgram:
    """The program of a sweep table."""
    low = LOW_PLACES[precision]
    stages = [
        divide_into_stages(tile_operations(plan, number), plan.width, low)
        for number in range(len(plan.live))
    ]
    return SweepProgram(
        precision,
        plan.width,
        tuple(_pass_program(plan, number, each, low) for number, each in enumerate(stages)),
        _matrix_positions(plan, stages),
        plan.terms.ravel() if plan.terms.size else np.zeros(2, np.uint64),
    )


def _pass_program(
    plan: SweepTable, number: int, stages: tuple[Stage, ...], banks: int
) -> PassProgram:
    wires = plan.places[number, : plan.width].tolist()
    inside = sum(1 << wire for wire in wires)
    outside = int(plan.live[number]) & ~inside & (1 << plan.num_wires) - 1
    gaps = [wire for wire in range(plan.num_wires) if not outside >> wire & 1]
    tile_bits = outside.bit_count()
    encoded = [plan.width, len(stages), tile_bits, len(gaps), *gaps, *wires]
    for k, stage in enumerate(stages):
        is_at_end = k in (0, len(stages) - 1)
        threads = _thread_places(stage.registers, plan.width, 0 if is_at_end else banks)
        packed = _packed(threads)
        encoded += [_packed(stage.registers), packed & _WORD, packed >> 64]
        encoded += [len(stage.maps), len(stage.operations)]
        for op in stage.maps:
            encoded += _map_words(op)
        for op in stage.operations:
            encoded += _operation_words(op, stage.registers)
    return PassProgram(np.array(encoded, np.uint64), tile_bits, outside | inside)


def _thread_places(registers: tuple[int, ...], width: int, banks: int) -> tuple[int, ...]:
    """Places of a thread's bits. The first `banks` of them choose different banks."""
    free = [place for place in range(width) if place not in registers]
    first: list[int] = []
    for place in free:
        if len(first) < banks and all(place % banks != other % banks for other in first):
            first.append(place)
    return (*first, *(place for place in free if place not in first))


def _packed(places: tuple[int, ...]) -> int:
    """Places packed into an integer, a byte each."""
    return sum(place << (8 * k) for k, place in enumerate(places))


def _map_words(op: TileOperation) -> list[int]:
    mask, value, other = op.mask, op.value, op.other
    if op.kind == FLIP:
        mask, other = mask | op.moves, value | op.moves
    return [mask | value << 16 | other << 32, op.outer_mask, op.outer_value]


def _operation_words(op: TileOperation, registers: tuple[int, ...]) -> list[int]:
    head = [op.mask | op.value << 32, op.outer_mask, op.outer_value, op.at]
    if op.phase is None:
        chosen = sum(1 << registers.index(place) for place in op.places)
        return [op.kind | chosen << 8, *head, 0, 0]
    tables = op.phase
    kind = PHASE | tables.crossing << 16 | tables.rows << 32
    return [kind, *head, tables.terms << 32, tables.first_term | LANE_WIRES << 32, *tables.columns]


def _matrix_positions(plan: SweepTable, passes: list[tuple[Stage, ...]]) -> NDArray[np.int64]:
    """Positions of the numbers: in a matrix index the lowest register comes first."""
    result = np.arange(max(2, plan.num_floats + plan.num_floats % 2))
    for stage in (stage for stages in passes for stage in stages):
        for op in stage.operations:
            if op.kind not in (DENSE, REAL) or len(op.places) == 1:
                continue
            ranks = [sum(other < place for other in op.places) for place in op.places]
            size = 1 << len(op.places)
            index = np.arange(size)
            own = np.zeros_like(index)
            for k, rank in enumerate(ranks):
                own |= (index >> rank & 1) << k
            each = 1 if op.kind == REAL else 2
            block = np.arange(size * size * each).reshape(size, size, each)
            end = op.at + block.size
            result[op.at : end] = op.at + block[np.ix_(own, own)].ravel()
    result[plan.num_floats :] = 0
    return result
