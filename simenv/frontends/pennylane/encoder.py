"""Translation of PennyLane's gates and tapes to programs.

A gate is a list of steps; each names a gate of a program, the wires it acts on and the source of
its angles. Invariant: a gate of the table equals its steps exactly, global phase included; a test
compares the matrices.

Conversion of tapes to programs: one structure for all tapes that differ in their angles alone.
Angles are free parameters of a program, and each tape of a structure is one binding of it. A
mid-circuit measurement writes a clbit of its own; `qml.cond` becomes an `if` block. Invariant: the
key of a tape determines its program; everything else is a value of the tape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pennylane as qml
from numpy.typing import NDArray

from simenv.client.circuits.program_builder import ProgramBuilder
from simenv.errors import ProgramError
from simenv.model import MAX_UNITARY_QUBITS, Program, Token

FIXED = -1  # source of an angle that is constant
SMALL_MATRIX_WIRES = 3  # wider operators without parameters are decomposed, not written as matrices
PREPARED_WIRES = 6  # wider states are not prepared by one matrix
PREPARATIONS = ("StatePrep", "AmplitudeEmbedding")


class Step(NamedTuple):
    """One gate of a program. `wires`: numbers of the operator's wires. `angles`: for each angle the
    number of the operator's parameter and a factor, or FIXED and the angle itself."""

    name: str
    wires: tuple[int, ...]
    angles: tuple[tuple[int, float], ...] = ()


GateSteps = tuple[Step, ...]


def _plain(name: str, wires: int) -> GateSteps:
    return (Step(name, tuple(range(wires))),)


def _turn(name: str, wires: int, factor: float = 1.0) -> GateSteps:
    return (Step(name, tuple(range(wires)), ((0, factor),)),)


def _rot(names: tuple[str, str, str], wires: tuple[int, ...]) -> GateSteps:
    return tuple(Step(name, wires, ((k, 1.0),)) for k, name in enumerate(names))


_ZYZ = ("rz", "ry", "rz")
_CONTROLLED_ZYZ = ("crz", "cry", "crz")

# Gates whose inverse has the opposite angles, with all steps in reverse order.
_TURNS: dict[str, GateSteps] = {
    **{name: _turn(name.lower(), 1) for name in ("RX", "RY", "RZ")},
    "PhaseShift": _turn("p", 1), "U1": _turn("p", 1), "Rot": _rot(_ZYZ, (0,)),
    **{name: _turn(name.lower(), 2) for name in ("CRX", "CRY", "CRZ")},
    "CRot": _rot(_CONTROLLED_ZYZ, (0, 1)), "ControlledPhaseShift": _turn("cp", 2),
    **{f"Ising{pair}": _turn(f"r{pair.lower()}", 2) for pair in ("XX", "YY", "ZZ")},
    "IsingXY": (Step("xx_plus_yy", (0, 1), ((0, -1.0), (FIXED, 0.0))),),
    "SingleExcitation": (Step("xx_plus_yy", (0, 1), ((0, 1.0), (FIXED, -math.pi / 2))),),
    "GlobalPhase": (Step("global_phase", (), ((0, -1.0),)),),
}  # fmt: skip

# Gates without parameters that are their own inverse.
_INVOLUTIONS: dict[str, GateSteps] = {
    **dict.fromkeys(("Identity", "Snapshot"), ()),
    "Hadamard": _plain("h", 1), "CNOT": _plain("cx", 2), "Toffoli": _plain("ccx", 3),
    **{f"Pauli{axis}": _plain(axis.lower(), 1) for axis in "XYZ"},
    **{name: _plain(name.lower(), 2) for name in ("CY", "CZ", "CH", "SWAP", "ECR")},
    **{name: _plain(name.lower(), 3) for name in ("CCZ", "CSWAP")},
}  # fmt: skip


def _inverse(steps: GateSteps) -> GateSteps:
    return tuple(
        Step(name, wires, tuple((k, value if k == FIXED else -value) for k, value in angles))
        for name, wires, angles in reversed(steps)
    )


