"""Execution of batches of tapes: programs, sweeps, and classical shadows.

Cache of the programs of tapes, by everything they depend on. Invariant: tapes that differ in their
angles alone are bindings of one program.

Sweeps of programs for a batch of tapes, sent in as few messages as their outputs allow. Tapes of
one program and one number of shots are rows of one sweep; sweeps of one kind are one message.
Invariants: all messages are sent before the first wait for a result; if one is refused or a task
fails, the unfinished tasks of the batch are cancelled.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pennylane as qml
from numpy.typing import NDArray

from simenv.client.client import Client
from simenv.client.result import Result
from simenv.client.tasks.task import Task
from simenv.errors import BatchRefusedError, SimenvError
from simenv.frontends.pennylane import encoder, measurements
from simenv.model import Program

MAX_PROGRAMS = 1_024


@dataclass(frozen=True)
class TapeProgram:
    """A program and the sources of its slots. `key`: everything it depends on."""

    key: tuple[Any, ...]
    program: Program
    angles: encoder.AngleTable


class TapeProgramCache:
    """Programs of one device. Not thread-safe."""

    def __init__(self) -> None:
        self._programs: OrderedDict[tuple[Any, ...], TapeProgram] = OrderedDict()

    def plain(self, tape: Any, circuit: encoder.TapeCircuit) -> TapeProgram:
        """Program of a tape's operations without measurements at the end."""
        return self._kept((circuit.key, None), tape, circuit, (), (), {})

    def measured(
        self, tape: Any, circuit: encoder.TapeCircuit, basis: measurements.MeasuredBasis
    ) -> TapeProgram:
        """Program with measurements in a basis at its end."""
        gates = _decomposed(basis.gates)
        first = len(circuit.values)
        angles = [float(value) for gate in gates if encoder.is_gate(gate) for value in gate.data]
        fixed = {first + k: angle for k, angle in enumerate(angles)}
        key = (circuit.key, basis.key)
        return self._kept(key, tape, circuit, gates, tuple(basis.letters), fixed)

    def differentiated(
        self,
        tape: Any,
        circuit: encoder.TapeCircuit,
        free: frozenset[int],
        values: NDArray[np.float64],
    ) -> TapeProgram:
        """Program with the values numbered in `free` as slots, and the others as constants."""
        fixed = {k: float(values[k]) for k in range(len(values)) if k not in free}
        key = (circuit.key, tuple(fixed.items()))
        return self._kept(key, tape, circuit, (), (), fixed)

    def shadowed(
        self, tape: Any, circuit: encoder.TapeCircuit, wires: Sequence[Any]
    ) -> TapeProgram:
        """Program that rotates each of these wires into a Pauli basis and measures it; it has three
        further values for each wire, the angles of `u`."""
        with qml.QueuingManager.stop_recording():
            turns = [qml.U3(0.0, 0.0, 0.0, wires=wire) for wire in wires]
        key = (circuit.key, "shadow", tuple(wires))
        return self._kept(key, tape, circuit, turns, tuple(wires), {})

    def _kept(
        self,
        key: tuple[Any, ...],
        tape: Any,
        circuit: encoder.TapeCircuit,
        gates: Sequence[Any],
        wires: tuple[Any, ...],
        fixed: dict[int, float],
    ) -> TapeProgram:
        result = self._programs.get(key)
        if result is not None:
            self._programs.move_to_end(key)
            return result
        writer = encoder.CircuitWriter(circuit.order, fixed)
        writer.operations(tape.operations)
        writer.operations(gates)
        result = self._programs[key] = TapeProgram(key, *writer.program(wires))
        if len(self._programs) > MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return result


def _decomposed(gates: Sequence[Any]) -> list[Any]:
    """Diagonalising gates as gates of the table or matrices: their angles are constants."""
    results: list[Any] = []
    for gate in gates:
        if encoder.is_carried(gate):
            results.append(gate)
        else:
            with qml.QueuingManager.stop_recording():
                results += _decomposed(gate.decomposition())
    return results


SHARED_OBSERVABLES = 16  # up to this total, one message computes all observables for all tapes
NAMED_TAPES = 8  # in an error about several

COUNTS, MEMORY = ("counts",), ("memory",)
PROBABILITIES, STATE = ("probabilities",), ("statevector",)
EXPECTATION, GRADIENT = ("expectation",), ("expectation", "gradient")


