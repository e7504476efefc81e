"""Observations of a fit: measured circuits, compiled as for a submit, for the transfer simulator.

`DeviceCompiler` compiles the circuit of a record. Runs of one circuit in one date window are one
observation (`observe`), whose distribution is a function of the components of the device's noise
(`Distributions`). A circuit that is too wide for the simulator is fitted under the Pauli twirl of
its noise, if it is a Clifford circuit: an observation for each group of its clbits. With detunings
that are constant during a shot a distribution is a mean over a quadrature, whose error is below
that of counts (`PRECISION`). Circuits that cannot be fitted are counted by reason. Date windows are
runs that are close in time, each with its own calibration (`window_starts`). Folds divide
observations for cross-validation (`folds_of`).
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot, is_named_measurement
from noise_models.channel import Channel
from noise_models.model import Disturbance, LocatedChannel
from simenv.calibration.data import CountsData, CountsRecord, DataError
from simenv.calibration.fit.components import (
    JOINT,
    ChannelKey,
    Component,
    DeviceChannels,
    Setting,
)
from simenv.client.submission.compiler import Compiler
from simenv.errors import SimenvError
from simenv.service.devices.registry import device_info
from simenv.transpiler.qiskit_runtime import LEVEL
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.circuit.validation.admission import validation_error
from simulators.errors import Unsupported
from simulators.transfer import evaluate
from simulators.transfer.evolution import DualMatrix, constant
from simulators.transfer.program import ConstantTable, TransferProgram, build

if TYPE_CHECKING:
    from simenv.client.circuits import PackedCircuit


class CompiledRun(msgspec.Struct, frozen=True, eq=False):
    """Circuit on the device's qubits. `was_placed`: True if the compiler chose them; level 0 uses
    qubits 0, 1, 2, ..."""

    circuit: Circuit
    loaded: PackedCircuit
    was_placed: bool


class DeviceCompiler:
    """Compiler for one snapshot, like `Client.submit` with `compile="auto"`; a record that states
    its compilation level is compiled at that level."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        self._info = device_info(snapshot.name, snapshot, snapshot.digest.hex())
        self._compilers: dict[int, Compiler] = {}
        self._known: dict[tuple[str, tuple[int, ...], int], CompiledRun] = {}

    def run_of(self, record: CountsRecord) -> CompiledRun:
        """Compiled circuit of a record. Raises DataError for a circuit that the device cannot
        run."""
        key = (record.source.text, record.layout, record.level)
        result = self._known.get(key)
        if result is None:
            result = self._known[key] = self._compiled(record)
        return result

    def _compiled(self, record: CountsRecord) -> CompiledRun:
        try:
            compiler = self._compilers.get(record.level)
            if compiler is None:
                level = LEVEL if record.level < 0 else record.level
                compiler = self._compilers[record.level] = Compiler(self._info, level)
            built = compiler.compiled(record.source.loaded, "auto", record.layout)
        except SimenvError as error:
            message = f"{record.label} on device {self.snapshot.name}: {error.message}"
            raise DataError(message, hint=error.hint) from error
        circuit = Circuit.from_program(built.loaded.program)
        if text := validation_error(circuit):
            raise DataError(f"{record.label}: {text}")
        is_free = bool(built.compiler) and not record.layout and record.level != 0
        return CompiledRun(circuit, built.loaded, is_free)


MAX_QUBITS = 11  # widest fitted circuit
MAX_WORK = 2**24  # 4^qubits times (1 + components) times steps, for one evaluation of a circuit
_THREADED_QUBITS = 8  # widest circuits that several threads evaluate at once, each with its state
MAX_SETS_WORK = 2**27  # of a circuit with detunings, over all their sets
# Errors of probabilities and of derivatives by the quadrature over detunings. Shot noise is above
# the first one up to 10^9 shots; a derivative only directs a step.
PRECISION = evaluate.Precision(1e-5, 2e-2, 4_096)
MOST_JOINT = 120  # pairs of qubits whose records may be flipped together: all of 16 qubits
GROUP_BITS = 12  # clbits of a wide circuit in one observation