GATES: dict[str, GateSteps] = {
    **_TURNS,
    **{f"Adjoint({name})": _inverse(steps) for name, steps in _TURNS.items()},
    **_INVOLUTIONS,
    **{f"Adjoint({name})": steps for name, steps in _INVOLUTIONS.items()},
    **{name: _plain(name.lower(), 1) for name in ("S", "T", "SX")},
    **{f"Adjoint({name})": _plain(f"{name.lower()}dg", 1) for name in ("S", "T", "SX")},
    "ISWAP": _plain("iswap", 2),
    "U2": (Step("u2", (0,), ((0, 1.0), (1, 1.0))),),
    "U3": (Step("u", (0,), ((0, 1.0), (1, 1.0), (2, 1.0))),),
}

# Controlled gates that equal these gates if all controls require a 1.
CONTROLLED: dict[str, GateSteps] = {"C(S)": _plain("cs", 2), "C(SX)": _plain("csx", 2)}
_BARRIERS = ("Barrier", "Adjoint(Barrier)")
_WIDE = ("MultiRZ", "MultiControlledX", "C(PhaseShift)", *_BARRIERS)


def steps_of(op: Any) -> GateSteps | None:
    """Steps of an operator; None if it has none, and may be written as a matrix."""
    name: str = op.name
    result = GATES.get(name)
    if result is not None:
        return result
    if name in CONTROLLED:
        return CONTROLLED[name] if _all_ones(op) and len(op.wires) == 2 else None
    if name in _WIDE:
        return _wide(name, op)
    if name == "BasisState":
        bits = [int(bit) for bit in op.data[0]]
        return tuple(Step("x", (k,)) for k, bit in enumerate(bits) if bit)
    return None


def _all_ones(op: Any) -> bool:
    return all(bool(value) for value in op.control_values)


def _wide(name: str, op: Any) -> GateSteps | None:
    count = len(op.wires)
    everything = tuple(range(count))
    if name in _BARRIERS:
        visual = getattr(op, "base", op).hyperparameters.get("only_visual") or not count
        return () if visual else (Step("barrier", everything),)
    if name == "C(PhaseShift)":
        return (Step("mcphase", everything, ((0, 1.0),)),) if _all_ones(op) else None
    if name == "MultiControlledX":
        flips = tuple(Step("x", (k,)) for k, bit in enumerate(op.control_values) if not bit)
        return (
            *flips,
            Step("mcx" if count > 3 else ("x", "cx", "ccx")[count - 1], everything),
            *flips,
        )
    down = tuple(Step("cx", (k + 1, k)) for k in reversed(range(count - 1)))
    return (*down, Step("rz", (0,), ((0, 1.0),)), *reversed(down))


def is_gate(op: Any) -> bool:
    """Return whether the operator is written as gates, whose angles may be free parameters."""
    return op.name in GATES or (op.name != "BasisState" and steps_of(op) is not None)


def matrix_wires(op: Any) -> int:
    """Largest width at which an operator that is no gate is written as a matrix."""
    if op.name in ("QubitUnitary", "ControlledQubitUnitary"):
        return MAX_UNITARY_QUBITS
    if op.name in PREPARATIONS:
        return PREPARED_WIRES
    if op.num_params or not op.has_matrix:
        return MAX_UNITARY_QUBITS if op.has_matrix and not op.has_decomposition else 0
    return SMALL_MATRIX_WIRES


def is_carried(op: Any) -> bool:
    """Return whether a program can hold the operator; else PennyLane must decompose it."""
    if op.name in GATES or op.name == "BasisState":
        return True
    return len(op.wires) <= matrix_wires(op) or steps_of(op) is not None


MAX_CONDITION_BITS = 12  # bits of one condition: it is written out outcome by outcome
CLBITS = "c"  # name of the only classical register