@dataclass(eq=False)
class Run:
    """Rows of one sweep that a tape waits for; `results` come in their order. `places`: index of
    each of the tape's observables in the message."""

    observables: tuple[measurements.Labels, ...]
    results: Sequence[Result] = ()
    places: Sequence[int] = ()

    def table(self, row: int) -> measurements.OutcomeTable:
        """Measured outcomes of a row."""
        result = self.results[row]
        if result.has("memory"):
            return measurements.OutcomeTable.of_memory(result.memory, result.registers[0][1])
        entry = result.counts if result.shots else result.probabilities
        return measurements.OutcomeTable.of(dict(entry), result.registers[0][1])

    def expectations(self, row: int) -> list[float]:
        """Values of the tape's observables in a row."""
        entry = self.results[row].expectations
        return [entry[place] for place in self.places]


@dataclass(eq=False)
class _Sweep:
    program: TapeProgram
    shots: int | None
    rows: list[NDArray[np.float64]] = field(default_factory=list)
    runs: list[tuple[Run, int]] = field(default_factory=list)
    tapes: list[int] = field(default_factory=list)  # the tape of each run

    def work(self) -> tuple[Any, NDArray[np.float64]]:
        """Program and slot values for the client's submission."""
        return self.program.program, self.program.angles.slots(np.concatenate(self.rows))


class SweepBatch:
    """Sweeps of one batch of tapes. `tape`: number of the tape whose rows are added."""

    def __init__(self) -> None:
        self.tape = 0
        self._sweeps: dict[tuple[Any, ...], _Sweep] = {}
        self._sent: list[tuple[list[_Sweep], list[Task]]] = []

    def add(
        self,
        program: TapeProgram,
        values: NDArray[np.float64],
        outputs: tuple[str, ...],
        *,
        shots: int | None = None,
        observables: tuple[measurements.Labels, ...] = (),
    ) -> Run:
        """Add rows to a sweep. `values`: float64 [rows, values of the tape]."""
        width = program.program.num_qubits
        key = (outputs, width if observables else 0, observables, shots, program.key)
        sweep = self._sweeps.get(key)
        if sweep is None:
            sweep = self._sweeps[key] = _Sweep(program, shots)
        run = Run(observables)
        sweep.rows.append(values)
        sweep.runs.append((run, len(values)))
        sweep.tapes.append(self.tape)
        return run

    def run(
        self,
        client: Client,
        options: Mapping[str, Any],
        next_seed: Callable[[], int],
        *,
        apart: bool = False,
    ) -> None:
        """Send all sweeps, then wait for all. `apart`: each sweep with observables is a separate
        message, since its compilation may choose other qubits of a device. Raises SimenvError,
        which names the tape of a refusal or a failure."""
        try:
            self._send(client, options, next_seed, apart)
            for sweeps, tasks in self._sent:
                results = iter(tasks)
                for sweep in sweeps:
                    for (run, count), tape in zip(sweep.runs, sweep.tapes, strict=True):
                        run.results = self._awaited(list(islice(results, count)), tape)
        except BaseException:
            sent = {task.handle.number: task for _, each in self._sent for task in each}
            with suppress(SimenvError):
                client.cancel([task for task in sent.values() if not task.done()])
            raise

    def _awaited(self, tasks: list[Task], tape: int) -> list[Result]:
        try:
            return [task.result() for task in tasks]
        except SimenvError as error:
            self._name(error, [tape])
            raise

    def _name(self, error: SimenvError, tapes: list[int]) -> None:
        """Add the numbers of the tapes to an error, if the batch has several tapes."""
        if not self.tape:
            return
        shown_tapes = ", ".join(map(str, tapes[:NAMED_TAPES]))
        more = len(tapes) - NAMED_TAPES
        text = f"tape{'s' * (len(tapes) > 1)} {shown_tapes}" + f" and {more} more" * (more > 0)
        error.message, error.index = f"{text}: {error.message}", tapes[0]

    def _send(
        self, client: Client, options: Mapping[str, Any], next_seed: Callable[[], int], apart: bool
    ) -> None:
        for (outputs, observables), sweeps in self._messages(apart):
            exact = outputs not in (COUNTS, MEMORY)
            asked: dict[str, Any] = dict(options)
            if observables:
                asked["observables"] = [dict(each) for each in observables]
            try:
                tasks = client.submit_many(
                    [sweep.work() for sweep in sweeps],
                    shots=None if exact else [sweep.shots for sweep in sweeps],
                    seed=next_seed(),
                    outputs=outputs,
                    **asked,
                )
            except BatchRefusedError as error:  # its items are sweeps, unknown to the caller
                first = error.errors[0]
                self._name(first, list(dict.fromkeys(sweeps[first.index].tapes)))
                raise first from error
            self._sent.append((sweeps, tasks))

    def _messages(
        self, apart: bool
    ) -> Iterable[tuple[tuple[tuple[str, ...], tuple[measurements.Labels, ...]], list[_Sweep]]]:
        """Outputs and observables of each message, and its sweeps."""
        kinds: dict[tuple[Any, ...], list[tuple[tuple[measurements.Labels, ...], _Sweep]]] = {}
        for number, (key, sweep) in enumerate(self._sweeps.items()):
            outputs, width, observables, _, _ = key
            kind = (outputs, width, number if apart and observables else -1)
            kinds.setdefault(kind, []).append((observables, sweep))
        for (outputs, _, _), members in kinds.items():
            union = list(dict.fromkeys(label for each, _ in members for label in each))
            shared = len(union) <= SHARED_OBSERVABLES
            parts: dict[tuple[measurements.Labels, ...], list[_Sweep]] = {}
            for observables, sweep in members:
                asked = tuple(union) if shared else observables
                parts.setdefault(asked, []).append(sweep)
            for asked, sweeps in parts.items():
                places = {labels: place for place, labels in enumerate(asked)}
                for run, _ in (each for sweep in sweeps for each in sweep.runs):
                    run.places = [places[labels] for labels in run.observables]
                yield (outputs, asked), sweeps