class FittedCircuit(msgspec.Struct, frozen=True, eq=False):
    """One circuit and its measured frequencies. `place`: index of its distribution
    (`Distributions`)."""

    place: int
    frequencies: NDArray[np.float64]  # [2^m]
    shots: int
    body: str
    window: int
    runs: int
    two_qubit_gates: int
    was_placed: bool
    name: str
    key: tuple[str, tuple[int, ...], int, int, int]  # text, layout, level, window, first clbit


class _KeyedModel:
    """Noise model of a device that records the origin of its channels."""

    def __init__(self, device: DeviceChannels) -> None:
        self._device = device
        self._model = device.model
        self.keys: dict[int, ChannelKey] = {}
        self._held: list[Channel] = []  # keeps objects alive, so that their identities stay unique

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def _keep(self, channel: Channel | None, key: ChannelKey | None) -> Channel | None:
        if channel is not None:
            self._held.append(channel)
            if key is not None:
                self.keys[id(channel)] = key
        return channel

    def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        result = self._model.after_gate(name, qubits)
        key = self._device.key_of(name, qubits)
        if name == "measure" or is_named_measurement(name):  # relaxation over the readout
            key = ChannelKey("", qubits, self._model.duration_ns(name, qubits))
        fixed: set[int] = set()
        if name == "measure" or is_named_measurement(name):
            fixed = {id(each.channel) for each in self._model.by_measurement(name, qubits[0])}
        for each in result:
            self._keep(each.channel, None if id(each.channel) in fixed else key)
        return result

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        result = self._model.by_measurement(name, qubit)
        for each in result:
            self._keep(each.channel, None)
        return result

    def disturbance(self, qubit: int) -> Disturbance:
        result = self._model.disturbance(qubit)
        for channel in (result.others, *result.own.values()):
            self._keep(channel, None)
        return result

    def idle(self, qubit: int, duration_ns: float) -> Channel | None:
        key = ChannelKey("", (qubit,), duration_ns)
        return self._keep(self._model.idle(qubit, duration_ns), key)

    def during_readout(self, qubit: int, duration_ns: float) -> Channel | None:
        key = ChannelKey("", (qubit,), duration_ns)
        return self._keep(self._model.during_readout(qubit, duration_ns), key)

    def memory(self, qubit: int, layers: int) -> Channel | None:
        return self._keep(self._model.memory(qubit, layers), None)

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        key = ChannelKey("", pair, duration_ns)
        return self._keep(self._model.crosstalk(pair, duration_ns), key)

    def preparation(self, qubit: int) -> Channel | None:
        return self._keep(self._model.preparation(qubit), None)


