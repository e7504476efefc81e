"""Attachment of a noise model to a circuit, by the durations of its operations."""

from __future__ import annotations

import functools
import hashlib
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot, is_named_measurement
from noise_models.channel import Readout
from noise_models.model import LocatedChannel, NoiseModel
from simulators.catalog import NoiseKind
from simulators.circuit.analysis.measurements import TERMINAL, has_mid_circuit_ops
from simulators.circuit.gates import DELAY, DELAY_DT, MEASURE, UNITARY
from simulators.circuit.ir import Circuit, Operands, Table, used_qubits
from simulators.circuit.noise import AFTER_OP, CHANNEL, NoiseProgram
from simulators.circuit.passes import detuning, layers, leakage, noise_locations, timed_noise
from simulators.circuit.passes.disturbance import disturbed
from simulators.circuit.passes.noise_registry import NO_READOUT, NoiseRegistry, PlainLocator
from simulators.circuit.schedule import METHODS, Method, Schedule, schedule
from simulators.circuit.time_order import after_writers, reordered, time_order
from simulators.errors import BadCircuit, Unsupported

# Durations of a circuit's operations on a device, and the time that its shots take there.
#
# A shot takes the reset of its qubits and then the duration of its schedule, in which readout and
# feed-forward latency are counted; a circuit takes its shots and, once, the overhead of the device:
#
#     time = overhead + shots (reset + schedule)
#
# The duration of a schedule does not depend on the noise options. Of a `while` loop it has one
# pass, of branches the longest.

LONGEST_DELAY_NS = 1e12  # 17 minutes, the limit of a calibrated duration too


class Durations(Protocol):
    """The part of a NoiseModel that a schedule needs."""

    @property
    def dt_ns(self) -> float: ...
    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float: ...


