"""Planner of one gate segment, and reports on its sweep tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import TILE_BITS
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.statevector.checkpoint import arrays_of
from simulators.statevector.planning import (
    fusion as f,
    lowering,
    parameter_binding,
    tables as t,
    tile_selection,
)
from simulators.statevector.planning.fusion import COLUMNS as ELEMENT_COLUMNS
from simulators.statevector.planning.tables import OperationRange
from simulators.statevector.small.gate_kernels import COUNTS, MAX_PIECES

# Planner of one gate segment of a wide state, in two parts.
#
# `fuse_segment` lowers and fuses gates, for any machine. `tile_program` divides the fused gates
# into sweeps over tiles: a sweep table for the CPU kernels, and the rules of its coefficients. The
# plan depends on the structure and the tile width alone, never on parameters, threads or ranks. It
# is made once, and each binding only computes its coefficients.

WIDTHS = {"double": 14, "single": 15}  # wires of a tile, at most: 256 kB
LEAST_WIDTH = t.LANE_WIRES + 4  # a gate with three conditions fits
_ROWS = 6  # rows of a table for each block: most need fewer

# Weights for the choice of passes: value of a finished block, and a seed.
_WAYS = ((0.5, 0), (0.2, 0), (1.0, 0), (2.0, 0), (0.5, 1), (0.5, 2))
_WORTH = 0.01  # share of a run's estimated time for the search of other divisions
_UNIT_S = 1e-10  # time of an amplitude for a unit of cost
_PASS_S, _BLOCK_S = 50e-6, 3e-6  # time of planning
_QUARTER = 0.5 * np.pi
_EQUAL = 1e-13  # rad
_MOST_QUARTERS = 256


def tile_width(
    num_qubits: int, precision: str, max_width: int = 0, tile_bits: int = TILE_BITS
) -> int:
    """Wires of a tile: a small state has at least 2**tile_bits tiles, so that threads and ranks can
    share it. `max_width`: of a backend whose tiles are smaller than the processor's; 0: the
    processor's."""
    return min(max_width or WIDTHS[precision], max(LEAST_WIDTH, num_qubits - tile_bits))


def quarter_turns(params: NDArray[np.float64]) -> NDArray[np.int8]:
    """The multiple of a quarter turn that each angle is, modulo 8; -1: none."""
    counts = np.rint(params / _QUARTER)
    is_multiple = np.abs(params - counts * _QUARTER) <= _EQUAL
    # Beyond, multiples of the rounded quarter turn are none of the exact one.
    is_multiple &= np.abs(counts) <= _MOST_QUARTERS
    return np.where(is_multiple, counts % 8.0, -1.0).astype(np.int8)


def _representatives(turns: NDArray[np.int8] | None, count: int) -> NDArray[np.float64]:
    """Angles with these quarter turns, and unrelated ones where there are none: random, so that no
    sum of them, with signs, is a multiple by chance."""
    others = np.random.default_rng(0).uniform(0.1, 1.4, count)
    if turns is None:
        return others
    return np.where(turns[:count] < 0, others, turns[:count] * _QUARTER).astype(np.float64)


class SegmentContext(msgspec.Struct, frozen=True):
    """Facts about the state before and after the segment. `zero`: it begins as |0...0>. `measured`:
    mask of the qubits whose outcomes are the only outputs; -1: all outputs are possible. `turns`:
    `quarter_turns` of the parameters for which the plan is made; None: of any."""

    zero: bool = False
    measured: int = -1
    turns: NDArray[np.int8] | None = None


