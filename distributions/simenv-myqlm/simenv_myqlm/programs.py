"""Circuits of myQLM as OpenQASM, and outcomes as states.

A program is written once with a mark in place of each angle, so that circuits which differ in
angles alone are one program with parameters: a sweep. Plain circuits are OpenQASM 2, which the
gateway reads itself; all others are OpenQASM 3. Classical bits are variables of the translation:
each is a formula of the outcomes that were measured before, since no instruction of myQLM jumps.
Invariant: outcomes are read from one register per kind, `r` of intermediate measurements in their
order, and `f` of the final ones in the order of the job's list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from simenv_myqlm import formulas
from simenv_myqlm.errors import BreakError, UnsupportedError
from simenv_myqlm.formulas import Formula
from simenv_myqlm.matrices import steps_of
from simenv_myqlm.records import (
    Break,
    Circuit,
    Gate,
    Instruction,
    IntermediateMeasurement,
    Job,
    Logic,
    Matrix,
    Measure,
    Observable,
    Reset,
)

MARK = "\0"  # in place of an angle
MAX_QUBITS = 1_000
TEMPLATES = 64  # of the last circuits
_NOISE = 1e-12  # imaginary part of a coefficient, from rounding

# myQLM's gates: number of controls that the name stands for, gate, number of angles.
GATES = {
    "I": (0, "id", 0), "H": (0, "h", 0), "X": (0, "x", 0), "Y": (0, "y", 0), "Z": (0, "z", 0),
    "S": (0, "s", 0), "T": (0, "t", 0), "RX": (0, "rx", 1), "RY": (0, "ry", 1), "RZ": (0, "rz", 1),
    "PH": (0, "p", 1), "CNOT": (1, "x", 0), "CSIGN": (1, "z", 0), "CCNOT": (2, "x", 0),
    "SWAP": (0, "swap", 0), "ISWAP": (0, "iswap", 0), "SQRTSWAP": (0, "sqrtswap", 0),
}  # fmt: skip
# Names without a fixed meaning in myQLM, by that of OpenQASM; a matrix goes before.
_NAMES = {
    "U": (0, "u3", 3), "U3": (0, "u3", 3), "U2": (0, "u2", 2), "U1": (0, "p", 1),
    "RXX": (0, "rxx", 1), "RYY": (0, "ryy", 1), "RZZ": (0, "rzz", 1),
}  # fmt: skip
_TARGETS = {"swap": 2, "iswap": 2, "sqrtswap": 2, "rxx": 2, "ryy": 2, "rzz": 2}
_INVERSES = {"s": "sdg", "t": "tdg"}
_CONTROLLED = {
    (1, "x"): "cx", (1, "y"): "cy", (1, "z"): "cz", (1, "h"): "ch", (1, "p"): "cp",
    (1, "rx"): "crx", (1, "ry"): "cry", (1, "rz"): "crz", (2, "x"): "ccx", (1, "swap"): "cswap",
}  # fmt: skip
# Gates that stdgates.inc of OpenQASM 3 lacks.
_DEFINITIONS = {
    "rzz": "gate rzz(a) x, y { cx x, y; rz(a) y; cx x, y; }",
    "rxx": "gate rxx(a) x, y { h x; h y; cx x, y; rz(a) y; cx x, y; h x; h y; }",
    "ryy": "gate ryy(a) x, y { rx(pi/2) x; rx(pi/2) y; cx x, y; rz(a) y; cx x, y;"
    " rx(-pi/2) x; rx(-pi/2) y; }",
    "iswap": "gate iswap x, y { s x; s y; h x; cx x, y; cx y, x; h y; }",
    "sqrtswap": "gate sqrtswap x, y { cx x, y; ctrl @ sx y, x; cx x, y; }",
}
_PLAIN_2 = {"rxx", "rzz"}  # of those, gates of OpenQASM 2


class Angle(NamedTuple):
    """An angle that is a parameter of the circuit, counted over its gates, or its negative."""

    param: int
    sign: float

    def __neg__(self) -> Angle:
        return Angle(self.param, -self.sign)


@dataclass(frozen=True, slots=True)
class Template:
    """A circuit as text, without its angles. `body`: statements with MARK in place of each of
    `angles`. `records`: for each intermediate measurement the position of its instruction and the
    number of its bits. `breaks`: positions and conditions. `needs`: gates that are to be
    defined."""

    num_qubits: int
    num_measured: int
    body: str
    angles: tuple[float | Angle, ...]
    records: tuple[tuple[int, int], ...]
    breaks: tuple[tuple[int, Formula], ...]
    needs: tuple[str, ...]
    is_plain: bool

    def __hash__(self) -> int:
        return hash(self.body)  # of one text: that of all fields takes longer than a comparison

    @property
    def num_records(self) -> int:
        """Bits of all intermediate measurements."""
        return sum(width for _, width in self.records)

    def written(self, angles: Iterable[str], is_plain: bool, inputs: Sequence[str]) -> str:
        """Return the program with texts of its angles and names of its parameters."""
        version, library = ("2.0", "qelib1.inc") if is_plain else ("3.0", "stdgates.inc")
        head = [f"OPENQASM {version};", f'include "{library}";']
        head += [f"input float {name};" for name in inputs]
        head += [] if is_plain else [_DEFINITIONS[name] for name in self.needs]
        head.append(f"qreg q[{self.num_qubits}];")
        if self.num_records:
            head.append(f"creg r[{self.num_records}];")
        if self.num_measured:
            head.append(f"creg f[{self.num_measured}];")
        first, *others = self.body.split(MARK)
        parts = [first]
        for angle, part in zip(angles, others, strict=True):
            parts += (angle, part)
        return "\n".join([*head, "".join(parts)])


@dataclass(frozen=True, slots=True)
class Program:
    """A template with its angles, in radians."""

    template: Template
    angles: tuple[float, ...]

    def text(self) -> str:
        """Return the program with its angles."""
        return self.template.written(map(repr, self.angles), self.template.is_plain, ())


def swept(programs: Sequence[Program]) -> tuple[str, list[list[float]]]:
    """Return programs of one template as one text with parameters, and the values of these for each
    program. Angles that are equal in all programs are numbers of the text, and angles that are
    equal to one another in each program are one parameter."""
    names: dict[tuple[float, ...], str] = {}
    angles = []
    for column in zip(*(each.angles for each in programs), strict=True):
        if all(value == column[0] for value in column):
            angles.append(repr(column[0]))
        else:
            angles.append(names.setdefault(column, f"p{len(names)}"))
    if not names:  # a sweep has a parameter: here one that changes nothing
        names = {(0.0,) * len(programs): "p0"}
    values = [list(row) for row in zip(*names, strict=True)]
    return programs[0].template.written(angles, False, list(names.values())), values


def program_of(job: Job, *, measures: bool = True) -> Program:
    """Translate the circuit of a job, with its final measurements if it asks for samples and
    `measures`. Raises UnsupportedError."""
    circuit = job.circuit
    if not 0 < circuit.num_qubits <= MAX_QUBITS:
        raise UnsupportedError(f"a circuit of {circuit.num_qubits} qubits", f"1 to {MAX_QUBITS}")
    measured = measured_qubits(job) if measures and job.observable is None else ()
    given: list[float | str] = []
    structure: list[_Shape | Instruction] = []
    for each in circuit.instructions:
        if isinstance(each, Gate):
            given += each.params
            rest = each.qubits, each.matrix, each.controls, each.formula
            structure.append((each.name, len(each.params), *rest))
        else:
            structure.append(each)
    values = _checked(given, circuit)
    template = _template(circuit.num_qubits, tuple(measured), tuple(structure))
    angles = tuple(
        [each.sign * values[each.param] if isinstance(each, Angle) else each
         for each in template.angles]
    )  # fmt: skip
    return Program(template, angles)


def _checked(given: Sequence[float | str], circuit: Circuit) -> list[float]:
    """Return the angles of all gates. Raises UnsupportedError for the first that is none."""
    if str not in map(type, given):
        values = list(map(float, given))
        if all(map(math.isfinite, values)):
            return values
    gates = ((k, each) for k, each in enumerate(circuit.instructions) if isinstance(each, Gate))
    for position, each in gates:
        for value in each.params:
            if isinstance(value, str):
                hint = "bind the variables: job(name=value), or ScipyMinimizePlugin and its like"
                text = f"{_named(each.name, position)} has the free parameter {value!r}"
                raise UnsupportedError(text, hint)
            if not math.isfinite(value):
                text = f"{_named(each.name, position)} has the angle {value}"
                raise UnsupportedError(text, "a finite number")
    raise UnsupportedError("a gate has a parameter that is no number", "angles in radians")


def _named(name: str, position: int) -> str:
    return f"gate {name!r} (instruction {position})"


def measured_qubits(job: Job) -> Sequence[int]:
    """Return the qubits of a sample's state, the most significant first."""
    return range(job.circuit.num_qubits) if job.qubits is None else job.qubits


