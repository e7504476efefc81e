"""Profiles of circuits: gate counts, order of the qubits, and widths of networks and cones."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import DENSE_QUBITS, LIGHT_BITS, SMALL_QUBITS
from simulators.circuit.analysis.elimination import (
    DIAGONAL,
    DRAWN,
    PERMUTING,
    RELABELING,
    UNKNOWN,
    Elimination,
    elimination,
    gate_network,
    is_loaded as elimination_is_loaded,
    load as load_elimination,
)
from simulators.circuit.analysis.measurements import has_mid_circuit_ops
from simulators.circuit.analysis.profile import LightConeSize, Profile
from simulators.circuit.arrays import CircuitArrays
from simulators.circuit.gates import GATES, UNITARY
from simulators.circuit.ir import Circuit, register_starts, shown_clbits
from simulators.circuit.passes import light_cone
from simulators.circuit.passes.components import extract_part, partition
from simulators.circuit.validation import operations
from simulators.circuit.validation.operations import MCX
from simulators.compiler.kernel import kernel
from simulators.compiler.simd import take_numbers
from simulators.dynamic.liveness import recorded_bits

# Size of the tensor networks from which a circuit's counts are sampled (`elimination`), from the
# codes of its gates alone.

_MOST_INDICES = 4_096  # no size is computed for a longer circuit
_SWAP = GATES["swap"].code
# Gates that permute basis states up to phases: bits follow them, and none is drawn.
_PERMUTING = {
    *(GATES[name].code for name in ("x", "y", "cx", "cy", "swap", "iswap", "ccx", "cswap")),
    MCX,
}


def moved_qubits(code: int, count: int) -> tuple[bool, ...]:
    """True for each qubit along which a gate moves amplitude; it is diagonal on the others."""
    moves = int(light_cone.GATE_KINDS[code, 0])
    return tuple(
        moves < 0 or (count - 1 - j < 62 and bool(moves >> (count - 1 - j) & 1))
        for j in range(count)
    )


def contraction_size(circuit: Circuit) -> Elimination:
    """Messages of the networks, not sliced, without their code. Their width is -1 if the circuit is
    too long, or if a message is above `elimination.MOST_BITS`."""
    network = gate_network(circuit.num_qubits, _factors(circuit))
    return UNKNOWN if network.size > _MOST_INDICES else elimination(network, code=False)


def _factors(circuit: Circuit) -> Iterator[tuple[tuple[int, ...], tuple[bool, ...], int]]:
    """Qubits of each factor of a network, those that it moves, and its kind: gates on several
    qubits, and products of the gates on one qubit between these."""
    rows, qubits, at = circuit.table.rows.tolist(), circuit.qubits.tolist(), 0
    waiting: dict[int, int] = {}  # kinds of products
    for row in circuit.ops.tolist():
        code, count = rows[row][:2]
        own, at = tuple(qubits[at : at + count]), at + count
        if code < UNITARY or not count:
            continue
        moved = moved_qubits(code, count)
        kind = _kind(code, moved)
        if count == 1:
            before = waiting.get(own[0], DIAGONAL)
            # A product is drawn if a factor is, and else permutes if one does.
            waiting[own[0]] = next(k for k in (DRAWN, PERMUTING, DIAGONAL) if k in (before, kind))
            continue
        for q in own:
            if q in waiting:
                yield _product(q, waiting.pop(q))
        yield own, moved, kind
    for q, kind in waiting.items():
        yield _product(q, kind)


def _kind(code: int, moved: tuple[bool, ...]) -> int:
    if code == _SWAP:
        return RELABELING
    return PERMUTING if code in _PERMUTING else DRAWN if any(moved) else DIAGONAL


def _product(qubit: int, kind: int) -> tuple[tuple[int, ...], tuple[bool, ...], int]:
    return (qubit,), (kind != DIAGONAL,), kind


# Order of a circuit's qubits in a chain of tensors, with few gates across any cut.
#
# On the graph of the qubits, whose edges are the gates, two kinds of orders are compared with the
# circuit's own: reverse Cuthill-McKee, which makes the bandwidth of the graph small (Cuthill and
# McKee, 1969; George, 1971), and the greedy ones, which from some first qubit on take the neighbour
# that leaves the fewest edges across the cut. The cheapest one is taken: each edge across a cut is
# a split there of tensors whose bonds grow with two to the number of these edges. Only for circuits
# that `admission.validation_error` admitted.

ORDERED_QUBITS = DENSE_QUBITS  # narrower circuits run as they are: equal counts on all engines
_MOST_EDGES = 1 << 16  # connected pairs of qubits; with more, no order is much better
_TRIED_EDGES = 1 << 16  # of all greedy orders of a component together
_MOST_BITS = 1_000  # of a bond, within the range of floats
_FIRST_TWO = np.triu_indices(2, 1)


def gate_pairs(circuit: Circuit) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of qubits that gates connect, int64 [pairs, 2], each once, the lower one first; and the
    number of gates of each, int64 [pairs]."""
    counts = circuit.table.rows[:, 1][circuit.ops]
    joining = (circuit.table.rows[:, 0] >= UNITARY) & (circuit.table.rows[:, 1] > 1)
    joins = np.flatnonzero(joining[circuit.ops])
    widths = counts[joins]
    first = (counts.cumsum() - counts)[joins]
    qubits, size = circuit.qubits.astype(np.int64), circuit.num_qubits
    codes = []
    for width in sorted(set(widths.tolist())):
        wires = qubits[first[widths == width, None] + np.arange(width)]
        low, high = _FIRST_TWO if width == 2 else np.triu_indices(width, 1)
        a, b = wires[:, low], wires[:, high]
        codes.append((np.minimum(a, b) * size + np.maximum(a, b)).ravel())
    if not codes:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    found, counts = np.unique(np.concatenate(codes), return_counts=True)
    return np.stack(np.divmod(found, size), axis=1), counts


