"""Channels of one noise model by number, and their locations in a circuit in one kernel call."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import is_named_measurement
from noise_models.channel import Channel, Readout
from noise_models.model import LocatedChannel, NoiseModel
from simulators.circuit.analysis.measurements import TERMINAL, classify
from simulators.circuit.gates import MEASURE
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.noise import ChannelFacts, channel_facts
from simulators.circuit.passes import noise_locations
from simulators.circuit.passes.noise_locations import EMPTY
from simulators.circuit.passes.timed_noise import READING, CoupledPairs, idle_rows
from simulators.circuit.schedule import Method, schedule_operations
from simulators.compiler import simd
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import as_numbers, as_reals, take_bytes, take_numbers, take_reals
from simulators.errors import BadCircuit

# Registry of the channels of one noise model: numbers, and the channels after each gate on each
# qubits.
#
# It is filled with the entries that circuits need. The kernel that walks over a circuit reads the
# arrays: an entry for each gate with its qubits, found by a hash table with linear probing.

_NONE = -1  # no channel, or no second qubit
UNSEEN = -2
_IDLE_PROBE_NS, _PAIR_PROBE_NS = 1.0, 0.01  # times whose channels show the rates
_TABLES = 256  # cached tables of names, and cached widths of readout errors


class CircuitReadout(msgspec.Struct, frozen=True, eq=False):
    """Readout error of the qubits of a circuit."""

    readout: Readout | None
    misread: NDArray[np.uint8]  # [qubits]: 1 for a qubit with a readout error


NO_READOUT = CircuitReadout(None, np.zeros(0, np.uint8))


class TimedChannels:
    """Cache of channels of qubits, or of pairs, over times; `keys`: see `find_timed`."""

    def __init__(self, make: Callable[[int, float], int]) -> None:
        """Make an empty cache. `make`: returns the number of the channel of a qubit or pair over a
        time."""
        self._make = make
        self.keys = np.full((256, 3), EMPTY, np.int64)
        self._count = 0

    def channel_ids(
        self, owners: NDArray[np.int64], times_ns: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Numbers of the channels of owners over times; -1: none."""
        result, missing = np.empty((2, owners.size), np.int64)
        times = times_ns.view(np.int64)
        while count := noise_locations.find_timed(self.keys, owners, times, result, missing):
            self.learn(owners[missing[:count]], times_ns[missing[:count]])
        return result

    def learn(self, owners: NDArray[np.int64], times_ns: NDArray[np.float64]) -> None:
        """Make the channels of owners over times that have none."""
        pairs = dict.fromkeys(zip(owners.tolist(), times_ns.tolist(), strict=True))
        if not pairs:
            return
        rows = np.empty((len(pairs), 3), np.int64)
        rows[:, 0] = [owner for owner, _ in pairs]
        rows[:, 1] = np.array([time for _, time in pairs]).view(np.int64)
        rows[:, 2] = [self._make(*pair) for pair in pairs]
        self._add(rows)

    def _add(self, rows: NDArray[np.int64]) -> None:
        self._count += len(rows)
        if 2 * self._count > len(self.keys):
            size = 1 << (2 * self._count).bit_length()
            keys = np.full((size, 3), EMPTY, np.int64)
            noise_locations.insert_timed(self.keys, keys)
            self.keys = keys
        noise_locations.insert_timed(rows, self.keys)