# A gate without its angles: name, number of angles, qubits, matrix, controls, formula.
_Shape = tuple[str, int, tuple[int, ...], Matrix | None, tuple[int, ...], str]


@lru_cache(maxsize=TEMPLATES)  # circuits of an optimizer differ in angles alone
def _template(
    num_qubits: int, measured: tuple[int, ...], structure: tuple[_Shape | Instruction, ...]
) -> Template:
    """Translate a circuit without its angles. Raises UnsupportedError."""
    writer = _Writer(num_qubits, structure)
    writer.measure_at_end(measured)
    return writer.template(len(measured))


class _Writer:
    """Writes statements of one circuit."""

    def __init__(self, num_qubits: int, structure: Sequence[_Shape | Instruction]) -> None:
        self._num_qubits = num_qubits
        self._lines: list[str] = []
        self._angles: list[float | Angle] = []
        self._records: list[tuple[int, int]] = []
        self._breaks: list[tuple[int, Formula]] = []
        self._needs: dict[str, None] = {}
        self._is_plain = True
        self._bits: dict[int, Formula] = {}  # of classical bits; those without are 0
        self._next = 0  # bit of register r
        self._params = 0  # angles of the gates before
        for position, each in enumerate(structure):
            if isinstance(each, tuple):
                self._gate(each, position)
            elif isinstance(each, Measure):
                self._measure(each, position)
            elif isinstance(each, Reset):
                self._reset(each, position)
            elif isinstance(each, Logic):
                self._bits[each.cbit] = self._formula(each.formula, position)
            elif isinstance(each, Break):
                self._breaks.append((position, self._formula(each.formula, position)))
            else:
                raise UnsupportedError(f"instruction {position} is a {type(each).__name__}")

    def template(self, num_measured: int) -> Template:
        return Template(
            self._num_qubits, num_measured, "\n".join(self._lines) + "\n", tuple(self._angles),
            tuple(self._records), tuple(self._breaks), tuple(self._needs), self._is_plain,
        )  # fmt: skip

    def measure_at_end(self, qubits: Sequence[int]) -> None:
        for bit, qubit in enumerate(qubits):
            self._lines.append(f"measure {self._qubit(qubit)} -> f[{bit}];")

    def _qubit(self, qubit: int) -> str:
        if not 0 <= qubit < self._num_qubits:
            hint = f"the circuit has qubits 0 to {self._num_qubits - 1}"
            raise UnsupportedError(f"qubit {qubit}", hint)
        return f"q[{qubit}]"

    def _formula(self, text: str, position: int) -> Formula:
        return formulas.parse(text, self._bits, f"instruction {position}")

    def _measure(self, each: Measure, position: int) -> None:
        if len(each.qubits) != len(each.cbits):
            text = f"instruction {position} measures {len(each.qubits)} qubits into"
            raise UnsupportedError(f"{text} {len(each.cbits)} classical bits", "one bit for each")
        for bit, cbit in zip(self._record(each.qubits, position), each.cbits, strict=True):
            self._bits[cbit] = bit

    def _reset(self, each: Reset, position: int) -> None:
        self._record(each.qubits, position)
        self._lines += [f"reset {self._qubit(qubit)};" for qubit in each.qubits]
        self._bits.update(dict.fromkeys(each.cbits, False))

    def _record(self, qubits: Sequence[int], position: int) -> range:
        """Measure qubits into new bits of register r; return these."""
        bits = range(self._next, self._next + len(qubits))
        self._next = bits.stop
        self._records.append((position, len(qubits)))
        for bit, qubit in zip(bits, qubits, strict=True):
            self._lines.append(f"measure {self._qubit(qubit)} -> r[{bit}];")
        return bits

    def _gate(self, shape: _Shape, position: int) -> None:
        name, count, _, _, controls, formula = shape
        angles = [Angle(self._params + k, 1.0) for k in range(count)]
        self._params += count
        given = [self._formula(formula, position)] if formula else []
        bits = (self._bits.get(cbit, False) for cbit in controls)
        condition = formulas.conjunction([*given, *bits], f"instruction {position}")
        if condition is False:
            return
        if condition is True:
            self._apply(shape, angles, _named(name, position))
            return
        self._is_plain = False
        self._lines.append(f"if ({formulas.written(condition)}) {{")
        self._apply(shape, angles, _named(name, position))
        self._lines.append("}")

    def _apply(self, shape: _Shape, angles: Sequence[Angle], where: str) -> None:
        name, _, qubits, matrix, _, _ = shape
        base, controls, is_inverse = base_of(name)
        known = GATES.get(base) or (None if matrix is not None else _NAMES.get(base))
        if known is not None:
            more, gate, count = known
            size = controls + more + _TARGETS.get(gate, 1)
            if len(angles) != count or len(qubits) != size:
                text = f"{where} has {len(angles)} angles and {len(qubits)} qubits"
                raise UnsupportedError(text, f"it takes {count} and {size}")
            self._standard(gate, angles, qubits, controls + more, is_inverse)
            return
        if matrix is None:
            hint = "give it a matrix_generator (of 2 qubits at most) or a circuit_generator"
            raise UnsupportedError(f"{where} has neither a known name nor a matrix", hint)
        steps, phase = steps_of(matrix, name)
        width = 1 if len(matrix) == 2 else 2
        if len(qubits) != controls + width:
            text = f"{where} acts on {len(qubits)} qubits"
            raise UnsupportedError(text, f"its controls and matrix take {controls + width}")
        if is_inverse:
            steps, phase = steps[::-1], -phase
        own, targets = qubits[:controls], qubits[controls:]
        for gate, turns, indices in steps:
            more, gate = (1, "x") if gate == "cx" else (0, gate)
            on = [*own, *(targets[k] for k in indices)]
            self._standard(gate, turns, on, controls + more, is_inverse)
        if controls and phase:
            self._standard("p", (phase,), own, controls - 1, False)

    def _standard(
        self, base: str, angles: Sequence[float | Angle], qubits: Sequence[int], controls: int,
        is_inverse: bool,
    ) -> None:  # fmt: skip
        """Write a gate with its first qubits as controls."""
        if base == "u2":
            base, angles = "u3", (math.pi / 2, *angles)
        modifiers = ""
        if is_inverse and base == "u3":
            theta, phi, lam = angles
            angles = -theta, -lam, -phi
        elif is_inverse and base in _INVERSES:
            base = _INVERSES[base]
        elif is_inverse and base in ("iswap", "sqrtswap"):
            modifiers = "inv @ "
        elif is_inverse:  # a rotation, or its own inverse
            angles = [-angle for angle in angles]
        if len(set(qubits)) < len(qubits):
            raise UnsupportedError(f"a gate on equal qubits {list(qubits)}", "each one once")
        if controls:
            named = _CONTROLLED.get((controls, base))
            if named is None:
                count = f"({controls})" if controls > 1 else ""
                modifiers = f"ctrl{count} @ {modifiers}"
            base = named or base
        if base in _DEFINITIONS:
            self._needs[base] = None
        if modifiers or (base in _DEFINITIONS and base not in _PLAIN_2):
            self._is_plain = False
        marks = f"({','.join(MARK * len(angles))})" if angles else ""
        self._angles += angles
        operands = ",".join(map(self._qubit, qubits))
        self._lines.append(f"{modifiers}{base}{marks} {operands};")


