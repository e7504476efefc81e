"""Measurements of a tape: Pauli sums, plan, and values of outcomes.

Outcomes of measured clbits, and the values of PennyLane's measurements of them. One table serves
exact probabilities and counts of shots: distinct outcomes and the weight of each.

Plan of the measurements of a tape: its runs, and readers of the values. Exact expectation values
and variances are Pauli sums, computed by the worker. All other measurements are sampled or read
from probabilities: wires are rotated into a basis and read as clbits, exactly or by shots;
measurements with compatible bases share a run. Measurements of the state itself get the
statevector.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pennylane as qml
from numpy.typing import NDArray
from pennylane import measurements as mp

from simenv.errors import OptionError

Bits = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OutcomeTable:
    """Distinct outcomes with weights. `bits`: uint8 [k, clbits], a row for each distinct outcome,
    clbit 0 first; `weights`: float64 [k], exact probabilities or numbers of shots; `shots`: intp
    [shots], the row of each shot in order, or None for probabilities."""

    bits: Bits
    weights: Floats
    shots: NDArray[np.intp] | None = None

    @staticmethod
    def of(distribution: dict[str, float], clbits: int) -> OutcomeTable:
        """Make a table from the outcomes of a result: clbit 0 is rightmost."""
        letters = np.frombuffer("".join(distribution).encode(), np.uint8).reshape(-1, clbits)
        weights = np.fromiter(distribution.values(), np.float64, len(distribution))
        return OutcomeTable(letters[:, ::-1] - ord("0"), weights)

    @staticmethod
    def of_memory(memory: NDArray[np.uint8], clbits: int) -> OutcomeTable:
        """Make a table from the packed bits of each shot of a result."""
        packed, shots, counts = np.unique(memory, axis=0, return_inverse=True, return_counts=True)
        bits = np.unpackbits(packed, axis=1, count=clbits, bitorder="little")
        return OutcomeTable(bits, counts.astype(np.float64), shots.ravel())

    def part(self, low: int, high: int) -> OutcomeTable:
        """Table of the shots low .. high - 1."""
        assert self.shots is not None  # only ordered tables are cut
        shots = self.shots[low:high]
        weights = np.bincount(shots, minlength=len(self.bits)).astype(np.float64)
        return OutcomeTable(self.bits, weights, shots)

    def postselected(self, wanted: Sequence[tuple[int, int]]) -> OutcomeTable:
        """Table of the outcomes with these bits: (clbit, value)."""
        if not wanted:
            return self
        clbits = [clbit for clbit, _ in wanted]
        valid = np.all(self.bits[:, clbits] == [value for _, value in wanted], axis=1)
        shots = None if self.shots is None else self.shots[valid[self.shots]]
        return OutcomeTable(self.bits, np.where(valid, self.weights, 0.0), shots)

    def indices(self, clbits: Sequence[int]) -> NDArray[np.int64]:
        """Index of each outcome, int64 [k]: the number that these clbits spell, the first one most
        significant. Raises OptionError for more than 62 clbits."""
        if len(clbits) > 62:
            text = f"outcomes of {len(clbits)} wires have no index of 64 bits"
            raise OptionError(text, hint="measure fewer wires, or take samples")
        powers = 1 << np.arange(len(clbits), dtype=np.int64)[::-1]
        result: NDArray[np.int64] = self.bits[:, list(clbits)].astype(np.int64) @ powers
        return result

    def parity(self, clbits: Sequence[int]) -> float:
        """Mean of the product of Paulis Z on these clbits."""
        signs = 1.0 - 2.0 * (self.bits[:, list(clbits)].sum(axis=1) & 1)
        total = self.weights.sum()
        return float(self.weights @ signs / total) if total else np.nan


def measured_value(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> Any:
    """Value of a measurement process for these outcomes. `clbits`: those of its wires or
    mid-circuit measurements, in order. nan if no shot is left."""
    if isinstance(measurement, mp.CountsMP):
        return _counts(measurement, table, clbits)
    if isinstance(measurement, mp.SampleMP):
        return _samples(measurement, table, clbits)
    total = table.weights.sum()
    if isinstance(measurement, mp.ProbabilityMP):
        weights = np.bincount(table.indices(clbits), table.weights, minlength=1 << len(clbits))
        return weights / total if total else np.full_like(weights, np.nan)
    if isinstance(measurement, mp.ExpectationMP | mp.VarianceMP):
        values = _eigenvalues(measurement, table, clbits)
        if not total:
            return np.float64(np.nan)
        mean = table.weights @ values / total
        if isinstance(measurement, mp.ExpectationMP):
            return mean
        deviations = np.real(values) - np.real(mean)  # PennyLane's variances are real
        return np.float64(table.weights @ deviations**2 / total)
    wires = qml.wires.Wires(measurement.wires)
    return measurement.process_samples(_shots(table, clbits), wires)


def _eigenvalues(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> Floats:
    """Eigenvalue of each outcome [k]: float64, or complex128 of an operator that is not
    Hermitian."""
    values = _spectrum(measurement)
    if not clbits:
        return np.full(len(table.bits), np.squeeze(values))
    return values[table.indices(clbits)]


def _spectrum(measurement: Any) -> Floats:
    """Eigenvalue of each string of bits, real if all imaginary parts are rounding."""
    result: Floats = np.real_if_close(np.asarray(measurement.eigvals(), dtype=complex))
    return result


def _shots(table: OutcomeTable, clbits: Sequence[int]) -> NDArray[np.int64]:
    """Bits of each shot in order, int64 [shots, clbits]."""
    assert table.shots is not None
    result: NDArray[np.int64] = table.bits[:, list(clbits)].astype(np.int64)[table.shots]
    return result


def _has_values(measurement: Any) -> bool:
    """Return whether the outcomes are values, rather than strings of bits."""
    single = measurement.mv is not None and not isinstance(measurement.mv, list)
    return single or measurement.obs is not None or measurement._eigvals is not None


def _samples(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> Any:
    if not _has_values(measurement):
        result: Any = _shots(table, clbits)
    else:
        assert table.shots is not None
        values = _eigenvalues(measurement, table, clbits)
        if measurement.mv is not None:  # of bits: integers and truth values stay what they are
            values = values.astype(np.asarray(measurement.eigvals()).dtype)
        result = values[table.shots]
    dtype = measurement._dtype
    return result if dtype is None else result.astype(dtype)


def _counts(measurement: Any, table: OutcomeTable, clbits: Sequence[int]) -> dict[Any, Any]:
    if _has_values(measurement):
        values = _eigenvalues(measurement, table, clbits)
        keys, places = np.unique(values, return_inverse=True)
        counts = np.bincount(places, table.weights, minlength=len(keys)).astype(np.int64)
        entries = {key: number for key, number in zip(keys, counts, strict=True) if number}
        if measurement.all_outcomes:
            every = np.unique(_spectrum(measurement))
            return {key: entries.get(key, np.int64(0)) for key in every}
        return entries
    chosen = table.bits[:, list(clbits)] + ord("0")
    strings = np.ascontiguousarray(chosen).view(f"S{len(clbits)}").ravel()
    keys, places = np.unique(strings, return_inverse=True)
    counts = np.bincount(places, table.weights, minlength=len(keys)).astype(np.int64)
    named = {
        key.decode(): number for key, number in zip(keys.tolist(), counts, strict=True) if number
    }
    if measurement.all_outcomes:
        width = len(clbits)
        strings_of_all = (f"{k:0{width}b}" for k in range(1 << width))
        return {key: named.get(key, np.int64(0)) for key in strings_of_all}
    return named


DECOMPOSED_WIRES = 4  # wider matrices are not expanded into their 4**wires Pauli words
_NOISE = 1e-12  # tolerance of an imaginary part from rounding

Word = tuple[tuple[Any, str], ...]  # wires and their letters
Words = dict[Word, float]  # coefficient by word


def words_of(observable: Any) -> Words | None:
    """Convert an observable to a real sum of Pauli words; None if it is not one, or too wide a
    matrix. A matrix up to DECOMPOSED_WIRES wires is decomposed exactly."""
    sentence = _sentence(observable)
    return None if sentence is None else _real(sentence)


def complex_words_of(observable: Any) -> dict[Word, complex] | None:
    """Convert an operator that is not Hermitian as `words_of` does, to a complex sum."""
    sentence = _sentence(observable)
    if sentence is None:
        return None
    return {tuple(word.items()): complex(number) for word, number in sentence.items()}


def _sentence(observable: Any) -> Any:
    sentence = observable.pauli_rep
    if sentence is None:
        if len(observable.wires) > DECOMPOSED_WIRES or not observable.has_matrix:
            return None
        matrix = np.asarray(qml.matrix(observable, wire_order=observable.wires))
        with qml.QueuingManager.stop_recording():
            sentence = qml.pauli_decompose(
                matrix, wire_order=observable.wires, pauli=True, check_hermitian=False
            )
    return sentence


def _real(sentence: Any) -> Words | None:
    terms: Words = {}
    for word, coefficient in sentence.items():
        number = complex(coefficient)
        if abs(number.imag) > _NOISE * max(1.0, abs(number)):
            return None
        terms[tuple(word.items())] = number.real
    return terms


def square_of(terms: Words) -> Words:
    """Square of a Hermitian sum: anticommuting words cancel, so it is real again."""
    if len(terms) == 1:  # a word squares to the identity
        return {(): next(iter(terms.values())) ** 2}
    sentence = qml.pauli.PauliSentence(
        {qml.pauli.PauliWord(dict(word)): value for word, value in terms.items()}
    )
    result = _real(sentence @ sentence)
    assert result is not None  # the square of a Hermitian operator is Hermitian
    return result


def labels_of(terms: Words, qubits: dict[Any, int]) -> dict[str, float]:
    """Coefficients by label in Qiskit's order: qubit 0 is the last character."""
    count = len(qubits)
    entries: dict[str, float] = {}
    for word, coefficient in terms.items():
        letters = ["I"] * count
        for wire, letter in word:
            letters[count - 1 - qubits[wire]] = letter
        label = "".join(letters)
        entries[label] = entries.get(label, 0.0) + coefficient
    return entries or {"I" * count: 0.0}