def chain_order(circuit: Circuit) -> tuple[int, ...] | None:
    """Site of each qubit in a better order; None if the circuit's own order is kept."""
    size = circuit.num_qubits
    if size <= ORDERED_QUBITS:
        return None
    pairs, gates = gate_pairs(circuit)
    if not len(pairs) or len(pairs) > _MOST_EDGES or (np.diff(pairs, axis=1) == 1).all():
        return None
    return _best_sites(pairs.tobytes(), gates.tobytes(), size)


@functools.lru_cache(maxsize=64)
def _best_sites(pairs_data: bytes, gates_data: bytes, size: int) -> tuple[int, ...] | None:
    """Sites as in `chain_order`, for these arrays of `gate_pairs`."""
    pairs = np.frombuffer(pairs_data, np.int64).reshape(-1, 2)
    gates = np.frombuffer(gates_data, np.int64)
    near: Neighbours = [{} for _ in range(size)]
    for (a, b), count in zip(pairs.tolist(), gates.tolist(), strict=True):
        near[a][b] = near[b][a] = count
    orders = [[*range(size)], cuthill_mckee(near)[::-1], _greedy_order(near)]
    if (gates != gates[0]).any():
        orders.append(_greedy_order([dict.fromkeys(each, 1) for each in near]))
    own, *others = map(_sites, orders)
    best = min((own, *others), key=lambda sites: chain_cost(pairs, gates, sites))
    return None if best is own else tuple(best.tolist())


Neighbours = list[dict[int, int]]  # by qubit: number of gates with each other one


def _sites(order: list[int]) -> NDArray[np.int64]:
    result = np.empty(len(order), np.int64)
    result[order] = np.arange(len(order))
    return result