def base_of(name: str) -> tuple[str, int, bool]:
    """Return the name of a gate without `C-` and `D-`, the number of its controls, and whether it
    is inverted."""
    controls, is_inverse = 0, False
    while name[:2] in ("C-", "D-"):
        controls, is_inverse = controls + (name[0] == "C"), is_inverse ^ (name[0] == "D")
        name = name[2:]
    return name, controls, is_inverse


# --- outcomes -------------------------------------------------------------------------------------

Outcome = tuple[int, tuple[IntermediateMeasurement, ...]]  # state, and what was measured before


def outcome_reader(template: Template) -> Callable[[str], Outcome]:
    """Return a function from a bit string of the gateway, the last bit of the last register first,
    to the state and the intermediate measurements."""
    records = template.num_records
    spans, first = [], 0
    for position, width in template.records:
        spans.append((position, first, first + width))
        first += width

    def read(key: str) -> Outcome:
        bits = key.replace(" ", "")[::-1]
        state = int(bits[records:] or "0", 2)  # the first qubit of the list is most significant
        if not spans:
            return state, ()
        return state, tuple(
            IntermediateMeasurement(position, tuple(bit == "1" for bit in bits[begin:end]))
            for position, begin, end in spans
        )

    return read


def check_breaks(template: Template, weights: Mapping[str, float]) -> None:
    """Raise BreakError for the first instruction whose condition holds in some outcome. `weights`:
    shots of each bit string, the last bit of the last register first."""
    for position, condition in template.breaks:
        shots = 0.0
        for key, weight in weights.items():
            bits = [bit == "1" for bit in key.replace(" ", "")[::-1]]
            shots += weight * formulas.evaluate(condition, bits)
        if shots:
            raise BreakError(position, round(shots))


