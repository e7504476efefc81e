"""Attachment of a noise model to a circuit, by the durations of its operations: the only way to a
`NoiseProgram` of a device.

Channels follow gates, resets, delays and mid-circuit measurements; idle times of the schedule and
the preparation of a qubit have channels of their own. Only qubits that the circuit uses get
locations; a channel that also acts on an unused neighbour is reduced to its action for a neighbour
that stays in |0>. Qubit q of the circuit is qubit q of the device.

Kernels locate channels after operations, schedule the circuit, locate channels over its times, and
order all of them; what a model adds besides, as rows of locations, takes a step of its own.
"""

from __future__ import annotations

import functools
import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import is_named_measurement
from noise_models.channel import Readout
from noise_models.model import LocatedChannel, NoiseModel
from noise_models.network import Network
from noise_models.strict_json import NoiseError
from simulators.catalog import NoiseKind
from simulators.circuit.analysis.measurements import TERMINAL
from simulators.circuit.arrays import Operands
from simulators.circuit.gates import DELAY, DELAY_DT, MEASURE, UNITARY
from simulators.circuit.ir import Circuit, Table
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q1, NoiseProgram
from simulators.circuit.passes import detuning, layers, leakage, link_waits
from simulators.circuit.passes.disturbance import disturbed
from simulators.circuit.passes.noise_locations import (
    ABSENT,
    MISREAD,
    OTHERS,
    PREPARED,
    WRITTEN,
    Located,
    in_order,
    located,
    rows_of,
)
from simulators.circuit.passes.noise_registry import CircuitReadout, NoiseRegistry
from simulators.circuit.passes.shot_times import delays_ns
from simulators.circuit.passes.timed_noise import READING, TimedNoise, timed_noise
from simulators.circuit.schedule import METHODS, Method, Schedule, schedule
from simulators.circuit.time_order import after_writers, reordered, time_order
from simulators.errors import Unsupported

MAX_CHANNELS = 16_384  # cached channels, of 2 KiB at most; cleared when full
_PROBE_NS = 1000.0  # idle time whose channel shows whether a qubit relaxes
_OF_ZZ = "a ZZ interaction", "gate.crosstalk"
_DELAYS = frozenset({"delay", "delay_dt"})
_NO_READOUT = CircuitReadout(None, np.zeros(0, np.uint8))
_Locations = NDArray[np.int64]  # [n, 4], see `NoiseProgram`; channel -1: none
_Numbers = NDArray[np.int64]
_Times = NDArray[np.float64]


def depends_on_params(circuit: Circuit) -> bool:
    """Return whether the noise of circuits of this structure may differ: a delay is a parameter."""
    return has_delays(circuit) and bool(
        np.isin(circuit.table.rows[circuit.ops, 0], (DELAY, DELAY_DT)).any()
    )


def has_delays(circuit: Circuit) -> bool:
    """Return whether the table of a circuit has delays."""
    return not _DELAYS.isdisjoint(circuit.table.names)


def attach_noise(circuit: Circuit, model: NoiseModel, method: Method = "alap") -> NoiseProgram:
    """`NoiseAttachment.attach` for one circuit."""
    return NoiseAttachment(model).attach(circuit, method)


