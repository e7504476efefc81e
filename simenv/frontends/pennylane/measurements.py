"""Plan of the measurements of a tape: its runs, and readers of the values.

Exact expectation values and variances are Pauli sums, computed by the worker. All other
measurements are sampled or read from probabilities: wires are rotated into a basis and read as
clbits, exactly or by shots; measurements with compatible bases share a run. Measurements of the
state itself get the statevector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pennylane as qml
from numpy.typing import NDArray
from pennylane.measurements import (
    ClassicalShadowMP,
    CountsMP,
    ExpectationMP,
    ProbabilityMP,
    SampleMeasurement,
    SampleMP,
    ShadowExpvalMP,
    StateMeasurement,
    VarianceMP,
)

from simenv.frontends.pennylane.outcomes import OutcomeTable, measured_value
from simenv.frontends.pennylane.pauli_sums import (
    Word,
    Words,
    complex_words_of,
    labels_of,
    square_of,
    words_of,
)

Labels = tuple[tuple[str, float], ...]  # observable: label and coefficient
_PAULIS = (qml.PauliX, qml.PauliY, qml.PauliZ, qml.Identity)
_LETTERS = {"PauliX": "X", "PauliY": "Y", "PauliZ": "Z", "Identity": "Z"}
SHADOWS = (ClassicalShadowMP, ShadowExpvalMP)


@dataclass(frozen=True)
class TapeOutcome:
    """Outcome of one tape (or one broadcast copy) and one part of its shots."""

    expectations: Sequence[float] = ()
    tables: Sequence[OutcomeTable] = ()
    state: NDArray[np.complexfloating[Any, Any]] | None = None  # wire 0 most significant
    shadows: Sequence[NDArray[np.int8]] = ()


class MeasurementReader(Protocol):
    """Reader of one measurement's value from an outcome."""

    def value(self, outcome: TapeOutcome) -> Any: ...


@dataclass(frozen=True)
class ExactExpectation:
    """Value of one observable of the plan."""

    observable: int

    def value(self, outcome: TapeOutcome) -> Any:
        return np.float64(outcome.expectations[self.observable])


@dataclass(frozen=True)
class _Variance:
    observable: int
    square: int

    def value(self, outcome: TapeOutcome) -> Any:
        mean = outcome.expectations[self.observable]
        return np.float64(max(0.0, outcome.expectations[self.square] - mean**2))


@dataclass(frozen=True)
class _Constant:
    number: float

    def value(self, _outcome: TapeOutcome) -> Any:
        return np.float64(self.number)


@dataclass(frozen=True)
class _Parity:
    """Mean of one Pauli word."""

    group: int
    clbits: tuple[int, ...]

    def value(self, outcome: TapeOutcome) -> Any:
        return np.float64(outcome.tables[self.group].parity(self.clbits))


@dataclass(frozen=True)
class _Sum:
    terms: tuple[tuple[complex, MeasurementReader], ...]

    def value(self, outcome: TapeOutcome) -> Any:
        total = sum(factor * reader.value(outcome) for factor, reader in self.terms)
        return np.complex128(total) if isinstance(total, complex) else np.float64(total)


@dataclass(frozen=True)
class _Measured:
    group: int
    clbits: tuple[int, ...]
    measurement: Any

    def value(self, outcome: TapeOutcome) -> Any:
        return measured_value(self.measurement, outcome.tables[self.group], self.clbits)


@dataclass(frozen=True)
class _StateMeasurement:
    measurement: Any
    order: tuple[Any, ...]

    def value(self, outcome: TapeOutcome) -> Any:
        state, measurement = outcome.state, self.measurement
        assert state is not None
        wires = qml.wires.Wires(self.order)
        if isinstance(measurement, ExpectationMP):
            matrix = measurement.obs.sparse_matrix(wire_order=wires)
            return np.float64(np.vdot(state, matrix @ state).real)
        return measurement.process_state(state, wires)


@dataclass(frozen=True)
class _Shadow:
    shadow: int
    measurement: Any

    def value(self, outcome: TapeOutcome) -> Any:
        bits, recipes = outcome.shadows[self.shadow]
        measurement = self.measurement
        if isinstance(measurement, ClassicalShadowMP):
            return outcome.shadows[self.shadow]
        wires = measurement.wires.tolist()
        shadow = qml.ClassicalShadow(bits, recipes, wire_map=wires)
        return shadow.expval(measurement.H, measurement.k)