Labels = tuple[tuple[str, float], ...]  # observable: label and coefficient
_PAULIS = (qml.PauliX, qml.PauliY, qml.PauliZ, qml.Identity)
_LETTERS = {"PauliX": "X", "PauliY": "Y", "PauliZ": "Z", "Identity": "Z"}
SHADOWS = (mp.ClassicalShadowMP, mp.ShadowExpvalMP)


@dataclass(frozen=True)
class TapeOutcome:
    """Outcome of one tape (or one broadcast copy) and one part of its shots."""

    expectations: Sequence[float] = ()
    tables: Sequence[OutcomeTable] = ()
    state: NDArray[np.complexfloating[Any, Any]] | None = None  # wire 0 most significant
    shadows: Sequence[NDArray[np.int8]] = ()


MeasurementReader = Callable[[TapeOutcome], Any]  # reads the value of one measurement


@dataclass(frozen=True)
class ExactExpectation:
    """Reader of one observable of the plan."""

    observable: int

    def __call__(self, outcome: TapeOutcome) -> Any:
        return np.float64(outcome.expectations[self.observable])


def _variance(observable: int, square: int, outcome: TapeOutcome) -> Any:
    mean = outcome.expectations[observable]
    return np.float64(max(0.0, outcome.expectations[square] - mean**2))