class Distributions:
    """Distributions of circuits on a device as functions of its components."""

    def __init__(self, device: DeviceChannels, compiler: DeviceCompiler) -> None:
        self.device = device
        self.compiler = compiler
        self.programs: list[TransferProgram | evaluate.ParityProgram] = []
        self._table = ConstantTable()
        self._model = _KeyedModel(device)
        self._noise = NoiseAttachment(self._model)  # type: ignore[arg-type]
        self._sources: list[ChannelKey | Channel] = []  # by channel number
        self._numbers: dict[ChannelKey | int, int] = {}  # by key, else by identity of the channel
        self._places: dict[int, int] = {}  # by identity of a compiled run
        self._parities: dict[int, tuple[int, ...]] = {}  # by place of the circuit
        self.two_qubit_gates: list[int] = []

    def place_of(self, record: CountsRecord) -> int:
        """Index of a record's circuit in `programs`. Raises Unsupported, DataError."""
        run = self.compiler.run_of(record)
        place = self._places.get(id(run))
        if place is None:
            noise = self._noise.attach(run.circuit)
            channel_numbers = [self._number_of(channel) for channel in noise.channels]
            self.programs.append(
                build(noise.located(run.circuit), noise, self._table, channel_numbers)
            )
            place = self._places[id(run)] = len(self.programs) - 1
            rows = run.circuit.table.rows[run.circuit.ops]
            self.two_qubit_gates.append(int(((rows[:, 1] == 2) & (rows[:, 0] >= UNITARY)).sum()))
        return place

    def parities_of(self, place: int) -> tuple[int, ...]:
        """Indices of the distributions of groups of clbits of a circuit. Raises Unsupported for a
        circuit that is not a Clifford circuit."""
        result = self._parities.get(place)
        if result is None:
            program = self.programs[place]
            assert isinstance(program, TransferProgram)
            built = [
                evaluate.parity_program(program, self._table, group)
                for group in _groups(program.clbits)
            ]
            begin = len(self.programs)
            self.programs += built
            self.two_qubit_gates += [self.two_qubit_gates[place]] * len(built)
            result = self._parities[place] = tuple(range(begin, len(self.programs)))
        return result

    def _number_of(self, channel: Channel) -> int:
        key = self._model.keys.get(id(channel), id(channel))
        result = self._numbers.get(key)
        if result is None:
            result = self._numbers[key] = len(self._sources)
            self._sources.append(channel if isinstance(key, int) else key)
        return result

    def components(self, places: Sequence[int], *, pooled: bool) -> tuple[Component, ...]:
        """Components of the circuits at these places, or the pooled ones."""
        keys = self.keys(places)
        gates = [key for key in keys if key.gate]
        pairs = {key.qubits for key in keys if not key.gate and len(key.qubits) == 2}
        results = self.device.components(self.qubits(places), gates, pairs, pooled=pooled)
        read = self.read_together(places)
        if pooled or len(read) > MOST_JOINT:
            return results
        return tuple(sorted({*results, *(Component(JOINT, pair) for pair in read)}))

    def read_together(self, places: Sequence[int]) -> set[tuple[int, ...]]:
        """Pairs of qubits that one of the circuits at these places measures."""
        programs = [self.programs[place] for place in set(places)]
        wires = [sorted({each.qubits[q] for q in each.measured}) for each in programs]
        return {pair for own in wires for pair in itertools.combinations(own, 2)}

    def qubits(self, places: Sequence[int]) -> list[int]:
        """Qubits of the circuits at these places."""
        return sorted({qubit for place in places for qubit in self.programs[place].qubits})

    def keys(self, places: Sequence[int]) -> list[ChannelKey]:
        """Gates and idle times of the circuits at these places."""
        numbers = set().union(*(self.programs[place].channels for place in set(places)))
        sources = [self._sources[number] for number in sorted(numbers)]
        return [key for key in sources if isinstance(key, ChannelKey)]

    def channels(
        self,
        places: Sequence[int],
        components: Sequence[Component],
        values: NDArray[np.float64],
        *,
        derivatives: bool,
    ) -> evaluate.ChannelSet:
        """Channels of the circuits at these places, for one set of values of the components."""
        setting = Setting(self.device, components, values)

        def cut(matrix: DualMatrix) -> DualMatrix:
            return matrix if derivatives else DualMatrix(matrix.values[:1])

        programs = [self.programs[place] for place in set(places)]
        built: list[DualMatrix | None] = [None] * len(self._sources)
        for number in frozenset().union(*(program.channels for program in programs)):
            source = self._sources[number]
            if isinstance(source, Channel):
                built[number] = constant(source.ptm)
            else:
                built[number] = cut(setting.channel(source))
        qubits = {qubit for program in programs for qubit in program.qubits}
        detuning = setting.detuning
        if not derivatives:
            detuning = evaluate.Detuning(detuning.factor)
        read = {qubit: setting.confusion(qubit) for qubit in qubits}
        readout = {
            qubit: cut(confusion) for qubit, confusion in read.items() if confusion is not None
        }
        together = [
            evaluate.ReadTogether(each.qubits, cut(setting.read_together(each)))
            for each in self.device.snapshot.correlated_readout
            if qubits.issuperset(each.qubits)
        ]
        joint = [
            each if derivatives else msgspec.structs.replace(each, param=-1)
            for each in setting.joint_flips
            if not qubits.isdisjoint(each.qubits)
        ]
        uniform = setting.uniform
        if not derivatives:
            uniform = evaluate.UniformPart(uniform.share)
        return evaluate.ChannelSet(built, readout, self._table, detuning, together, joint, uniform)

    def outcomes(
        self, places: Sequence[int], channels: evaluate.ChannelSet
    ) -> dict[int, evaluate.OutcomeDistribution]:
        """Distributions of the circuits at these places, computed by a thread on each core."""
        chosen = sorted(set(places))
        programs = [self.programs[place] for place in chosen]
        exact = [each.num_qubits for each in programs if isinstance(each, TransferProgram)]
        if exact:
            channels.packed()  # by one thread, for all

        def distribution(place: int) -> evaluate.OutcomeDistribution:
            program = self.programs[place]
            if isinstance(program, evaluate.ParityProgram):
                return evaluate.parity_outcomes(program, channels)
            # A step of a fit may try detunings far beyond those of the calibration.
            evaluable = channels.evaluable(program.rotations, PRECISION)
            return evaluate.outcomes(program, evaluable, PRECISION)

        count = 1 if max(exact, default=0) > _THREADED_QUBITS else os.cpu_count() or 1
        with ThreadPoolExecutor(count) as threads:
            return dict(zip(chosen, threads.map(distribution, chosen), strict=True))