_RIGHT = math.pi / 2
# Angles of `u` that rotate X, Y and Z into Z.
_ANGLES = np.array([[_RIGHT, 0.0, math.pi], [_RIGHT, 0.0, _RIGHT], [0.0, 0.0, 0.0]])


@dataclass(frozen=True)
class ShadowRun:
    """Runs of one shadow measurement. `recipes`: int [shots, wires], the Pauli of each shot: 0 X, 1
    Y, 2 Z; `basis`: number of the basis of each shot; `runs`: for each copy, the run and row of
    each basis. Shots of the same basis are one row of a sweep; rows with equal numbers of shots are
    one sweep."""

    recipes: NDArray[np.int64]
    basis: NDArray[np.intp]
    runs: list[list[tuple[Run, int]]]

    @staticmethod
    def added(
        batch: SweepBatch,
        program: TapeProgram,
        rows: NDArray[np.float64],
        seed: Any,
        wires: int,
        shots: int,
    ) -> ShadowRun:
        """Add the rows of a shadow to the batch. Recipes are drawn as PennyLane draws them: the
        same seed gives the same recipes."""
        recipes = np.random.RandomState(seed).randint(0, 3, size=(shots, wires))
        bases, basis, counts = np.unique(recipes, axis=0, return_inverse=True, return_counts=True)
        basis = basis.ravel()
        angles = _ANGLES[bases].reshape(len(bases), 3 * wires)
        runs: list[list[tuple[Run, int]]] = []
        for values in rows:
            of_basis: dict[int, tuple[Run, int]] = {}
            for count in np.unique(counts).tolist():
                chosen = np.flatnonzero(counts == count)
                before = np.tile(values, (len(chosen), 1))
                table = np.hstack([before, angles[chosen]])
                run = batch.add(program, table, MEMORY, shots=count)
                of_basis |= {number: (run, row) for row, number in enumerate(chosen.tolist())}
            runs.append([of_basis[number] for number in range(len(bases))])
        return ShadowRun(recipes, basis, runs)

    def outcome(self, copy: int) -> NDArray[np.int8]:
        """Bits and recipes, int8 [2, shots, wires]."""
        shots, wires = self.recipes.shape
        bits = np.empty((shots, wires), np.int8)
        for number, (run, row) in enumerate(self.runs[copy]):
            table = run.table(row)
            assert table.shots is not None
            bits[self.basis == number] = table.bits[table.shots, -wires:]
        return np.stack([bits, self.recipes.astype(np.int8)])


Wanted = tuple[tuple[int, int], ...]  # clbit and value of each postselection


