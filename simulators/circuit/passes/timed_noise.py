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

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.analysis.measurements import ORDINARY
from simulators.circuit.ir import Circuit, Operands
from simulators.circuit.schedule import Schedule
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import take_numbers, take_reals

SPLIT_ERROR = 4e-4  # of each qubit: a pair has less than 1e-3
MAX_SLICES = 4_096  # of one waiting time
READING = 1 << 32  # offset of owners that are read

_LEAST_NS = 1e-6
_SCALE = 1e6  # scale of times that are rounded, so that equal times share a channel
# Gates that are made of echoed cross-resonance pulses where they are native.
_ECHOED = ("cx", "ecr", "rzx")
_DIAGONAL, _REFOCUSED = 1, 2  # kinds of operations; 0: all others
KINDS = np.zeros(gates.FIRST_GATE + len(gates.GATES), np.int64)
KINDS[[gate.code for gate in gates.GATES.values() if gate.diagonal]] = _DIAGONAL
KINDS[[gates.GATES[name].code for name in _ECHOED]] = _REFOCUSED

# Columns of the state of qubits: numbers, and reals.
_ACTIVE, _SEEN, _DUE, _CURRENT, _LAST, _NUMBERS = range(6)
_AHEAD, _PAST, _BOUND, _WAITS, _REALS = range(5)
# Columns of waiting times: numbers, and reals.
_OWNER, _NEEDED, _PLACE, _NEXT, _WAIT_NUMBERS = range(5)
_BEGIN, _END, _SLICE, _WAIT_REALS = range(4)
# Whether the slices of a qubit have to come before an operation: if their middle is before it; all
# until it, the last one cut there; the whole waiting time.
_FREE, _CUT, _WHOLE = range(3)

Pair = tuple[int, int]


class TimedNoise(msgspec.Struct, frozen=True, eq=False):
    """Pieces of interaction and slices of relaxation, in the order of their action."""

    after: NDArray[np.int64]  # [rows]: the operation that each follows
    owner: NDArray[np.int64]  # [rows]: number of a pair; of qubit q: -1 - q, read: less by READING
    time_ns: NDArray[np.float64]  # [rows]


class CoupledPairs(msgspec.Struct, frozen=True, eq=False):
    """Coupled pairs by number and by qubit, and rates of qubits."""

    ends: NDArray[np.int64]  # [pairs, 2]
    first: NDArray[np.int64]  # [pairs]: first column of `ends`
    second: NDArray[np.int64]
    begins: NDArray[np.int64]  # [qubits + 1]
    mine: NDArray[np.int64]  # pairs of qubit q: mine[begins[q] : begins[q + 1]]
    turns: NDArray[np.float64]  # [qubits]: sum of the rates of its pairs, rad per ns
    decays: NDArray[np.float64]  # [qubits]: rate of relaxation, per ns; 0: none

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
        first, second = ends.T.copy()
        turns, own = np.zeros(num_qubits), np.zeros(num_qubits)
        if rates is not None:
            np.add.at(turns, owners[inside], np.array(rates, np.float64).repeat(2)[inside])
        if decays is not None:
            own[:] = decays
        return cls(ends, first, second, begins, mine >> 1, turns, own)


def rows_room(num_operations: int, num_wires: int, pairs: CoupledPairs) -> int:
    """Number of rows of a typical circuit."""
    num_qubits, degree = pairs.turns.size, int(np.diff(pairs.begins).max(initial=0))
    waits = num_operations + num_wires + num_qubits
    return waits + 2 * (num_wires * degree + len(pairs.ends)) + waits * degree


def scratch_bytes(num_operations: int, num_wires: int, num_qubits: int, num_pairs: int) -> int:
    """Size of the scratch memory of `timed_rows`."""
    waits = 2 * num_operations + num_wires + num_qubits
    numbers = num_operations + num_wires + num_pairs + num_qubits
    numbers += num_qubits * (_NUMBERS + _REALS) + waits * (_WAIT_NUMBERS + _WAIT_REALS)
    return 8 * numbers


@device_function
def _write(k, number, length, rows, count):  # type: ignore[no-untyped-def]
    """Write a row before operation k if there is room; returns the number of rows."""
    after, owner, time = rows
    if count < after.size:
        after[count], owner[count] = k - 1, number
        time[count] = np.rint(length * _SCALE) / _SCALE
    return count + 1


