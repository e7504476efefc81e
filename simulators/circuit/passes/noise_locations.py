"""Noise locations of a circuit: channels after operations, channels over times, and their order.

The kernels read tables that `noise_registry` fills, and report the entries that these lack.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import ORDINARY, classify, presume_noise
from simulators.circuit.arrays import CircuitArrays, Operands
from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, MEASURE, UNITARY
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1
from simulators.compiler.kernel import I64, INTS2, REALS, U8, device_function, kernel, record

EMPTY = -1  # unused key
IRREGULAR = -1  # length of an entry with channels on qubits other than the operation's
UNSEEN = -2  # preparation that was not requested yet
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, TAOCP 3, section 6.4)
_QUBIT_BITS = 17
_ROOM = 4  # locations of an operation, for which there is room at the first call


@record
class GateTable(NamedTuple):
    """Channels after each gate on each qubits. Its entries are found by a hash table with linear
    probing."""

    keys: I64  # [a power of two]: see `entry_key`; EMPTY
    entries: I64  # entry of each key
    durations_ns: REALS  # [entries]
    begins: I64  # [entries]: into `rows`
    lengths: I64  # [entries]: number of rows; or IRREGULAR
    rows: INTS2  # channel; operands 0, 1 or -1
    preparations: I64  # channel of each of the first qubits; -1: none; or UNSEEN


@record
class Located(NamedTuple):
    """What `locate` finds in a circuit; `totals` says how much of the arrays is filled."""

    roles: I64  # [operations]: see `classify`; only its last operation measures a qubit at the end
    durations_ns: REALS  # [operations]; 0.0: no entry
    touched: U8  # [qubits]: 1 if an operation other than a barrier acts on it
    locations: INTS2  # [room, 4]: preparations, then channels after operations
    missing: I64  # [operations + qubits]: operations without an entry; -1 - q: preparation of q
    irregular: I64  # [operations]: delays, and those on more than two qubits, or with IRREGULAR
    totals: I64
    scratch: U8  # [qubits + clbits]
    spans: INTS2  # [2, qubits]: scratch


WRITTEN, PREPARED, ABSENT, OTHERS, MISREAD = range(5)  # of `totals`; preparations are locations


def located(
    circuit: Circuit,
    gates: NDArray[np.int64],
    table: GateTable,
    misread: NDArray[np.uint8],
    room: int = 0,
) -> tuple[Operands, Located]:
    """Operands and noise locations of an admissible circuit. `gates`: number of each row of its
    table; `misread` [qubits]: 1 for a readout error; `room`: for locations."""
    size, qubits = circuit.ops.size, circuit.num_qubits
    operands = Operands(
        np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size + 1, np.int64),
        np.empty(circuit.qubits.size, np.int64),
    )  # fmt: skip
    found = Located(
        np.empty(size, np.int64), np.empty(size), np.empty(qubits, np.uint8),
        np.empty((max(room, qubits + _ROOM * size), 4), np.int64),
        np.empty(size + qubits, np.int64), np.empty(size, np.int64), np.empty(5, np.int64),
        np.empty(qubits + circuit.num_clbits, np.uint8), np.empty((2, qubits), np.int64),
    )  # fmt: skip
    _locate(
        CircuitArrays.of(circuit), circuit.conditions, register_starts(circuit), gates, table,
        misread, operands, found,
    )  # fmt: skip
    return operands, found


def entry_key(gate: int, first: int, second: int) -> int:
    """Key of a gate on qubits; `second`: -1 without one."""
    return (gate << _QUBIT_BITS | first) << _QUBIT_BITS | (second + 1)


def slot_of(keys: NDArray[np.int64], key: int) -> int:
    """Slot of a key, or the free slot for it, in a table whose size is a power of two."""
    slot = (key * int(_MULTIPLIER) & (1 << 64) - 1) >> 32 & keys.size - 1
    while keys[slot] not in (key, EMPTY):
        slot = slot + 1 & keys.size - 1
    return slot


@device_function
def _entry(table, key):  # type: ignore[no-untyped-def]
    """Entry of a key; -1 if there is none."""
    keys = table.keys
    mask = np.int64(keys.size - 1)
    slot = np.int64(np.uint64(key) * _MULTIPLIER >> np.uint64(32)) & mask
    while keys[slot] != key:
        if keys[slot] == EMPTY:
            return np.int64(-1)
        slot = slot + 1 & mask
    return table.entries[slot]


@device_function
def append(locations, count, after, channel, first, second):  # type: ignore[no-untyped-def]
    """Append a location if there is room; returns the number of locations."""
    if count < locations.shape[0]:
        locations[count, AFTER_OP], locations[count, CHANNEL] = after, channel
        locations[count, Q0], locations[count, Q1] = first, second
    return count + 1


@device_function
def _prepare(table, found):  # type: ignore[no-untyped-def]
    """Append the preparations of touched qubits; returns how many there are, and how many are
    missing."""
    count = absent = np.int64(0)
    for q in range(found.touched.size):
        if not found.touched[q]:
            continue
        if q >= table.preparations.size or table.preparations[q] == UNSEEN:
            found.missing[absent] = -1 - q
            absent += 1
        elif table.preparations[q] >= 0:
            count = append(found.locations, count, -1, table.preparations[q], q, -1)
    return count, absent


@kernel("CircuitArrays I32 I64 I64 GateTable U8 Operands Located", group="attachment")
def _locate(circuit, tokens, starts, gates, table, misread, operands, found):  # type: ignore[no-untyped-def]
    """Fill `operands` and `found`; see `located`."""
    rows, ops, qubits = circuit.rows, circuit.ops, circuit.qubits
    codes, first, wires = operands.codes, operands.first, operands.wires
    num_qubits, locations = found.touched.size, found.locations
    found.touched[:] = 0
    at = wrong = 0
    for k in range(ops.size):
        codes[k], operands.counts[k], first[k] = rows[ops[k], 0], rows[ops[k], 1], at
        for j in range(at, at + rows[ops[k], 1]):
            wires[j] = qubits[j]
            if codes[k] != BARRIER:
                found.touched[wires[j]] = 1
        if codes[k] == MEASURE:
            wrong += misread[wires[at]]
        at += rows[ops[k], 1]
    first[ops.size] = at
    presume_noise(rows, ops, qubits, found.spans)
    classify(
        rows, ops, qubits, circuit.clbits, tokens, starts, found.scratch[:num_qubits],
        found.scratch[num_qubits:], found.spans, 1, found.roles,
    )  # fmt: skip
    written, absent = _prepare(table, found)
    prepared, other = written, 0
    for k in range(ops.size):
        code, at, end = codes[k], first[k], first[k + 1]
        found.durations_ns[k] = 0.0
        if code in (DELAY, DELAY_DT):
            found.irregular[other] = k
            other += 1
        if code < MEASURE or at == end:
            continue
        acts = code >= UNITARY or found.roles[k] == ORDINARY
        if end - at > 2:
            found.irregular[other] = k
            other += 1
            continue
        second = wires[at + 1] if end - at == 2 else np.int64(-1)
        key = (gates[ops[k]] << _QUBIT_BITS | wires[at]) << _QUBIT_BITS | (second + 1)
        entry = _entry(table, key)
        if entry < 0:
            found.missing[absent] = k
            absent += 1
            continue
        found.durations_ns[k] = table.durations_ns[entry]
        if not acts:
            continue
        if table.lengths[entry] == IRREGULAR:
            found.irregular[other] = k
            other += 1
            continue
        for row in range(table.begins[entry], table.begins[entry] + table.lengths[entry]):
            channel, a, b = table.rows[row, 0], table.rows[row, 1], table.rows[row, 2]
            b = wires[at + b] if b >= 0 else np.int64(-1)
            written = append(locations, written, k, channel, wires[at + a], b)
    totals = found.totals
    totals[WRITTEN], totals[PREPARED], totals[ABSENT] = written, prepared, absent
    totals[OTHERS], totals[MISREAD] = other, wrong


def rows_of(
    after: NDArray[np.int64],
    channels: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64] | int = -1,
) -> NDArray[np.int64]:
    """Locations [n, 4]; `channels`: -1 for none."""
    result = np.empty((after.size, 4), np.int64)
    result[:, AFTER_OP], result[:, CHANNEL] = after, channels
    result[:, Q0], result[:, Q1] = first, second
    return result


def in_order(
    rows: NDArray[np.int64], num_operations: int, marks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those of the locations [n, 4] that have a channel, ordered stably by their operations, with
    the channels numbered by their first location; and the previous number of each channel.
    `marks`: one for each channel, all -1 before and after."""
    ordered, begins = np.empty_like(rows), np.zeros(num_operations + 2, np.int64)
    used = np.empty(min(len(rows), marks.size), np.int64)
    number = _order(rows, begins, marks, used, ordered)
    return ordered[: begins[-1]], used[:number]


