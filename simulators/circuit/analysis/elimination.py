"""Elimination of the indices of a circuit's network, for samples drawn gate by gate.

The network of an amplitude has an index for each stretch of a qubit's line on which no gate moves
amplitude, and a tensor for each gate. It is summed index by index: the tensors that have an index
are multiplied, and its sum is their message to the next index in the order among those it has
(bucket elimination: Dechter, Artificial Intelligence 113, 41, 1999). A sample takes amplitudes of
each prefix of the circuit (Bravyi, Gosset and Liu, Phys. Rev. Lett. 128, 220503, 2022). One order,
that of the whole circuit, serves all prefixes: restricted to the indices that a prefix sums, it is
an order of an induced subgraph, with no larger messages but for the indices that are drawn, which
come last. A message is computed again only if a tensor or a message in it has changed.

The order is that of least fill with random choices among equal ones, the cheapest of a few. Indices
may be sliced: one value at a time, all values added up before bits are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, REALS, device_function, kernel, record

MOST_BITS = 30  # log2 of the values of a message, at most
TABLE_BITS = 4  # log2 of the values of a product of gates, unless one of them has more
# Orders: at least the first number, and more, at most the second, up to so many comparisons (20 ms)
# while the messages of the best one have more values than the fourth.
_TRIES = 8, 256, 2**25, 2**12
_SCALED = 64  # tensors and sums after which a message is scaled

DIAGONAL, DRAWN, PERMUTING, RELABELING = range(4)  # kinds of gates


class GateNetwork(msgspec.Struct, frozen=True, eq=False):
    """Indices of the gates' tensors, numbered from 0 as they begin; each qubit begins in |0>,
    without an index."""

    begins: NDArray[np.int64]  # [nodes + 1], in `indices`
    indices: NDArray[np.int64]  # of each node in the order of its qubits: the new one, the old one
    kinds: NDArray[np.int64]  # [nodes]
    ends: NDArray[np.int64]  # [nodes + 1], in `wires`
    wires: NDArray[np.int64]  # [wires, 2] index of each of its qubits before and after, -1: |0>
    places: NDArray[np.int64]  # [nodes] number of the gate of each node
    line: tuple[int, ...]  # last index of each qubit, or -1
    size: int  # number of indices

    @property
    def drawn(self) -> int:
        """Number of nodes up to the last gate after which bits are drawn."""
        found = np.flatnonzero(self.kinds == DRAWN)
        return int(found[-1]) + 1 if found.size else 0


def gate_network(
    num_qubits: int, gates: Iterable[tuple[tuple[int, ...], tuple[bool, ...], int]]
) -> GateNetwork:
    """Network of gates: qubits, the ones that each moves, and its kind. A diagonal gate on qubits
    in |0> and a relabeling of two qubits have no node."""
    line, size = [-1] * num_qubits, 0
    begins, indices, kinds, ends, places = [0], list[int](), list[int](), [0], list[int]()
    wires: list[tuple[int, int]] = []
    for place, (qubits, moved, kind) in enumerate(gates):
        if kind == RELABELING:
            a, b = qubits
            line[a], line[b] = line[b], line[a]
            continue
        for qubit, moves_it in zip(qubits, moved, strict=True):
            old = line[qubit]
            if moves_it:
                line[qubit] = size
                indices.append(size)
                size += 1
            if old >= 0:
                indices.append(old)
            wires.append((old, line[qubit]))
        if len(indices) == begins[-1]:
            del wires[ends[-1] :]
            continue
        begins.append(len(indices))
        kinds.append(kind)
        ends.append(len(wires))
        places.append(place)
    return GateNetwork(
        np.array(begins), np.array(indices, np.int64), np.array(kinds, np.int64), np.array(ends),
        np.array(wires, np.int64).reshape(-1, 2), np.array(places, np.int64), tuple(line), size,
    )  # fmt: skip


class Elimination(msgspec.Struct, frozen=True, eq=False):
    """Messages of all prefixes in one order. Their code is a sequence of

    MESSAGE | ROOT, slot, bits, scaled, groups, messages, tables..., messages...
        a table: mask, nodes, (node, axes, (bit of the table, or -1 - a known index)...)...
        a message: slot, mask
    SLICES, indices, (index)..., length of the code that is repeated for all their values
    DRAW, indices, (index of each bit of the last ROOT)..., node
    PERMUTE, node, qubits, (index before, or -1, and after)...

    A mask has the bits of the values that are multiplied; bit 0 of a MESSAGE is summed. Slots are
    numbers of values of one shot."""

    code: NDArray[np.int64]
    slots: int  # values of all messages
    widest: int  # log2 of the values of the largest tensor; -1: above MOST_BITS
    whole: int  # the same without slices
    operations: float  # products of values, of one shot
    messages: int
    sliced: tuple[int, ...]
    operands: int  # at most of a message
    table_values: int  # of the tables of a message, at most
    drawn: int  # indices of a draw, at most

    @property
    def slices(self) -> int:
        return 1 << len(self.sliced)


MESSAGE, ROOT, SLICES, DRAW, PERMUTE = range(5)
UNKNOWN = Elimination(np.zeros(0, np.int64), 0, -1, -1, 0.0, 0, (), 0, 0, 0)

# Of `MessageArrays.totals`.
_CODE, _MESSAGES, _WIDEST, _OPERANDS, _TABLES, _LAST, _FAILED, _SIZE = range(8)


def elimination(
    network: GateNetwork,
    *,
    most_values: int = 1 << MOST_BITS,
    most_bits: int = MOST_BITS,
    most_slices: int = 1,
    code: bool = True,
) -> Elimination:
    """Messages of a network in the best order found. Indices are sliced until all messages together
    have at most `most_values`, and each tensor at most 2^most_bits, or up to `most_slices`. `code`:
    whether it is needed."""
    nodes = network.drawn
    wires = network.wires[: network.ends[nodes]]
    free = np.unique(wires[(wires[:, 0] >= 0) & (wires[:, 0] != wires[:, 1]), 0])
    order = least_fill(network, nodes, free)
    if order is None:
        return UNKNOWN
    ranks = np.full(network.size, -1, np.int64)
    ranks[order] = np.arange(len(order))
    sliced: list[int] = []
    found, most = _walked(network, ranks, sliced)
    if found is None or found.widest - most_bits >= most_slices.bit_length():
        return found or UNKNOWN  # an index halves a tensor at best
    whole = found.widest
    while found is not None and (found.widest > most_bits or found.slots > most_values):
        if 2 << len(sliced) > most_slices or len(sliced) == free.size:
            break
        sliced.append(_next_slice(network, nodes, order, sliced))
        found, most = _walked(network, ranks, sliced)
    if found is not None and code:
        found, _ = _walked(network, ranks, sliced, found, most)
    if found is None:
        return UNKNOWN
    return msgspec.structs.replace(found, whole=whole, code=found.code if code else UNKNOWN.code)


def _of_indices(network: GateNetwork, nodes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nodes of each index, ascending: begins, and their numbers."""
    used = network.indices[: network.begins[nodes]]
    owners = np.repeat(np.arange(nodes), np.diff(network.begins[: nodes + 1]))
    begins = np.zeros(network.size + 1, np.int64)
    np.cumsum(np.bincount(used, minlength=network.size), out=begins[1:])
    return begins, owners[np.argsort(used, kind="stable")]


