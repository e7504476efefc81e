"""Noise locations of a circuit: channels after operations, and their order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import ORDINARY, TERMINAL
from simulators.circuit.gates import BARRIER, MEASURE, UNITARY
from simulators.compiler.kernel import device_function, kernel

# Kernels of the attachment of noise: channels after operations, and the channels of a circuit.

EMPTY = -1  # unused key
IRREGULAR = -1  # length of an entry with channels on qubits other than the operation's
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, TAOCP 3, section 6.4)
_QUBIT_BITS = 17


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
def _entry(keys, entries, key):  # type: ignore[no-untyped-def]
    """Entry of a key; -1 if there is none."""
    mask = np.int64(keys.size - 1)
    slot = np.int64(np.uint64(key) * _MULTIPLIER >> np.uint64(32)) & mask
    while keys[slot] != key:
        if keys[slot] == EMPTY:
            return np.int64(-1)
        slot = slot + 1 & mask
    return entries[slot]


@device_function
def locate_operations(  # type: ignore[no-untyped-def]
    codes, first, wires, ops, gates, roles, keys, entries, times, begins, lengths, rows, durations,
    touched, locations, missing, irregular, totals,
):  # fmt: skip
    """Fill `durations` [operations], `touched` [qubits] and `locations` (operation, channel and
    qubits, -1 for none) for operations with entries.

    `gates`: number of each row of the circuit's table; `times`, `begins`, `lengths`: of the
    entries; `rows`: their channels with operands. `missing`: operations without an entry;
    `irregular`: those on more than two qubits, or with an irregular entry. `totals`: numbers of
    locations, missing and irregular operations. A measurement that another one of its qubit follows
    is not final here: `roles` are changed.
    """
    touched[:] = 0
    for k in range(codes.size - 1, -1, -1):
        if codes[k] == MEASURE:
            if roles[k] == TERMINAL and touched[wires[first[k]]]:
                roles[k] = ORDINARY
            touched[wires[first[k]]] = 1
    written = absent = other = 0
    touched[:] = 0
    for k in range(codes.size):
        code, at, end = codes[k], first[k], first[k + 1]
        durations[k] = 0.0
        if code != BARRIER:
            for j in range(at, end):
                touched[wires[j]] = 1
        if code < MEASURE or at == end:
            continue
        acts = code >= UNITARY or roles[k] == ORDINARY
        if end - at > 2:
            irregular[other] = k
            other += 1
            continue
        second = wires[at + 1] if end - at == 2 else np.int64(-1)
        key = (gates[ops[k]] << _QUBIT_BITS | wires[at]) << _QUBIT_BITS | (second + 1)
        entry = _entry(keys, entries, key)
        if entry < 0:
            missing[absent] = k
            absent += 1
            continue
        durations[k] = times[entry]
        if not acts:
            continue
        if lengths[entry] == IRREGULAR:
            irregular[other] = k
            other += 1
            continue
        for row in range(begins[entry], begins[entry] + lengths[entry]):
            if written < locations.shape[0]:
                locations[written, 0] = k
                locations[written, 1] = rows[row, 0]
                locations[written, 2] = wires[at + rows[row, 1]]
                locations[written, 3] = wires[at + rows[row, 2]] if rows[row, 2] >= 0 else -1
            written += 1
    totals[0], totals[1], totals[2] = written, absent, other


locate = kernel(
    "I64 I64 I64 U16 I64 I64 I64 I64 REALS I64 I64 INTS2 REALS U8 INTS2 I64 I64 I64",
    group="attachment",
)(locate_operations)


@kernel("I64 I64 I64 I64 INTS2 INT -> INT", group="attachment")
def append_locations(after, channels, first, second, locations, count):  # type: ignore[no-untyped-def]
    """Append the rows that have a channel after `count` rows; returns the new number. `second`: [0]
    for channels on one qubit."""
    for k in range(channels.size):
        if channels[k] >= 0:
            locations[count, 0] = after[k]
            locations[count, 1] = channels[k]
            locations[count, 2] = first[k]
            locations[count, 3] = second[k] if second.size else np.int64(-1)
            count += 1
    return count


@device_function
def order_by_operation(locations, begins, marks, used, ordered):  # type: ignore[no-untyped-def]
    """Order locations stably by their operations, and number their channels by their first
    location; returns the number of channels. `begins` [operations + 2]: zeros. `marks`: one for
    each channel, all -1 before and after. `used`: filled with the previous numbers of the
    channels."""
    for k in range(locations.shape[0]):
        begins[locations[k, 0] + 2] += 1  # -1 is before all operations
    for k in range(1, begins.size):
        begins[k] += begins[k - 1]
    for k in range(locations.shape[0]):
        place = begins[locations[k, 0] + 1]
        begins[locations[k, 0] + 1] += 1
        for column in range(4):
            ordered[place, column] = locations[k, column]
    count = 0
    for k in range(ordered.shape[0]):
        number = ordered[k, 1]
        if marks[number] < 0:
            marks[number] = count
            used[count] = number
            count += 1
        ordered[k, 1] = marks[number]
    for k in range(count):
        marks[used[k]] = -1
    return count


order_locations = kernel("INTS2 I64 I64 I64 INTS2 -> INT", group="attachment")(order_by_operation)


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
