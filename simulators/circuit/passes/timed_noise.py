"""Relaxation of waiting qubits, and static ZZ interaction of coupled qubits: times, and places in a
circuit.

The interaction commutes with diagonal gates. So the time since the last operation that is not
diagonal acts in one piece, right before the next such operation on one of the two qubits. It has no
effect before both qubits had an operation, and none is added during a gate on both, whose error was
measured with it. During an echoed cross-resonance gate on one of them there is none either: the
half turn of the control reverses its interaction with its neighbours, and the rotary tone on the
target turns the target about X (Sheldon et al., arXiv 1603.04821; Sundaresan et al., arXiv
2007.02925, which measures what is left). A Z rotation of the neighbour, which the echo leaves and
which depends on no state, is omitted. Operations are visited in the order of the circuit, which is
that of their start times (`time_order`) but in a circuit with blocks: a piece may then act before
an operation that starts earlier. Inside a block there is none.

A qubit that waits, or that is read and used again, relaxes at the same time. The jumps of
relaxation do not commute with the interaction: the phase of a neighbour depends on the time of the
jump. A waiting time is therefore split into slices, each of which relaxes in its middle, and pieces
of interaction are cut there (Strang splitting). Let g be the rate of relaxation, w the sum of the
rates of a qubit's interactions (rad per unit of time), h the largest g of the device, and t the
length of a slice. Half the diamond norm of the error, the largest change of any probability, is

    at most g w t^2 / 4 for relaxation before or after the whole interaction,
    at most g w t^2 / 8 in the middle, whatever the neighbours do meanwhile,
    at most g w t^2 (w + 4 h) t / 48 in the middle, while the neighbours wait,

since a jump, of norm g, acts at another time, by t / 2 or t / 4 on average, and two phases that are
a time s apart differ by w s. The last row is the error of second order, |[Z, [Z, R]]| t^3 / 24 +
|[R, [R, Z]]| t^3 / 12 (Childs et al., Phys. Rev. X 11, 011020, proposition 10). Slices are so short
that the bounds of all waiting times of a qubit have a sum of SPLIT_ERROR. A waiting time that needs
no split acts before the operation that ends it. Not in the bound: relaxation during gates, which
acts at their end, and circuits with blocks that do not list their operations in the order of their
times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulators.circuit import gates
from simulators.circuit.analysis.measurements import ORDINARY
from simulators.circuit.arrays import Operands
from simulators.circuit.passes.noise_locations import EMPTY, append, timed_slot
from simulators.circuit.schedule import Schedule
from simulators.compiler.kernel import I64, INTS2, REALS, device_function, kernel, record
from simulators.compiler.simd import as_numbers, take_numbers, take_reals

SPLIT_ERROR = 4e-4  # of each qubit: a pair has less than 1e-3
MAX_SLICES = 4_096  # of one waiting time
READING = 1 << 32  # offset of owners that are read

_LEAST_NS = 1e-6
_SCALE = 1e6  # scale of times that are rounded, so that equal times share a channel
# Gates that are made of echoed cross-resonance pulses where they are native.
_ECHOED = ("cx", "ecr", "rzx")
_DIAGONAL, _REFOCUSED = 1, 2  # kinds of operations; 0: all others
_KINDS = np.zeros(gates.FIRST_GATE + len(gates.GATES), np.int64)  # by code
_KINDS[[gate.code for gate in gates.GATES.values() if gate.diagonal]] = _DIAGONAL
_KINDS[[gates.GATES[name].code for name in _ECHOED]] = _REFOCUSED
# Whether the slices of a qubit have to come before an operation: if their middle is before it; all
# until it, the last one cut there; the whole waiting time.
_FREE, _CUT, _WHOLE = range(3)

Pair = tuple[int, int]


@record
class CoupledPairs(NamedTuple):
    """Coupled pairs by number and by qubit, and rates of qubits."""

    ends: INTS2  # [pairs, 2]
    begins: I64  # [qubits + 1]
    mine: I64  # pairs of qubit q: mine[begins[q] : begins[q + 1]]
    turns: REALS  # [qubits]: sum of the rates of its pairs, rad per ns
    decays: REALS  # [qubits]: rate of relaxation, per ns; 0: none

    @classmethod
    def of(
        cls,
        pairs: Sequence[Pair],
        num_qubits: int,
        rates: Sequence[float] | None = None,
        decays: Sequence[float] | None = None,
    ) -> CoupledPairs:
        """Make the table; pairs among the first `num_qubits` qubits keep their numbers, others
        belong to no qubit. `rates` [pairs]: rad per ns; `decays` [qubits]: per ns; None: zeros."""
        ends = np.array(pairs, np.int64).reshape(-1, 2)
        owners = ends.ravel()
        inside = np.flatnonzero((ends < num_qubits).all(axis=1).repeat(2))
        mine = inside[np.argsort(owners[inside], kind="stable")]
        begins = np.zeros(num_qubits + 1, np.int64)
        np.cumsum(np.bincount(owners[inside], minlength=num_qubits), out=begins[1:])
        turns, own = np.zeros(num_qubits), np.zeros(num_qubits)
        if rates is not None:
            np.add.at(turns, owners[inside], np.array(rates, np.float64).repeat(2)[inside])
        if decays is not None:
            own[:] = decays
        return cls(ends, begins, mine >> 1, turns, own)


@record
class TimedTables(NamedTuple):
    """Channels of owners over times: see `noise_locations.find_timed`."""

    idle: INTS2  # of qubits
    reading: INTS2  # of qubits that are read
    crosstalk: INTS2  # of pairs


@record
class TimedNoise(NamedTuple):
    """Pieces of interaction and slices of relaxation, in the order of their action, as far as there
    is room."""

    after: I64  # [rows]: the operation that each follows
    owner: I64  # [rows]: number of a pair; of qubit q: -1 - q, read: less by READING
    time_ns: REALS  # [rows]
    locations: INTS2  # [rows, 4]; channel -1: none
    missing: I64  # [rows]: numbers of those that `TimedTables` lacks


class _Qubits(NamedTuple):
    """State of qubits [qubits] before an operation."""

    active: I64  # 1 after the first operation
    seen: I64  # number of operations
    due: I64  # _FREE, _CUT or _WHOLE
    current: I64  # waiting time that is being sliced; -1: none
    last: I64  # last waiting time that is sliced
    ahead: REALS  # start of the next operation that is not diagonal
    past: REALS  # end of the last slice
    bound: REALS  # a slice that begins before this time ends there
    waits: REALS  # sum of the waiting times


class _Waits(NamedTuple):
    """Waiting times that may be sliced."""

    owner: I64
    needed: I64  # operations of the qubit before it
    place: I64  # the operation that it precedes
    next: I64  # the next one of the qubit; -1: none
    begin: REALS
    end: REALS
    slice: REALS  # length


def timed_noise(
    operands: Operands,
    roles: I64,
    timing: Schedule,
    pairs: CoupledPairs,
    tables: TimedTables,
    *,
    reads: bool = True,
    room: int = 0,
) -> TimedNoise:
    """Relaxation and interaction of a circuit. `roles`: see `classify`; `timing`: with delays as
    idle times, which ascend; `pairs`: for as many qubits as the circuit has; `reads`: whether the
    qubits of measurements that are not final relax meanwhile; `room`: for rows."""
    size, num_wires, num_qubits = roles.size, operands.wires.size, pairs.turns.size
    room = max(room, size + num_wires + num_qubits)  # all idle times and readouts, at least
    found = TimedNoise(
        np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room),
        np.empty((room, 4), np.int64), np.empty(room, np.int64),
    )  # fmt: skip
    waits = 2 * size + num_wires + num_qubits if len(pairs.ends) else 0
    numbers = size + num_wires + len(pairs.ends) + 10 * num_qubits + 7 * waits
    scratch = np.empty(8 * numbers, np.uint8)
    totals = np.empty(2, np.int64)
    _timed_noise(operands, roles, timing, pairs, tables, int(reads), scratch, found, totals)
    count, missing = totals.tolist()
    if count > room:
        return timed_noise(operands, roles, timing, pairs, tables, reads=reads, room=count)
    after, owner, time_ns, locations, lacking = found
    rows = (after[:count], owner[:count], time_ns[:count], locations[:count])
    return TimedNoise(*rows, lacking[:missing])


@device_function
def _write(k, number, length, rows, count):  # type: ignore[no-untyped-def]
    """Write a row before operation k if there is room; returns the number of rows."""
    if count < rows.after.size:
        rows.after[count], rows.owner[count] = k - 1, number
        rows.time_ns[count] = np.rint(length * _SCALE) / _SCALE
    return count + 1


@device_function
def _interact(k, pair, until, pairs, qubits, since, rows, count):  # type: ignore[no-untyped-def]
    """Write the interaction of a pair up to a time before operation k; returns the number of
    rows."""
    first, second = pairs.ends[pair, 0], pairs.ends[pair, 1]
    if qubits.active[first] and qubits.active[second] and until - since[pair] > _LEAST_NS:
        return _write(k, pair, until - since[pair], rows, count)
    return count


@device_function
def _other(pairs, pair, qubit):  # type: ignore[no-untyped-def]
    return pairs.ends[pair, 0] + pairs.ends[pair, 1] - qubit


@device_function
def _obstructed(qubit, time, pairs, qubits, since):  # type: ignore[no-untyped-def]
    """Whether an operation that comes later in the circuit ends a piece of the qubit before a
    time."""
    for m in range(pairs.begins[qubit], pairs.begins[qubit + 1]):
        p = pairs.mine[m]
        other = _other(pairs, p, qubit)
        acts = qubits.active[qubit] and qubits.active[other] and since[p] < time
        if acts and qubits.ahead[other] < time:
            return True
    return False


@device_function
def _relax(k, now, waiting, qubits, waits, pairs, since, rows, count):  # type: ignore[no-untyped-def]
    """Write slices before operation k, which starts at `now`, in the order of their middles, and
    the interaction before each; returns the number of rows. `waiting`: qubits with slices."""
    while True:
        best, best_middle, best_end = np.int64(-1), np.inf, 0.0
        for i in range(waiting.size):
            q = waiting[i]
            wait = qubits.current[q]
            if wait < 0 or waits.needed[wait] > qubits.seen[q]:
                continue
            end, past, due = waits.end[wait], qubits.past[q], qubits.due[q]
            if past + waits.slice[wait] < end - _LEAST_NS:
                end = past + waits.slice[wait]
            if qubits.bound[q] > past + _LEAST_NS:
                end = min(end, qubits.bound[q])
            if due == _CUT:
                end = min(end, now)
            middle = 0.5 * (past + end)
            if middle >= best_middle or (due != _WHOLE and middle > now - _LEAST_NS):
                continue
            if due == _FREE and _obstructed(q, middle, pairs, qubits, since):
                continue
            best, best_middle, best_end = q, middle, end
        if best < 0:
            return count
        for m in range(pairs.begins[best], pairs.begins[best + 1]):
            p = pairs.mine[m]
            until = min(best_middle, qubits.ahead[_other(pairs, p, best)])
            written = _interact(k, p, until, pairs, qubits, since, rows, count)
            if written > count:
                count, since[p] = written, until
        wait = qubits.current[best]
        count = _write(k, waits.owner[wait], best_end - qubits.past[best], rows, count)
        qubits.past[best] = best_end
        if best_end >= waits.end[wait]:
            wait = qubits.current[best] = waits.next[wait]
            if wait >= 0:
                qubits.past[best] = waits.begin[wait]


@device_function
def _wait(k, owner, qubit, begin, end, qubits, waits, number):  # type: ignore[no-untyped-def]
    """Append a waiting time; returns how many there are."""
    waits.owner[number], waits.needed[number] = owner, qubits.seen[qubit]
    waits.place[number], waits.next[number] = k, -1
    waits.begin[number], waits.end[number] = begin, end
    qubits.waits[qubit] += end - begin
    return number + 1


@device_function
def _collect(operands, roles, timing, reads, pairs, qubits, waits, at, rows):  # type: ignore[no-untyped-def]
    """Collect the waiting times that may need a split, and write the others; returns how many there
    are of both. `at` [operations]: filled with start times, in a block with that of the block."""
    codes, first, wires, length = operands.codes, operands.first, operands.wires, timing.length_ns
    turns, decays = pairs.turns, pairs.decays
    depth = number = count = p = np.int64(0)
    outer = 0.0
    for k in range(codes.size + 1):
        while p < timing.idle_after.size and timing.idle_after[p] < k:
            q, idle, end = timing.idle_qubit[p], timing.idle_ns[p], timing.idle_end_ns[p]
            if depth or decays[q] * turns[q] == 0.0:
                count = _write(k, -1 - q, idle, rows, count)
            else:
                number = _wait(k, -1 - q, q, end - idle, end, qubits, waits, number)
            p += 1
        if k == codes.size:
            break
        code, start = codes[k], timing.start_ns[k]
        at[k] = outer if depth else start
        if code == gates.END_BLOCK:
            depth -= 1
        elif code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
            outer = start if depth == 0 else outer
            depth += 1
        if code not in (gates.MEASURE, gates.RESET) and code < gates.UNITARY:
            continue
        for j in range(first[k], first[k + 1]):
            qubits.seen[wires[j]] += 1
        if reads and code == gates.MEASURE and roles[k] == ORDINARY and length[k] > _LEAST_NS:
            q = wires[first[k]]
            owner, end = -1 - q - READING, start + length[k]
            if depth or decays[q] * turns[q] == 0.0:
                count = _write(k + 1, owner, length[k], rows, count)
            else:
                number = _wait(k + 1, owner, q, start, end, qubits, waits, number)
    return number, count


@device_function
def _split(number, pairs, waiting, qubits, waits, rows, count):  # type: ignore[no-untyped-def]
    """Find the slices of waiting times, list their qubits in `waiting`, and write the waiting times
    that need none; returns the numbers of qubits and of rows."""
    turns, decays = pairs.turns, pairs.decays
    fastest = 0.0
    for q in range(decays.size):
        fastest = max(fastest, decays[q])
    found = 0
    for wait in range(number):
        q = -1 - waits.owner[wait]
        q -= READING if q >= READING else 0
        length = waits.end[wait] - waits.begin[wait]
        error = decays[q] * turns[q] * length * qubits.waits[q] / SPLIT_ERROR
        if error <= 4.0:
            count = _write(waits.place[wait], waits.owner[wait], length, rows, count)
            continue
        slices = np.ceil(np.sqrt(error * (turns[q] + 4.0 * fastest) * length / 48.0))
        waits.slice[wait] = length / min(max(slices, 1.0), MAX_SLICES)
        if qubits.current[q] < 0:
            qubits.current[q], qubits.past[q] = wait, waits.begin[wait]
            waiting[found] = q
            found += 1
        else:
            waits.next[qubits.last[q]] = wait
        qubits.last[q] = wait
    return found, count


@device_function
def _mark(k, now, operands, pairs, qubits, waits):  # type: ignore[no-untyped-def]
    """Mark the waiting times that operation k on qubits ends, and those during which it interrupts
    an interaction so that their slice would have too large an error."""
    first, wires = operands.first, operands.wires
    turns, decays = pairs.turns, pairs.decays
    for j in range(first[k], first[k + 1]):
        if _KINDS[operands.codes[k]] != _DIAGONAL:
            for m in range(pairs.begins[wires[j]], pairs.begins[wires[j] + 1]):
                other = _other(pairs, pairs.mine[m], wires[j])
                wait = qubits.current[other]
                if wait < 0 or qubits.due[other] == _WHOLE:
                    continue
                past = qubits.past[other]
                if waits.needed[wait] <= qubits.seen[other] and past < now - _LEAST_NS:
                    length = min(waits.slice[wait], waits.end[wait] - past)
                    error = decays[other] * turns[other] * length * qubits.waits[other] / 8.0
                    if error > SPLIT_ERROR and past + length > now:
                        qubits.due[other] = _CUT
    for j in range(first[k], first[k + 1]):
        qubits.due[wires[j]] = _WHOLE


@device_function
def _interrupt(k, operands, timing, pairs, qubits, since, rows, count):  # type: ignore[no-untyped-def]
    """Write the interactions that operation k ends, and begin the next ones; returns the number of
    rows."""
    wires, start, length = operands.wires, timing.start_ns[k], timing.length_ns[k]
    low, high = operands.first[k], operands.first[k + 1]
    for j in range(low, high):
        for m in range(pairs.begins[wires[j]], pairs.begins[wires[j] + 1]):
            p = pairs.mine[m]
            other = _other(pairs, p, wires[j])
            seen = both = False
            for i in range(low, high):
                both |= wires[i] == other
                seen |= wires[i] == other and i < j
            if seen:
                continue
            count = _interact(k, p, start, pairs, qubits, since, rows, count)
            free = both or _KINDS[operands.codes[k]] == _REFOCUSED
            end = start + (length if free else 0.0)
            since[p] = end if since[p] == np.inf else max(since[p], end)
            if free and not both:
                qubits.bound[other] = end
    return count


@device_function
def _look_ahead(operands, qubits, at, ahead):  # type: ignore[no-untyped-def]
    """Fill `ahead` [wires]: start of the next operation on the qubit that is not diagonal."""
    qubits.ahead[:] = np.inf
    for k in range(operands.codes.size - 1, -1, -1):
        code = operands.codes[k]
        if code in (gates.MEASURE, gates.RESET) or code >= gates.UNITARY:
            for j in range(operands.first[k], operands.first[k + 1]):
                ahead[j] = qubits.ahead[operands.wires[j]]
                if _KINDS[code] != _DIAGONAL:
                    qubits.ahead[operands.wires[j]] = at[k]


@device_function
def _walk(operands, timing, pairs, waiting, qubits, waits, since, ahead, rows, count):  # type: ignore[no-untyped-def]
    """Write slices and interactions operation by operation; returns the number of rows."""
    codes, first, wires = operands.codes, operands.first, operands.wires
    depth = 0
    for k in range(codes.size):
        code, now, low, high = codes[k], timing.start_ns[k], first[k], first[k + 1]
        if code == gates.END_BLOCK:
            depth -= 1
        elif code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
            depth += 1
            if depth == 1:
                for i in range(waiting.size):
                    wait = qubits.current[waiting[i]]
                    ends = wait >= 0 and waits.end[wait] <= now + _LEAST_NS
                    qubits.due[waiting[i]] = _WHOLE if ends else _CUT
                count = _relax(k, now, waiting, qubits, waits, pairs, since, rows, count)
                qubits.due[:] = _FREE
                for p in range(since.size):
                    count = _interact(k, p, now, pairs, qubits, since, rows, count)
                    if since[p] < np.inf:
                        since[p] = now + timing.length_ns[k]
        elif code in (gates.MEASURE, gates.RESET) or code >= gates.UNITARY:
            if depth == 0:
                if waiting.size:
                    _mark(k, now, operands, pairs, qubits, waits)
                    count = _relax(k, now, waiting, qubits, waits, pairs, since, rows, count)
                    qubits.due[:] = _FREE
                if _KINDS[code] == _DIAGONAL:
                    if high - low == 2:
                        for m in range(pairs.begins[wires[low]], pairs.begins[wires[low] + 1]):
                            p = pairs.mine[m]
                            if _other(pairs, p, wires[low]) == wires[low + 1]:
                                since[p] += timing.length_ns[k]
                else:
                    count = _interrupt(k, operands, timing, pairs, qubits, since, rows, count)
            for j in range(low, high):
                qubits.active[wires[j]] = 1
                qubits.seen[wires[j]] += 1
                qubits.ahead[wires[j]] = ahead[j]
    for i in range(waiting.size):
        qubits.due[waiting[i]] = _WHOLE
    end = np.int64(codes.size)
    count = _relax(end, timing.duration_ns, waiting, qubits, waits, pairs, since, rows, count)
    for p in range(since.size):
        count = _interact(end, p, timing.duration_ns, pairs, qubits, since, rows, count)
    return count


@device_function
def _place(rows, count, pairs, tables):  # type: ignore[no-untyped-def]
    """Fill the locations of the rows; returns how many have no entry in the tables."""
    bits = as_numbers(rows.time_ns, 0, rows.time_ns.size)
    lacking = 0
    for k in range(count):
        owner = rows.owner[k]
        first, second, keys = -1 - owner, np.int64(-1), tables.idle
        if owner >= 0:
            first, second, keys = pairs.ends[owner, 0], pairs.ends[owner, 1], tables.crosstalk
        elif first >= READING:
            first, keys = first - READING, tables.reading
        slot = timed_slot(keys, owner if owner >= 0 else first, bits[k])
        append(rows.locations, k, rows.after[k], keys[slot, 2], first, second)
        if keys[slot, 0] == EMPTY:
            rows.missing[lacking] = k
            lacking += 1
    return lacking


@kernel("Operands I64 Schedule CoupledPairs TimedTables INT U8 TimedNoise I64", group="attachment")
def _timed_noise(operands, roles, timing, pairs, tables, reads, scratch, rows, totals):  # type: ignore[no-untyped-def]
    """Fill `rows` and `totals`: how many rows there are, perhaps more than there is room, and how
    many lack an entry; see `timed_noise`."""
    size, num_wires, num_qubits = roles.size, operands.wires.size, pairs.turns.size
    room = 2 * size + num_wires + num_qubits if pairs.ends.shape[0] else 0
    at, scratch = take_reals(scratch, size)
    ahead, scratch = take_reals(scratch, num_wires)
    since, scratch = take_reals(scratch, pairs.ends.shape[0])
    waiting, scratch = take_numbers(scratch, num_qubits)
    active, scratch = take_numbers(scratch, num_qubits)
    seen, scratch = take_numbers(scratch, num_qubits)
    due, scratch = take_numbers(scratch, num_qubits)
    current, scratch = take_numbers(scratch, num_qubits)
    last, scratch = take_numbers(scratch, num_qubits)
    ahead_of, scratch = take_reals(scratch, num_qubits)
    past, scratch = take_reals(scratch, num_qubits)
    bound, scratch = take_reals(scratch, num_qubits)
    waited, scratch = take_reals(scratch, num_qubits)
    owner, scratch = take_numbers(scratch, room)
    needed, scratch = take_numbers(scratch, room)
    place, scratch = take_numbers(scratch, room)
    following, scratch = take_numbers(scratch, room)
    begin, scratch = take_reals(scratch, room)
    end, scratch = take_reals(scratch, room)
    length, scratch = take_reals(scratch, room)
    qubits = _Qubits(active, seen, due, current, last, ahead_of, past, bound, waited)
    waits = _Waits(owner, needed, place, following, begin, end, length)

    since[:] = np.inf
    active[:] = seen[:] = due[:] = last[:] = 0
    current[:] = -1
    past[:] = bound[:] = waited[:] = 0.0
    number, count = _collect(operands, roles, timing, reads, pairs, qubits, waits, at, rows)
    if pairs.ends.shape[0]:
        found, count = _split(number, pairs, waiting, qubits, waits, rows, count)
        seen[:] = 0
        _look_ahead(operands, qubits, at, ahead)
        count = _walk(
            operands, timing, pairs, waiting[:found], qubits, waits, since, ahead, rows, count
        )
    totals[0] = count
    totals[1] = 0 if count > rows.after.size else _place(rows, count, pairs, tables)