def _walked(
    network: GateNetwork,
    ranks: NDArray[np.int64],
    sliced: list[int],
    found: Elimination | None = None,
    most: NDArray[np.int64] | None = None,
) -> tuple[Elimination | None, NDArray[np.int64]]:
    """Numbers of the messages, and log2 of the values of each; the code as well, if both were found
    before. None if a message is above MOST_BITS."""
    size, nodes = network.size, len(network.kinds)
    drawn = int(np.diff(network.ends)[network.kinds == DRAWN].max(initial=0))
    count = int(ranks.max(initial=-1)) + 1
    begins, owners = _of_indices(network, nodes)
    slots, bits = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    if most is not None:
        sizes = np.where(most >= 0, 1 << np.maximum(most, 0), 0)
        np.cumsum(sizes[:-1], out=slots[1:])
    code = np.zeros(0 if found is None else found.code.size, np.int64)
    totals, reals = np.zeros(_SIZE, np.int64), np.zeros(1)
    is_sliced = np.zeros(size, np.int64)
    is_sliced[sliced] = 1
    arrays = NetworkArrays(
        network.begins, network.indices, network.kinds, network.ends, network.wires.reshape(-1),
        begins, owners,
    )  # fmt: skip
    state = EliminationState(*np.zeros((15, max(size, nodes, count + drawn) + 1), np.int64))
    _walk(
        arrays, ranks.copy(), is_sliced, MessageArrays(slots, bits, code, totals, reals), state,
        np.zeros((count + 1, MOST_BITS + 2), np.int64),
    )  # fmt: skip
    if totals[_FAILED]:
        return None, bits
    if found is None:  # its size is what a second walk needs
        code = np.zeros(int(totals[_CODE]), np.int64)
    values = int(np.where(bits >= 0, 1 << np.maximum(bits, 0), 0).sum())
    widest = int(totals[_WIDEST])
    result = Elimination(
        code, values, widest, widest, float(reals[0]), int(totals[_MESSAGES]), tuple(sliced),
        int(totals[_OPERANDS]), int(totals[_TABLES]), drawn,
    )  # fmt: skip
    return result, bits