@device_function
def _interact(k, pair, until, pairs, numbers, since, rows, count):  # type: ignore[no-untyped-def]
    """Write the interaction of a pair up to a time before operation k; returns the number of
    rows."""
    first, second = pairs[pair, 0], pairs[pair, 1]
    if numbers[first, _ACTIVE] and numbers[second, _ACTIVE] and until - since[pair] > _LEAST_NS:
        return _write(k, pair, until - since[pair], rows, count)
    return count


@device_function
def _obstructed(qubit, time, coupling, numbers, reals, since):  # type: ignore[no-untyped-def]
    """Whether an operation that comes later in the circuit ends a piece of the qubit before a
    time."""
    pairs, begins, mine = coupling
    for m in range(begins[qubit], begins[qubit + 1]):
        p = mine[m]
        other = pairs[p, 0] + pairs[p, 1] - qubit
        acts = numbers[qubit, _ACTIVE] and numbers[other, _ACTIVE] and since[p] < time
        if acts and reals[other, _AHEAD] < time:
            return True
    return False


@device_function
def _relax(  # type: ignore[no-untyped-def]
    k, now, waiting, numbers, reals, waits, times, coupling, since, rows, count
):
    """Write slices before operation k, which starts at `now`, in the order of their middles, and
    the interaction before each; returns the number of rows. `waiting`: qubits with slices."""
    pairs, begins, mine = coupling
    while True:
        best, best_middle, best_end = np.int64(-1), np.inf, 0.0
        for i in range(waiting.size):
            q = waiting[i]
            wait = numbers[q, _CURRENT]
            if wait < 0 or waits[wait, _NEEDED] > numbers[q, _SEEN]:
                continue
            end, past, due = times[wait, _END], reals[q, _PAST], numbers[q, _DUE]
            if past + times[wait, _SLICE] < end - _LEAST_NS:
                end = past + times[wait, _SLICE]
            if reals[q, _BOUND] > past + _LEAST_NS:
                end = min(end, reals[q, _BOUND])
            if due == _CUT:
                end = min(end, now)
            middle = 0.5 * (past + end)
            if middle >= best_middle or (due != _WHOLE and middle > now - _LEAST_NS):
                continue
            if due == _FREE and _obstructed(q, middle, coupling, numbers, reals, since):
                continue
            best, best_middle, best_end = q, middle, end
        if best < 0:
            return count
        for m in range(begins[best], begins[best + 1]):
            p = mine[m]
            until = min(best_middle, reals[pairs[p, 0] + pairs[p, 1] - best, _AHEAD])
            written = _interact(k, p, until, pairs, numbers, since, rows, count)
            if written > count:
                count, since[p] = written, until
        wait = numbers[best, _CURRENT]
        count = _write(k, waits[wait, _OWNER], best_end - reals[best, _PAST], rows, count)
        reals[best, _PAST] = best_end
        if best_end >= times[wait, _END]:
            wait = numbers[best, _CURRENT] = waits[wait, _NEXT]
            if wait >= 0:
                reals[best, _PAST] = times[wait, _BEGIN]


@device_function
def _wait(k, owner, qubit, begin, end, numbers, reals, waits, times, number):  # type: ignore[no-untyped-def]
    """Append a waiting time; returns how many there are."""
    waits[number, _OWNER], waits[number, _NEEDED] = owner, numbers[qubit, _SEEN]
    waits[number, _PLACE], waits[number, _NEXT] = k, -1
    times[number, _BEGIN], times[number, _END] = begin, end
    reals[qubit, _WAITS] += end - begin
    return number + 1