class ObservedCircuits(msgspec.Struct, frozen=True, eq=False):
    """Observations, the number of omitted circuits by reason, and the place of each record."""

    observations: tuple[FittedCircuit, ...]
    left_out: tuple[tuple[str, int], ...]


def observe(
    data: CountsData, distributions: Distributions, windows: Sequence[int], *, pooled: bool
) -> ObservedCircuits:
    """Observations of all records. `windows`: date window of each record; `pooled`: True if the
    components are pooled."""
    groups: dict[tuple[int, int], list[CountsRecord]] = {}
    left_out: Counter[str] = Counter()
    for record, window in zip(data.records, windows, strict=True):
        try:
            place = distributions.place_of(record)
        except Unsupported as error:
            left_out[error.message] += 1
            continue
        places: tuple[int, ...] = (place,)
        try:
            is_wide = _is_wide(distributions.programs[place], pooled)
        except Unsupported as error:
            left_out[error.message] += 1
            continue
        if is_wide:
            try:
                places = distributions.parities_of(place)
            except Unsupported:
                left_out["too wide or too deep for the transfer simulator: scored, not fitted"] += 1
                continue
        for each in places:
            groups.setdefault((each, window), []).append(record)
    observations = tuple(
        _observation(place, window, records, distributions)
        for (place, window), records in groups.items()
    )
    return ObservedCircuits(observations, tuple(sorted(left_out.items())))


