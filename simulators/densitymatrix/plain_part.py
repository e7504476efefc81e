"""Parts of circuits for counts, and their counts on few qubits, each in one kernel call."""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import noise as circuit_noise
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.arrays import CircuitArrays
from simulators.circuit.gates import GATES, MEASURE, RESET, UNITARY
from simulators.circuit.ir import Circuit, Table, outcome_width
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0 as FIRST, Q1 as SECOND
from simulators.circuit.passes.components import connect
from simulators.circuit.passes.light_cone import cone_bytes, take_cone, walk_cone
from simulators.compiler.kernel import COMPLEX, I64, U8, U32, WORDS2, kernel, record
from simulators.compiler.simd import take_bytes, take_numbers, take_reals
from simulators.densitymatrix import evolution, fusion
from simulators.densitymatrix.execute import cumulate, draw_records, num_cells, write_outcomes
from simulators.densitymatrix.program import MIN_QUBITS, Program, Segment
from simulators.engine import SAMPLED, BindingResult, Request
from simulators.execution.readout import FlipGroups, ReadoutStage, flip_records
from simulators.execution.requests import BindingRun

# Part of a circuit for counts, in one kernel call.
#
# For circuits without blocks and resets, with fixed gates or gates with parameters on at most two
# qubits, whose measurements are final and whose qubits are all connected. The steps are those of
# `light_cone`, `measurement_layout`, `components` and `program`; other circuits use these modules.

_MCX = GATES["mcx"].code
_NO_ROLES = np.zeros(0, np.int64)  # the roles of operations are not needed