class SegmentPlan(msgspec.Struct, frozen=True, eq=False):
    """Sweep table of one gate segment, and the rules of its coefficients."""

    where: OperationRange
    sweeps: t.SweepTable
    rules: NDArray[np.int64]  # [rules, RULE_COLUMNS]
    parts: NDArray[np.int64]  # [parts, PART_COLUMNS]: of the rules
    constants: NDArray[np.float64]  # matrices that are given
    num_pieces: int
    costs: tuple[float, ...]  # of each pass, see `tile_selection.plan_cost`

    @property
    def num_steps(self) -> int:
        return len(self.sweeps.ops)

    def arrays(self) -> list[NDArray[Any]]:
        return arrays_of(self.sweeps)

    @property
    def operations(self) -> int:
        return self.where.last - self.where.first

    @property
    def memory_bytes(self) -> int:
        table = self.sweeps
        arrays = (table.starts, table.places, table.live, table.ops, table.terms)
        own = self.rules.nbytes + self.parts.nbytes + self.constants.nbytes
        return own + sum(array.nbytes for array in arrays)

    def floats(self, circuit: Circuit, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coefficients of the table for these parameters."""
        where = self.where
        entries = np.empty((self.num_pieces, 8))
        parameter_binding.pieces_of(circuit.table.rows, circuit.ops, params, where, entries)
        result = np.empty(self.sweeps.num_floats)
        work = np.empty(parameter_binding.SCRATCH)
        parameter_binding.fill(self.rules, self.parts, entries, self.constants, work, result)
        return result


class _LoweredSegment(msgspec.Struct, frozen=True, eq=False):
    """Lowered gates of a segment, in blocks after fusion; see `tables` for the arrays."""

    values: NDArray[np.int64]
    block_of: NDArray[np.int64]  # of each element
    blocks: int
    elements: int
    pieces: int
    rows: int  # rows of numbers of pieces
    rules: NDArray[np.int64]  # of those rows that are products, and their parts
    parts: NDArray[np.int64]


class FusedSegment(msgspec.Struct, frozen=True, eq=False):
    """Fused gates of a segment, from which any backend makes its program."""

    where: OperationRange
    context: SegmentContext
    num_qubits: int
    gates: _LoweredSegment
    constants: NDArray[np.float64]  # matrices that are given


def plan_segment(
    circuit: Circuit, where: OperationRange, context: SegmentContext, width: int
) -> SegmentPlan:
    """Plan the gates among these operations; other operations have no effect. `width`: wires of a
    tile, at least LEAST_WIDTH."""
    return tile_program(fuse_segment(circuit, where, context, width - t.LANE_WIRES), width)


def fuse_segment(
    circuit: Circuit, where: OperationRange, context: SegmentContext, max_permuted: int
) -> FusedSegment:
    """Lower and fuse the gates among these operations, for any machine. `max_permuted`: qubits of
    the widest controlled NOT that is one permutation; a wider one becomes a phase between two
    Hadamard gates."""
    draft, constants = _lowered(circuit, where, context, max_permuted)
    draft = _fused(draft, context)
    return FusedSegment(where, context, circuit.num_qubits, draft, constants)


def tile_program(segment: FusedSegment, width: int) -> SegmentPlan:
    """Sweeps of a fused segment over tiles of `width` wires, for the CPU kernels."""
    draft, num_qubits = segment.gates, segment.num_qubits
    result = _divided(draft, segment.context, width, num_qubits)
    passes, out, done = result.passes, result.out, result.done
    table = t.SweepTable(
        num_qubits, width, result.starts[: passes + 1].copy(),
        result.places[:passes].astype(np.uint64), result.live[:passes].astype(np.uint64),
        out[t.OPS, : done[t.OPS]].astype(np.uint64),
        out[t.TERM_ROWS, : done[t.TERM_ROWS], :2].astype(np.uint64), int(done[t.FLOATS]),
    )  # fmt: skip
    written = out[t.RULES, : done[t.RULES], : t.RULE_COLUMNS]
    parts = np.concatenate((out[t.PARTS, : done[t.PARTS], : t.PART_COLUMNS], draft.parts))
    rules = draft.rules.copy()
    rules[:, t.FIRST_PART : t.END_PART + 1] += done[t.PARTS]
    rules = np.concatenate((rules, written))
    costs = _pass_costs(result, width, num_qubits)
    return SegmentPlan(segment.where, table, rules, parts, segment.constants, draft.rows, costs)


def _lowered(
    circuit: Circuit, where: OperationRange, ends: SegmentContext, max_permuted: int
) -> tuple[_LoweredSegment, NDArray[np.float64]]:
    """Elements, and matrices of the circuit. SWAPs only rename wires: |0...0> may begin with
    permuted qubits, so that at the end each is at its own wire; any other state is reordered at the
    end."""
    rows = circuit.table.rows
    codes = rows[circuit.ops[where.first : where.last], 0]
    matrices = int((codes == UNITARY).sum())
    count = int(COUNTS[codes].sum()) + matrices
    offsets, constants = _circuit_matrices(circuit, matrices)
    n = circuit.num_qubits
    # Rows of pieces, of which there are more than elements: a gate on one qubit has its own, 3 of a
    # merged turn, and 3 of phases beside a real rotation; a gate of ROTATED, which counts as 3, has
    # 6, and 3 such phases for each of its four turns; others have at most 3 for each step.
    room = 8 * (count + np.count_nonzero(lowering.ROTATED[codes])) + n
    values = np.empty((3, room, ELEMENT_COLUMNS), np.int64)
    elements, pieces = values[t.ELEMENTS], values[t.PIECES]
    result, wires = np.array([0, 0, lowering.FIXED_ROWS + count, 0, 0]), np.arange(n)

    def make() -> None:
        lowering.lower(
            rows, circuit.ops, circuit.qubits, circuit.table.matrix, offsets, where, wires,
            max_permuted, np.empty((MAX_PIECES, 4), np.uint64), pieces, elements, result,
        )  # fmt: skip

    make()
    if ends.zero and (wires != np.arange(n)).any():
        wires = np.argsort(wires)
        make()
    lowering.settle(wires, pieces, elements, result)
    rules, parts = _merge_turns(circuit, where, ends, values, result)
    size, num_pieces, num_rows, num_rules, num_parts = result.tolist()
    size = f.merge_phase_gadgets(
        elements, size, pieces, np.empty(64, np.int64), np.empty(64, np.int64)
    )
    if ends.measured >= 0:
        size = lowering.reach(elements, size, ends.measured)
    return _LoweredSegment(
        values,
        np.empty(0, np.int64),
        0,
        size,
        num_pieces,
        num_rows,
        rules[:num_rules],
        parts[:num_parts],
    ), constants


def _merge_turns(
    circuit: Circuit,
    where: OperationRange,
    ends: SegmentContext,
    values: NDArray[np.int64],
    done: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Merge turns on one qubit that are phases (see `lowering.merge_turns`); returns room with the
    rules of their numbers, and with the parts of these."""
    size, num_pieces, num_rows = done[:3].tolist()
    numbers = np.empty((num_rows, 8))
    table = circuit.table.rows
    count = where.at_param + int(table[circuit.ops[where.first : where.last], 3].sum())
    params = _representatives(ends.turns, count)
    parameter_binding.pieces_of(table, circuit.ops, params, where, numbers)
    elements = values[t.ELEMENTS, :size].copy()
    rules = np.zeros((size, t.RULE_COLUMNS), np.int64)
    parts = np.empty((num_pieces, t.PART_COLUMNS), np.int64)
    lowering.merge_turns(
        elements, size, values[t.ELEMENTS], values[t.PIECES], numbers, np.empty((64, 8)),
        np.empty((3, size + 64), np.int64), rules, parts, done,
    )  # fmt: skip
    return rules, parts


def _fused(draft: _LoweredSegment, ends: SegmentContext) -> _LoweredSegment:
    """Blocks of the elements: the cheaper of two fusions, with diagonal gates on two qubits
    multiplied to their neighbours, and with most of them left apart."""
    values, size = draft.values, draft.elements

    def way(eager: int) -> tuple[float, int, NDArray[np.int64], NDArray[np.int64]]:
        fused, block_of = np.empty((size, ELEMENT_COLUMNS), np.int64), np.empty(3 * size, np.int64)
        costs = np.empty(size + 64)
        num_blocks = f.fuse(
            values[t.ELEMENTS], size, fused, block_of, np.empty((7, size + 64), np.int64), costs,
            eager,
        )  # fmt: skip
        return f.fused_cost(fused, num_blocks), num_blocks, fused, block_of

    pairs = values[t.ELEMENTS, :size]
    pairs = pairs[pairs[:, f.KIND] == f.DIAGONAL, f.DIAGONAL_MASK]
    ways = (way(0), way(1)) if (pairs & (pairs - 1)).any() else (way(0),)
    _, num_blocks, fused, block_of = min(ways, key=lambda each: each[0])
    sizes = np.array([num_blocks, size, draft.pieces, draft.rows])
    f.factor_real_rotations(
        fused, block_of, values[t.ELEMENTS], values[t.PIECES], sizes, 1 if ends.zero else 0,
        1 if ends.measured >= 0 else 0, values[t.BLOCKS], np.empty(num_blocks, np.int64),
        np.empty(64, np.int64),
    )  # fmt: skip
    blocks, elements, pieces, rows = sizes.tolist()
    return _LoweredSegment(
        values, block_of, blocks, elements, pieces, rows, draft.rules, draft.parts
    )


class _PassDivision(msgspec.Struct, frozen=True, eq=False):
    """One division of a segment into passes."""

    starts: NDArray[np.int64]
    places: NDArray[np.int64]
    live: NDArray[np.int64]
    out: NDArray[np.int64]  # see `written`
    done: NDArray[np.int64]
    passes: int
    price: float


def _divided(draft: _LoweredSegment, ends: SegmentContext, width: int, n: int) -> _PassDivision:
    """Cheapest of several divisions; more are tried for longer segments."""
    fused_blocks = draft.blocks
    work = np.empty(fused_blocks)
    notes = np.empty((t.NOTES, max(fused_blocks, draft.elements, t.MOST_TERMS) + 64), np.int64)
    tile_selection.sorted_members(
        draft.block_of, draft.elements, fused_blocks, notes[t.STARTS], notes[t.MEMBERS]
    )

    def way(done: float, seed: int) -> _PassDivision:
        tile_selection.block_weights(draft.values[t.BLOCKS], fused_blocks, done, seed, work)
        starts, live = np.empty(fused_blocks + 1, np.int64), np.empty(fused_blocks + 1, np.int64)
        places = np.zeros((fused_blocks, t.MOST_WIDTH), np.int64)
        counters = np.empty(t.COUNTERS, np.int64)
        room = max(_ROWS * fused_blocks + 256, 2 * draft.pieces)
        passes = -1
        while passes < 0:  # more operations than usual: repeat with more room
            out = np.empty((t.TABLES, room, t.OP_COLUMNS), np.int64)
            room *= 2
            passes = tile_selection.partition_into_sweeps(
                draft.values, fused_blocks, notes, work, n, width,
                0 if ends.zero else (1 << n) - 1, starts, places, live, out, counters,
            )  # fmt: skip
        price = tile_selection.plan_cost(out[t.OPS], starts, live, places, passes, width, n)
        return _PassDivision(starts, places, live, out, counters, passes, price)

    best = way(*_WAYS[0])
    spent = _PASS_S * best.passes + _BLOCK_S * fused_blocks
    more = int(_WORTH * best.price * _UNIT_S * 2.0**n / spent) if fused_blocks else 0
    for done, seed in _WAYS[1 : 1 + more]:
        result = way(done, seed)
        if result.price < best.price:
            best = result
    return best


def _pass_costs(way: _PassDivision, width: int, n: int) -> tuple[float, ...]:
    ops = way.out[t.OPS]
    return tuple(
        tile_selection.plan_cost(ops, way.starts[p:], way.live[p:], way.places[p:], 1, width, n)
        for p in range(way.passes)
    )


def _circuit_matrices(circuit: Circuit, used: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Start of each matrix of the circuit among constants (see `lower`), and the constants."""
    if not used:
        return np.zeros(1, np.int64), np.empty(0)
    largest = 16 * 4**lowering.MOST_QUBITS  # bytes
    sizes = np.array(list(map(len, circuit.matrices)))
    small = sizes <= largest
    sizes = sizes // 16 * small
    starts = np.cumsum(sizes) - sizes
    fitting = [data for data in circuit.matrices if len(data) <= largest]
    constants = np.frombuffer(bytearray().join(fitting))
    offsets = np.zeros(len(sizes), np.int64)
    if fitting:
        is_complex = np.logical_or.reduceat(constants[1::2] != 0.0, starts[small])
        offsets[small] = -1 - 2 * starts[small] - ~is_complex
    return offsets, constants


# Reports on sweep tables, for `explain --plan` and for tests that compare plans.

_NAMES = {
    t.SWAP_LANE_ROW: "lane",
    **{t.DENSE + k: f"dense{k}" for k in (1, 2, 3)},
    **{t.REAL + k: f"real{k}" for k in (1, 2, 3)},
    t.PERMUTE_ROWS: "map",
    t.PHASE: "phase",
}


class SweepReport(msgspec.Struct, frozen=True):
    wires: tuple[int, ...]  # wires of its tile above the lanes
    operations: tuple[tuple[str, int], ...]  # number of each kind
    amplitudes: int  # visited amplitudes

    @property
    def text(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.operations)


def describe_sweeps(plan: t.SweepTable) -> tuple[SweepReport, ...]:
    results = []
    for number in range(len(plan.live)):
        places = plan.places[number, : plan.width].tolist()
        alive = int(plan.live[number]) | sum(1 << wire for wire in places)
        rows = plan.ops[plan.starts[number] : plan.starts[number + 1]]
        kinds = Counter(_NAMES[kind] for kind in rows[:, t.KIND].tolist())
        operations = tuple(sorted(kinds.items()))
        results.append(SweepReport(tuple(places[5:]), operations, 1 << alive.bit_count()))
    return tuple(results)
