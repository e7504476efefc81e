"""Registry of the channels of one noise model: numbers, and the channels after each gate on each
qubits.

It is filled with the entries that circuits need. The kernel that walks over a circuit reads the
arrays: an entry for each gate with its qubits, found by a hash table with linear probing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, Readout
from noise_models.model import NoiseModel
from simulators.circuit.noise import ChannelFacts, channel_facts
from simulators.circuit.passes import noise_locations
from simulators.errors import BadCircuit

_NONE = -1  # no channel, or no second qubit
UNSEEN = -2
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
        self.keys = np.full((256, 3), noise_locations.EMPTY, np.int64)
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
            keys = np.full((size, 3), noise_locations.EMPTY, np.int64)
            noise_locations.insert_timed(self.keys, keys)
            self.keys = keys
        noise_locations.insert_timed(rows, self.keys)


class NoiseRegistry:
    """Registry of one model. Not thread-safe."""

    def __init__(self, model: NoiseModel) -> None:
        self.model = model
        self.channels: list[Channel] = []
        self.marks = np.full(64, _NONE)  # scratch of a kernel: one for each channel, all -1
        self.keys = np.full(256, noise_locations.EMPTY, np.int64)
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
        self._coupled: noise_locations.CoupledPairs | None = None
        # Channels of idle times of qubits, and of interaction times of the pairs of `coupled`.
        self.idle = TimedChannels(lambda qubit, time: self.number(model.idle(qubit, time)))
        self.crosstalk = self._of_pairs()
        self._alone: dict[tuple[int, int], Channel] = {}
        self._readouts: dict[int, CircuitReadout] = {}  # by number of qubits
        self._facts = channel_facts(())

    def number(self, channel: Channel | None) -> int:
        """Number of a channel; -1 for None."""
        if channel is None:
            return _NONE
        result = self._numbers.get(id(channel))
        if result is None:
            result = self._numbers[id(channel)] = len(self.channels)
            self.channels.append(channel)
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
            for each in self.model.after_gate(name, qubits):
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

    def _new_entry(self, key: int) -> int:
        entry = self._num_entries
        self._num_entries += 1
        if entry >= self.begins.size:
            self.durations_ns = np.concatenate((self.durations_ns, np.zeros(entry)))
            self.begins = np.concatenate((self.begins, np.zeros(entry, np.int64)))
            self.lengths = np.concatenate((self.lengths, np.zeros(entry, np.int64)))
        if 2 * self._num_entries > self.keys.size:
            keys, entries = self.keys, self.entries
            self.keys = np.full(2 * keys.size, noise_locations.EMPTY, np.int64)
            self.entries = np.zeros(2 * keys.size, np.int64)
            for k in np.flatnonzero(keys != noise_locations.EMPTY).tolist():
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

    def coupled(self, num_qubits: int) -> noise_locations.CoupledPairs:
        """Pairs with crosstalk among this number of qubits."""
        result = self._coupled
        if result is None or result.begins.size != num_qubits + 1:
            pairs = tuple(p for p in self.model.crosstalk_pairs if max(p) < num_qubits)
            if pairs != self._pairs:
                self._pairs = pairs
                self.crosstalk = self._of_pairs()
            result = self._coupled = noise_locations.CoupledPairs.of(pairs, num_qubits)
        return result

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

    @property
    def facts(self) -> ChannelFacts:
        """Facts of all channels."""
        num_cached = self._facts.rows.size
        if num_cached < len(self.channels):
            self._facts = self._facts.joined(channel_facts(self.channels[num_cached:]))
        return self._facts
