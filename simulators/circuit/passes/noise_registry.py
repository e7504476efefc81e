"""Channels of one noise model by number, in the tables that the kernels of the attachment read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import is_named_measurement
from noise_models.channel import Channel, Readout
from noise_models.link_waits import WaitPart
from noise_models.model import LocatedChannel, NoiseModel
from simulators.circuit.noise import ChannelFacts, channel_facts
from simulators.circuit.passes import noise_locations
from simulators.circuit.passes.link_waits import WaitKey
from simulators.circuit.passes.noise_locations import EMPTY, UNSEEN, GateTable
from simulators.circuit.passes.timed_noise import READING, CoupledPairs, TimedNoise, TimedTables
from simulators.errors import BadCircuit

_NONE = -1  # no channel, or no second qubit
_IDLE_PROBE_NS, _PAIR_PROBE_NS = 1.0, 0.01  # times whose channels show the rates
_TABLES = 256  # cached tables of names, and cached widths of readout errors


class ChannelNumbers:
    """Channels in the order of their numbers."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.marks = np.full(64, _NONE)  # scratch of a kernel: one for each channel, all -1
        self._bytes = 0
        self._numbers: dict[int, int] = {}  # by identity
        self._alone: dict[tuple[int, int], Channel] = {}
        self._facts = channel_facts(())

    def number(self, channel: Channel | None) -> int:
        """Number of a channel; -1 for None."""
        if channel is None:
            return _NONE
        result = self._numbers.get(id(channel))
        if result is None:
            result = self._numbers[id(channel)] = len(self.channels)
            self.channels.append(channel)
            self._bytes += channel.ptm.nbytes
            if result >= self.marks.size:
                self.marks = np.full(2 * self.marks.size, _NONE)
        return result

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

    @property
    def facts(self) -> ChannelFacts:
        num_cached = self._facts.rows.size
        if num_cached < len(self.channels):
            self._facts = self._facts.joined(channel_facts(self.channels[num_cached:]))
        return self._facts

    @property
    def memory_bytes(self) -> int:
        return self._bytes + self._facts.all_matrices.nbytes


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


