"""Execution of batches of tapes: their runs, and their results in PennyLane's form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simenv.client.client import Client
from simenv.frontends.pennylane.encoder import TapeCircuit, read_tape
from simenv.frontends.pennylane.measurements import (
    ExactExpectation,
    MeasurementPlan,
    MeasurementPlanner,
    TapeOutcome,
)
from simenv.frontends.pennylane.outcomes import OutcomeTable
from simenv.frontends.pennylane.programs import TapeProgramCache
from simenv.frontends.pennylane.shadows import ShadowRun
from simenv.frontends.pennylane.sweeps import (
    COUNTS,
    EXPECTATION,
    GRADIENT,
    MEMORY,
    PROBABILITIES,
    STATE,
    Run,
    SweepBatch,
)

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
        self._warned: set[str] = set()  # texts that were emitted

    def execute(self, tapes: Sequence[Any]) -> tuple[Any, ...]:
        """Run tapes; one result each. Raises SimenvError."""
        batch, plans = SweepBatch(), _Plans()
        runs = []
        for batch.tape, tape in enumerate(tapes):
            runs.append(self._prepared(tape, batch, plans))
        self._run(batch)
        return tuple([run.result() for run in runs])

    def derivatives(self, tapes: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Results and Jacobians of tapes that only have expectation values of Pauli sums."""
        batch, plans = SweepBatch(), _Plans()
        runs = []
        for batch.tape, tape in enumerate(tapes):
            runs.append(self._differentiated(tape, batch, plans))
        self._run(batch)
        return tuple(run.values() for run in runs), tuple(run.jacobian() for run in runs)

    def _run(self, batch: SweepBatch) -> None:
        batch.run(
            self._client,
            self._options,
            lambda: int(self._rng.integers(2**53)),
            apart=bool(self._options.get("device") or self._options.get("pool")),
        )
        for text in batch.warnings():
            if text not in self._warned:
                self._warned.add(text)
                warnings.warn(text, UserWarning, stacklevel=2)

    def _order(self, tape: Any) -> tuple[Any, ...]:
        if self._wires is not None:
            return self._wires
        wires: tuple[Any, ...] = tape.wires.labels
        if all(isinstance(wire, int) for wire in wires) and set(wires) == set(range(len(wires))):
            return tuple(range(len(wires)))
        return wires

    def _prepared(self, tape: Any, batch: SweepBatch, plans: _Plans) -> _TapeRun:
        circuit = read_tape(tape.operations, self._order(tape))
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
        circuit: TapeCircuit,
        rows: NDArray[np.float64],
        batch: SweepBatch,
        low: int,
        high: int,
    ) -> ShadowRun:
        wires = tuple(measurement.wires or circuit.order)
        program = self._programs.shadowed(tape, circuit, wires)
        return ShadowRun.added(batch, program, rows, measurement.seed, len(wires), high - low)

    def _differentiated(self, tape: Any, batch: SweepBatch, plans: _Plans) -> _DerivativeRun:
        circuit = read_tape(tape.operations, self._order(tape))
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
        self._plans: dict[tuple[Any, ...], MeasurementPlan] = {}

    def of(self, tape: Any, order: tuple[Any, ...]) -> tuple[MeasurementPlan, Wanted]:
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
            planner = MeasurementPlanner(order, clbits, sampled)
            entry = self._plans[key] = planner.plan(tape.measurements, partitioned)
        return entry, wanted


def _rows(circuit: TapeCircuit, batch_size: int | None) -> NDArray[np.float64]:
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
    plan: MeasurementPlan
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
        self, row: int, tables: list[OutcomeTable], part: int, low: int, high: int
    ) -> TapeOutcome:
        if self.tape.shots.has_partitioned_shots:
            tables = [table.part(low, high) for table in tables]
        state = None
        if self.state is not None:
            result = self.state.results[row]
            count = result.num_qubits
            axes = result.statevector.reshape((2,) * count).transpose(*reversed(range(count)))
            state = np.ascontiguousarray(axes).ravel()
        shadows = [each.outcome(row) for each in self.shadows[part]] if self.shadows else []
        return TapeOutcome(
            self.exact.expectations(row) if self.exact is not None else (),
            [table.postselected(self.wanted) for table in tables],
            state,
            shadows,
        )

    def _values(self, outcomes: list[TapeOutcome]) -> Any:
        results = [self._stacked([r.value(o) for o in outcomes]) for r in self.plan.readers]
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
    plan: MeasurementPlan
    run: Run
    into: NDArray[np.intp]
    factors: NDArray[np.float64]

    def values(self) -> Any:
        """Expectation values of the tape."""
        outcome = TapeOutcome(self.run.expectations(0))
        results = [reader.value(outcome) for reader in self.plan.readers]
        return results[0] if len(results) == 1 else tuple(results)

    def jacobian(self) -> Any:
        """Jacobian nested as in PennyLane: measurements, trainable parameters."""
        count = len(self.tape.trainable_params)
        table = np.zeros((len(self.plan.observables), count))
        if len(self.into):
            slopes = self.run.results[0].gradients[self.run.places] * self.factors
            for slot, place in enumerate(self.into.tolist()):
                table[:, place] += slopes[:, slot]
        readers = [each for each in self.plan.readers if isinstance(each, ExactExpectation)]
        rows = [table[reader.observable] for reader in readers]
        results = [
            np.array(row[0]) if count == 1 else tuple(np.array(value) for value in row)
            for row in rows
        ]
        return results[0] if len(results) == 1 else tuple(results)