class TapeCircuit(NamedTuple):
    """Operations of a tape. `key`: everything its program depends on; `values`: the parameters that
    its angles come from, in order, each a number or an array of a value for each broadcast copy;
    `numbers`: the index of each value among the tape's parameters."""

    key: tuple[Any, ...]
    values: list[Any]
    wire_numbers: list[int]

    @property
    def order(self) -> tuple[Any, ...]:
        """Wires in the order of qubits."""
        return tuple(self.key[0])


class AngleTable(NamedTuple):
    """Angles of the slots: slot k of a program is value `columns[k]` times `factors[k]`."""

    columns: NDArray[np.intp]
    factors: NDArray[np.float64]

    def slots(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert values, float64 [K, values], to slots, float64 [K, slots]."""
        return np.ascontiguousarray(values[:, self.columns] * self.factors)


def read_tape(operations: Sequence[Any], order: tuple[Any, ...]) -> TapeCircuit:
    """Read the key and the values of a tape. `order`: the wires, qubit 0 first."""
    parts: list[Any] = [order]
    values: list[Any] = []
    indices: list[int] = []
    measured: dict[Any, int] = {}
    number = 0
    for op in operations:
        name = op.name
        data = op.data
        if name in GATES:
            parts.append((name, op.wires.labels))
        else:
            part, data = _described(op, name, data, measured)
            parts.append(part)
        if data:
            values += data
            indices += range(number, number + len(data))
        number += len(op.data)
    return TapeCircuit(tuple(parts), values, indices)


def _described(
    op: Any, name: str, data: Any, measured: dict[Any, int]
) -> tuple[tuple[Any, ...], Any]:
    """Key part and values of an operator that is no fixed gate."""
    wires = op.wires.labels
    if name == "MidMeasureMP":
        measured[op] = len(measured)
        return (name, wires, op.reset, op.postselect), ()
    if name.startswith("Conditional("):
        outcomes = _outcomes(op.meas_val, measured)
        base = op.base
        part, data = _described(base, base.name, base.data, measured)
        return ("if", outcomes, part), data
    steps = steps_of(op)
    if steps is None:
        return (name, wires, _matrix(op).tobytes()), ()
    return (name, wires, steps), (() if name == "BasisState" else data)


def _outcomes(value: Any, measured: dict[Any, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Clbits of a condition, and the outcomes for which it is true: bit j is the j-th of these
    clbits."""
    clbits = tuple(measured[each] for each in value.measurements)
    if len(clbits) > MAX_CONDITION_BITS:
        text = f"a condition on {len(clbits)} mid-circuit measurements; at most"
        text += f" {MAX_CONDITION_BITS} are carried"
        raise ProgramError(text, hint="nest conditions, or combine fewer measurements")
    true = [
        sum(bit << k for k, bit in enumerate(branch)) for branch, result in value.items() if result
    ]
    return clbits, tuple(true)


def _matrix(op: Any) -> NDArray[np.complex128]:
    """Matrix of an operator, complex128 [2**wires, 2**wires]; its first wire is most
    significant."""
    if isinstance(op, qml.operation.StatePrepBase):
        return _preparation(np.asarray(op.state_vector(), np.complex128).ravel())
    return np.ascontiguousarray(qml.matrix(op, wire_order=op.wires), np.complex128)


def _preparation(state: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """A unitary whose first column is `state`: a Householder reflection, up to a phase."""
    phase = np.exp(1j * np.angle(state[0]))
    normal = -state / phase
    normal[0] += 1.0
    length = np.vdot(normal, normal).real
    result = np.eye(len(state), dtype=np.complex128)
    if length > 1e-30:
        result -= (2.0 / length) * np.outer(normal, normal.conj())
    return np.ascontiguousarray(phase * result)


class CircuitWriter:
    """Writer of the operations of one tape to a program. `fixed`: values by number that are written
    as constants; the others become slots."""

    def __init__(self, order: tuple[Any, ...], fixed: dict[int, float] | None = None) -> None:
        self._qubits = {wire: qubit for qubit, wire in enumerate(order)}
        self._tape = ProgramBuilder()
        self._fixed = fixed or {}
        self._value = 0  # number of the next value
        self._measured: list[Any] = []  # mid-circuit measurements, by clbit
        self._clbits: dict[Any, int] = {}

    def operations(self, operations: Iterable[Any]) -> None:
        """Append operators."""
        for op in operations:
            self._operation(op, op.name)

    def _operation(self, op: Any, name: str) -> None:
        steps = GATES.get(name)
        if steps is None:
            if name == "MidMeasureMP":
                self._mid_measure(op)
                return
            if name.startswith("Conditional("):
                self._conditional(op)
                return
            steps = steps_of(op)
        qubits = [self._qubits[wire] for wire in op.wires.labels]
        if steps is None:
            width = len(qubits)
            self._tape.ops.append(self._tape.unitary(_matrix(op).tobytes(), width))
            self._tape.qubits += reversed(qubits)  # a program's matrix has its first qubit last
            return
        self._steps(steps, qubits)
        if name != "BasisState":
            self._value += op.num_params

    def _steps(self, steps: GateSteps, qubits: Sequence[int]) -> None:
        tape = self._tape
        for name, wires, angles in steps:
            tape.ops.append(tape.row(name, len(wires), 0, len(angles)))
            tape.qubits += [qubits[wire] for wire in wires]
            for source, factor in angles:
                number = self._value + source
                if source == FIXED:
                    tape.params.append(factor)
                elif number in self._fixed:
                    tape.params.append(factor * self._fixed[number])
                else:
                    tape.slot((number, factor))
                    tape.params.append(0.0)

    def _mid_measure(self, op: Any) -> None:
        clbit = self._clbits[op] = len(self._measured)
        self._measured.append(op)
        qubit = self._qubits[op.wires.labels[0]]
        self._measure(qubit, clbit)
        if op.reset:
            self._tape.ops.append(self._tape.row("reset", 1, 0, 0))
            self._tape.qubits.append(qubit)

    def _measure(self, qubit: int, clbit: int) -> None:
        tape = self._tape
        tape.ops.append(tape.row("measure", 1, 1, 0))
        tape.qubits.append(qubit)
        tape.clbits.append(clbit)

    def _conditional(self, op: Any) -> None:
        clbits, true = _outcomes(op.meas_val, self._clbits)
        base = op.base
        if not true:
            self._value += base.num_params
            return
        always = len(true) == 1 << len(clbits)
        if not always:
            self._condition(clbits, true)
            self._tape.marker("if")
        self._operation(base, base.name)
        if not always:
            self._tape.marker("end")

    def _condition(self, clbits: tuple[int, ...], true: tuple[int, ...]) -> None:
        """Write "one of the outcomes in `true`" as a disjunction of conjunctions."""
        token = self._tape.token
        for term, outcome in enumerate(true):
            for place, clbit in enumerate(clbits):
                token(Token.CLBIT, clbit)
                if not outcome >> place & 1:
                    token(Token.LOGIC_NOT)
                if place:
                    token(Token.LOGIC_AND)
            if term:
                token(Token.LOGIC_OR)
        token(Token.END)

    def program(self, measured: Sequence[Any] = ()) -> tuple[Program, AngleTable]:
        """Finish the program with measurements of these wires into the clbits after those of the
        mid-circuit measurements. Raises LimitExceededError."""
        first = len(self._measured)
        for place, wire in enumerate(measured):
            self._measure(self._qubits[wire], first + place)
        tape = self._tape
        tape.check()
        count = first + len(measured)
        registers = ((CLBITS, count),) if count else ()
        program = tape.program(len(self._qubits), count, registers)
        columns = [number for number, _ in tape.expressions]
        factors = [factor for _, factor in tape.expressions]
        return program, AngleTable(np.array(columns, np.intp), np.array(factors, np.float64))