@kernel("INTS2 I64 I64 I64 INTS2 -> INT", group="attachment")
def _order(rows, begins, marks, used, ordered):  # type: ignore[no-untyped-def]
    """See `in_order`; returns the number of channels. `begins` [operations + 2]: zeros; filled with
    the end of the locations after each operation."""
    for k in range(rows.shape[0]):
        if rows[k, CHANNEL] >= 0:
            begins[rows[k, AFTER_OP] + 2] += 1  # -1 is before all operations
    for k in range(1, begins.size):
        begins[k] += begins[k - 1]
    for k in range(rows.shape[0]):
        if rows[k, CHANNEL] >= 0:
            place = begins[rows[k, AFTER_OP] + 1]
            begins[rows[k, AFTER_OP] + 1] += 1
            for column in range(4):
                ordered[place, column] = rows[k, column]
    count = 0
    for k in range(begins[begins.size - 1]):
        number = ordered[k, CHANNEL]
        if marks[number] < 0:
            marks[number] = count
            used[count] = number
            count += 1
        ordered[k, CHANNEL] = marks[number]
    for k in range(count):
        marks[used[k]] = -1
    return count


@device_function
def timed_slot(keys, owner, time):  # type: ignore[no-untyped-def]
    """Slot of an owner and a time, or the free slot for them."""
    mask = np.int64(keys.shape[0] - 1)
    mixed = np.uint64(time) * _MULTIPLIER ^ np.uint64(owner)
    slot = np.int64(mixed * _MULTIPLIER >> np.uint64(32)) & mask
    while keys[slot, 0] != EMPTY and (keys[slot, 0] != owner or keys[slot, 1] != time):
        slot = slot + 1 & mask
    return slot


@kernel("INTS2 I64 I64 I64 I64 -> INT", group="attachment")
def find_timed(keys, owners, times, channels, missing):  # type: ignore[no-untyped-def]
    """Fill `channels` with the channel of each owner over each time (the bits of a float64), and
    `missing` with the indices of those that `keys` lacks; returns their number. `keys` [a power of
    two, 3]: owner, time, channel."""
    count = 0
    for k in range(owners.size):
        slot = timed_slot(keys, owners[k], times[k])
        channels[k] = keys[slot, 2]
        if keys[slot, 0] == EMPTY:
            missing[count] = k
            count += 1
    return count


@kernel("INTS2 INTS2", group="attachment")
def insert_timed(rows, keys):  # type: ignore[no-untyped-def]
    """Write the rows that are not empty into `keys`."""
    for k in range(rows.shape[0]):
        if rows[k, 0] != EMPTY:
            slot = timed_slot(keys, rows[k, 0], rows[k, 1])
            for column in range(3):
                keys[slot, column] = rows[k, column]