class GateChannels:
    """`GateTable` of the gates and qubits that circuits need."""

    def __init__(self) -> None:
        self.table = GateTable(
            np.full(256, EMPTY, np.int64), np.zeros(256, np.int64), np.zeros(64),
            np.zeros(64, np.int64), np.zeros(64, np.int64), np.zeros((64, 3), np.int64),
            np.zeros(0, np.int64),
        )  # fmt: skip
        self._gates: dict[str, int] = {}
        self._gates_of: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self._num_entries = self._num_rows = 0

    def numbers(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        """Number of each gate name, for the keys."""
        result = self._gates_of.get(names)
        if result is None:
            ids = self._gates
            result = np.array([ids.setdefault(name, len(ids)) for name in names], np.int64)
            if len(self._gates_of) >= _TABLES:
                self._gates_of.clear()
            self._gates_of[names] = result
        return result

    def add(
        self,
        name: str,
        qubits: tuple[int, ...],
        duration_ns: float,
        rows: list[tuple[int, int, int]] | None,
    ) -> None:
        """Make the entry of an operation on one or two qubits. `rows`: channels with operands;
        None: it is irregular."""
        entry = self._new_entry(noise_locations.entry_key(self._gates[name], *(*qubits, _NONE)[:2]))
        table = self.table
        table.durations_ns[entry] = duration_ns
        if rows is None:
            table.lengths[entry] = noise_locations.IRREGULAR
            return
        table.begins[entry], table.lengths[entry] = self._num_rows, len(rows)
        while self._num_rows + len(rows) > len(self.table.rows):
            self.table = self.table._replace(rows=_doubled(self.table.rows))
        for row in rows:
            self.table.rows[self._num_rows] = row
            self._num_rows += 1

    def _new_entry(self, key: int) -> int:
        entry, table = self._num_entries, self.table
        self._num_entries += 1
        if entry >= table.begins.size:
            table = table._replace(
                durations_ns=_doubled(table.durations_ns),
                begins=_doubled(table.begins),
                lengths=_doubled(table.lengths),
            )
        if 2 * self._num_entries > table.keys.size:
            keys, entries = np.full(2 * table.keys.size, EMPTY), _doubled(table.entries)
            for k in np.flatnonzero(table.keys != EMPTY).tolist():
                slot = noise_locations.slot_of(keys, int(table.keys[k]))
                keys[slot], entries[slot] = table.keys[k], table.entries[k]
            table = table._replace(keys=keys, entries=entries)
        slot = noise_locations.slot_of(table.keys, key)
        table.keys[slot], table.entries[slot] = key, entry
        self.table = table
        return entry

    def prepare(self, qubit: int, channel: int) -> None:
        """Set the channel of the preparation of a qubit; -1: none."""
        known = self.table.preparations
        if qubit >= known.size:
            more = np.full(qubit + 1 - known.size, UNSEEN)
            known = np.concatenate((known, more))
            self.table = self.table._replace(preparations=known)
        known[qubit] = channel

    @property
    def memory_bytes(self) -> int:
        return sum(each.nbytes for each in self.table)


def _doubled(table: NDArray[Any]) -> NDArray[Any]:
    """Table with as many zeros after its rows."""
    return np.concatenate((table, np.zeros_like(table)))


class CircuitReadout(msgspec.Struct, frozen=True, eq=False):
    """Readout error of the qubits of a circuit."""

    readout: Readout | None
    misread: NDArray[np.uint8]  # [qubits]: 1 for a qubit with a readout error


class NoiseRegistry:
    """Registry of one model. Not thread-safe."""

    def __init__(self, model: NoiseModel) -> None:
        self.model = model
        self.numbers = ChannelNumbers()
        self.gates = GateChannels()
        self.is_detuned = any(map(model.detuning, range(model.num_qubits)))
        self.has_memory = any(model.memory(q, 1) is not None for q in range(model.num_qubits))
        # Relaxation during readouts is split as that of idle times is where ZZ acts meanwhile.
        self.splits_readout = (
            model.has_idle_noise and bool(model.crosstalk_pairs) and not model.decides
        )
        number = self.numbers.number
        # Channels of idle times, readouts and numbers of layers of qubits, and of interaction times
        # of the pairs of `coupled`.
        self.idle = TimedChannels(lambda qubit, time: number(model.idle(qubit, time)))
        self.reading = TimedChannels(lambda q, time: number(model.during_readout(q, time)))
        self.memory = TimedChannels(lambda q, layers: number(model.memory(q, round(layers))))
        self.crosstalk = self._of_pairs()
        self._awaiting: dict[tuple[int, WaitKey], int] = {}
        self._pairs: tuple[tuple[int, int], ...] = ()
        self._coupled: CoupledPairs | None = None
        self._readouts: dict[int, CircuitReadout] = {}  # by number of qubits

    def learn(self, name: str, qubits: tuple[int, ...]) -> None:
        """Make the entry of an operation on one or two qubits."""
        self.gates.add(
            name, qubits, self.model.duration_ns(name, qubits), self._rows_of(name, qubits)
        )

    def _rows_of(self, name: str, qubits: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
        """Rows of a `GateTable`; None: the entry is irregular."""
        if name == "reset":
            number = self.numbers.number(self.model.after_reset(qubits[0]))
            return [(number, 0, _NONE)] if number >= 0 else []
        rows = []
        for each in self.after_operation(name, qubits):
            if not set(qubits).issuperset(each.qubits):
                return None
            first, *others = (qubits.index(qubit) for qubit in each.qubits)
            number = self.numbers.number(each.channel)
            rows.append((number, first, others[0] if others else _NONE))
        return rows

    def learn_preparations(self, qubits: Iterable[int]) -> None:
        for qubit in qubits:
            self.gates.prepare(qubit, self.numbers.number(self.model.preparation(qubit)))

    def awaiting(self, qubit: int, key: WaitKey) -> int:
        """Number of the mean channel of a qubit over random waits; -1: none. Raises NoiseError."""
        found = self._awaiting.get((qubit, key))
        if found is None:
            assert self.model.network is not None
            links = self.model.network.links
            parts = [WaitPart(links[link], *part) for link, *part in key]
            found = self.numbers.number(self.model.network.awaiting(qubit, parts))
            self._awaiting[qubit, key] = found
        return found

    def learn_times(self, noise: TimedNoise) -> None:
        """Make the channels of missing rows."""
        owners, times = noise.owner[noise.missing], noise.time_ns[noise.missing]
        qubits = -1 - owners
        pairs, read = owners >= 0, qubits >= READING
        idle = ~(pairs | read)
        self.reading.learn(qubits[read] - READING, times[read])
        self.crosstalk.learn(owners[pairs], times[pairs])
        self.idle.learn(qubits[idle], times[idle])

    @property
    def times(self) -> TimedTables:
        return TimedTables(self.idle.keys, self.reading.keys, self.crosstalk.keys)

    def after_operation(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Channels after a gate or measurement; without relaxation where it is split."""
        if self.splits_readout and (name == "measure" or is_named_measurement(name)):
            return self.model.by_measurement(name, qubits[0])
        return self.model.after_gate(name, qubits)

    def coupled(self, num_qubits: int) -> CoupledPairs:
        """Pairs with crosstalk among this number of qubits, and rates."""
        result = self._coupled
        if result is None or result.turns.size != num_qubits:
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
            lambda pair, time: self.numbers.number(self.model.crosstalk(self._pairs[pair], time))
        )

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
    def memory_bytes(self) -> int:
        """Bytes of the channels and their tables."""
        timed = self.idle.keys.nbytes + self.crosstalk.keys.nbytes
        return self.numbers.memory_bytes + self.gates.memory_bytes + timed