@dataclass
class MeasuredBasis:
    """Wires that are rotated by `gates` and then measured, in the order of their clbits."""

    letters: dict[Any, Any] = field(default_factory=dict)  # the basis of each wire
    gates: list[Any] = field(default_factory=list)

    @property
    def key(self) -> tuple[Any, ...]:
        """Everything the program depends on."""
        return tuple(self.letters.items())

    def takes(self, wanted: dict[Any, Any]) -> bool:
        """Return whether the basis is compatible with the wanted letters."""
        letters = self.letters
        return all(letters.get(wire, letter) == letter for wire, letter in wanted.items())

    def add(self, wanted: dict[Any, Any], gates: Sequence[Any]) -> None:
        """Add wires to the basis."""
        new = [wire for wire in wanted if wire not in self.letters]
        self.letters.update(wanted)
        if new:
            self.gates += [gate for gate in gates if set(gate.wires) & set(new)]


@dataclass(frozen=True)
class MeasurementPlan:
    """Runs of a tape. `observables`: exact, of one run; `bases`: a run each; `state`: a run for the
    statevector; `shadows`: measurements by classical shadows. `readers`: one for each measurement.
    `ordered`: True if the order of shots is read."""

    observables: tuple[Labels, ...]
    bases: tuple[MeasuredBasis, ...]
    state: bool
    shadows: tuple[Any, ...]
    readers: tuple[MeasurementReader, ...]
    ordered: bool


class MeasurementPlanner:
    """Planner of one tape. `order`: the wires, qubit 0 first; `measured`: the clbit of each
    mid-circuit measurement; `sampled`: True if expectation values come from measured clbits."""

    def __init__(self, order: tuple[Any, ...], measured: dict[Any, int], sampled: bool) -> None:
        self._order = order
        self._qubits = {wire: qubit for qubit, wire in enumerate(order)}
        self._measured = measured
        self._sampled = sampled
        self._observables: dict[Labels, int] = {}
        self._bases: list[MeasuredBasis] = []
        self._shadows: list[Any] = []
        self._state = False

    def plan(self, measurements: Sequence[Any], partitioned: bool) -> MeasurementPlan:
        """Make the plan. `partitioned`: True if there is a shot vector."""
        readers = tuple([self._reader(measurement) for measurement in measurements])
        counted = (CountsMP, ExpectationMP, ProbabilityMP, VarianceMP, *SHADOWS)
        ordered = partitioned or any(not isinstance(each, counted) for each in measurements)
        return MeasurementPlan(
            tuple(self._observables),
            tuple(self._bases),
            self._state,
            tuple(self._shadows),
            readers,
            ordered and self._sampled,
        )

    def _reader(self, measurement: Any) -> MeasurementReader:
        if isinstance(measurement, SHADOWS):
            self._shadows.append(measurement)
            return _Shadow(len(self._shadows) - 1, measurement)
        if measurement.mv is not None and self._measured:  # deferred measurements are wires
            values = measurement.mv if isinstance(measurement.mv, list) else [measurement.mv]
            clbits = tuple(self._measured[each] for mv in values for each in mv.measurements)
            return _Measured(self._group({}, ()), clbits, measurement)
        observable = measurement.obs
        if observable is not None and isinstance(measurement, ExpectationMP):
            return self._expectation(observable)
        if observable is not None and isinstance(measurement, VarianceMP) and not self._sampled:
            pauli_terms = words_of(observable)
            if pauli_terms is not None:
                return _Variance(
                    self._observable(pauli_terms), self._observable(square_of(pauli_terms))
                )
        if isinstance(measurement, SampleMeasurement):
            return self._measurement(measurement)
        self._state = True
        return _StateMeasurement(measurement, self._order)

    def _expectation(self, observable: Any) -> MeasurementReader:
        if isinstance(observable, qml.SparseHamiltonian):
            self._state = True
            return _StateMeasurement(ExpectationMP(obs=observable), self._order)
        pauli_terms = words_of(observable)
        if pauli_terms is not None:
            if not self._sampled:
                return ExactExpectation(self._observable(pauli_terms))
            if observable.pauli_rep is not None:
                return _Sum(
                    tuple((value, self._parity(word)) for word, value in pauli_terms.items())
                )
        elif not self._sampled or observable.pauli_rep is not None:
            complex_terms = complex_words_of(observable) or {}  # {}: too wide a matrix
            if complex_terms:
                return _Sum(
                    tuple((value, self._word(word)) for word, value in complex_terms.items())
                )
        if isinstance(observable, qml.ops.Sum | qml.ops.SProd):
            with qml.QueuingManager.stop_recording():
                factors, terms = observable.terms()
            readers = [self._expectation(term) for term in terms]
            weights = map(_real_if_exact, factors)
            return _Sum(tuple(zip(weights, readers, strict=True)))
        return self._measurement(ExpectationMP(obs=observable))

    def _observable(self, pauli_terms: Words) -> int:
        labels = tuple(labels_of(pauli_terms, self._qubits).items())
        return self._observables.setdefault(labels, len(self._observables))

    def _word(self, word: Word) -> MeasurementReader:
        if self._sampled:
            return self._parity(word)
        return ExactExpectation(self._observable({word: 1.0}))

    def _parity(self, word: Word) -> MeasurementReader:
        if not word:
            return _Constant(1.0)
        letters = dict(word)
        gates = [gate for wire, letter in word for gate in _turned(wire, letter)]
        group = self._group(letters, gates)
        return _Parity(group, self._clbits(group, letters))

    def _measurement(self, measurement: Any) -> MeasurementReader:
        """Reader of a measurement of the eigenvalues of an observable, or of wires."""
        observable = measurement.obs
        wires = tuple(measurement.wires or self._order)
        factors = _pauli_factors(observable)
        if observable is None or factors is not None:
            letters: dict[Any, Any] = dict.fromkeys(wires, "Z")
            letters |= {factor.wires[0]: _LETTERS[factor.name] for factor in factors or ()}
            gates = [gate for wire, letter in letters.items() for gate in _turned(wire, letter)]
        else:
            letters = dict.fromkeys(wires, (observable.hash, wires))
            gates = measurement.diagonalizing_gates()
        group = self._group(letters, gates)
        return _Measured(group, self._clbits(group, wires), measurement)

    def _group(self, letters: dict[Any, Any], gates: Sequence[Any]) -> int:
        for number, basis in enumerate(self._bases):
            if basis.takes(letters):
                basis.add(letters, gates)
                return number
        self._bases.append(MeasuredBasis(dict(letters), list(gates)))
        return len(self._bases) - 1

    def _clbits(self, group: int, wires: Any) -> tuple[int, ...]:
        places = {wire: k for k, wire in enumerate(self._bases[group].letters)}
        return tuple(len(self._measured) + places[wire] for wire in wires)