class NoiseRegistry:
    """Registry of one model. Not thread-safe."""

    def __init__(self, model: NoiseModel) -> None:
        self.model = model
        self.channels: list[Channel] = []
        self._channel_bytes = 0
        self.marks = np.full(64, _NONE)  # scratch of a kernel: one for each channel, all -1
        self.keys = np.full(256, EMPTY, np.int64)
        self.entries = np.zeros(256, np.int64)  # entry of each key
        self.durations_ns = np.zeros(64)  # [entries]
        self.begins = np.zeros(64, np.int64)  # [entries]: into `rows`
        self.lengths = np.zeros(64, np.int64)  # [entries]; or IRREGULAR
        self.rows = np.zeros((64, 3), np.int64)  # channel; operands 0, 1 or -1
        self._numbers: dict[int, int] = {}  # channel numbers by identity
        self._gates: dict[str, int] = {}
        self._gates_of: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self._num_entries = self._num_rows = 0
        self.known_preparations = np.zeros(0, np.int64)  # by qubit; UNSEEN: not requested yet
        self._pairs: tuple[tuple[int, int], ...] = ()
        self._coupled: CoupledPairs | None = None
        self.is_detuned = any(map(model.detuning, range(model.num_qubits)))
        self.leaks = model.leaks
        self.has_memory = any(model.memory(q, 1) is not None for q in range(model.num_qubits))
        # Outcomes of measurements inside circuits are decided after a part of the relaxation.
        self.decides = model.decides
        # Relaxation during readouts is split as that of idle times is where ZZ acts meanwhile.
        self.splits_readout = (
            model.has_idle_noise and bool(model.crosstalk_pairs) and not self.decides
        )
        # Channels of idle times, readouts and numbers of layers of qubits, and of interaction times
        # of the pairs of `coupled`.
        self.idle = TimedChannels(lambda qubit, time: self.number(model.idle(qubit, time)))
        self.reading = TimedChannels(lambda q, time: self.number(model.during_readout(q, time)))
        self.memory = TimedChannels(lambda q, layers: self.number(model.memory(q, round(layers))))
        self.crosstalk = self._of_pairs()
        self._alone: dict[tuple[int, int], Channel] = {}
        self._readouts: dict[int, CircuitReadout] = {}  # by number of qubits
        self._flips: dict[tuple[str, int], tuple[float, float] | None] = {}
        self._facts = channel_facts(())

    def number(self, channel: Channel | None) -> int:
        """Number of a channel; -1 for None."""
        if channel is None:
            return _NONE
        result = self._numbers.get(id(channel))
        if result is None:
            result = self._numbers[id(channel)] = len(self.channels)
            self.channels.append(channel)
            self._channel_bytes += channel.ptm.nbytes
            if result >= self.marks.size:
                self.marks = np.full(2 * self.marks.size, _NONE)
        return result

    def gates(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        """Number of each gate name, for the keys."""
        result = self._gates_of.get(names)
        if result is None:
            ids = self._gates
            result = np.array([ids.setdefault(name, len(ids)) for name in names], np.int64)
            if len(self._gates_of) >= _TABLES:
                self._gates_of.clear()
            self._gates_of[names] = result
        return result

    def learn(self, name: str, qubits: tuple[int, ...]) -> None:
        """Make the entry of an operation on one or two qubits."""
        entry = self._new_entry(noise_locations.entry_key(self._gates[name], *(*qubits, _NONE)[:2]))
        self.durations_ns[entry] = self.model.duration_ns(name, qubits)
        rows = []
        if name == "reset":
            number = self.number(self.model.after_reset(qubits[0]))
            rows = [(number, 0, _NONE)] if number >= 0 else []
        else:
            for each in self.after_operation(name, qubits):
                if not set(qubits).issuperset(each.qubits):
                    self.lengths[entry] = noise_locations.IRREGULAR
                    return
                first, *others = (qubits.index(qubit) for qubit in each.qubits)
                rows.append((self.number(each.channel), first, others[0] if others else _NONE))
        self.begins[entry], self.lengths[entry] = self._num_rows, len(rows)
        while self._num_rows + len(rows) > len(self.rows):
            self.rows = np.concatenate((self.rows, np.zeros_like(self.rows)))
        for row in rows:
            self.rows[self._num_rows] = row
            self._num_rows += 1

    def after_operation(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Channels after a gate or measurement; without relaxation where it is split."""
        if self.splits_readout and (name == "measure" or is_named_measurement(name)):
            return self.model.by_measurement(name, qubits[0])
        return self.model.after_gate(name, qubits)

    def _new_entry(self, key: int) -> int:
        entry = self._num_entries
        self._num_entries += 1
        if entry >= self.begins.size:
            self.durations_ns = np.concatenate((self.durations_ns, np.zeros(entry)))
            self.begins = np.concatenate((self.begins, np.zeros(entry, np.int64)))
            self.lengths = np.concatenate((self.lengths, np.zeros(entry, np.int64)))
        if 2 * self._num_entries > self.keys.size:
            keys, entries = self.keys, self.entries
            self.keys = np.full(2 * keys.size, EMPTY, np.int64)
            self.entries = np.zeros(2 * keys.size, np.int64)
            for k in np.flatnonzero(keys != EMPTY).tolist():
                slot = noise_locations.slot_of(self.keys, int(keys[k]))
                self.keys[slot], self.entries[slot] = keys[k], entries[k]
        slot = noise_locations.slot_of(self.keys, key)
        self.keys[slot], self.entries[slot] = key, entry
        return entry

    def preparations(self, qubits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the preparation channel of each of these qubits, ascending; -1: none."""
        if not qubits.size:
            return qubits
        missing = int(qubits[-1]) + 1 - self.known_preparations.size
        if missing > 0:
            more = np.full(missing, UNSEEN, np.int64)
            self.known_preparations = np.concatenate((self.known_preparations, more))
        result = self.known_preparations[qubits]
        unseen = qubits[result == UNSEEN]
        for qubit in unseen.tolist():
            self.known_preparations[qubit] = self.number(self.model.preparation(qubit))
        return self.known_preparations[qubits] if unseen.size else result

    def coupled(self, num_qubits: int) -> CoupledPairs:
        """Pairs with crosstalk among this number of qubits, and rates."""
        result = self._coupled
        if result is None or result.begins.size != num_qubits + 1:
            pairs = tuple(p for p in self.model.crosstalk_pairs if max(p) < num_qubits)
            if pairs != self._pairs:
                self._pairs = pairs
                self.crosstalk = self._of_pairs()
            rates = [self._turn(pair) for pair in pairs]
            together = {qubit for pair in pairs for qubit in pair}
            decays = [self._decay(q) if q in together else 0.0 for q in range(num_qubits)]
            result = self._coupled = CoupledPairs.of(pairs, num_qubits, rates, decays)
        return result

    def _turn(self, pair: tuple[int, int]) -> float:
        """Rate of the ZZ interaction of a pair, rad per ns."""
        channel = self.model.crosstalk(pair, _PAIR_PROBE_NS)
        # diag(1, 1, 1, e^{-i angle}) turns X of the first qubit into Y by sin(angle) / 2.
        turned = 0.0 if channel is None else min(2.0 * abs(float(channel.ptm[2, 1])), 1.0)
        return math.asin(turned) / _PAIR_PROBE_NS

    def _decay(self, qubit: int) -> float:
        """Rate of relaxation of Z of a waiting qubit, or one that is read, per ns."""
        model = self.model
        probes = (
            model.idle(qubit, _IDLE_PROBE_NS),
            model.during_readout(qubit, _IDLE_PROBE_NS) if self.splits_readout else None,
        )
        left = min(1.0 if each is None else float(each.ptm[3, 3]) for each in probes)
        return -math.log(min(max(left, 1e-300), 1.0)) / _IDLE_PROBE_NS

    def _of_pairs(self) -> TimedChannels:
        return TimedChannels(
            lambda pair, time: self.number(self.model.crosstalk(self._pairs[pair], time))
        )

    def alone(self, channel: Channel, idler: int) -> int:
        """Number of the channel by which a two-qubit channel acts on one qubit while the other,
        number `idler`, is |0>."""
        key = self.number(channel), idler
        result = self._alone.get(key)
        if result is None:
            ptm = channel.ptm.reshape(4, 4, 4, 4)  # [out second, out first, in second, in first]
            if idler == 1:
                result = Channel(ptm[0, :, 0, :] + ptm[0, :, 3, :])
            else:
                result = Channel(ptm[:, 0, :, 0] + ptm[:, 0, :, 3])
            self._alone[key] = result
        return self.number(result)

    def readout(self, num_qubits: int) -> CircuitReadout:
        """Readout error of this number of qubits. Raises BadCircuit if the error of a qubit is
        missing."""
        cached = self._readouts.get(num_qubits)
        if cached is not None:
            return cached
        result = self.model.readout()
        misread = np.zeros(num_qubits, np.uint8)
        if result is not None:
            if self.model.num_qubits == 0:
                result = result.widened(num_qubits)
            if result.p01.size < num_qubits:
                raise BadCircuit(
                    f"the readout error of {result.p01.size} qubits, for a circuit of {num_qubits}",
                    hint="give the readout error of each qubit",
                )
            if result.p01.size > num_qubits:
                result = result.of(np.arange(num_qubits))
            misread[:] = (result.p01 != 0.0) | (result.p10 != 0.0)
        if len(self._readouts) >= _TABLES:
            self._readouts.clear()
        cached = self._readouts[num_qubits] = CircuitReadout(result, misread)
        return cached

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:
        """p01 and p10 of a measurement with a name of its own; None: those of its qubit."""
        key = name, qubit
        if key not in self._flips:
            self._flips[key] = self.model.flips_of(name, qubit)
        return self._flips[key]

    @property
    def memory_bytes(self) -> int:
        """Bytes of the channels and their tables."""
        tables = (self.keys, self.entries, self.rows, self.idle.keys, self.crosstalk.keys)
        return (
            self._channel_bytes
            + self._facts.all_matrices.nbytes
            + sum(table.nbytes for table in tables)
        )

    @property
    def facts(self) -> ChannelFacts:
        num_cached = self._facts.rows.size
        if num_cached < len(self.channels):
            self._facts = self._facts.joined(channel_facts(self.channels[num_cached:]))
        return self._facts


# Noise locations of a circuit without blocks, delays and coupled pairs, in one kernel call.
#
# The steps are those of `attach_noise`, on the entries of the registry. The kernel reports those
# that are missing, and is called again when they are made. Where an operation has channels on other
# qubits than its own, it gives up.

_MAX_OPERATIONS = 4_096  # of a circuit whose scratch arrays are kept
_CHANNELS_EACH = 4  # of an operation, for which there is room
_GIVEN_UP, _DONE, _LACKING = range(3)  # how a call of the kernel ends
_GATE, _PREPARATION, _IDLE, _READ = range(4)  # kinds of entries that it lacks


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
        """Locations of an admissible circuit without blocks, delays and pairs with crosstalk, for a
        model with idle noise; None where the kernel gave up. `misread` [qubits]: 1 for a readout
        error."""
        ending: int = _GIVEN_UP if circuit.ops.size > _MAX_OPERATIONS else _LACKING
        while ending == _LACKING:
            registry, size = self._registry, circuit.ops.size
            wires, qubits = circuit.qubits.size, circuit.num_qubits
            timed = size + wires + qubits
            need = 8 * (14 * size + 5 * wires + 8 * qubits + 3 * timed + 8)
            need += 2 * qubits + circuit.num_clbits + size
            if need > self._scratch.size:
                self._scratch = simd.aligned(2 * need)
            room = _CHANNELS_EACH * size + qubits + timed
            if room > self._rows.shape[1]:
                self._rows = np.empty((2, 2 * room, 4), np.int64)
            used = np.empty(registry.marks.size, np.int64)
            ending = _plain_locations(
                circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, circuit.conditions,
                register_starts(circuit), registry.gates(circuit.noise_names), registry.keys,
                registry.entries, registry.durations_ns, registry.begins, registry.lengths,
                registry.rows, registry.known_preparations, registry.idle.keys,
                registry.reading.keys, registry.marks, misread, circuit.num_clbits,
                int(method == "alap"), int(registry.splits_readout), timed, self._scratch,
                *self._rows, used, self._found, self._total,
            )  # fmt: skip
            if ending == _LACKING:
                self._learn(circuit, self._rows[1, : self._found[0]])
        if ending == _GIVEN_UP:
            return None
        count, channels, measured, wrong = self._found.tolist()
        return PlainLocations(
            self._rows[1, :count].copy(), used[:channels], float(self._total[0]), measured > 0,
            wrong > 0,
        )  # fmt: skip

    def _learn(self, circuit: Circuit, lacking: NDArray[np.int64]) -> None:
        """Make entries of the registry: rows of kind, operation or qubit, and the bits of a
        time."""
        registry = self._registry
        kinds, owners = lacking[:, 0], lacking[:, 1]
        arity = circuit.table.rows[:, 1][circuit.ops]
        ends = arity.cumsum()
        gates: set[tuple[str, tuple[int, ...]]] = set()
        for k in owners[kinds == _GATE].tolist():
            qubits = circuit.qubits[ends[k] - arity[k] : ends[k]].tolist()
            gates.add((circuit.noise_names[circuit.ops[k]], tuple(qubits)))
        for name, wires in gates:
            registry.learn(name, wires)
        registry.preparations(owners[kinds == _PREPARATION])
        times = np.ascontiguousarray(lacking[:, 2]).view(np.float64)
        registry.idle.learn(owners[kinds == _IDLE], times[kinds == _IDLE])
        registry.reading.learn(owners[kinds == _READ], times[kinds == _READ])


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
    "NAMES U16 U16 U16 I32 I64 I64 I64 I64 REALS I64 I64 INTS2 I64 INTS2 INTS2 "
    "I64 U8 INT INT INT INT U8 INTS2 INTS2 I64 I64 REALS -> INT",
    group="attachment",
)
def _plain_locations(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, tokens, starts, gates, keys, entries, times, begins, lengths,
    entry_rows, preparations, idle_keys, read_keys, marks, misread, num_clbits, late, reads, timed,
    scratch, locations, ordered, used, totals, total,
):  # fmt: skip
    """_DONE: `ordered`, `used`, `totals` (how many there are of locations, channels, measurements
    and misread measurements) and `total` are filled. _LACKING: `ordered` has rows for `_learn`, as
    many as totals[0] says. _GIVEN_UP: the circuit is another than those of the module.

    `keys` .. `read_keys`: of the registry; `reads`: see `timed_rows`. `timed`: most of the rows of
    `idle_rows`. `locations`: rows before they are ordered; `scratch`: bytes.
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
    idle, scratch = take_reals(scratch, room)
    in_use, scratch = take_numbers(scratch, num_qubits)
    end, scratch = take_reals(scratch, num_qubits)
    start, scratch = take_reals(scratch, size)
    durations, scratch = take_reals(scratch, size)
    row_after, scratch = take_numbers(scratch, timed)
    row_owner, scratch = take_numbers(scratch, timed)
    row_time, row_bits = as_reals(scratch, 0, timed), as_numbers(scratch, 0, timed)
    scratch = scratch[8 * timed :]
    first_of, scratch = take_numbers(scratch, size + 2)
    touched, scratch = take_bytes(scratch, num_qubits)
    seen, scratch = take_bytes(scratch, num_qubits)
    blocked, scratch = take_bytes(scratch, num_clbits)
    final, scratch = take_bytes(scratch, size)
    scratch = scratch[-(2 * num_qubits + num_clbits + size) % 8 :]  # numbers are aligned

    place = 0
    for k in range(size):
        codes[k], first[k] = rows[ops[k], 0], place
        place += rows[ops[k], 1]
    first[size] = place
    for j in range(num_wires):
        wires[j] = qubits[j]
    classify(rows, ops, qubits, clbits, tokens, starts, seen, blocked, 1, roles)
    noise_locations.locate_operations(
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
    number = idle_rows(
        codes, roles, first, wires, durations, reads, after[:number], waiting[:number],
        idle[:number], row_after, row_owner, row_time,
    )  # fmt: skip
    if number > timed:
        return _GIVEN_UP
    for k in range(number):
        owner, kind, channel_keys = -1 - row_owner[k], _IDLE, idle_keys
        if owner >= READING:
            owner, kind, channel_keys = owner - READING, _READ, read_keys
        slot = noise_locations.timed_slot(channel_keys, owner, row_bits[k])
        if channel_keys[slot, 0] == EMPTY:
            lacking = _note(ordered, lacking, kind, owner, row_bits[k])
            continue
        count = _append(locations, count, row_after[k], channel_keys[slot, 2], owner, -1)
    if lacking:
        totals[0] = lacking
        return _LACKING
    first_of[:] = 0
    totals[1] = noise_locations.order_by_operation(
        locations[:count], first_of, marks, used, ordered[:count]
    )
    totals[0], totals[2], totals[3] = count, measured, wrong
    return _DONE