@device_function
def _collect(  # type: ignore[no-untyped-def]
    operations, idle, reads, rates, numbers, reals, waits, times, at, rows
):
    """Collect the waiting times that may need a split, and write the others; returns how many there
    are of both. `at` [operations]: filled with start times, in a block with that of the block."""
    codes, roles, first, wires, start, length = operations
    idle_after, idle_qubit, idle_ns, idle_end = idle
    turns, decays = rates
    depth = number = count = p = np.int64(0)
    outer = 0.0
    for k in range(codes.size + 1):
        while p < idle_after.size and idle_after[p] < k:
            q = idle_qubit[p]
            if depth or decays[q] * turns[q] == 0.0:
                count = _write(k, -1 - q, idle_ns[p], rows, count)
            else:
                begin = idle_end[p] - idle_ns[p]
                number = _wait(
                    k, -1 - q, q, begin, idle_end[p], numbers, reals, waits, times, number
                )
            p += 1
        if k == codes.size:
            break
        code = codes[k]
        at[k] = outer if depth else start[k]
        if code == gates.END_BLOCK:
            depth -= 1
        elif code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
            outer = start[k] if depth == 0 else outer
            depth += 1
        if code not in (gates.MEASURE, gates.RESET) and code < gates.UNITARY:
            continue
        for j in range(first[k], first[k + 1]):
            numbers[wires[j], _SEEN] += 1
        if reads and code == gates.MEASURE and roles[k] == ORDINARY and length[k] > _LEAST_NS:
            q = wires[first[k]]
            owner, end = -1 - q - READING, start[k] + length[k]
            if depth or decays[q] * turns[q] == 0.0:
                count = _write(k + 1, owner, length[k], rows, count)
            else:
                number = _wait(k + 1, owner, q, start[k], end, numbers, reals, waits, times, number)
    return number, count


@device_function
def idle_rows(  # type: ignore[no-untyped-def]
    codes, roles, first, wires, length, reads, idle_after, idle_qubit, idle_ns, after, owner, time
):
    """Fill `after`, `owner` and `time` as `timed_rows` does for a circuit without blocks and
    coupled pairs; returns the number of rows."""
    rows = (after, owner, time)
    count = p = np.int64(0)
    for k in range(codes.size + 1):
        while p < idle_after.size and idle_after[p] < k:
            count = _write(k, -1 - idle_qubit[p], idle_ns[p], rows, count)
            p += 1
        if k == codes.size:
            break
        if reads and codes[k] == gates.MEASURE and roles[k] == ORDINARY and length[k] > _LEAST_NS:
            count = _write(k + 1, -1 - wires[first[k]] - READING, length[k], rows, count)
    return count


@device_function
def _split(number, rates, waiting, numbers, reals, waits, times, rows, count):  # type: ignore[no-untyped-def]
    """Find the slices of waiting times, list their qubits in `waiting`, and write the waiting times
    that need none; returns the numbers of qubits and of rows."""
    turns, decays = rates
    fastest = 0.0
    for q in range(decays.size):
        fastest = max(fastest, decays[q])
    found = 0
    for wait in range(number):
        q = -1 - waits[wait, _OWNER]
        q -= READING if q >= READING else 0
        length = times[wait, _END] - times[wait, _BEGIN]
        error = decays[q] * turns[q] * length * reals[q, _WAITS] / SPLIT_ERROR
        if error <= 4.0:
            place = waits[wait, _PLACE]
            count = _write(place, waits[wait, _OWNER], length, rows, count)
            continue
        slices = np.ceil(np.sqrt(error * (turns[q] + 4.0 * fastest) * length / 48.0))
        times[wait, _SLICE] = length / min(max(slices, 1.0), MAX_SLICES)
        if numbers[q, _CURRENT] < 0:
            numbers[q, _CURRENT], reals[q, _PAST] = wait, times[wait, _BEGIN]
            waiting[found] = q
            found += 1
        else:
            waits[numbers[q, _LAST], _NEXT] = wait
        numbers[q, _LAST] = wait
    return found, count


@device_function
def _mark(k, now, operations, kinds, rates, numbers, reals, waits, times, coupling):  # type: ignore[no-untyped-def]
    """Mark the waiting times that operation k on qubits ends, and those during which it interrupts
    an interaction so that their slice would have too large an error."""
    codes, _, first, wires, _, _ = operations
    turns, decays = rates
    pairs, begins, mine = coupling
    for j in range(first[k], first[k + 1]):
        if kinds[codes[k]] != _DIAGONAL:
            for m in range(begins[wires[j]], begins[wires[j] + 1]):
                other = pairs[mine[m], 0] + pairs[mine[m], 1] - wires[j]
                wait = numbers[other, _CURRENT]
                if wait < 0 or numbers[other, _DUE] == _WHOLE:
                    continue
                past = reals[other, _PAST]
                if waits[wait, _NEEDED] <= numbers[other, _SEEN] and past < now - _LEAST_NS:
                    length = min(times[wait, _SLICE], times[wait, _END] - past)
                    error = decays[other] * turns[other] * length * reals[other, _WAITS] / 8.0
                    if error > SPLIT_ERROR and past + length > now:
                        numbers[other, _DUE] = _CUT
    for j in range(first[k], first[k + 1]):
        numbers[wires[j], _DUE] = _WHOLE