class NoiseAttachment:
    """Attaches one model to circuits, with a cache of its channels. Not thread-safe."""

    def __init__(self, model: NoiseModel) -> None:
        self.model = model
        self._registry = NoiseRegistry(model)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the cached channels."""
        return self._registry.memory_bytes

    def attach(
        self, circuit: Circuit, method: Method = "alap", *, as_listed: bool = False
    ) -> NoiseProgram:
        """Make the noise program of an admissible circuit on the device of the model. `method`: of
        the schedule, `alap` or `asap`; `as_listed`: operations keep their order, even where coupled
        qubits interact. Raises Unsupported for a circuit that does not fit the device, has a delay
        of unknown duration, or waits for links beside noise whose average over the waits is no
        channel."""
        if method not in METHODS:
            raise Unsupported(f"schedule {method[:32]!r}", hint=f"there are {', '.join(METHODS)}")
        if 0 < self.model.num_qubits < circuit.num_qubits:
            text = f"{circuit.num_qubits} qubits; the device of the noise model has"
            text += f" {self.model.num_qubits}"
            raise Unsupported(text, hint="compile the circuit for the device")
        if len(self._registry.numbers.channels) > MAX_CHANNELS:
            self._registry = NoiseRegistry(self.model)
        try:
            return _CircuitNoise(circuit, self._registry, method, ordered=as_listed).program()
        except NoiseError as error:
            raise Unsupported(error.message, hint=error.hint) from None


class _CircuitNoise:
    """Noise of one circuit by one model."""

    def __init__(
        self, circuit: Circuit, registry: NoiseRegistry, method: Method, *, ordered: bool = False
    ) -> None:
        """Set up. `ordered`: the operations are listed as their times and layers need it."""
        self._circuit = circuit
        self._ordered = ordered
        self._registry = registry
        self._model = registry.model
        self._method = method
        reads = bool(circuit.clbits_data)
        self._own_readout = registry.readout(circuit.num_qubits) if reads else _NO_READOUT
        self._operands, found = self._locate()
        self._roles, self._durations = found.roles, found.durations_ns
        self._touched = found.touched.view(np.bool_)
        totals = found.totals.tolist()
        self._located = found.locations[: totals[WRITTEN]]
        self._prepared, self._misread = totals[PREPARED], totals[MISREAD] > 0
        self._irregular = found.irregular[: totals[OTHERS]]
        self._delay_ops = self._irregular[:0]
        if has_delays(circuit):
            codes = self._operands.codes
            self._delay_ops = np.flatnonzero((codes == DELAY) | (codes == DELAY_DT))
        self._within = self._delay_ops[:0]  # gates on one qubit during layers
        # Parts of idle times and delays during layers: operations before them, qubits, times.
        self._during = self._within, self._within, np.zeros(0)

    def _locate(self) -> tuple[Operands, Located]:
        """Operands, channels after operations on one and two qubits, and the remaining
        operations."""
        circuit, registry, room = self._circuit, self._registry, 0
        names, misread = circuit.noise_names, self._own_readout.misread
        gates = registry.gates.numbers(names)
        while True:
            operands, found = located(circuit, gates, registry.gates.table, misread, room)
            totals = found.totals
            missing = found.missing[: totals[ABSENT]].tolist()
            room = int(totals[WRITTEN])
            if not missing and room <= len(found.locations):
                return operands, found
            registry.learn_preparations(-1 - k for k in missing if k < 0)
            for name, qubits in {
                (names[circuit.ops[k]], operands.qubits(k)) for k in missing if k >= 0
            }:
                registry.learn(name, qubits)

    def program(self) -> NoiseProgram:
        """Noise program; see `NoiseAttachment.attach`."""
        circuit, model, registry = self._circuit, self._model, self._registry
        given = delays = self._delays_ns()
        irregular = self._irregular_locations()
        if delays.size:
            self._durations[self._delay_ops] = delays
        uses, order = self._layers() if model.layers else ([], None)
        timing, timed, timed_ns = None, self._located[:0], np.zeros(0)
        awaiting = timed
        if model.has_idle_noise or uses:
            timing = self._schedule(self._durations)
            if not self._ordered:
                order = self._time_order(timing) if order is None else order
                if order is not None:
                    found = reordered(circuit, order)
                    again = _CircuitNoise(found.circuit, registry, self._method, ordered=True)
                    return msgspec.structs.replace(again.program(), ordered=found)
            if uses:
                whole = timing, delays
                timing, delays = self._outside_layers(uses, timing, delays)
                self._during = self._during_layers(uses, whole, (timing, delays))
        if timing is not None and model.has_idle_noise:
            idle = timing
            if delays.size:
                idle = timing.with_delays(self._delay_ops, self._delayed, delays)
            if model.network is not None:
                idle, awaiting = self._awaiting(idle, model.network, layered=bool(uses))
            noise = self._timed(idle)
            timed, timed_ns = noise.locations, noise.time_ns
            if uses:
                alone = timed[:, Q1] < 0
                after = layers.before_layers(uses, timed[alone, AFTER_OP], circuit.ops.size)
                timed[alone, AFTER_OP] = after
            if model.leaks:
                timed_ns = np.where((noise.owner >= 0) | (noise.owner < -READING), 0.0, timed_ns)
        elif delays.size:
            channels = registry.idle.channel_ids(self._delayed, delays)
            timed, timed_ns = rows_of(self._delay_ops, channels, self._delayed), delays
        parts = [self._located, irregular, timed, awaiting, *self._others(), *self._of_layers(uses)]
        rows = np.concatenate([each for each in parts if len(each)] or parts)
        locations, used = in_order(rows, circuit.ops.size, registry.numbers.marks)
        duration_ns = timing.duration_ns if timing is not None and model.has_idle_noise else -1.0
        program = self._assembled(locations, used, given, duration_ns)
        if model.leaks:
            program = self._leaking(program, irregular, timed, timed_ns)
        if registry.is_detuned:
            program = self._detuned(program, timing, delays, uses)
        return program

    def _others(self) -> list[_Locations]:
        """Locations of the noise that few models have."""
        results = []
        if self._model.decides:
            results.append(self._before_decisions())
        if self._model.disturbs:
            results.append(self._disturbances())
        if self._registry.has_memory:
            results.append(self._memory())
        return results

    def _layers(self) -> tuple[list[layers.LayerUse], NDArray[np.int64] | None]:
        """Layers of a circuit without blocks, and an order of its operations in which the gates of
        each are listed one after the other; None: that of the circuit."""
        if self._circuit.conditions_data:
            return [], None
        durations = layers.layer_durations(self._operands, self._durations)
        start = self._schedule(durations).start_ns
        names = [self._circuit.noise_names[row] for row in self._circuit.ops.tolist()]
        uses = layers.layer_uses(names, self._operands, start, durations, self._model.layers)
        later = after_writers(self._circuit, start)
        moved = set(np.flatnonzero(later != start).tolist())
        uses = [use for use in uses if moved.isdisjoint(use.operations)]
        if not uses:
            return [], None
        order = layers.layer_order(later, uses)
        return uses, None if (order[1:] > order[:-1]).all() else order

    def _outside_layers(
        self, uses: list[layers.LayerUse], timing: Schedule, delays: _Times
    ) -> tuple[Schedule, _Times]:
        """Idle times and delays without their parts during layers; the gates of layers lose their
        own channels, and gates on one qubit meanwhile lose their relaxation."""
        acting = np.concatenate([use.operations for use in uses])
        self._located[np.isin(self._located[:, AFTER_OP], acting), CHANNEL] = -1
        windows = layers.layer_windows(uses, timing.start_ns, self._durations)
        self._within = layers.operations_within(
            self._operands, timing.start_ns, self._durations, windows
        )
        self._drop_relaxation()
        idle_ns = layers.without_layers(
            timing.idle_qubit, timing.idle_end_ns, timing.idle_ns, windows
        )
        if delays.size:
            ends = timing.start_ns[self._delay_ops] + delays
            delays = layers.without_layers(self._delayed, ends, delays, windows)
        return timing._replace(idle_ns=idle_ns), delays

    def _during_layers(
        self,
        uses: list[layers.LayerUse],
        whole: tuple[Schedule, _Times],
        left: tuple[Schedule, _Times],
    ) -> tuple[_Numbers, _Numbers, _Times]:
        """Parts of idle times and delays during layers, in which leaked qubits decay: operations
        that they follow, qubits, times. `whole`, `left`: with these parts, and without them."""
        timing, delays = whole
        parts = [(self._delay_ops[: delays.size], self._delayed[: delays.size], delays - left[1])]
        if self._model.has_idle_noise:
            times = timing.idle_ns - left[0].idle_ns
            parts.append((timing.idle_after, timing.idle_qubit, times))
        after, qubits, times = (np.concatenate(each) for each in zip(*parts, strict=True))
        mine = times > 0.0
        after = layers.before_layers(uses, after, self._circuit.ops.size)
        return after[mine], qubits[mine], times[mine]

    def _drop_relaxation(self) -> None:
        """Put the channels of gates during layers in place of their own."""
        acts = self._located[:, CHANNEL] >= 0
        inside = np.flatnonzero(acts & np.isin(self._located[:, AFTER_OP], self._within))
        for row in inside.tolist():
            k, _, qubit, _ = self._located[row].tolist()
            left = self._model.during_layer(self._circuit.noise_names[self._circuit.ops[k]], qubit)
            channel = left[0].channel if left else None
            self._located[row, CHANNEL] = self._registry.numbers.number(channel)

    def _of_layers(self, uses: list[layers.LayerUse]) -> list[_Locations]:
        """Channels of layers, right before the first of their gates."""
        acting = {id(use.layer): use.layer for use in uses}
        around = {key: self._around(layer.channels) for key, layer in acting.items()}
        rows = [(use.operations[0] - 1, *row) for use in uses for row in around[id(use.layer)]]
        return [np.array(rows, np.int64)] if rows else []

    def _leaking(
        self, program: NoiseProgram, irregular: _Locations, timed: _Locations, timed_ns: _Times
    ) -> NoiseProgram:
        """A noise program with the leakage of gates, after each one's own channels, and the decay
        of leaked qubits, after the relaxation of each idle time. `timed_ns`: 0.0 for rows of
        `timed` that are none."""
        count = self._circuit.ops.size
        own = np.concatenate((self._located[self._prepared :], irregular))
        own = own[own[:, CHANNEL] >= 0, AFTER_OP]
        ends = np.searchsorted(program.locations[:, AFTER_OP], np.arange(-1, count))
        ends[1:] += np.bincount(own, minlength=count)
        first = ends.copy()
        first[0] = self._prepared  # of the locations before the first operation
        after, channels, qubits, _ = timed.T
        order = np.argsort(after, kind="stable")
        written = np.cumsum(channels[order] >= 0)
        begin = np.searchsorted(after[order], after[order])
        before = np.where(begin > 0, written[begin - 1], 0)
        places = first[after[order] + 1] + written - before
        mine = timed_ns[order] > 0.0
        first += np.bincount(after[channels >= 0] + 1, minlength=count + 1)
        during = self._during
        waits = leakage.Waits(
            np.concatenate((after[order][mine], during[0])),
            np.concatenate((places[mine], first[during[0] + 1])),
            np.concatenate((qubits[order][mine], during[1])),
            np.concatenate((timed_ns[order][mine], during[2])),
        )
        found = leakage.leakage(self._circuit, self._operands, self._model, ends, waits)
        if found is None:
            return program
        kinds = program.kinds | {"leakage"}
        return msgspec.structs.replace(program, kinds=kinds, leakage=found)

    def _detuned(
        self,
        program: NoiseProgram,
        timing: Schedule | None,
        delays: _Times,
        uses: list[layers.LayerUse],
    ) -> NoiseProgram:
        """A noise program with the rotations of detuned qubits. `timing`: with the idle times
        outside of layers; `uses`: layers, during which there are none."""
        durations = self._durations.copy()
        if delays.size:
            durations[self._delay_ops] = delays
        for use in uses:
            durations[list(use.operations)] = 0.0
        durations[self._within] = 0.0
        waits = self._within[:0], self._within[:0], np.zeros(0)
        if timing is not None and self._model.has_idle_noise:
            waits = timing.idle_after, timing.idle_qubit, timing.idle_ns
        found = detuning.detunings(self._operands, durations, waits, self._model.detuning)
        if found is None:
            return program
        found = detuning.with_bounds(found, self._circuit, self._operands, program)
        kinds = program.kinds | {"quasistatic"}
        return msgspec.structs.replace(program, kinds=kinds, detunings=found)

    def _irregular_locations(self) -> _Locations:
        """Channels after the operations without an entry, whose durations are stored."""
        if not self._irregular.size:
            return self._located[:0]
        cache: dict[tuple[str, tuple[int, ...]], list[tuple[int, int, int]]] = {}
        rows: list[tuple[int, int, int, int]] = []
        for k in self._irregular.tolist():
            name = self._circuit.noise_names[self._circuit.ops[k]]
            key = "delay" if name in _DELAYS else name, self._operands.qubits(k)
            if key not in cache:
                cache[key] = self._around(self._registry.after_operation(*key))
            rows += [(k, *row) for row in cache[key]]
            self._durations[k] = self._model.duration_ns(*key)
        return np.array(rows, np.int64).reshape(-1, 4)

    def _around(self, channels: tuple[LocatedChannel, ...]) -> list[tuple[int, int, int]]:
        """Channels with their qubits, restricted to the qubits that the circuit uses."""
        numbers, rows = self._registry.numbers, []
        for each in channels:
            used = [q < self._touched.size and bool(self._touched[q]) for q in each.qubits]
            if all(used):
                first, *others = each.qubits
                rows.append((numbers.number(each.channel), first, others[0] if others else -1))
            elif any(used):
                idler = used.index(False)
                rows.append((numbers.alone(each.channel, idler), each.qubits[1 - idler], -1))
        return rows

    @property
    def _delayed(self) -> _Numbers:
        """Qubit of each delay."""
        return self._operands.wires[self._operands.first[self._delay_ops]]

    def _delays_ns(self) -> NDArray[np.float64]:
        """Duration of each delay of the circuit; [0] if delays have no effect."""
        if not self._delay_ops.size or not self._delays_matter():
            return np.zeros(0)
        return delays_ns(self._circuit, self._model)

    def _delays_matter(self) -> bool:
        """Return whether idle times are scheduled, or a qubit with a delay relaxes."""
        if self._model.has_idle_noise or self._registry.is_detuned or self._model.layers:
            return True
        return any(
            self._model.idle(qubit, _PROBE_NS) is not None
            or any(self._model.seepage(qubit, _PROBE_NS))
            for qubit in set(self._delayed.tolist())
        )

    def _schedule(self, durations: NDArray[np.float64]) -> Schedule:
        return schedule(
            self._circuit,
            durations,
            self._method,
            feed_forward_ns=self._model.feed_forward_ns,
            network=self._model.network,
            roles=self._roles,
            operands=self._operands,
        )

    def _time_order(self, timing: Schedule) -> NDArray[np.int64] | None:
        """Order of the operations by time where coupled qubits interact and no block is left as it
        is; None: as they are listed."""
        if self._circuit.conditions_data:
            return None
        if not self._registry.coupled(self._circuit.num_qubits).ends.size:
            return None
        return time_order(after_writers(self._circuit, timing.start_ns))

    def _awaiting(
        self, timing: Schedule, network: Network, *, layered: bool
    ) -> tuple[Schedule, _Locations]:
        """The schedule without idle times during waits for links, and the relaxation meanwhile.
        `layered`: layers of gates act."""
        operands, model, registry = self._operands, self._model, self._registry
        waits = link_waits.awaited(operands, timing.start_ns, self._durations, network.links)
        if not waits:
            return timing, self._located[:0]
        for acts, noise, option in (
            (registry.is_detuned, "a detuning that is constant during a shot", "qubit.quasistatic"),
            (bool(registry.coupled(self._circuit.num_qubits).ends.size), *_OF_ZZ),
            (model.leaks, "leakage", "gate.leakage"),
            (layered, "errors of layers", "gate.layer"),
        ):
            if acts:
                pair = list(waits[0].pair)
                text = f"{noise}, while the link of qubits {pair} is awaited for a random time"
                hint = f"the noise option {option}: 0 leaves it out"
                raise Unsupported(text, hint=hint)
        found = link_waits.idle_waits(timing, operands.codes, waits)
        rows = [(k, registry.awaiting(qubit, key), qubit, -1) for k, qubit, key in found.rows]
        located = np.array(rows, np.int64).reshape(-1, 4)
        return timing._replace(idle_ns=found.idle_ns), located

    def _timed(self, timing: Schedule) -> TimedNoise:
        """Relaxation of waiting qubits, and ZZ interaction of coupled ones. `timing`: with delays
        as idle times."""
        registry = self._registry
        pairs = registry.coupled(self._circuit.num_qubits)
        while True:
            found = timed_noise(
                self._operands, self._roles, timing, pairs, registry.times,
                reads=registry.splits_readout,
            )  # fmt: skip
            if not found.missing.size:
                return found
            registry.learn_times(found)

    def _before_decisions(self) -> _Locations:
        """Relaxation that the outcomes of measurements inside the circuit have seen."""
        codes, first = self._operands.codes, self._operands.first
        inside = np.flatnonzero((codes == MEASURE) & (self._roles != TERMINAL))
        qubits = self._operands.wires[first[inside]]
        names = self._circuit.noise_names
        channels = [
            self._registry.numbers.number(self._model.before_decision(names[op], qubit))
            for op, qubit in zip(self._circuit.ops[inside], qubits.tolist(), strict=True)
        ]
        return rows_of(inside - 1, np.array(channels, np.int64), qubits)

    def _disturbances(self) -> _Locations:
        """Dephasing and rotation of qubits by measurements of others."""
        number, rows = self._registry.numbers.number, [self._located[:0]]
        for _, qubit, others, after in disturbed(
            self._circuit, self._operands, self._roles, self._touched, self._durations, self._method
        ):
            disturbance = self._model.disturbance(qubit)
            channels = np.full(self._circuit.num_qubits, number(disturbance.others))
            for other, channel in disturbance.own.items():
                if other < channels.size:
                    channels[other] = number(channel)
            rows.append(rows_of(after, channels[others], others))
        return np.concatenate(rows)

    def _memory(self) -> _Locations:
        """Noise of layers: steps of a schedule in which gates on two or more qubits take a step,
        and all else takes none. A qubit of a gate has that of its layer after it, one that waits
        that of all layers before the operation that ends them."""
        operands = self._operands
        wide = (operands.codes >= UNITARY) & (operands.counts > 1)
        timing = schedule(
            self._circuit,
            wide.astype(np.float64),
            self._method,
            roles=self._roles,
            operands=operands,
        )
        operations = np.repeat(np.arange(wide.size), operands.counts)
        acts = wide[operations]
        after = np.concatenate((operations[acts], timing.idle_after))
        qubits = np.concatenate((operands.wires[acts], timing.idle_qubit))
        steps = np.concatenate((np.ones(np.count_nonzero(acts)), timing.idle_ns))
        return rows_of(after, self._registry.memory.channel_ids(qubits, steps), qubits)

    def _readout(self) -> Readout | None:
        """Readout error of the circuit's qubits; None if no measured qubit has one."""
        result = self._own_readout.readout
        if flips := self._own_flips():
            if result is None:
                exact = np.zeros(self._circuit.num_qubits)
                result = Readout(exact, exact)
            return msgspec.structs.replace(result, own=flips)
        if result is None or self._misread:
            return result
        measured = self._operands.wires[self._operands.first[self._measurements]]
        seen = set(measured.tolist())
        return result if any(seen.issuperset(group.qubits) for group in result.groups) else None

    @property
    def _measurements(self) -> _Numbers:
        return np.flatnonzero(self._operands.codes == MEASURE)

    def _own_flips(self) -> dict[int, tuple[float, float]]:
        """p01 and p10 of the measurements that have them of their own, by operation."""
        names, ops, model = self._circuit.table.names, self._circuit.ops, self._model
        named = _named_measurements(names)
        results: dict[int, tuple[float, float]] = {}
        if not (model.decides or named):
            return results
        for k in self._measurements.tolist():
            row, qubit = int(ops[k]), int(self._operands.wires[self._operands.first[k]])
            flips = None
            if model.decides and self._roles[k] != TERMINAL:
                flips = model.flips_inside(names[row], qubit)
            if flips is None and row in named:
                flips = model.flips_of(names[row], qubit)
            if flips is not None:
                results[k] = flips
        return results

    def _assembled(
        self, locations: _Locations, used: _Numbers, delays: _Times, duration_ns: float
    ) -> NoiseProgram:
        """Noise program of these locations; `used`: numbers of their channels."""
        numbers, readout = self._registry.numbers, self._readout()
        facts = numbers.facts.of(used)
        kinds: set[NoiseKind] = set() if readout is None else {"readout"}
        paulis = np.count_nonzero(facts.is_pauli)
        if paulis:
            kinds.add("pauli")
        if paulis < used.size:
            kinds.add("kraus")
        channels = tuple([numbers.channels[k] for k in used.tolist()])
        digest = _digest(self._circuit, self._model, self._method, delays.tobytes())
        return NoiseProgram(
            digest, frozenset(kinds), locations, channels, readout, facts, duration_ns
        )


@functools.lru_cache(maxsize=256)
def _named_measurements(names: tuple[str, ...]) -> frozenset[int]:
    """Rows of a table that are measurements with a name of their own."""
    return frozenset(row for row, name in enumerate(names) if is_named_measurement(name))


def _digest(circuit: Circuit, model: NoiseModel, method: Method, delays: bytes) -> bytes:
    """Digest of everything that determines the locations: circuit, delays, model and method."""
    digest = hashlib.blake2b(model.digest, digest_size=32)
    digest.update(f"{method} {circuit.num_qubits} ".encode())
    for data in (_table_data(circuit.table), circuit.ops_data, circuit.qubits_data):
        digest.update(data)
    digest.update(circuit.clbits_data + circuit.conditions_data + delays)
    if circuit.labels:
        digest.update(str(circuit.labels).encode())
    return digest.digest()


@functools.lru_cache(maxsize=256)
def _table_data(table: Table) -> bytes:
    return str(table.names).encode() + table.rows.tobytes()