class BatchExecutor:
    """Runs batches of tapes for one device. `wires`: the device's; None: those of each tape."""

    def __init__(
        self,
        client: Client,
        options: Mapping[str, Any],
        wires: tuple[Any, ...] | None,
        rng: np.random.Generator,
    ) -> None:
        self._client = client
        self._options = options
        self._wires = wires
        self._rng = rng
        self._programs = TapeProgramCache()

    def execute(self, tapes: Sequence[Any]) -> tuple[Any, ...]:
        """Run tapes; one result each. Raises SimenvError."""
        return tuple([run.result() for run in self._runs(tapes, self._prepared)])

    def derivatives(self, tapes: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Results and Jacobians of tapes that only have expectation values of Pauli sums."""
        runs = self._runs(tapes, self._differentiated)
        return tuple(run.values() for run in runs), tuple(run.jacobian() for run in runs)

    def _runs(self, tapes: Sequence[Any], prepare: Callable[..., Any]) -> list[Any]:
        """Prepare one run for each tape, and run them together."""
        batch, plans = SweepBatch(), _Plans()
        runs = []
        for batch.tape, tape in enumerate(tapes):
            runs.append(prepare(tape, batch, plans))
        apart = bool(self._options.get("device") or self._options.get("pool"))
        batch.run(self._client, self._options, lambda: int(self._rng.integers(2**53)), apart=apart)
        return runs

    def _order(self, tape: Any) -> tuple[Any, ...]:
        if self._wires is not None:
            return self._wires
        wires: tuple[Any, ...] = tape.wires.labels
        if all(isinstance(wire, int) for wire in wires) and set(wires) == set(range(len(wires))):
            return tuple(range(len(wires)))
        return wires

    def _prepared(self, tape: Any, batch: SweepBatch, plans: _Plans) -> _TapeRun:
        circuit = encoder.read_tape(tape.operations, self._order(tape))
        plan, wanted = plans.of(tape, circuit.order)
        rows = _rows(circuit, tape.batch_size)
        shots = tape.shots.total_shots
        programs = self._programs
        exact = state = None
        if plan.observables:
            program = programs.plain(tape, circuit)
            exact = batch.add(program, rows, EXPECTATION, observables=plan.observables)
        if plan.state:
            state = batch.add(programs.plain(tape, circuit), rows, STATE)
        sampled = MEMORY if plan.ordered else COUNTS
        outputs = sampled if shots else PROBABILITIES
        tables = [
            batch.add(programs.measured(tape, circuit, basis), rows, outputs, shots=shots)
            for basis in plan.bases
        ]
        shadows = [
            [self._shadow(each, tape, circuit, rows, batch, low, high) for each in plan.shadows]
            for low, high in tape.shots.bins()
        ]
        return _TapeRun(tape, plan, wanted, exact, state, tables, shadows)

    def _shadow(
        self,
        measurement: Any,
        tape: Any,
        circuit: encoder.TapeCircuit,
        rows: NDArray[np.float64],
        batch: SweepBatch,
        low: int,
        high: int,
    ) -> ShadowRun:
        wires = tuple(measurement.wires or circuit.order)
        program = self._programs.shadowed(tape, circuit, wires)
        return ShadowRun.added(batch, program, rows, measurement.seed, len(wires), high - low)

    def _differentiated(self, tape: Any, batch: SweepBatch, plans: _Plans) -> _DerivativeRun:
        circuit = encoder.read_tape(tape.operations, self._order(tape))
        plan, _ = plans.of(tape, circuit.order)
        rows = _rows(circuit, None)
        places = {number: place for place, number in enumerate(tape.trainable_params)}
        columns = {k: places[n] for k, n in enumerate(circuit.wire_numbers) if n in places}
        if columns:
            free = frozenset(columns)
            program = self._programs.differentiated(tape, circuit, free, rows[0])
        else:
            program = self._programs.plain(tape, circuit)
        slots = program.angles.columns.size and bool(columns)
        run = batch.add(
            program, rows, GRADIENT if slots else EXPECTATION, observables=plan.observables
        )
        into = np.array([columns[k] for k in program.angles.columns.tolist()] if slots else [], int)
        return _DerivativeRun(tape, plan, run, into, program.angles.factors)


class _Plans:
    """Measurement plans of one batch: shifted tapes share their measurements."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], measurements.MeasurementPlan] = {}

    def of(self, tape: Any, order: tuple[Any, ...]) -> tuple[measurements.MeasurementPlan, Wanted]:
        measured = [op for op in tape.operations if op.name == "MidMeasureMP"]
        wanted = tuple(
            (k, op.postselect) for k, op in enumerate(measured) if op.postselect is not None
        )
        partitioned = tape.shots.has_partitioned_shots
        sampled = bool(tape.shots) or bool(measured)  # a measured wire has no other basis
        key = (*map(id, tape.measurements), order, sampled, partitioned, *map(id, measured))
        entry = self._plans.get(key)
        if entry is None:
            clbits = {op: k for k, op in enumerate(measured)}
            planner = measurements.MeasurementPlanner(order, clbits, sampled)
            entry = self._plans[key] = planner.plan(tape.measurements, partitioned)
        return entry, wanted


def _rows(circuit: encoder.TapeCircuit, batch_size: int | None) -> NDArray[np.float64]:
    """Values of a tape, float64 [copies, values]: a row for each broadcast copy."""
    if batch_size is None:
        return np.array([circuit.values], np.float64).reshape(1, len(circuit.values))
    rows = np.empty((batch_size, len(circuit.values)))
    for column, value in enumerate(circuit.values):
        rows[:, column] = value
    return rows


@dataclass(frozen=True)
class _TapeRun:
    tape: Any
    plan: measurements.MeasurementPlan
    wanted: Wanted
    exact: Run | None
    state: Run | None
    tables: list[Run]
    shadows: list[list[ShadowRun]]  # by part of the shots

    def result(self) -> Any:
        """Result nested as in PennyLane: parts of the shots, measurements, broadcast copies."""
        tape = self.tape
        copies = range(tape.batch_size or 1)
        parts = list(tape.shots.bins()) if tape.shots else [(0, 0)]
        tables = [[run.table(row) for run in self.tables] for row in copies]
        results = []
        for part, (low, high) in enumerate(parts):
            outcomes = [self._outcome(row, tables[row], part, low, high) for row in copies]
            results.append(self._values(outcomes))
        return tuple(results) if tape.shots.has_partitioned_shots else results[0]

    def _outcome(
        self, row: int, tables: list[measurements.OutcomeTable], part: int, low: int, high: int
    ) -> measurements.TapeOutcome:
        if self.tape.shots.has_partitioned_shots:
            tables = [table.part(low, high) for table in tables]
        state = None
        if self.state is not None:
            result = self.state.results[row]
            count = result.num_qubits
            axes = result.statevector.reshape((2,) * count).transpose(*reversed(range(count)))
            state = np.ascontiguousarray(axes).ravel()
        shadows = [each.outcome(row) for each in self.shadows[part]] if self.shadows else []
        expectations = self.exact.expectations(row) if self.exact is not None else ()
        tables = [table.postselected(self.wanted) for table in tables]
        return measurements.TapeOutcome(expectations, tables, state, shadows)

    def _values(self, outcomes: list[measurements.TapeOutcome]) -> Any:
        results = [self._stacked([read(each) for each in outcomes]) for read in self.plan.readers]
        return results[0] if len(results) == 1 else tuple(results)

    def _stacked(self, values: list[Any]) -> Any:
        if self.tape.batch_size is None:
            return values[0]
        return values if isinstance(values[0], dict) else np.stack(values)


@dataclass(frozen=True)
class _DerivativeRun:
    """Run of one tape with gradients. `into`: trainable parameter of each slot; `factors`:
    derivative of the slot by that parameter."""

    tape: Any
    plan: measurements.MeasurementPlan
    run: Run
    into: NDArray[np.intp]
    factors: NDArray[np.float64]

    def values(self) -> Any:
        """Expectation values of the tape."""
        outcome = measurements.TapeOutcome(self.run.expectations(0))
        results = [read(outcome) for read in self.plan.readers]
        return results[0] if len(results) == 1 else tuple(results)

    def jacobian(self) -> Any:
        """Jacobian nested as in PennyLane: measurements, trainable parameters."""
        count = len(self.tape.trainable_params)
        table = np.zeros((len(self.plan.observables), count))
        if len(self.into):
            slopes = self.run.results[0].gradients[self.run.places] * self.factors
            for slot, place in enumerate(self.into.tolist()):
                table[:, place] += slopes[:, slot]
        rows = [
            table[each.observable]
            for each in self.plan.readers
            if isinstance(each, measurements.ExactExpectation)
        ]
        results = [np.array(row[0]) if count == 1 else tuple(map(np.array, row)) for row in rows]
        return results[0] if len(results) == 1 else tuple(results)
