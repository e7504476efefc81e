"""Noise locations of a circuit without blocks and delays, in one kernel call.

The steps are those of `attach_noise`, on the entries of the registry. The kernel reports those that
are missing, and is called again when they are made. Where an operation has channels on other qubits
than its own, it gives up.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import TERMINAL, classify
from simulators.circuit.gates import MEASURE
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.passes.noise_locations import (
    EMPTY,
    KINDS,
    interaction_pieces,
    locate_operations,
    order_by_operation,
    timed_slot,
)
from simulators.circuit.passes.noise_registry import UNSEEN, NoiseRegistry
from simulators.circuit.schedule import Method, schedule_operations
from simulators.compiler import simd
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import as_numbers, as_reals, take_bytes, take_numbers, take_reals

_MAX_OPERATIONS = 4_096  # of a circuit whose scratch arrays are kept
_CHANNELS_EACH = 4  # of an operation, for which there is room
_GIVEN_UP, _DONE, _LACKING = range(3)  # how a call of the kernel ends
_GATE, _PREPARATION, _IDLE, _PAIR = range(4)  # kinds of entries that it lacks


class PlainLocations(msgspec.Struct, frozen=True, eq=False):
    """Locations in order of their action, their channels by number, and the duration of the
    schedule."""

    locations: NDArray[np.int64]  # [n, 4], see `NoiseProgram`
    used: NDArray[np.int64]  # [channels]: number in the registry
    duration_ns: float
    measures: bool
    misread: bool  # a measured qubit has a readout error


class PlainLocator:
    """Locator for one registry, with its scratch arrays. Not thread-safe."""

    def __init__(self, registry: NoiseRegistry) -> None:
        self._registry = registry
        self._scratch = simd.aligned(0)
        self._rows = np.empty((2, 0, 4), np.int64)
        self._found, self._total = np.empty(4, np.int64), np.empty(1)

    def locate(
        self, circuit: Circuit, method: Method, misread: NDArray[np.uint8]
    ) -> PlainLocations | None:
        """Locations of an admissible circuit without blocks and delays, for a model with idle
        noise; None where the kernel gave up. `misread` [qubits]: 1 for a readout error."""
        ending = _GIVEN_UP if circuit.ops.size > _MAX_OPERATIONS else _LACKING
        while ending == _LACKING:
            ending, used = self._call(circuit, method, misread)
            if ending == _LACKING:
                self._learn(circuit, self._rows[1, : self._found[0]])
        if ending == _GIVEN_UP:
            return None
        count, channels, measured, wrong = self._found.tolist()
        return PlainLocations(
            self._rows[1, :count].copy(),
            used[:channels],
            float(self._total[0]),
            measured > 0,
            wrong > 0,
        )

    def _call(
        self, circuit: Circuit, method: Method, misread: NDArray[np.uint8]
    ) -> tuple[int, NDArray[np.int64]]:
        """Call the kernel; return its end code and the channels that it used."""
        registry, size = self._registry, circuit.ops.size
        pairs = registry.coupled(circuit.num_qubits)
        wires, qubits = circuit.qubits.size, circuit.num_qubits
        pieces = wires * pairs.max_degree + len(pairs.ends)
        need = 8 * (12 * size + 4 * wires + 6 * qubits + 3 * pieces + len(pairs.ends) + 8)
        need += 2 * qubits + circuit.num_clbits + size
        if need > self._scratch.size:
            self._scratch = simd.aligned(2 * need)
        room = _CHANNELS_EACH * size + size + wires + 2 * qubits + pieces
        if room > self._rows.shape[1]:
            self._rows = np.empty((2, 2 * room, 4), np.int64)
        used = np.empty(registry.marks.size, np.int64)
        ending: int = _plain_locations(
            circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, circuit.conditions,
            register_starts(circuit), registry.gates(circuit.table.names), registry.keys,
            registry.entries, registry.durations_ns, registry.begins, registry.lengths,
            registry.rows, registry.known_preparations, registry.idle.keys, registry.crosstalk.keys,
            pairs.ends, pairs.begins, pairs.mine, registry.marks, misread, circuit.num_clbits,
            int(method == "alap"), pieces, self._scratch, *self._rows, used, self._found,
            self._total,
        )  # fmt: skip
        return ending, used

    def _learn(self, circuit: Circuit, lacking: NDArray[np.int64]) -> None:
        """Make entries of the registry: rows of kind, operation or qubit or pair, and the bits of
        a time."""
        registry = self._registry
        kinds, owners = lacking[:, 0], lacking[:, 1]
        arity = circuit.table.rows[:, 1][circuit.ops]
        ends = arity.cumsum()
        gates: set[tuple[str, tuple[int, ...]]] = set()
        for k in owners[kinds == _GATE].tolist():
            qubits = circuit.qubits[ends[k] - arity[k] : ends[k]].tolist()
            gates.add((circuit.table.names[circuit.ops[k]], tuple(qubits)))
        for name, wires in gates:
            registry.learn(name, wires)
        registry.preparations(owners[kinds == _PREPARATION])
        times = np.ascontiguousarray(lacking[:, 2]).view(np.float64)
        registry.idle.learn(owners[kinds == _IDLE], times[kinds == _IDLE])
        registry.crosstalk.learn(owners[kinds == _PAIR], times[kinds == _PAIR])


@device_function
def _note(lacking, count, kind, owner, time):  # type: ignore[no-untyped-def]
    """Write a row; returns how many there are."""
    lacking[count, 0], lacking[count, 1], lacking[count, 2] = kind, owner, time
    return count + 1


@device_function
def _append(locations, count, after, channel, a, b):  # type: ignore[no-untyped-def]
    """Append a row if there is a channel; returns the number of rows."""
    if channel < 0:
        return count
    locations[count, 0], locations[count, 1] = after, channel
    locations[count, 2], locations[count, 3] = a, b
    return count + 1


@kernel(
    "NAMES U16 U16 U16 I32 I64 I64 I64 I64 REALS I64 I64 INTS2 I64 INTS2 INTS2 INTS2 I64 I64 I64 "
    "U8 INT INT INT U8 INTS2 INTS2 I64 I64 REALS -> INT",
    group="attachment",
)
def _plain_locations(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, tokens, starts, gates, keys, entries, times, begins, lengths,
    entry_rows, preparations, idle_keys, pair_keys, ends, pair_begins, mine, marks, misread,
    num_clbits, late, pieces, scratch, locations, ordered, used, totals, total,
):  # fmt: skip
    """_DONE: `ordered`, `used`, `totals` (how many there are of locations, channels, measurements
    and misread measurements) and `total` are filled. _LACKING: `ordered` has rows for `_learn`, as
    many as totals[0] says. _GIVEN_UP: the circuit is another than those of the module.

    `keys` .. `pair_keys`: of the registry; `ends` .. `mine`: its coupled pairs. `pieces`: most
    interaction times. `locations`: rows before they are ordered; `scratch`: bytes.
    """
    size, num_wires, num_qubits = ops.size, qubits.size, misread.size
    room = size + num_wires + num_qubits
    codes, scratch = take_numbers(scratch, size)
    first, scratch = take_numbers(scratch, size + 1)
    wires, scratch = take_numbers(scratch, num_wires)
    roles, scratch = take_numbers(scratch, size)
    missing, scratch = take_numbers(scratch, size)
    irregular, scratch = take_numbers(scratch, size)
    after, scratch = take_numbers(scratch, room)
    waiting, scratch = take_numbers(scratch, room)
    idle, idle_bits = as_reals(scratch, 0, room), as_numbers(scratch, 0, room)
    scratch = scratch[8 * room :]
    in_use, scratch = take_numbers(scratch, num_qubits)
    active, scratch = take_numbers(scratch, num_qubits)
    end, scratch = take_reals(scratch, num_qubits)
    start, scratch = take_reals(scratch, size)
    durations, scratch = take_reals(scratch, size)
    since, scratch = take_reals(scratch, ends.shape[0])
    piece_after, scratch = take_numbers(scratch, pieces)
    piece_pair, scratch = take_numbers(scratch, pieces)
    piece_time, piece_bits = as_reals(scratch, 0, pieces), as_numbers(scratch, 0, pieces)
    scratch = scratch[8 * pieces :]
    first_of, scratch = take_numbers(scratch, size + 2)
    touched, scratch = take_bytes(scratch, num_qubits)
    seen, scratch = take_bytes(scratch, num_qubits)
    blocked, final = take_bytes(scratch, num_clbits)

    place = 0
    for k in range(size):
        codes[k], first[k] = rows[ops[k], 0], place
        place += rows[ops[k], 1]
    first[size] = place
    for j in range(num_wires):
        wires[j] = qubits[j]
    classify(rows, ops, qubits, clbits, tokens, starts, seen, blocked, 1, roles)
    locate_operations(
        codes, first, wires, ops, gates, roles, keys, entries, times, begins, lengths, entry_rows,
        durations, touched, locations, missing, irregular, totals,
    )  # fmt: skip
    if totals[2] or totals[0] > _CHANNELS_EACH * size:
        return _GIVEN_UP
    count, lacking = totals[0], np.int64(0)
    for k in range(totals[1]):
        lacking = _note(ordered, lacking, _GATE, missing[k], 0)
    for q in range(num_qubits):
        if touched[q] and (q >= preparations.size or preparations[q] == UNSEEN):
            lacking = _note(ordered, lacking, _PREPARATION, q, 0)
        elif touched[q]:
            count = _append(locations, count, -1, preparations[q], q, -1)
    if totals[1]:  # without their durations there are no times
        totals[0] = lacking
        return _LACKING
    measured = wrong = 0
    for k in range(size):
        final[k] = roles[k] == TERMINAL
        if codes[k] == MEASURE:
            measured += 1
            wrong += misread[wires[first[k]]]
    number = schedule_operations(
        codes, first, wires, final, durations, late, start, end, in_use, after, waiting, idle, total
    )
    for k in range(number):
        slot = timed_slot(idle_keys, waiting[k], idle_bits[k])
        if idle_keys[slot, 0] == EMPTY:
            lacking = _note(ordered, lacking, _IDLE, waiting[k], idle_bits[k])
        else:
            count = _append(locations, count, after[k], idle_keys[slot, 2], waiting[k], -1)
    if ends.shape[0]:
        active[:] = 0
        since[:] = np.inf
        number = interaction_pieces(
            codes, KINDS, first, wires, start, durations, total[0], ends, pair_begins, mine,
            active, since, piece_after, piece_pair, piece_time,
        )  # fmt: skip
        for k in range(number):
            pair = piece_pair[k]
            slot = timed_slot(pair_keys, pair, piece_bits[k])
            if pair_keys[slot, 0] == EMPTY:
                lacking = _note(ordered, lacking, _PAIR, pair, piece_bits[k])
                continue
            channel = pair_keys[slot, 2]
            count = _append(locations, count, piece_after[k], channel, ends[pair, 0], ends[pair, 1])
    if lacking:
        totals[0] = lacking
        return _LACKING
    first_of[:] = 0
    totals[1] = order_by_operation(locations[:count], first_of, marks, used, ordered[:count])
    totals[0], totals[2], totals[3] = count, measured, wrong
    return _DONE