def delays_ns(
    circuit: Circuit, model: Durations, values: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Duration of each delay, in the order of the circuit. `values` [slots]: of free parameters.
    Raises Unsupported for a delay of unknown duration, BadCircuit for one that is too long."""
    codes = circuit.table.rows[circuit.ops, 0]
    places = np.flatnonzero((codes == DELAY) | (codes == DELAY_DT))
    counts = circuit.table.rows[circuit.ops, 3]
    params = (np.cumsum(counts) - counts)[places]
    bound = circuit.params
    if np.isin(params, circuit.slots[0::2]).any():
        if values is None:
            hint = "bind the delay's duration"
            raise Unsupported("a delay by a free parameter, with idle noise", hint=hint)
        bound = bound.copy()
        bound[circuit.slots[0::2]] = values[circuit.slots[1::2]]
    durations: NDArray[np.float64] = bound[params].copy()
    ticks = codes[places] == DELAY_DT
    if ticks.any():
        if not model.dt_ns > 0.0:
            text = "a delay in units of dt, which the device's calibration does not state"
            raise Unsupported(text, hint="give the delay in seconds")
        durations[ticks] *= model.dt_ns
    longest_ns = durations.max(initial=0.0)
    if longest_ns > LONGEST_DELAY_NS:
        hint = f"at most {1e-9 * LONGEST_DELAY_NS:g} s"
        raise BadCircuit(f"a delay of {1e-9 * longest_ns:.6g} s on a device", hint=hint)
    return durations


def durations_ns(
    circuit: Circuit, operands: Operands, model: Durations, delays: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Duration of each operation. `delays`: result of `delays_ns`; [0]: all are 0."""
    codes, counts = operands.codes, operands.counts
    first, wires = operands.first, operands.wires
    durations = np.zeros(circuit.ops.size)
    timed = np.flatnonzero((codes >= MEASURE) & (counts > 0))
    if timed.size:
        begins, sizes = first[timed], counts[timed]
        size = circuit.num_qubits + 1
        second = np.where(sizes > 1, wires[np.minimum(begins + 1, wires.size - 1)], -1)
        key = (circuit.ops[timed].astype(np.int64) * size + wires[begins]) * size + second + 1
        _, where, inverse = np.unique(key, return_index=True, return_inverse=True)
        each = []
        for k in timed[where].tolist():
            name = circuit.table.names[circuit.ops[k]]
            each.append(model.duration_ns(name, operands.qubits(k)))
        durations[timed] = np.array(each)[inverse]
    if delays.size:
        durations[(codes == DELAY) | (codes == DELAY_DT)] = delays
    return durations


class ShotTimes:
    """Times of circuits on the device of a snapshot, in nanoseconds."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self._snapshot = snapshot
        self._model = build(snapshot)

    @property
    def overhead_ns(self) -> float:
        """Time of a circuit without its shots."""
        return self._snapshot.overhead_ns

    def shot_ns(
        self, circuit: Circuit, values: NDArray[np.float64] | None = None, duration_ns: float = -1.0
    ) -> float:
        """Time of one shot of an admissible circuit. `values` [slots]: of its free parameters;
        `duration_ns`: of its schedule, if known. A delay of unknown duration counts as 0."""
        if duration_ns < 0.0:
            duration_ns = self._scheduled_ns(circuit, values)
        used = () if self._snapshot.rep_delay_ns else used_qubits(circuit).tolist()
        return self._snapshot.reset_ns(used) + duration_ns

    def _scheduled_ns(self, circuit: Circuit, values: NDArray[np.float64] | None) -> float:
        if values is None:
            values = np.zeros(circuit.num_slots)
        try:
            delays = delays_ns(circuit, self._model, values)
        except Unsupported:
            delays = np.zeros(0)
        operands = Operands.of(circuit)
        return schedule(
            circuit,
            durations_ns(circuit, operands, self._model, delays),
            feed_forward_ns=self._model.feed_forward_ns,
            operands=operands,
        ).duration_ns


# Attachment of a noise model to a circuit, which no other module does.
#
# Channels follow gates, resets, delays and mid-circuit measurements; idle times of the schedule and
# the preparation of a qubit have channels of their own. Only qubits that the circuit uses get
# locations; a channel that also acts on an unused neighbour is reduced to its action for a
# neighbour that stays in |0>. Qubit q of the circuit is qubit q of the device.

MAX_CHANNELS = 16_384  # cached channels, of 2 KiB at most; cleared when full
_PROBE_NS = 1000.0  # idle time whose channel shows whether a qubit relaxes
_Locations = NDArray[np.int64]  # [n, 4], see `NoiseProgram`
_Numbers = NDArray[np.int64]
_Times = NDArray[np.float64]
_DELAYS = frozenset({"delay", "delay_dt"})
# (preceding operations, channels (-1: none), first qubits, second qubits or [0]).
_Group = tuple[_Numbers, _Numbers, _Numbers, _Numbers]
_NO_QUBITS = np.zeros(0, np.int64)
_NO_LOCATIONS = np.zeros((0, 4), np.int64)


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
        self._begin()

    def _begin(self) -> None:
        self._registry = NoiseRegistry(self.model)
        self._plain = PlainLocator(self._registry)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the cached channels."""
        return self._registry.memory_bytes

    def attach(self, circuit: Circuit, method: Method = "alap") -> NoiseProgram:
        """Make the noise program of an admissible circuit on the device of the model. `method`: of
        the schedule, `alap` or `asap`. Raises Unsupported for a circuit that does not fit the
        device, or has a delay of unknown duration."""
        if method not in METHODS:
            raise Unsupported(f"schedule {method[:32]!r}", hint=f"there are {', '.join(METHODS)}")
        if 0 < self.model.num_qubits < circuit.num_qubits:
            text = f"{circuit.num_qubits} qubits; the device of the noise model has"
            text += f" {self.model.num_qubits}"
            raise Unsupported(text, hint="compile the circuit for the device")
        if len(self._registry.channels) > MAX_CHANNELS:
            self._begin()
        result = self._attach_plain(circuit, method)
        return (
            _CircuitNoise(circuit, self._registry, method).program() if result is None else result
        )

    def _attach_plain(self, circuit: Circuit, method: Method) -> NoiseProgram | None:
        """Noise program of a circuit without blocks and delays whose channels are all known; None
        if the general method is needed."""
        if circuit.conditions_data or has_delays(circuit) or not self.model.has_idle_noise:
            return None
        registry, count = self._registry, circuit.num_qubits
        if self.model.layers or registry.is_detuned or registry.has_memory or registry.leaks:
            return None
        if self._registry.decides or (self.model.disturbs and circuit.clbits_data):
            return None
        if self._registry.coupled(circuit.num_qubits).ends.size:
            return None
        if any(map(is_named_measurement, circuit.table.names)):
            return None
        own = registry.readout(count) if circuit.clbits_data else NO_READOUT
        misread = own.misread if circuit.clbits_data else np.zeros(count, np.uint8)
        result = self._plain.locate(circuit, method, misread)
        if result is None:
            return None
        readout = own.readout if result.misread else None
        if readout is None and result.measures and own.readout is not None and own.readout.groups:
            return None
        digest = _digest(circuit, self.model, method, b"")
        return _assembled(
            registry, digest, result.locations, result.used, readout, result.duration_ns
        )


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
        self._operands = Operands.of(circuit)
        self._roles = np.empty(circuit.ops.size, np.int64)
        has_mid_circuit_ops(circuit, self._roles, keep=True)
        self._durations = np.empty(circuit.ops.size)
        touched = np.empty(circuit.num_qubits, np.uint8)
        self._touched = touched.view(np.bool_)
        self._located, self._irregular = self._locate(touched)
        self._delay_ops = np.zeros(0, np.intp)
        self._within = _NO_QUBITS  # gates on one qubit during layers
        # Parts of idle times and delays during layers: operations before them, qubits, times.
        self._during = _NO_QUBITS, _NO_QUBITS, np.zeros(0)
        if has_delays(circuit):
            codes = self._operands.codes
            self._delay_ops = np.flatnonzero((codes == DELAY) | (codes == DELAY_DT))
            self._irregular = np.union1d(self._irregular, self._delay_ops)

    def program(self) -> NoiseProgram:
        """Noise program; see `NoiseAttachment.attach`."""
        delays = self._delays_ns()
        prepared = np.flatnonzero(self._touched)
        before = np.full(prepared.size, -1)
        preparations = self._registry.preparations(prepared)
        self._prepared = np.count_nonzero(preparations >= 0)
        groups = [(before, preparations, prepared, _NO_QUBITS)]
        irregular = self._irregular_locations()
        duration_ns = -1.0
        waits = _NO_QUBITS, _NO_QUBITS, np.zeros(0)
        idle, idle_ns = None, np.zeros(0)
        if delays.size:
            self._durations[self._delay_ops] = delays
        uses, order = self._layers() if self._model.layers else ([], None)
        if self._model.has_idle_noise or uses:
            result = self._schedule(self._durations)
            if order is None:
                order = self._time_order(result)
            if order is not None and not self._ordered:
                circuit = reordered(self._circuit, order)
                again = _CircuitNoise(circuit, self._registry, self._method, ordered=True)
                return msgspec.structs.replace(again.program(), order=order)
            if uses:
                whole = result, delays
                result, delays = self._outside_layers(uses, result, delays)
                self._during = self._during_layers(uses, whole, (result, delays))
        if self._model.has_idle_noise:
            duration_ns = result.duration_ns
            waits = result.idle_after, result.idle_qubit, result.idle_ns
            timed, idle_ns = self._timed(result, delays)
            idle = self._before_layers(uses, timed)
            groups.append(idle)
        elif delays.size:
            waiting = self._operands.wires[self._operands.first[self._delay_ops]]
            channels = self._registry.idle.channel_ids(waiting, delays)
            idle, idle_ns = (self._delay_ops, channels, waiting, _NO_QUBITS), delays
            groups.append(idle)
        if self._registry.decides:
            groups.append(self._before_decisions())
        if self._model.disturbs:
            groups.append(self._disturbances())
        if self._registry.has_memory:
            groups.append(self._memory())
        groups += self._of_layers(uses)
        located, registry = self._located, self._registry
        room = len(located) + len(irregular) + sum(group[1].size for group in groups)
        rows = np.empty((room, 4), np.int64)
        first, *others = groups
        count = noise_locations.append_locations(*first, rows, 0)
        for part in (located, irregular):
            rows[count : count + len(part)] = part
            count += len(part)
        for group in others:
            count = noise_locations.append_locations(*group, rows, count)
        locations = np.empty((count, 4), np.int64)  # in order of their action
        used = np.empty(min(count, len(registry.channels)), np.int64)
        begins = np.zeros(self._circuit.ops.size + 2, np.int64)
        number = noise_locations.order_locations(
            rows[:count], begins, registry.marks, used, locations
        )
        times = self._durations[self._delay_ops] if delays.size else delays
        digest = _digest(self._circuit, self._model, self._method, times.tobytes())
        readout = self._readout()
        program = _assembled(registry, digest, locations, used[:number], readout, duration_ns)
        if registry.leaks:
            program = self._leaking(program, irregular, idle, idle_ns)
        return self._detuned(program, waits, delays, uses) if registry.is_detuned else program

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
        self._located = self._located[~np.isin(self._located[:, AFTER_OP], acting)]
        windows = layers.layer_windows(uses, timing.start_ns, self._durations)
        self._within = layers.operations_within(
            self._operands, timing.start_ns, self._durations, windows
        )
        self._drop_relaxation()
        idle_ns = layers.without_layers(
            timing.idle_qubit, timing.idle_end_ns, timing.idle_ns, windows
        )
        if delays.size:
            waiting = self._operands.wires[self._operands.first[self._delay_ops]]
            ends = timing.start_ns[self._delay_ops] + delays
            delays = layers.without_layers(waiting, ends, delays, windows)
        return msgspec.structs.replace(timing, idle_ns=idle_ns), delays

    def _during_layers(
        self,
        uses: list[layers.LayerUse],
        whole: tuple[Schedule, _Times],
        left: tuple[Schedule, _Times],
    ) -> tuple[_Numbers, _Numbers, _Times]:
        """Parts of idle times and delays during layers, in which leaked qubits decay: operations
        that they follow, qubits, times. `whole`, `left`: with these parts, and without them."""
        timing, delays = whole
        waiting = self._operands.wires[self._operands.first[self._delay_ops]]
        parts = [(self._delay_ops[: delays.size], waiting[: delays.size], delays - left[1])]
        if self._model.has_idle_noise:
            times = timing.idle_ns - left[0].idle_ns
            parts.append((timing.idle_after, timing.idle_qubit, times))
        after, qubits, times = (np.concatenate(each) for each in zip(*parts, strict=True))
        mine = times > 0.0
        alone = np.full(after.size, -1)
        after, *_ = self._before_layers(uses, (after, alone, qubits, alone))
        return after[mine], qubits[mine], times[mine]

    def _drop_relaxation(self) -> None:
        """Put the channels of gates during layers in place of their own."""
        inside = np.flatnonzero(np.isin(self._located[:, AFTER_OP], self._within))
        for row in inside.tolist():
            k, _, qubit, _ = self._located[row].tolist()
            left = self._model.during_layer(self._circuit.noise_names[self._circuit.ops[k]], qubit)
            self._located[row, CHANNEL] = self._registry.number(left[0].channel) if left else -1
        self._located = self._located[self._located[:, CHANNEL] >= 0]

    def _before_layers(self, uses: list[layers.LayerUse], group: _Group) -> _Group:
        """Relaxation of waiting qubits that ends at a gate of a layer acts before its channels."""
        after, _, _, second = group
        place = np.arange(-1, self._circuit.ops.size)  # of what follows operation k - 1
        for use in uses:  # whose gates are listed one after the other
            first, last = use.operations[0], use.operations[-1]
            place[first + 1 : last + 1] = first - 1
        alone = second < 0
        after[alone] = place[after[alone] + 1]
        return group

    def _of_layers(self, uses: list[layers.LayerUse]) -> list[_Group]:
        """Channels of layers, right before the first of their gates."""
        acting = {id(use.layer): use.layer for use in uses}
        around = {key: self._around(layer.channels) for key, layer in acting.items()}
        rows = [(use.operations[0] - 1, *row) for use in uses for row in around[id(use.layer)]]
        if not rows:
            return []
        after, channels, first, second = np.array(rows, np.int64).T.copy()
        return [(after, channels, first, second)]

    def _leaking(
        self, program: NoiseProgram, irregular: _Locations, idle: _Group | None, idle_ns: _Times
    ) -> NoiseProgram:
        """A noise program with the leakage of gates, after each one's own channels, and the decay
        of leaked qubits, after the relaxation of each idle time. `idle_ns`: 0.0 for rows of `idle`
        that are none."""
        count = self._circuit.ops.size
        own = np.concatenate((self._located[:, 0], irregular[:, 0]))
        ends = np.searchsorted(program.locations[:, 0], np.arange(-1, count))
        ends[1:] += np.bincount(own, minlength=count)
        first = ends.copy()
        first[0] = self._prepared  # of the locations before the first operation
        if idle is None:
            waits = leakage.Waits(_NO_QUBITS, _NO_QUBITS, _NO_QUBITS, np.zeros(0))
        else:
            after, channels, qubits, _ = idle
            order = np.argsort(after, kind="stable")
            written = np.cumsum(channels[order] >= 0)
            begin = np.searchsorted(after[order], after[order])
            before = np.where(begin > 0, written[begin - 1], 0)
            places = first[after[order] + 1] + written - before
            mine = idle_ns[order] > 0.0
            waits = leakage.Waits(
                after[order][mine], places[mine], qubits[order][mine], idle_ns[order][mine]
            )
            first += np.bincount(after[channels >= 0] + 1, minlength=count + 1)
        after, qubits, times = self._during
        parts = zip(
            (waits.after, waits.places, waits.qubits, waits.time_ns),
            (after, first[after + 1], qubits, times),
            strict=True,
        )
        waits = leakage.Waits(*(np.concatenate(each) for each in parts))
        found = leakage.leakage(self._circuit, self._operands, self._model, ends, waits)
        if found is None:
            return program
        kinds = program.kinds | {"leakage"}
        return msgspec.structs.replace(program, kinds=kinds, leakage=found)

    def _detuned(
        self,
        program: NoiseProgram,
        waits: tuple[_Numbers, _Numbers, _Times],
        delays: _Times,
        uses: list[layers.LayerUse],
    ) -> NoiseProgram:
        """A noise program with the rotations of detuned qubits. `uses`: layers, during which there
        are none."""
        durations = self._durations.copy()
        if delays.size:
            durations[self._delay_ops] = delays
        for use in uses:
            durations[list(use.operations)] = 0.0
        durations[self._within] = 0.0
        found = detuning.detunings(self._operands, durations, waits, self._model.detuning)
        if found is None:
            return program
        found = detuning.with_bounds(found, self._circuit, self._operands, program)
        kinds = program.kinds | {"quasistatic"}
        return msgspec.structs.replace(program, kinds=kinds, detunings=found)

    def _locate(self, touched: NDArray[np.uint8]) -> tuple[_Locations, NDArray[np.int64]]:
        """Channels after operations on one and two qubits, and the remaining operations."""
        circuit, operands, registry = self._circuit, self._operands, self._registry
        size = circuit.ops.size
        names = circuit.noise_names
        gates = registry.gates(names)
        missing, irregular = np.empty(size, np.int64), np.empty(size, np.int64)
        result = np.empty(3, np.int64)
        room = 2 * size
        while True:
            locations = np.empty((room, 4), np.int64)
            noise_locations.locate(
                operands.codes, operands.first, operands.wires, circuit.ops, gates, self._roles,
                registry.keys, registry.entries, registry.durations_ns, registry.begins,
                registry.lengths, registry.rows, self._durations, touched, locations, missing,
                irregular, result,
            )  # fmt: skip
            written, absent, other = result.tolist()
            unknown = {
                (names[circuit.ops[k]], operands.qubits(k)) for k in missing[:absent].tolist()
            }
            for name, qubits in unknown:
                registry.learn(name, qubits)
            if not absent and written <= room:
                return locations[:written], irregular[:other]
            room = max(room, written)

    def _irregular_locations(self) -> _Locations:
        """Channels after the operations without an entry, whose durations are stored."""
        cache: dict[tuple[str, tuple[int, ...]], list[tuple[int, int, int]]] = {}
        rows: list[tuple[int, int, int, int]] = []
        if not self._irregular.size:
            return _NO_LOCATIONS
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
        registry, rows = self._registry, []
        for each in channels:
            qubits = each.qubits
            if len(qubits) == 1:
                if self._touched[qubits[0]]:
                    rows.append((registry.number(each.channel), qubits[0], -1))
                continue
            first, second = self._touched[list(qubits)].tolist()
            if first and second:
                rows.append((registry.number(each.channel), qubits[0], qubits[1]))
            elif first or second:
                idler = 1 if first else 0
                rows.append((registry.alone(each.channel, idler), qubits[1 - idler], -1))
        return rows

    def _delays_ns(self) -> NDArray[np.float64]:
        """Duration of each delay of the circuit; [0] if delays have no effect."""
        places = self._delay_ops
        if not places.size or not self._delays_matter():
            return np.zeros(0)
        return delays_ns(self._circuit, self._model)

    def _delays_matter(self) -> bool:
        """Return whether idle times are scheduled, or a qubit with a delay relaxes."""
        if self._model.has_idle_noise or self._registry.is_detuned or self._model.layers:
            return True
        waiting = set(self._operands.wires[self._operands.first[self._delay_ops]].tolist())
        return any(
            self._model.idle(qubit, _PROBE_NS) is not None
            or any(self._model.seepage(qubit, _PROBE_NS))
            for qubit in waiting
        )

    def _schedule(self, durations: NDArray[np.float64]) -> Schedule:
        return schedule(
            self._circuit,
            durations,
            self._method,
            feed_forward_ns=self._model.feed_forward_ns,
            final=self._roles == TERMINAL,
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

    def _timed(self, timing: Schedule, delays: NDArray[np.float64]) -> tuple[_Group, _Times]:
        """Relaxation of waiting qubits, and ZZ interaction of coupled ones; of the former the time
        of each row, else 0.0."""
        registry = self._registry
        pairs = registry.coupled(self._circuit.num_qubits)
        rows = timed_noise.timed_noise(
            self._circuit, self._operands, self._roles, timing, pairs,
            (self._delay_ops, delays) if delays.size else None, reads=registry.splits_readout,
        )  # fmt: skip
        first, second = -1 - rows.owner, np.full(rows.owner.size, -1)
        read = first >= timed_noise.READING
        first[read] -= timed_noise.READING
        together = rows.owner >= 0
        channels = np.empty(rows.owner.size, np.int64)
        for mine, cache in (
            (read, registry.reading), (together, registry.crosstalk),
            (~(read | together), registry.idle),
        ):  # fmt: skip
            owners = rows.owner[mine] if cache is registry.crosstalk else first[mine]
            channels[mine] = cache.channel_ids(owners, rows.time_ns[mine])
        pair = rows.owner[together]
        first[together], second[together] = pairs.first[pair], pairs.second[pair]
        times = np.where(read | together, 0.0, rows.time_ns)
        return (rows.after, channels, first, second), times

    def _before_decisions(self) -> _Group:
        """Relaxation that the outcomes of measurements inside the circuit have seen."""
        codes, first = self._operands.codes, self._operands.first
        inside = np.flatnonzero((codes == MEASURE) & (self._roles != TERMINAL))
        qubits = self._operands.wires[first[inside]]
        names = self._circuit.noise_names
        channels = [
            self._registry.number(self._model.before_decision(names[op], qubit))
            for op, qubit in zip(self._circuit.ops[inside], qubits.tolist(), strict=True)
        ]
        return inside - 1, np.array(channels, np.int64), qubits, _NO_QUBITS

    def _disturbances(self) -> _Group:
        """Dephasing and rotation of qubits by measurements of others."""
        found = disturbed(
            self._circuit, self._operands, self._roles, self._touched, self._durations, self._method
        )
        places, numbers = [_NO_QUBITS], [_NO_QUBITS]
        for _, qubit, others, _ in found:
            disturbance = self._model.disturbance(qubit)
            channels = np.full(self._circuit.num_qubits, self._registry.number(disturbance.others))
            for other, channel in disturbance.own.items():
                if other < channels.size:
                    channels[other] = self._registry.number(channel)
            numbers.append(channels[others])
        places += [after for *_, after in found]
        qubits = [_NO_QUBITS, *(others for _, _, others, _ in found)]
        acting = np.concatenate(numbers), np.concatenate(qubits)
        return np.concatenate(places), *acting, _NO_QUBITS

    def _memory(self) -> _Group:
        """Noise of layers: steps of a schedule in which gates on two or more qubits take a step,
        and all else takes none. A qubit of a gate has that of its layer after it, one that waits
        that of all layers before the operation that ends them."""
        operands = self._operands
        wide = (operands.codes >= UNITARY) & (operands.counts > 1)
        timing = schedule(
            self._circuit,
            wide.astype(np.float64),
            self._method,
            final=self._roles == TERMINAL,
            operands=operands,
        )
        operations = np.repeat(np.arange(wide.size), operands.counts)
        acts = wide[operations]
        after = np.concatenate((operations[acts], timing.idle_after))
        qubits = np.concatenate((operands.wires[acts], timing.idle_qubit))
        steps = np.concatenate((np.ones(np.count_nonzero(acts)), timing.idle_ns))
        return after, self._registry.memory.channel_ids(qubits, steps), qubits, _NO_QUBITS

    def _readout(self) -> Readout | None:
        """Readout error of the circuit's qubits; None if no measured qubit has one."""
        operations = np.flatnonzero(self._operands.codes == MEASURE)
        measured = self._operands.wires[self._operands.first[operations]]
        own = self._registry.readout(self._circuit.num_qubits) if measured.size else NO_READOUT
        result = own.readout
        if flips := self._own_flips(operations, measured):
            if result is None:
                exact = np.zeros(self._circuit.num_qubits)
                result = Readout(exact, exact)
            return msgspec.structs.replace(result, own=flips)
        if result is None or own.misread[measured].any():
            return result
        seen = set(measured.tolist())
        return result if any(seen.issuperset(group.qubits) for group in result.groups) else None

    def _own_flips(
        self, operations: _Numbers, measured: _Numbers
    ) -> dict[int, tuple[float, float]]:
        """p01 and p10 of the measurements that have them of their own, by operation."""
        names, ops = self._circuit.table.names, self._circuit.ops
        named = np.array([is_named_measurement(name) for name in names], np.bool_)[ops[operations]]
        results: dict[int, tuple[float, float]] = {}
        if self._registry.decides:
            for k, qubit in zip(operations.tolist(), measured.tolist(), strict=True):
                flips = self._model.flips_inside(names[ops[k]], qubit)
                if flips is not None and self._roles[k] != TERMINAL:
                    results[k] = flips
        for k, qubit in zip(operations[named].tolist(), measured[named].tolist(), strict=True):
            flips = self._registry.flips_of(names[ops[k]], qubit)
            if flips is not None:
                results.setdefault(k, flips)
        return results


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


def _assembled(
    registry: NoiseRegistry,
    digest: bytes,
    locations: _Locations,
    used: _Numbers,
    readout: Readout | None,
    duration_ns: float,
) -> NoiseProgram:
    """Noise program of these locations; `used`: numbers of their channels."""
    facts = registry.facts.of(used)
    kinds: set[NoiseKind] = set() if readout is None else {"readout"}
    paulis = np.count_nonzero(facts.is_pauli)
    if paulis:
        kinds.add("pauli")
    if paulis < used.size:
        kinds.add("kraus")
    channels = tuple([registry.channels[k] for k in used.tolist()])
    return NoiseProgram(digest, frozenset(kinds), locations, channels, readout, facts, duration_ns)