def _groups(clbits: Sequence[int]) -> list[Sequence[int]]:
    """Divide clbits into groups of nearly equal size, at most GROUP_BITS."""
    count = -(-len(clbits) // GROUP_BITS)
    ends = [len(clbits) * k // count for k in range(count + 1)]
    return [clbits[begin:end] for begin, end in itertools.pairwise(ends)]


def _is_wide(program: TransferProgram | evaluate.ParityProgram, pooled: bool) -> bool:
    """Return whether one evaluation with derivatives takes too long. Raises Unsupported for too
    many sets of detunings."""
    if isinstance(program, evaluate.ParityProgram) or program.num_qubits > MAX_QUBITS:
        return True
    pairs = len(np.unique(program.pairs, axis=0))
    rows = 1 + (6 if pooled else 3 * program.num_qubits + pairs)
    if rows * program.work > MAX_WORK or program.rotations is None:
        return rows * program.work > MAX_WORK
    fine, coarse = evaluate.grids(program.rotations, PRECISION)
    if (2 * len(fine.x) + rows * len(coarse.x)) * program.work > MAX_SETS_WORK:
        raise Unsupported(
            "too many sets of detunings (T2* beside T2) for the transfer simulator: scored, not"
            " fitted",
            hint="take fewer qubits or shorter waiting times",
        )
    return False


def _observation(
    place: int, window: int, records: list[CountsRecord], distributions: Distributions
) -> FittedCircuit:
    total = np.zeros(1 << len(distributions.programs[place].clbits))
    for record in records:
        total += histogram(record.counts, distributions.programs[place].clbits)
    shots = sum(record.shots for record in records)
    return FittedCircuit(
        place,
        total / shots,
        shots,
        records[0].body,
        window,
        len(records),
        distributions.two_qubit_gates[place],
        distributions.compiler.run_of(records[0]).was_placed,
        records[0].name,
        (
            records[0].source.text,
            records[0].layout,
            records[0].level,
            window,
            distributions.programs[place].clbits[0],
        ),
    )


def histogram(counts: dict[int, int], clbits: Sequence[int]) -> NDArray[np.float64]:
    """Counts by outcome of the measured clbits, float64 [2^m]."""
    result = np.zeros(1 << len(clbits))
    for outcome, count in counts.items():
        place = sum((outcome >> clbit & 1) << k for k, clbit in enumerate(clbits))
        result[place] += count
    return result


GAP_S = 6 * 3600.0  # gap without runs between two date windows
LONGEST_S = 24 * 3600.0  # of a date window
LEAST_CIRCUITS = 4  # circuits of a date window
MOST_WINDOWS = 32  # of a series; of more days, neighbours are one window


def window_starts(records: Sequence[CountsRecord]) -> list[float]:
    """Begins of the date windows, seconds since 1970; [] if a time is unknown."""
    dated = [each for each in records if each.time_s == each.time_s]
    if len(dated) < len(records) or not dated:
        return []
    results: list[float] = []
    circuits: set[tuple[str, int]] = set()
    last_s = -np.inf
    for each in sorted(dated, key=lambda record: record.time_s):
        is_new = each.time_s - last_s > GAP_S or each.time_s - results[-1] > LONGEST_S
        if is_new and (not results or len(circuits) >= LEAST_CIRCUITS):
            results.append(each.time_s)
            circuits = set()
        circuits.add((each.source.text, each.level))
        last_s = each.time_s
    if len(results) > 1 and len(circuits) < LEAST_CIRCUITS:
        results.pop()
    return results[:: -(-len(results) // MOST_WINDOWS)]


def windows_of(records: Sequence[CountsRecord], starts: Sequence[float]) -> list[int]:
    """Date window of each record; 0 for those before the first one."""
    if not starts:
        return [0] * len(records)
    times = [each.time_s for each in records]
    results: list[int] = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0).tolist()
    return results


FOLDS = 4


def folds_of(observations: Sequence[FittedCircuit], qubits: Sequence[object]) -> NDArray[np.int64]:
    """Fold of each observation; all 0 with fewer than two bodies. `qubits`: the device's qubits of
    each observation.

    Folds never share a circuit body, nor (where there are enough of them) a set of qubits. They are
    contiguous in the number of two-qubit gates, so that a fold is predicted from shorter or longer
    circuits.
    """
    bodies = [each.body for each in observations]
    groups = _joined(bodies, qubits)
    if len(set(groups)) < FOLDS:
        number = {body: k for k, body in enumerate(dict.fromkeys(bodies))}
        groups = [number[body] for body in bodies]
    gates: dict[int, list[int]] = {}
    for group, each in zip(groups, observations, strict=True):
        gates.setdefault(group, []).append(each.two_qubit_gates)
    order = sorted(gates, key=lambda group: (float(np.mean(gates[group])), group))
    count = min(FOLDS, len(order))
    fold = {group: rank * count // len(order) for rank, group in enumerate(order)}
    return np.array([fold[group] for group in groups], np.int64)


def _joined(*labels: Sequence[object]) -> list[int]:
    """Connected component of each item, where items that share a label are connected: the number of
    one of its items. By disjoint sets (Cormen et al., Introduction to Algorithms, chapter 19)."""
    parent = list(range(len(labels[0])))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for kind in labels:
        first: dict[object, int] = {}
        for item, label in enumerate(kind):
            other = root(first.setdefault(label, item))
            parent[root(item)] = other
    return [root(item) for item in range(len(parent))]