def _sum(terms: Sequence[tuple[complex, MeasurementReader]], outcome: TapeOutcome) -> Any:
    total = sum(factor * reader(outcome) for factor, reader in terms)
    return np.complex128(total) if isinstance(total, complex) else np.float64(total)


def _of_state(measurement: Any, order: tuple[Any, ...], outcome: TapeOutcome) -> Any:
    state, wires = outcome.state, qml.wires.Wires(order)
    assert state is not None
    if isinstance(measurement, mp.ExpectationMP):
        matrix = measurement.obs.sparse_matrix(wire_order=wires)
        return np.float64(np.vdot(state, matrix @ state).real)
    return measurement.process_state(state, wires)


def _of_shadow(measurement: Any, shadow: int, outcome: TapeOutcome) -> Any:
    bits, recipes = outcome.shadows[shadow]
    if isinstance(measurement, mp.ClassicalShadowMP):
        return outcome.shadows[shadow]
    estimate = qml.ClassicalShadow(bits, recipes, wire_map=measurement.wires.tolist())
    return estimate.expval(measurement.H, measurement.k)


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
        counted = (mp.CountsMP, mp.ExpectationMP, mp.ProbabilityMP, mp.VarianceMP, *SHADOWS)
        ordered = partitioned or any(not isinstance(each, counted) for each in measurements)
        runs = tuple(self._observables), tuple(self._bases), self._state, tuple(self._shadows)
        return MeasurementPlan(*runs, readers, ordered and self._sampled)

    def _reader(self, measurement: Any) -> MeasurementReader:
        if isinstance(measurement, SHADOWS):
            self._shadows.append(measurement)
            return functools.partial(_of_shadow, measurement, len(self._shadows) - 1)
        if measurement.mv is not None and self._measured:  # deferred measurements are wires
            values = measurement.mv if isinstance(measurement.mv, list) else [measurement.mv]
            clbits = tuple(self._measured[each] for mv in values for each in mv.measurements)
            return _measured(measurement, self._group({}, ()), clbits)
        observable = measurement.obs
        if observable is not None and isinstance(measurement, mp.ExpectationMP):
            return self._expectation(observable)
        if observable is not None and isinstance(measurement, mp.VarianceMP) and not self._sampled:
            pauli_terms = words_of(observable)
            if pauli_terms is not None:
                mean, square = map(self._observable, (pauli_terms, square_of(pauli_terms)))
                return functools.partial(_variance, mean, square)
        if isinstance(measurement, mp.SampleMeasurement):
            return self._measurement(measurement)
        self._state = True
        return functools.partial(_of_state, measurement, self._order)

    def _expectation(self, observable: Any) -> MeasurementReader:
        if isinstance(observable, qml.SparseHamiltonian):
            self._state = True
            return functools.partial(_of_state, mp.ExpectationMP(obs=observable), self._order)
        terms: list[tuple[complex, MeasurementReader]]
        pauli_terms = words_of(observable)
        if pauli_terms is not None:
            if not self._sampled:
                return ExactExpectation(self._observable(pauli_terms))
            if observable.pauli_rep is not None:
                terms = [(value, self._parity(word)) for word, value in pauli_terms.items()]
                return functools.partial(_sum, terms)
        elif not self._sampled or observable.pauli_rep is not None:
            complex_terms = complex_words_of(observable) or {}  # {}: too wide a matrix
            if complex_terms:
                terms = [(value, self._word(word)) for word, value in complex_terms.items()]
                return functools.partial(_sum, terms)
        if isinstance(observable, qml.ops.Sum | qml.ops.SProd):
            with qml.QueuingManager.stop_recording():
                factors, operators = observable.terms()
            readers = [self._expectation(each) for each in operators]
            weights = [each if each.imag else each.real for each in map(complex, factors)]
            return functools.partial(_sum, list(zip(weights, readers, strict=True)))
        return self._measurement(mp.ExpectationMP(obs=observable))

    def _observable(self, pauli_terms: Words) -> int:
        labels = tuple(labels_of(pauli_terms, self._qubits).items())
        return self._observables.setdefault(labels, len(self._observables))

    def _word(self, word: Word) -> MeasurementReader:
        if self._sampled:
            return self._parity(word)
        return ExactExpectation(self._observable({word: 1.0}))

    def _parity(self, word: Word) -> MeasurementReader:
        if not word:
            return lambda _: np.float64(1.0)
        letters = dict(word)
        gates = [gate for wire, letter in word for gate in _turned(wire, letter)]
        group = self._group(letters, gates)
        clbits = self._clbits(group, letters)
        return lambda outcome: np.float64(outcome.tables[group].parity(clbits))

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
        return _measured(measurement, group, self._clbits(group, wires))

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


def _measured(measurement: Any, group: int, clbits: tuple[int, ...]) -> MeasurementReader:
    return lambda outcome: measured_value(measurement, outcome.tables[group], clbits)


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
    supported = isinstance(measurement, (mp.SampleMeasurement, mp.SampleMP, *SHADOWS))
    return supported and _is_observable(measurement.obs, ())


def is_exact(measurement: Any) -> bool:
    """Return whether a state gives the measurement."""
    matrices = (qml.SparseHamiltonian,) if isinstance(measurement, mp.ExpectationMP) else ()
    supported = isinstance(measurement, mp.StateMeasurement)
    return supported and _is_observable(measurement.obs, matrices)


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