def chain_cost(
    pairs: NDArray[np.int64], gates: NDArray[np.int64], sites: NDArray[np.int64]
) -> tuple[float, int]:
    """Cost of an order: sum over the cuts of g 2^k for g gates and k pairs across it, two to the
    number of sites on one side at most; and the largest distance of a pair."""
    size = sites.size
    ends = np.sort(sites[pairs], axis=1)

    def across(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        begun, ended = (np.bincount(ends[:, k], weights, minlength=size) for k in range(2))
        return np.cumsum(begun - ended)[:-1]

    sides = np.minimum(np.arange(1, size), np.arange(size - 1, 0, -1))
    bits = np.minimum(np.minimum(across(np.ones_like(gates)), sides), _MOST_BITS)
    longest = int((ends[:, 1] - ends[:, 0]).max(initial=0))
    return float(np.sum(across(gates) * 2.0**bits)), longest


def _greedy_order(near: Neighbours) -> list[int]:
    """Qubits in the cheapest greedy order of each component."""
    order: list[int] = []
    seen = [False] * len(near)
    for start in range(len(near)):
        if seen[start]:
            continue
        component = _breadth_first([*map(list, near)], start)
        edges = sum(len(near[qubit]) for qubit in component) // 2
        tries = min(len(component), max(1, _TRIED_EDGES // max(1, edges)))
        starts = [component[len(component) * k // tries] for k in range(tries)]
        order += min((_greedy_from(near, each) for each in starts), key=lambda each: each[0])[1]
        for qubit in component:
            seen[qubit] = True
    return order


def _greedy_from(near: Neighbours, start: int) -> tuple[float, list[int]]:
    """Greedy order of the qubits that can be reached from one, the oldest first of equal ones; and
    its cost, about that of `chain_cost`."""
    order: list[int] = []
    added = {start: (0, 0, start)}  # by qubit: gates that it adds to the cut; its age
    heap = [added[start]]
    taken = set[int]()
    pairs, gates, cost = 0, 0, 0.0
    while heap:
        entry = heapq.heappop(heap)
        qubit = entry[2]
        if qubit in taken or added[qubit] != entry:
            continue
        taken.add(qubit)
        order.append(qubit)
        for other, count in near[qubit].items():
            if other in taken:
                pairs, gates = pairs - 1, gates - count
                continue
            pairs, gates = pairs + 1, gates + count
            more, age, _ = added.get(other, (sum(near[other].values()), len(order), other))
            added[other] = more - 2 * count, age, other
            heapq.heappush(heap, added[other])
        cost += gates * 2.0 ** min(pairs, _MOST_BITS)
    return cost, order


def cuthill_mckee(near: Neighbours) -> list[int]:
    """Qubits in the order of Cuthill and McKee, component by component: breadth first from an end
    of the component, neighbours by ascending degree."""
    degree = [len(each) for each in near]
    neighbours = [sorted(each, key=lambda qubit: (degree[qubit], qubit)) for each in near]
    order: list[int] = []
    seen = [False] * len(near)
    for start in sorted(range(len(near)), key=lambda qubit: (degree[qubit], qubit)):
        if seen[start]:
            continue
        far = start
        for _ in range(2):  # twice to the farthest qubit: nearly a longest path (Lewis, 1982)
            far = _breadth_first(neighbours, far)[-1]
        component = _breadth_first(neighbours, far)
        for qubit in component:
            seen[qubit] = True
        order += component
    return order


def _breadth_first(neighbours: list[list[int]], start: int) -> list[int]:
    """Qubits that can be reached from `start`, nearest first."""
    results = [start]
    reached = {start}
    for qubit in results:
        for each in neighbours[qubit]:
            if each not in reached:
                reached.add(each)
                results.append(each)
    return results


class ChainPart(msgspec.Struct, frozen=True, eq=False):
    """Gates of a circuit that a chain of tensors takes for some outputs, and its order."""

    circuit: Circuit  # on all qubits
    params: NDArray[np.int64] | None  # numbers of its parameters in the whole circuit; None: all
    order: tuple[int, ...] | None  # see `chain_order`


def chain_support(
    circuit: Circuit, outputs: tuple[str, ...], labels: Iterable[str] = ()
) -> light_cone.OutputSupport | None:
    """Support of the outputs for `chain_part`; None: the whole circuit."""
    if not outputs or circuit.num_qubits <= ORDERED_QUBITS:
        return None
    return light_cone.output_support(outputs, labels, circuit)


def chain_part(circuit: Circuit, support: light_cone.OutputSupport | None) -> ChainPart:
    """Operations of an admissible circuit, whose measurements are final, in the light cone of its
    outputs: gates that change no outcome are left out, above all phases before a measurement."""
    if support is None or circuit.num_qubits <= ORDERED_QUBITS:
        return ChainPart(circuit, None, chain_order(circuit))
    cone = light_cone.light_cone(circuit, support)
    part = extract_part(circuit, cone.kept, np.arange(circuit.num_qubits))
    return ChainPart(part.circuit, part.params, chain_order(part.circuit))


# Numbers of the light cone of a circuit's clbits, in one kernel call.
#
# The steps are those of `components.partition`, for cones whose qubits are all connected.

_GONE, _SEVERAL, _NEEDED, _OPERATIONS, _ONE, _TWO, _MANY = range(7)  # of `totals`


def cone_size(circuit: Circuit) -> tuple[LightConeSize | None, bool]:
    """Return the size of the light cone of all clbits, None if it is the whole circuit; and whether
    an admissible circuit has several independent parts, which are not measured."""
    if not is_loaded():  # load all now, not at the first circuit that needs the rest
        light_cone.load()
        load_elimination()
    wires, bits, size = circuit.num_qubits, circuit.num_clbits, circuit.ops.size
    totals = np.empty(7, np.int64)
    num_bytes = 8 * (wires + bits + 1 + size) + light_cone.cone_bytes(circuit)
    _measure_cone(
        CircuitArrays.of(circuit), circuit.conditions, register_starts(circuit),
        int(bool(circuit.conditions_data)), light_cone.NO_PLACES, np.empty(num_bytes, np.uint8),
        totals,
    )  # fmt: skip
    gone, several, needed, *counts = totals.tolist()
    if several or (needed == wires and not gone):
        return None, bool(several)
    width = max(1, needed)
    return LightConeSize(width, width, *counts), False


def is_loaded() -> bool:
    """Return whether the kernels that profile wide circuits are loaded. The first call of
    `cone_size` loads them, which takes seconds if they must be compiled."""
    return _measure_cone.is_loaded and light_cone.is_loaded() and elimination_is_loaded()


@kernel("CircuitArrays I32 I64 INT INTS2 U8 I64", group="light_cone")
def _measure_cone(circuit, tokens, starts, blocks, places, scratch, totals):  # type: ignore[no-untyped-def]
    """Fill `totals`, by the names above; `blocks`: there are conditions. `places`: empty.
    `scratch`: bytes."""
    num_qubits = circuit.num_qubits
    first_op = num_qubits + circuit.num_clbits + 1
    rows, ops = circuit.rows, circuit.ops
    parent, scratch = take_numbers(scratch, first_op + ops.size)
    cone, _ = light_cone.take_cone(scratch, circuit, 0)
    kept, needed = cone.kept, cone.needed
    totals[:] = 0
    totals[_GONE] = light_cone.walk_cone(circuit, 1, blocks, blocks, places, scratch[:0], cone)
    totals[_SEVERAL] = light_cone.walk_components(
        circuit, tokens, starts, num_qubits, first_op, kept, needed, parent
    )
    for q in range(num_qubits):
        totals[_NEEDED] += needed[q]
    if totals[_SEVERAL] or (totals[_NEEDED] == num_qubits and not totals[_GONE]):
        return  # no cone of its own: nothing to count
    for k in range(ops.size):
        if kept[k]:
            totals[_OPERATIONS] += 1
            if rows[ops[k], 0] >= UNITARY:
                width = rows[ops[k], 1]
                totals[_ONE if width <= 1 else _TWO if width == 2 else _MANY] += 1


# Computation of a circuit's `Profile`: gate counts, Clifford structure, entanglement bound.
#
# `bond_bits` is an upper bound on log2 of the MPS bond dimension: at each cut between neighbours,
# every gate across the cut multiplies the bond dimension by at most the operator Schmidt rank, and
# no bond is larger than the smaller side allows. Only for circuits that
# `admission.validation_error` admitted; loop bodies are counted once. Where `profiler` puts qubits
# into another order, the bound is that of this order.

_MOST_NARROW = 4_096  # profiles that are kept

_MOST_FOLLOWED = 20_000  # operations of a circuit whose records are counted
_narrow: dict[tuple[int, int, int, bytes], Profile] = {}


class CircuitTraits(msgspec.Struct, frozen=True):
    """Clifford structure and entanglement bound of a circuit."""

    clifford: bool  # all gates are Clifford gates
    may_be_clifford: bool  # no known gate is non-Clifford; free parameters and matrices are open
    by_angles: bool  # both values depend on angles
    bond_bits: int  # log2 of a bound on any bond in qubit order; -1: unknown
    longest: int  # largest distance of two qubits of a gate


def traits(circuit: Circuit, support: light_cone.OutputSupport | None = None) -> CircuitTraits:
    """Traits of an admissible circuit; the bound for outputs with this support (None: of the whole
    circuit)."""
    found = operations.checked(circuit)[1].tolist()
    bond_bits, longest = found[operations.BOND_BITS], found[operations.LONGEST]
    # A chain of neighbours with small bonds needs no other order and no fewer gates.
    if bond_bits > 1 and (longest > 1 or support is not None):
        part = chain_part(circuit, support)
        order = part.order or range(circuit.num_qubits - 1, -1, -1)
        sites = np.array(order, np.uint16)[part.circuit.qubits]
        ordered = operations.check(part.circuit, sites)[1]
        bond_bits, longest = int(ordered[operations.BOND_BITS]), int(ordered[operations.LONGEST])
    other = found[operations.OTHER]
    may_be = not (other or found[operations.BETWEEN])
    return CircuitTraits(
        clifford=may_be and not found[operations.OPEN],
        may_be_clifford=may_be,
        by_angles=bool(found[operations.ANGLED] and not other),
        bond_bits=bond_bits,
        longest=longest,
    )


def non_clifford_gates(circuit: Circuit) -> int:
    """Number of non-Clifford gates, by the rules of `traits`: free parameters and matrices are
    open, and not counted."""
    is_free = np.zeros(circuit.params.size, np.uint8)
    is_free[circuit.slots[::2]] = 1
    count: int = operations.count_non_clifford(
        circuit.table.rows, operations.KINDS, circuit.ops, circuit.params, is_free
    )
    return count


def profile(
    circuit: Circuit,
    outputs: tuple[str, ...] = (),
    labels: Iterable[str] = (),
    *,
    networks: bool = True,
) -> Profile:
    """Profile of an admissible circuit. `outputs`: requested outputs, with the `labels` of all
    Pauli strings; without outputs the light cone is not computed. `networks`: with the sizes of
    contractions, see `with_networks`."""
    found = operations.checked(circuit)[1]
    if circuit.num_qubits > SMALL_QUBITS or found[operations.MANY_QUBIT] or circuit.conditions_data:
        own = _profile(circuit, outputs, labels)
        return with_networks(own, circuit) if networks else own
    # A profile of such a circuit depends on nothing else.
    key = circuit.num_qubits, _output_bits(circuit), len(circuit.variables), found.tobytes()
    result = _narrow.get(key)
    if result is None:
        if len(_narrow) >= _MOST_NARROW:
            _narrow.clear()
        result = _narrow[key] = _profile(circuit, outputs, labels)
    return result


def with_networks(profile: Profile, circuit: Circuit) -> Profile:
    """Profile with the sizes of the circuit's contractions, which takes a while, unless amplitudes
    or small bonds suit the circuit: then none is considered."""
    is_easy = circuit.num_qubits <= DENSE_QUBITS or 0 <= profile.bond_bits <= LIGHT_BITS
    if is_easy or profile.clifford:
        return profile
    networks = contraction_size(circuit)
    return msgspec.structs.replace(
        profile,
        contraction_width=networks.widest,
        contraction_operations=networks.operations,
        contraction_messages=networks.messages,
        contraction_values=networks.slots,
    )


def _output_bits(circuit: Circuit) -> int:
    """Number of clbits that results show."""
    shown = shown_clbits(circuit)
    return circuit.num_clbits if shown is None else shown.size


def _recorded(circuit: Circuit, outputs: tuple[str, ...]) -> tuple[int, int]:
    """Bits of a record at once, of a circuit with hidden bits, and measurements that are recorded
    before the end; -1 for a circuit that is too long, or narrow and without hidden bits, whose
    profile must take little time."""
    hides = shown_clbits(circuit) is not None
    if circuit.ops.size > _MOST_FOLLOWED or not (hides or circuit.num_qubits > SMALL_QUBITS):
        return -1, -1
    most, count = recorded_bits(circuit, keep=outputs == ("expectation",))
    return (most if hides else -1), count


def _profile(circuit: Circuit, outputs: tuple[str, ...], labels: Iterable[str]) -> Profile:
    labels = tuple(labels)
    result = operations.checked(circuit)[1].tolist()
    branching = result[operations.BRANCHES] > 0
    if result[operations.OWNERS]:
        branching = has_mid_circuit_ops(circuit, np.empty(circuit.ops.size, np.int64))
    more = traits(circuit, None if branching else chain_support(circuit, outputs, labels))
    recorded, divisions = _recorded(circuit, outputs) if branching else (-1, 0)
    return Profile(
        num_qubits=circuit.num_qubits,
        num_clbits=_output_bits(circuit),
        operations=circuit.ops.size,
        gates_1q=result[operations.ONE_QUBIT],
        gates_2q=result[operations.TWO_QUBIT],
        gates_many=result[operations.MANY_QUBIT],
        measurements=result[operations.MEASUREMENTS],
        resets=result[operations.RESETS],
        mid_circuit=branching,
        conditions=result[operations.IFS] + result[operations.SWITCHES],
        loops=result[operations.LOOPS],
        switches=result[operations.SWITCHES],
        variables=len(circuit.variables),
        stores=result[operations.STORES],
        unitaries=result[operations.UNITARIES],
        clifford=more.clifford,
        may_be_clifford=more.may_be_clifford,
        by_angles=more.by_angles,
        bond_bits=more.bond_bits,
        longest=more.longest,
        partners=most_partners(circuit) if circuit.num_qubits > SMALL_QUBITS else 0,
        widest=_widest(circuit) if result[operations.MANY_QUBIT] else 2,
        kept=_light_cone_size(circuit, outputs, labels)
        if circuit.num_qubits > SMALL_QUBITS and outputs
        else None,
        recorded=recorded,
        divisions=divisions,
    )


def most_partners(circuit: Circuit) -> int:
    """Most qubits with which one shares gates on two qubits."""
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1]) - rows[:, 1]
    first = begins[(rows[:, 1] == 2) & (rows[:, 0] >= UNITARY)]
    if not first.size:
        return 0
    one, two = circuit.qubits[first].astype(np.int64), circuit.qubits[first + 1].astype(np.int64)
    pairs = np.unique(np.minimum(one, two) * circuit.num_qubits + np.maximum(one, two))
    ends = np.concatenate((pairs // circuit.num_qubits, pairs % circuit.num_qubits))
    return int(np.bincount(ends).max())


def _light_cone_size(
    circuit: Circuit, outputs: tuple[str, ...], labels: Iterable[str]
) -> LightConeSize | None:
    support = light_cone.output_support(outputs, labels, circuit)
    if support is not None and support.clbits and not support.levels:
        kept, several = cone_size(circuit)
        if not several:
            return kept
    result = partition(circuit, support)
    if not result.parts:
        return None
    rows = circuit.table.rows
    counts = np.bincount(circuit.ops[result.kept], minlength=len(rows)).tolist()
    widths = [0, 0, 0]  # by number of qubits: up to 1, 2, more
    for number, (code, wires, _, _) in zip(counts, rows.tolist(), strict=True):
        if code >= UNITARY:
            widths[min(2, max(0, wires - 1))] += number
    return LightConeSize(
        num_qubits=result.num_qubits,
        widest=result.widest,
        operations=sum(counts),
        gates_1q=widths[0],
        gates_2q=widths[1],
        gates_many=widths[2],
    )


def _widest(circuit: Circuit) -> int:
    rows = circuit.table.rows[np.unique(circuit.ops)]
    return int(rows[rows[:, 0] >= UNITARY, 1].max())