@device_function
def timed_rows(  # type: ignore[no-untyped-def]
    codes, kinds, roles, first, wires, start, length, total, reads, idle_after, idle_qubit, idle_ns,
    idle_end, pairs, begins, mine, turns, decays, scratch, after, owner, time,
):  # fmt: skip
    """Fill `after`, `owner` and `time`; returns the number of rows, which may be larger than there
    is room. `kinds`: by code; `idle_end`: when each idle time ends; `idle_after`: ascending.
    `reads`: whether the qubits of measurements that are not final relax too. `scratch`: bytes."""
    size, num_qubits = codes.size, turns.size
    room = 2 * size + wires.size + num_qubits
    at, scratch = take_reals(scratch, size)
    ahead, scratch = take_reals(scratch, wires.size)
    since, scratch = take_reals(scratch, pairs.shape[0])
    waiting, scratch = take_numbers(scratch, num_qubits)
    flat, scratch = take_numbers(scratch, num_qubits * _NUMBERS)
    numbers = flat.reshape((num_qubits, _NUMBERS))
    flat_reals, scratch = take_reals(scratch, num_qubits * _REALS)
    reals = flat_reals.reshape((num_qubits, _REALS))
    flat, scratch = take_numbers(scratch, room * _WAIT_NUMBERS)
    waits = flat.reshape((room, _WAIT_NUMBERS))
    flat_reals, scratch = take_reals(scratch, room * _WAIT_REALS)
    times = flat_reals.reshape((room, _WAIT_REALS))
    operations = (codes, roles, first, wires, start, length)
    coupling, rates, rows = (pairs, begins, mine), (turns, decays), (after, owner, time)
    idle = (idle_after, idle_qubit, idle_ns, idle_end)

    since[:] = np.inf
    numbers[:] = 0
    numbers[:, _CURRENT] = -1
    reals[:] = 0.0
    number, count = _collect(operations, idle, reads, rates, numbers, reals, waits, times, at, rows)
    if not pairs.shape[0]:
        return count
    found, count = _split(number, rates, waiting, numbers, reals, waits, times, rows, count)
    waiting = waiting[:found]
    numbers[:, _SEEN] = 0
    reals[:, _AHEAD] = np.inf
    for k in range(size - 1, -1, -1):
        code = codes[k]
        if code in (gates.MEASURE, gates.RESET) or code >= gates.UNITARY:
            for j in range(first[k], first[k + 1]):
                ahead[j] = reals[wires[j], _AHEAD]
                if kinds[code] != _DIAGONAL:
                    reals[wires[j], _AHEAD] = at[k]

    depth = 0
    for k in range(size):
        code, now, low, high = codes[k], start[k], first[k], first[k + 1]
        if code == gates.END_BLOCK:
            depth -= 1
        elif code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
            depth += 1
            if depth == 1:
                for i in range(found):
                    wait = numbers[waiting[i], _CURRENT]
                    ends = wait >= 0 and times[wait, _END] <= now + _LEAST_NS
                    numbers[waiting[i], _DUE] = _WHOLE if ends else _CUT
                count = _relax(
                    k, now, waiting, numbers, reals, waits, times, coupling, since, rows, count
                )
                numbers[:, _DUE] = _FREE
                for p in range(since.size):
                    count = _interact(k, p, now, pairs, numbers, since, rows, count)
                    if since[p] < np.inf:
                        since[p] = now + length[k]
        elif code in (gates.MEASURE, gates.RESET) or code >= gates.UNITARY:
            if depth == 0:
                if found:
                    _mark(k, now, operations, kinds, rates, numbers, reals, waits, times, coupling)
                    count = _relax(
                        k, now, waiting, numbers, reals, waits, times, coupling, since, rows, count
                    )
                    numbers[:, _DUE] = _FREE
                if kinds[code] == _DIAGONAL:
                    if high - low == 2:
                        for m in range(begins[wires[low]], begins[wires[low] + 1]):
                            p = mine[m]
                            if pairs[p, 0] == wires[low + 1] or pairs[p, 1] == wires[low + 1]:
                                since[p] += length[k]
                else:
                    count = _interrupt(
                        k, operations, kinds, numbers, reals, coupling, since, rows, count
                    )
            for j in range(low, high):
                numbers[wires[j], _ACTIVE] = 1
                numbers[wires[j], _SEEN] += 1
                reals[wires[j], _AHEAD] = ahead[j]
    for i in range(found):
        numbers[waiting[i], _DUE] = _WHOLE
    end = np.int64(size)
    count = _relax(end, total, waiting, numbers, reals, waits, times, coupling, since, rows, count)
    for p in range(since.size):
        count = _interact(end, p, total, pairs, numbers, since, rows, count)
    return count