def pauli_sum(observable: Observable, num_qubits: int) -> tuple[dict[str, float], float]:
    """Return coefficients by Pauli string, the last qubit first, and the constant. Raises
    UnsupportedError."""
    terms: dict[str, float] = {}
    constant = _real(observable.constant, "the constant")
    for term in observable.terms:
        letters = ["I"] * num_qubits
        if len(term.paulis) != len(term.qubits) or len(set(term.qubits)) < len(term.qubits):
            text = f"the term {term.paulis!r} on qubits {list(term.qubits)}"
            raise UnsupportedError(text, "one letter for each qubit, each qubit once")
        for letter, qubit in zip(term.paulis, term.qubits, strict=True):
            if letter not in "IXYZ" or not 0 <= qubit < num_qubits:
                text = f"the term {term.paulis!r} on qubits {list(term.qubits)}"
                raise UnsupportedError(text, f"I, X, Y and Z on qubits 0 to {num_qubits - 1}")
            letters[num_qubits - 1 - qubit] = letter
        label, coefficient = "".join(letters), _real(term.coefficient, f"of {term.paulis!r}")
        if label.strip("I"):
            terms[label] = terms.get(label, 0.0) + coefficient
        else:
            constant += coefficient
    return terms, constant


def _real(value: complex, what: str) -> float:
    number = complex(value)
    if not abs(number.imag) <= _NOISE * max(1.0, abs(number)) or not math.isfinite(number.real):
        raise UnsupportedError(f"the coefficient {what} is {number}", "a real number")
    return number.real