def _real_if_exact(factor: Any) -> complex:
    number = complex(factor)
    return number if number.imag else number.real


def _turned(wire: Any, letter: str) -> list[Any]:
    """Gates that rotate the eigenbasis of this Pauli to that of Z."""
    with qml.QueuingManager.stop_recording():
        if letter == "X":
            return [qml.Hadamard(wire)]
        if letter == "Y":
            return [qml.adjoint(qml.S(wire)), qml.Hadamard(wire)]
    return []


def _pauli_factors(observable: Any) -> Sequence[Any] | None:
    """Paulis of a word on distinct wires, up to a factor; None for other observables."""
    if isinstance(observable, qml.ops.SProd):
        observable = observable.base
    factors = observable.operands if isinstance(observable, qml.ops.Prod) else (observable,)
    if not all(isinstance(factor, _PAULIS) and len(factor.wires) == 1 for factor in factors):
        return None
    return factors if len({f.wires[0] for f in factors}) == len(factors) else None


def is_sampled(measurement: Any) -> bool:
    """Return whether shots can give the measurement."""
    supported = isinstance(measurement, (SampleMeasurement, SampleMP, *SHADOWS))
    return supported and _is_observable(measurement.obs, ())


def is_exact(measurement: Any) -> bool:
    """Return whether a state gives the measurement."""
    matrices = (qml.SparseHamiltonian,) if isinstance(measurement, ExpectationMP) else ()
    return isinstance(measurement, StateMeasurement) and _is_observable(measurement.obs, matrices)


def _is_observable(operator: Any, matrices: tuple[type, ...]) -> bool:
    """Return whether an operator has an eigenbasis in PennyLane, as observables have and other
    gates have not. `matrices`: classes that need none."""
    if operator is None or isinstance(operator, matrices):
        return True
    if isinstance(operator, qml.ops.CompositeOp):
        return all(_is_observable(each, matrices) for each in operator.operands)
    if isinstance(operator, qml.ops.SymbolicOp):
        return _is_observable(operator.base, matrices)
    return bool(operator.has_diagonalizing_gates)