@device_function
def _interrupt(k, operations, kinds, numbers, reals, coupling, since, rows, count):  # type: ignore[no-untyped-def]
    """Write the interactions that operation k ends, and begin the next ones; returns the number of
    rows."""
    codes, _, first, wires, start, length = operations
    pairs, begins, mine = coupling
    low, high = first[k], first[k + 1]
    for j in range(low, high):
        for m in range(begins[wires[j]], begins[wires[j] + 1]):
            p = mine[m]
            other = pairs[p, 0] + pairs[p, 1] - wires[j]
            seen = both = False
            for i in range(low, high):
                both |= wires[i] == other
                seen |= wires[i] == other and i < j
            if seen:
                continue
            count = _interact(k, p, start[k], pairs, numbers, since, rows, count)
            free = both or kinds[codes[k]] == _REFOCUSED
            end = start[k] + (length[k] if free else 0.0)
            since[p] = end if since[p] == np.inf else max(since[p], end)
            if free and not both:
                reals[other, _BOUND] = end
    return count


_timed_rows = kernel(
    "I64 I64 I64 I64 I64 REALS REALS REAL INT I64 I64 REALS REALS INTS2 I64 I64 REALS REALS U8 I64 "
    "I64 REALS -> INT",
    group="attachment",
)(timed_rows)


def timed_noise(
    circuit: Circuit,
    operands: Operands,
    roles: NDArray[np.int64],
    schedule: Schedule,
    pairs: CoupledPairs,
    delays: tuple[NDArray[np.intp], NDArray[np.float64]] | None = None,
    *,
    reads: bool = True,
) -> TimedNoise:
    """Relaxation and interaction of a circuit. `roles`: of its operations; `pairs`: for as many
    qubits as the circuit has; `delays`: operations that are delays, and their durations; `reads`:
    whether the qubits of measurements that are not final relax meanwhile."""
    idle = [schedule.idle_after, schedule.idle_qubit, schedule.idle_ns, schedule.idle_end_ns]
    if delays is not None:
        places, times = delays
        wires = operands.wires[operands.first[places]]
        parts = (places, wires, times, schedule.start_ns[places] + times)
        idle = [np.concatenate(both) for both in zip(parts, idle, strict=True)]
        order = np.argsort(idle[0], kind="stable")
        idle = [each[order] for each in idle]
    size, num_wires, num_pairs = circuit.ops.size, operands.wires.size, len(pairs.ends)
    scratch = np.empty(scratch_bytes(size, num_wires, circuit.num_qubits, num_pairs), np.uint8)
    room = rows_room(size, num_wires, pairs)
    while True:
        (after, owner), time = np.empty((2, room), np.int64), np.empty(room)
        count = _timed_rows(
            operands.codes, KINDS, roles, operands.first, operands.wires, schedule.start_ns,
            schedule.length_ns, schedule.duration_ns, int(reads), *idle, pairs.ends, pairs.begins,
            pairs.mine, pairs.turns, pairs.decays, scratch, after, owner, time,
        )  # fmt: skip
        if count <= room:
            return TimedNoise(after[:count], owner[:count], time[:count])
        room = count