class PlainPart(msgspec.Struct, frozen=True, eq=False, dict=True):
    """Support of counts: the simulated qubits, one segment and the readout error."""

    num_qubits: int
    layouts: MeasurementLayouts  # of the part; operation numbers of the whole circuit
    readout: ReadoutStage | None
    items: NDArray[np.int64]  # see `fusion`; parameter numbers of the whole circuit
    facts: circuit_noise.ChannelFacts
    components: tuple[()] = ()

    @property
    def width(self) -> int:
        return self.num_qubits

    def program(self, *, keep: bool) -> Program:  # noqa: ARG002  # no final state is asked for
        """The program for outputs of clbits."""
        return self._program

    @functools.cached_property
    def _program(self) -> Program:
        steps = (Segment(self.items),) if len(self.items) else ()
        width, gates = max(MIN_QUBITS, self.num_qubits), fusion.fixed_gates().blocks
        live = (0,) * (1 + len(steps))
        return Program(width, steps, live, gates, self.facts.all_matrices, len(self.items))

    @property
    def num_operations(self) -> int:
        """Number of operations, those of the noise too."""
        return len(self.items)

    def own_params(self, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """All parameters of the whole circuit."""
        return params

    def request(self, request: Request, num_qubits: int) -> Request:  # noqa: ARG002  # no observables
        """Request for the whole circuit, unchanged."""
        return request

    @property
    def memory_bytes(self) -> int:
        return self.items.nbytes + 2 * self.layouts.memory_bytes


def plain_part(
    circuit: Circuit, noise: circuit_noise.NoiseProgram, outputs: tuple[str, ...]
) -> PlainPart | None:
    """Part of an admissible circuit, for counts or memory alone; None if the circuit is not of the
    kind of this module."""
    if not SAMPLED.issuperset(outputs) or circuit.conditions_data:
        return None
    sources = _sources(circuit.table)
    if sources is None:
        return None
    size, wires, bits = circuit.ops.size, circuit.num_qubits, circuit.num_clbits
    locations, facts = noise.locations, noise.facts
    items = np.empty((size + len(locations), 5), np.int64)
    layout, sizes = np.empty((3, bits), np.int64), np.empty(2, np.int64)
    room = 8 * 3 * wires + wires + cone_bytes(circuit, len(locations)) + facts.rows.size
    fits = _plain_part(
        CircuitArrays.of(circuit), sources, locations, facts.rows, facts.all_traits,
        np.empty(room, np.uint8), items, layout, sizes,
    )  # fmt: skip
    if not fits:
        return None
    count, width = sizes.tolist()
    source, operations, source_in_whole = layout
    within = MeasurementLayout(_NO_ROLES, source, True, True, operations)
    readout = None
    if noise.readout is not None:
        measured = MeasurementLayout(_NO_ROLES, source_in_whole, True, True, operations)
        readout = ReadoutStage.of(measured, noise.readout)
    return PlainPart(width, MeasurementLayouts(within, within), readout, items[:count], facts)


@functools.lru_cache(maxsize=256)
def _sources(table: Table) -> NDArray[np.int64] | None:
    """TABLE of each row of a circuit's table, see `fusion`; None if it has operations that this
    module does not cover."""
    codes, widths = table.rows[:, 0], table.rows[:, 1]
    others = (codes == RESET) | (codes == UNITARY) | (codes == _MCX)
    others |= (codes > UNITARY) & (widths > 2)
    if others.any():
        return None
    return np.ascontiguousarray(fusion.fixed_gates().sources[codes])


@kernel("CircuitArrays I64 INTS2 I64 U8 U8 INTS2 INTS2 I64 -> INT", group="noise")
def _plain_part(  # type: ignore[no-untyped-def]
    circuit, sources, locations, channels, all_traits, scratch, items, layout, sizes
):
    """Fill `items` (see `program`), `layout` [3, clbits] (the qubit of the part that each clbit
    reads at the end, the operation, and the qubit of the circuit; -1: none) and `sizes` (items,
    qubits); returns 0 if the circuit is not of the kind of this module, else 1.

    `sources`: TABLE of each row of the circuit's table; `channels`: row of each channel in
    `all_traits` and among the matrices. `scratch`: bytes.
    """
    rows, ops, qubits, clbits = circuit.rows, circuit.ops, circuit.qubits, circuit.clbits
    num_qubits = circuit.num_qubits
    parent, scratch = take_numbers(scratch, num_qubits)
    new, scratch = take_numbers(scratch, num_qubits)
    last, scratch = take_numbers(scratch, num_qubits)
    used, scratch = take_bytes(scratch, num_qubits)
    cone, scratch = take_cone(scratch, circuit, locations.shape[0])
    kept, acting, needed = cone.kept, cone.acting, cone.needed
    traits, _ = take_bytes(scratch, channels.size)
    for k in range(channels.size):
        traits[k] = all_traits[channels[k]]
    walk_cone(circuit, 1, 0, 1, locations, traits, cone)

    last[:] = -2
    act = 0
    for place in range(locations.shape[0]):  # acting locations, to the front of `items`
        if acting[place]:
            for column in range(4):
                items[act, column] = locations[place, column]
            for column in (FIRST, SECOND):
                if locations[place, column] >= 0:
                    last[locations[place, column]] = locations[place, AFTER_OP]
            act += 1
    connect(rows, ops, qubits, kept, items[:act], parent)
    width = 0
    root = np.int64(-1)
    for q in range(num_qubits):
        if needed[q]:
            if width > 0 and parent[q] != root:
                return 0
            root = parent[q]
            new[q] = width
            width += 1
    if width == 0:
        return 0

    layout[:] = -1
    used[:] = 0
    at, bit = qubits.size, clbits.size
    for k in range(ops.size - 1, -1, -1):
        code = rows[ops[k], 0]
        at -= rows[ops[k], 1]
        bit -= rows[ops[k], 2]
        if not kept[k]:
            continue
        if code == MEASURE:
            q, clbit = qubits[at], clbits[bit]
            if used[q] or last[q] >= k:
                return 0
            if layout[0, clbit] < 0:
                layout[0, clbit], layout[1, clbit], layout[2, clbit] = new[q], k, q
        else:
            for j in range(at, at + rows[ops[k], 1]):
                used[qubits[j]] = 1

    at = param = place = count = 0
    for k in range(-1, ops.size):
        if k >= 0:
            op = ops[k]
            code, number = rows[op, 0], rows[op, 1]
            if kept[k] and code >= UNITARY and number > 0:
                items[count, fusion.TABLE] = sources[op]
                items[count, fusion.CODE] = code
                items[count, fusion.PARAM] = param
                items[count, fusion.Q0] = new[qubits[at]]
                items[count, fusion.Q1] = new[qubits[at + 1]] if number > 1 else np.int64(-1)
                count += 1
            at += number
            param += rows[op, 3]
        while place < locations.shape[0] and locations[place, AFTER_OP] <= k:
            if acting[place]:
                items[count, fusion.TABLE] = channels[locations[place, CHANNEL]]
                items[count, fusion.CODE] = items[count, fusion.PARAM] = 0
                items[count, fusion.Q0] = new[locations[place, FIRST]]
                second = locations[place, SECOND]
                items[count, fusion.Q1] = new[second] if second >= 0 else np.int64(-1)
                count += 1
            place += 1
    sizes[0], sizes[1] = count, width
    return 1


# Counts of a plain part on few qubits, in one kernel call.
#
# The steps are those of `execute`, `state` and `execution.readout`, and so are the counts; between
# them nothing is allocated. A circuit of five qubits takes less than the calls would.

_MAX_QUBITS = 8  # of wider states, threads share the work
_MAX_CLBITS = 12  # whose outcomes are counted in a table
_SHOTS_AT_ONCE = 1 << 16  # those of one block of `flip_records`
_NONE = np.zeros(0, np.int64)
_EXACT = FlipGroups(  # no readout error
    np.zeros(0, np.uint64), _NONE, _NONE, _NONE, np.zeros(0), np.zeros(0)
)


@record
class CountBuffers(NamedTuple):
    """Result of `_count`, and its scratch."""

    values: I64  # [2^clbits]: the outcomes that occur
    tallies: U32  # [2^clbits], zeros before: how often each does
    cells: I64  # [cells + 1], see `execute.cumulate`
    outcomes: WORDS2  # [2^qubits, 1]
    records: WORDS2  # [shots at once, 1]
    matrix: COMPLEX  # [32]
    scratch: U8


def fits(part: PlainPart, outputs: tuple[str, ...]) -> bool:
    """Return whether `plain_counts` can give these outputs of a part."""
    few = part.num_qubits <= _MAX_QUBITS and part.layouts.clbits.source.size <= _MAX_CLBITS
    return few and outputs == ("counts",)


def plain_counts(part: PlainPart, run: BindingRun) -> BindingResult:
    """Counts of one binding; `run`: of the whole circuit. Raises Stopped."""
    shots = run.request.shots
    items, source = part.items, part.layouts.clbits.source
    flips = _EXACT if part.readout is None else part.readout.groups
    width, outcomes = max(MIN_QUBITS, part.num_qubits), 1 << part.num_qubits
    blocks = len(items) + width
    num_reals = blocks * (fusion.BLOCK + 2) + 18 * width + 2 * fusion.BLOCK + evolution.SCRATCH
    num_reals += (1 << 2 * width) + 2 * (1 << width)
    buffers = CountBuffers(
        np.empty(1 << source.size, np.int64), np.zeros(1 << source.size, np.uint32),
        np.empty(num_cells(outcomes) + 1, np.int64), np.empty((outcomes, 1), np.uint64),
        np.empty((min(shots, _SHOTS_AT_ONCE), 1), np.uint64), np.empty(32, np.complex128),
        np.empty(8 * num_reals, np.uint8),
    )  # fmt: skip
    count = _count(
        items, run.params, fusion.fixed_gates().blocks.reshape(-1),
        part.facts.all_matrices.reshape(-1), part.num_qubits, source, flips, *run.key, shots,
        buffers, run.control.flag,
    )  # fmt: skip
    run.control.check()
    size = outcome_width(source.size)
    return BindingResult(
        size,
        buffers.values[:count].astype(f"<u{size}").tobytes(),
        buffers.tallies[:count].tobytes(),
    )


@kernel(
    "INTS2 F64 REALS REALS INT I64 FlipGroups WORD WORD INT CountBuffers I64 -> INT", group="noise"
)
def _count(  # type: ignore[no-untyped-def]
    items, params, gates, channels, num_qubits, source, flips, seed, binding, shots, buffers,
    control,
):  # fmt: skip
    """Fill the values and tallies of `buffers`; returns the number of outcomes that occur."""
    cells, outcomes, records = buffers.cells, buffers.outcomes, buffers.records
    values, tallies, scratch = buffers.values, buffers.tallies, buffers.scratch
    width = max(np.int64(MIN_QUBITS), num_qubits)
    room = items.shape[0] + width
    low, scratch = take_numbers(scratch, room)
    high, scratch = take_numbers(scratch, room)
    last, scratch = take_numbers(scratch, 2 * width)
    pending, scratch = take_reals(scratch, 16 * width)
    work, scratch = take_reals(scratch, fusion.BLOCK)
    out, scratch = take_reals(scratch, fusion.BLOCK)
    lanes, scratch = take_reals(scratch, evolution.SCRATCH)
    state, scratch = take_reals(scratch, np.int64(1) << 2 * width)
    probs, scratch = take_reals(scratch, np.int64(1) << width)
    edges, scratch = take_reals(scratch, np.int64(1) << num_qubits)
    mats, _ = take_reals(scratch, room * fusion.BLOCK)
    blocks = fusion.FusedBlocks(low, high, mats)
    own = fusion.FusionScratch(last, pending, work, out, buffers.matrix)
    num_tiles = max(np.int64(1), state.size // (16 * evolution.LANES))

    state[:] = 0.0
    evolution.basis_populations(state, width, 1, state[:0])
    number = fusion.fuse_items(items, params, gates, channels, width, blocks, own)
    evolution.multiply_blocks(state, width, blocks, 0, number, 0, num_tiles, lanes, control)
    if control[0]:
        return 0
    evolution.basis_populations(state, width, 0, probs)
    for k in range(probs.size):
        probs[k] = max(probs[k], 0.0)
    cumulate(probs[: edges.size], edges, cells)
    records[0, 0] = 0
    write_outcomes(num_qubits, records[:1], source, outcomes)
    for first in range(0, shots, records.shape[0]):
        if control[0]:
            return 0
        drawn = records[: min(records.shape[0], shots - first)]
        draw_records(edges, cells, outcomes, seed, binding, np.uint64(0), first, drawn)
        flip_records(drawn, first, seed, binding, flips)
        for row in range(drawn.shape[0]):
            tallies[drawn[row, 0]] += 1
    count = 0
    for value in range(tallies.size):
        if tallies[value]:
            values[count], tallies[count] = value, tallies[value]
            count += 1
    return count