def least_fill(
    network: GateNetwork, nodes: int, free: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """The summed indices in an order of their elimination; None if a message is above MOST_BITS in
    all orders that were tried."""
    ids = np.full(network.size, -1, np.int64)
    ids[free] = np.arange(free.size)
    used = ids[network.indices[: network.begins[nodes]]]
    owners = np.repeat(np.arange(nodes), np.diff(network.begins[: nodes + 1]))
    used, owners = used[used >= 0], owners[used >= 0]
    begins = np.searchsorted(owners, np.arange(nodes + 1))
    room = 64 * free.size + 4 * int((np.diff(begins) ** 2).sum()) + 1024
    best = np.zeros(free.size, np.int64)
    cost = _least_fill(
        begins, used, best, np.zeros(free.size, np.int64), np.array(_TRIES),
        np.zeros(room, np.int64), np.zeros((7, free.size + 1), np.int64),
    )  # fmt: skip
    return free[best] if cost < math.inf else None


def _next_slice(
    network: GateNetwork, nodes: int, order: NDArray[np.int64], sliced: list[int]
) -> int:
    """Index that leaves the fewest operations if it is sliced, too, of those in the widest messages
    of the last amplitude."""
    position = {index: k for k, index in enumerate(order.tolist()) if index not in sliced}
    near: dict[int, set[int]] = {index: set() for index in position}
    for k in range(nodes):
        own = network.indices[network.begins[k] : network.begins[k + 1]].tolist()
        free = [index for index in own if index in near]
        for index in free:
            near[index].update(free)
    cliques: list[set[int]] = []
    for index in position:
        clique = near.pop(index)
        cliques.append(set(clique))
        clique.discard(index)
        for other in clique:
            near[other] |= clique
            near[other].discard(index)
    widest = max(map(len, cliques))
    shares = dict.fromkeys(sorted(set().union(*(c for c in cliques if len(c) == widest))), 0)
    for clique in cliques:
        for index in clique & shares.keys():
            shares[index] += 1 << len(clique)
    return max(shares, key=shares.__getitem__)


def is_loaded() -> bool:
    """Return whether the kernels are loaded, which takes seconds if they must be compiled."""
    return _least_fill.is_loaded and _walk.is_loaded


def load() -> None:
    _least_fill.load()
    _walk.load()


# Kernels. Ranks are places in the order; those of the indices that are drawn come after all others.


@device_function
def _has(pool, start, length, value):  # type: ignore[no-untyped-def]
    k = start
    while k < start + length and pool[k] != value:
        k += 1
    return k < start + length


@device_function
def _connect(pool, rows, used, a, b):  # type: ignore[no-untyped-def]
    """Add b to the neighbours of a; returns the numbers used of the pool, or -1 if it is full."""
    start, length, room = rows[0], rows[1], rows[2]
    if length[a] == room[a]:
        size = max(np.int64(8), 2 * room[a])
        if used + size > pool.size:
            return np.int64(-1)
        for k in range(length[a]):
            pool[used + k] = pool[start[a] + k]
        start[a], room[a] = used, size
        used += size
    pool[start[a] + length[a]] = b
    length[a] += 1
    return used


@device_function
def _missing(pool, rows, a, stamp):  # type: ignore[no-untyped-def]
    """Pairs of neighbours of a that are not connected."""
    start, length, mark = rows[0], rows[1], rows[3]
    for k in range(start[a], start[a] + length[a]):
        mark[pool[k]] = stamp
    result = length[a] * (length[a] - 1)
    for k in range(start[a], start[a] + length[a]):
        b = pool[k]
        for j in range(start[b], start[b] + length[b]):
            result -= mark[pool[j]] == stamp
    return result // 2


@kernel("I64 I64 I64 I64 I64 I64 INTS2 -> REAL", group="light_cone")
def _least_fill(begins, used_by, best, order, tries, pool, rows):  # type: ignore[no-untyped-def]
    """Fill `best`; returns log2 of the values of its messages, infinite if there is none. pool:
    lists of neighbours. rows: int64 [7, indices + 1]."""
    count = best.size
    start, length, room, mark, key = rows[0], rows[1], rows[2], rows[3], rows[4]
    seen, touched = rows[5], rows[6]
    least = np.inf
    state = np.uint64(0x9E3779B97F4A7C15)
    gone = np.int64(1) << 62
    work = np.int64(0)
    for number in range(tries[1]):
        if number >= tries[0] and (work > tries[2] or least < tries[3]):
            break
        for a in range(count):
            start[a] = length[a] = room[a] = 0
            mark[a] = seen[a] = -1
        used = np.int64(0)
        for node in range(begins.size - 1):
            for i in range(begins[node], begins[node + 1]):
                for j in range(begins[node], i):
                    a, b = used_by[i], used_by[j]
                    if not _has(pool, start[a], length[a], b):
                        used = _connect(pool, rows, used, a, b)
                        if used >= 0:
                            used = _connect(pool, rows, used, b, a)
                        if used < 0:
                            return np.inf
        stamp = np.int64(0)
        for a in range(count):
            touched[a] = a
        changed, cost, failed = count, 0.0, False
        for step in range(count):
            for k in range(changed):
                a = touched[k]
                stamp += 1
                work += length[a] * length[a]
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                draw = np.int64(state >> np.uint64(44))
                fill = min(_missing(pool, rows, a, stamp), np.int64(1) << 30)
                key[a] = (fill << 6 | min(length[a], np.int64(63))) << 20 | draw
            work += count
            chosen, lowest = np.int64(-1), gone
            for a in range(count):
                if key[a] < lowest:
                    chosen, lowest = np.int64(a), key[a]
            width = length[chosen]
            cost += 2.0 ** (width + 1)
            if width >= MOST_BITS or cost >= least:
                failed = True
                break
            order[step] = chosen
            key[chosen] = gone
            changed = 0
            first = start[chosen]
            for k in range(first, first + width):
                a = pool[k]
                touched[changed] = a
                seen[a] = step
                changed += 1
                for j in range(start[a], start[a] + length[a]):
                    if pool[j] == chosen:
                        pool[j] = pool[start[a] + length[a] - 1]
                        length[a] -= 1
                        break
            added = False
            for k in range(first, first + width):
                a = pool[k]
                for j in range(first, k):
                    b = pool[j]
                    if not _has(pool, start[a], length[a], b):
                        added = True
                        used = _connect(pool, rows, used, a, b)
                        if used >= 0:
                            used = _connect(pool, rows, used, b, a)
                        if used < 0:
                            return least
            if added:
                for k in range(first, first + width):
                    a = pool[k]
                    for j in range(start[a], start[a] + length[a]):
                        b = pool[j]
                        if seen[b] != step:
                            seen[b] = step
                            touched[changed] = b
                            changed += 1
        if not failed:
            least = cost
            for k in range(count):
                best[k] = order[k]
    return np.log2(least)


_GONE, _KNOWN, _SUMMED, _OPEN, _SLICED = range(5)  # states of an index


@record
class NetworkArrays(NamedTuple):
    """A `GateNetwork`, and the nodes of each index."""

    begins: I64
    indices: I64
    kinds: I64
    ends: I64
    wires: I64  # flat
    of_begins: I64  # nodes of index k: owners[of_begins[k] : of_begins[k + 1]]
    owners: I64


@record
class MessageArrays(NamedTuple):
    """What `_walk` finds."""

    slots: I64  # [messages]: first value of each
    bits: I64  # [messages]: log2 of the values of each
    code: I64  # see `Elimination`; [0]: it is only counted
    totals: I64
    operations: REALS  # [1]


@record
class EliminationState(NamedTuple):
    """State of indices, nodes and messages before a draw. A message has the rank of the index that
    it sums; the root is the one after the last."""

    state: I64  # of each index
    bucket: I64  # message of each node, -1: none
    stale: I64  # a tensor of the message has changed
    changed: I64  # 1: the message has changed, 2: the drawn indices depend on it
    pending: I64  # it has changed since it was computed
    goal: I64  # message that it is an operand of, -1: none
    length: I64  # number of its indices
    heads: I64  # first operand of a message among the messages, -1: none
    nexts: I64  # the next one
    node_heads: I64  # first operand among the nodes
    node_nexts: I64
    position: I64  # bit of a rank in the masks
    active: I64  # its index is summed
    depth: I64  # tensors and sums since a message was scaled
    own_ranks: I64  # rank of each drawn index in other draws


@device_function
def _is_free(state):  # type: ignore[no-untyped-def]
    return state in (_SUMMED, _OPEN)


@device_function
def _bits(mask):  # type: ignore[no-untyped-def]
    result = np.int64(0)
    while mask:
        mask &= mask - 1
        result += 1
    return result


@device_function
def _put(code, at, value):  # type: ignore[no-untyped-def]
    """Write a word of the code, if there is any, and count it."""
    if at < code.size:
        code[at] = value
    return at + 1


@device_function
def _place_node(root, network, ranks, walk, node):  # type: ignore[no-untyped-def]
    """Put a node into the bucket of its first index that is summed or drawn; into the root if it
    has none, but depends on the slice."""
    begins, indices = network.begins, network.indices
    state, bucket, stale = walk.state, walk.bucket, walk.stale
    if bucket[node] >= 0:
        stale[bucket[node]] = 1
    first, is_sliced = np.int64(-1), False
    for k in range(begins[node], begins[node + 1]):
        index = indices[k]
        is_sliced |= state[index] == _SLICED
        if _is_free(state[index]) and (first < 0 or ranks[index] < first):
            first = ranks[index]
    if first < 0 and is_sliced:
        first = root
    bucket[node] = first
    if first >= 0:
        stale[first] = 1


@device_function
def _join_scope(rank, network, ranks, walk, scope):  # type: ignore[no-untyped-def]
    """Scope of a message: the indices of its nodes and messages but its own, ascending; returns
    their number, or -1 if they are too many."""
    begins, indices, state, length = network.begins, network.indices, walk.state, walk.length
    count = np.int64(0)
    own = scope[rank]
    node = walk.node_heads[rank]
    other = walk.heads[rank]
    while node >= 0 or other >= 0:
        begin, end = np.int64(0), np.int64(0)
        if node >= 0:
            begin, end = begins[node], begins[node + 1]
        else:
            end = length[other]
        for k in range(begin, end):
            if node >= 0:
                index = indices[k]
                if not _is_free(state[index]):
                    continue
                value = ranks[index]
            else:
                value = scope[other, k]
            if value == rank:
                continue
            at = count
            while at > 0 and own[at - 1] > value:
                at -= 1
            if at > 0 and own[at - 1] == value:
                continue
            if count > MOST_BITS:
                return np.int64(-1)
            for j in range(count, at, -1):
                own[j] = own[j - 1]
            own[at] = value
            count += 1
        if node >= 0:
            node = walk.node_nexts[node]
        else:
            other = walk.nexts[other]
    return count


@device_function
def _node_mask(network, ranks, walk, node):  # type: ignore[no-untyped-def]
    mask = np.int64(0)
    for k in range(network.begins[node], network.begins[node + 1]):
        index = network.indices[k]
        if _is_free(walk.state[index]):
            mask |= np.int64(1) << walk.position[ranks[index]]
    return mask


@device_function
def _emit(where, first, network, ranks, walk, scope, found):  # type: ignore[no-untyped-def]
    """Write the tables and messages that are multiplied; returns the end of the code."""
    begins, indices, code, totals = network.begins, network.indices, found.code, found.totals
    groups, messages, tables = np.int64(0), np.int64(0), np.int64(0)
    at = first + 2
    node = walk.node_heads[where]
    while node >= 0:
        mask = _node_mask(network, ranks, walk, node)
        head, members, each = at, np.int64(0), node
        at += 2
        while node >= 0:
            other = _node_mask(network, ranks, walk, node)
            both = mask | other
            if members and _bits(both) > TABLE_BITS and both != mask and both != other:
                break
            mask = both
            members += 1
            node = walk.node_nexts[node]
        _put(code, head, mask)
        _put(code, head + 1, members)
        for _ in range(members):  # again, now that the bits of the group are known
            at = _put(code, at, each)
            at = _put(code, at, begins[each + 1] - begins[each])
            for k in range(begins[each], begins[each + 1]):
                index = indices[k]
                if _is_free(walk.state[index]):
                    below = (np.int64(1) << walk.position[ranks[index]]) - 1
                    at = _put(code, at, _bits(mask & below))
                else:
                    at = _put(code, at, -1 - index)
            each = walk.node_nexts[each]
        groups += 1
        tables += np.int64(1) << _bits(mask)
    other = walk.heads[where]
    while other >= 0:
        mask = np.int64(0)
        for k in range(walk.length[other]):
            mask |= np.int64(1) << walk.position[scope[other, k]]
        at = _put(code, at, found.slots[other])
        at = _put(code, at, mask)
        messages += 1
        other = walk.nexts[other]
    _put(code, first, groups)
    _put(code, first + 1, messages)
    totals[_LAST] = groups + messages
    totals[_OPERANDS] = max(totals[_OPERANDS], groups + messages)
    totals[_TABLES] = max(totals[_TABLES], tables)
    return at


@kernel("NetworkArrays I64 I64 MessageArrays EliminationState INTS2", group="light_cone")
def _walk(network, ranks, is_sliced, found, walk, scope):  # type: ignore[no-untyped-def]
    """Messages of all prefixes, see `Elimination`. `ranks`, `is_sliced` [indices]; `scope` [ranks +
    1, MOST_BITS + 2]: indices of each message; `walk`: zeros."""
    kinds, ends, wires, owners = network.kinds, network.ends, network.wires, network.owners
    of_begins, slots, code, totals = network.of_begins, found.slots, found.code, found.totals
    state, bucket, stale, changed = walk.state, walk.bucket, walk.stale, walk.changed
    goal, length, heads, nexts = walk.goal, walk.length, walk.heads, walk.nexts
    node_heads, node_nexts, position = walk.node_heads, walk.node_nexts, walk.position
    pending, depth, own_ranks = walk.pending, walk.depth, walk.own_ranks
    count = slots.size
    root = count  # of all that has no summed index
    at = np.int64(0)
    for k in range(bucket.size):
        bucket[k] = goal[k] = -1
    last_drawn = np.int64(-1)
    for node in range(kinds.size):
        if kinds[node] == DRAWN:
            last_drawn = np.int64(node)
    for node in range(kinds.size):
        first, last = ends[node], ends[node + 1]
        if kinds[node] == PERMUTING:
            at = _put(code, at, PERMUTE)
            at = _put(code, at, node)
            at = _put(code, at, last - first)
            for k in range(2 * first, 2 * last):
                at = _put(code, at, wires[k])
        if node > last_drawn:
            continue
        for k in range(first, last):
            old, new = wires[2 * k], wires[2 * k + 1]
            if old == new:
                continue
            state[new] = _KNOWN
            if old >= 0:
                state[old] = _SLICED if is_sliced[old] else _SUMMED
                if not is_sliced[old]:
                    walk.active[ranks[old]] = 1
                    stale[ranks[old]] = 1
                for j in range(of_begins[old], of_begins[old + 1]):
                    if owners[j] <= node:
                        _place_node(root, network, ranks, walk, owners[j])
        if kinds[node] != DRAWN:
            _place_node(root, network, ranks, walk, node)
            continue
        drawn = np.int64(0)  # the last index has the lowest bit
        for k in range(last - 1, first - 1, -1):
            if wires[2 * k] != wires[2 * k + 1]:
                state[wires[2 * k + 1]] = _OPEN
                own_ranks[drawn] = ranks[wires[2 * k + 1]]
                ranks[wires[2 * k + 1]] = count + drawn
                drawn += 1
        _place_node(root, network, ranks, walk, node)
        sliced = np.int64(0)
        for index in range(is_sliced.size):
            if state[index] == _SLICED:
                sliced += 1
                for j in range(of_begins[index], of_begins[index + 1]):
                    if owners[j] <= node and bucket[owners[j]] >= 0:
                        stale[bucket[owners[j]]] = 1
        for k in range(count + 1):
            heads[k] = node_heads[k] = -1
        for k in range(node + 1):
            if bucket[k] >= 0:
                where = min(bucket[k], root)
                node_nexts[k] = node_heads[where]
                node_heads[where] = k
        # Scopes, and what has changed, in the order of elimination.
        for rank in range(count):
            changed[rank] = 0
            if not walk.active[rank]:
                continue
            is_stale = stale[rank]
            other = heads[rank]
            while other >= 0:
                is_stale |= changed[other]
                other = nexts[other]
            if is_stale:
                stale[rank] = 0
                changed[rank] = pending[rank] = 1
                before = goal[rank]
                size = _join_scope(rank, network, ranks, walk, scope)
                if size < 0 or size > MOST_BITS:
                    totals[_FAILED] = 1
                    return
                length[rank] = size
                # A number is a common factor of all values, but not of all slices.
                goal[rank] = scope[rank, 0] if size else root if sliced else -1
                if before >= 0 and before < count and before != goal[rank]:
                    stale[before] = 1
            if goal[rank] >= 0:
                where = min(goal[rank], root)
                nexts[rank] = heads[where]
                heads[where] = rank
        # Those that the drawn indices depend on.
        for rank in range(count - 1, -1, -1):
            heads_to = goal[rank]
            is_needed = np.int64(0)
            if walk.active[rank] and heads_to >= 0:
                is_needed = np.int64(1) if heads_to >= count else changed[heads_to] >> 1
            changed[rank] = is_needed << 1
        begin = np.int64(-1)
        if sliced:
            at = _put(code, at, SLICES)
            at = _put(code, at, sliced)
            for index in range(is_sliced.size):
                if state[index] == _SLICED:
                    at = _put(code, at, index)
            begin = at
            at += 1
        repeats = 2.0**sliced
        for rank in range(count):
            if not changed[rank] or not pending[rank]:
                continue
            pending[rank] = 0
            position[rank] = 0
            for k in range(length[rank]):
                position[scope[rank, k]] = k + 1
            done = np.int64(1)
            other = node_heads[rank]
            while other >= 0:
                done += 1
                other = node_nexts[other]
            other = heads[rank]
            while other >= 0:
                done += depth[other]
                other = nexts[other]
            is_scaled = done >= _SCALED and not sliced
            depth[rank] = np.int64(0) if is_scaled else done
            at = _put(code, at, MESSAGE)
            at = _put(code, at, slots[rank])
            at = _put(code, at, length[rank])
            at = _put(code, at, np.int64(is_scaled))
            at = _emit(rank, at, network, ranks, walk, scope, found)
            found.operations[0] += repeats * totals[_LAST] * 2.0 ** (length[rank] + 1)
            totals[_MESSAGES] += 1
            found.bits[rank] = max(found.bits[rank], length[rank])
            totals[_WIDEST] = max(totals[_WIDEST], length[rank] + 1)
        for k in range(drawn):
            position[count + k] = k
        at = _put(code, at, ROOT)
        at = _put(code, at, 0)
        at = _put(code, at, drawn)
        at = _put(code, at, 0)
        at = _emit(root, at, network, ranks, walk, scope, found)
        found.operations[0] += repeats * totals[_LAST] * 2.0**drawn
        totals[_MESSAGES] += 1
        if sliced:
            _put(code, begin, at - begin - 1)
        at = _put(code, at, DRAW)
        at = _put(code, at, drawn)
        drawn = np.int64(0)
        for k in range(last - 1, first - 1, -1):
            if wires[2 * k] != wires[2 * k + 1]:
                at = _put(code, at, wires[2 * k + 1])
                state[wires[2 * k + 1]] = _KNOWN
                ranks[wires[2 * k + 1]] = own_ranks[drawn]
                drawn += 1
        at = _put(code, at, node)
        _place_node(root, network, ranks, walk, node)
    totals[_CODE] = at
