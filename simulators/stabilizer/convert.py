"""Conversion of circuits to stim: Clifford gates, measurements, resets, and Paulis under a
condition that is a parity of clbits. Other operations are refused by name.

Two forms. `recorded`: measurements at their places, final ones last and in the order of their
clbits. `deferred`: no measurements; each mid-circuit one leaves its outcome in a qubit of its own,
each reset exchanges its qubit for a fresh one, so the final state is pure and its distribution and
expectation values are those of the circuit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable

import msgspec
import numpy as np
import stim
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.analysis.measurements import NO_OP_RESET, TERMINAL, MeasurementLayout
from simulators.circuit.expressions import Expression, expressions_of
from simulators.circuit.gates import ANGLE_TOLERANCE, LARGEST_TOLERANCE, QUARTER_TURN, unitary
from simulators.circuit.ir import Circuit, Operation, matrix, operations
from simulators.errors import OTHER_ENGINE, Unsupported

# Conversion of Clifford gates to stim's instructions, from an operation and its angles.
#
# Angles count as multiples of pi/2 within the tolerance of `gates`. Gates without a name in stim
# become the instructions of their tableau. Global phases are dropped: they change no outcome.

_MATRIX_TOLERANCE = 1e-10  # tolerance of each element
_WIDEST = 4  # widest gate whose tableau is computed

Instruction = tuple[str, tuple[int, ...]]  # stim's name, and indices of the gate's qubits

_NAMED: dict[str, tuple[Instruction, ...]] = {
    "id": (),
    **{name: ((name.upper(), (0,)),) for name in ("h", "x", "y", "z", "s")},
    "sdg": (("S_DAG", (0,)),),
    "sx": (("SQRT_X", (0,)),),
    "sxdg": (("SQRT_X_DAG", (0,)),),
    **{name: ((name.upper(), (0, 1)),) for name in ("cx", "cy", "cz", "swap", "iswap")},
}
# Rotations by 0, 1, 2, 3 quarter turns.
_Z_TURNS = ("", "S", "Z", "S_DAG")
_TURNS: dict[str, tuple[str, str, str, str]] = {
    "rz": _Z_TURNS,
    "p": _Z_TURNS,
    "u1": _Z_TURNS,
    "rx": ("", "SQRT_X", "X", "SQRT_X_DAG"),
    "ry": ("", "SQRT_Y", "Y", "SQRT_Y_DAG"),
}


def quarters(angle: float) -> int | None:
    """Number of quarter turns of an angle, from 0 to 7 (a rotation by a full turn is -1); None if
    it is no multiple."""
    count = round(angle / QUARTER_TURN)
    if abs(angle - count * QUARTER_TURN) > min(
        LARGEST_TOLERANCE, ANGLE_TOLERANCE * max(1, abs(count))
    ):
        return None
    return count % 8


def instructions(
    name: str, num_qubits: int, turns: tuple[int, ...]
) -> tuple[Instruction, ...] | None:
    """Gate with these quarter turns in stim's instructions; None if it is no Clifford gate."""
    if name == "global_phase":
        return ()
    result = _NAMED.get(name)
    if result is not None:
        return result
    if name in _TURNS:
        turn = _TURNS[name][turns[0] % 4]
        return ((turn, (0,)),) if turn else ()
    return _of_turns(name, num_qubits, turns) if num_qubits <= _WIDEST else None


@functools.lru_cache(maxsize=4096)
def _of_turns(name: str, num_qubits: int, turns: tuple[int, ...]) -> tuple[Instruction, ...] | None:
    return of_matrix(unitary(name, tuple(count * QUARTER_TURN for count in turns), num_qubits))


def of_matrix(matrix: NDArray[np.complex128]) -> tuple[Instruction, ...] | None:
    """Gate with this matrix [2**k, 2**k] in stim's instructions; None if it is no Clifford gate."""
    num_qubits = len(matrix).bit_length() - 1
    if num_qubits > _WIDEST:
        return None
    try:
        tableau = stim.Tableau.from_unitary_matrix(matrix, endian="little")
    except ValueError:
        return None
    if not _alike(tableau.to_unitary_matrix(endian="little"), matrix):  # stim's own check is weaker
        return None
    if num_qubits == 1:
        single = _single_qubit().get(str(tableau))
        return ((single, (0,)),) if single else ()
    results: list[Instruction] = []
    for item in tableau.to_circuit("elimination"):
        targets = tuple(target.value for target in item.targets_copy())
        step = 2 if stim.gate_data(item.name).is_two_qubit_gate else 1
        results += [(item.name, targets[k : k + step]) for k in range(0, len(targets), step)]
    return tuple(results)


def _alike(candidate: NDArray[np.complex64], matrix: NDArray[np.complex128]) -> bool:
    """Return whether `matrix` equals `candidate` up to a global phase, after the rounding of
    `candidate` is undone. The elements of a Clifford gate's matrix have one size, and are quarter
    turns apart."""
    first = candidate[np.flatnonzero(np.abs(candidate[:, 0]) > 0.1)[0], 0]
    turns = (candidate / first).astype(np.complex128)
    exact = np.round(turns.real) + 1j * np.round(turns.imag)
    exact /= math.sqrt(np.count_nonzero(exact[:, 0]))
    overlap = complex(np.vdot(exact, matrix))
    if not overlap:
        return False
    return bool(np.abs(exact * (overlap / abs(overlap)) - matrix).max() <= _MATRIX_TOLERANCE)


@functools.lru_cache(maxsize=1)
def _single_qubit() -> dict[str, str]:
    """Names in stim of the 24 one-qubit tableaus; "" for the identity."""
    return {
        str(data.tableau): "" if name == "I" else name
        for name, data in sorted(stim.gate_data().items(), reverse=True)
        if data.is_unitary and data.is_single_qubit_gate
    }


_PAULIS = frozenset("XYZ")
_MOST_READ = 10  # largest number of clbits of one condition


class StimCircuit(msgspec.Struct, frozen=True, eq=False):
    """Circuit for stim, and the source of each clbit's value."""

    circuit: stim.Circuit
    source: NDArray[np.int64]  # [num_clbits]: index of a record, or of a qubit (deferred), or -1
    identical: bool  # recorded: record c is clbit c, all through
    conditions: dict[int, Condition]  # of the operations in blocks


class Condition(msgspec.Struct, frozen=True):
    """Condition of a block: the parity of the values of its controls."""

    controls: tuple[int, ...]  # records, or qubits in the deferred form
    inverted: bool


class NoiseLines(msgspec.Struct, frozen=True):
    """Lines of noise that follow operations, and the flips of measurements before the end."""

    after: dict[int, list[str]]
    flips: dict[int, float]  # probability by operation


def convert(
    circuit: Circuit,
    params: NDArray[np.float64],
    end: MeasurementLayout,
    *,
    deferred: bool = False,
    noise: NoiseLines | None = None,
) -> StimCircuit:
    """Convert the circuit with `params`. Raises Unsupported for operations that are not Clifford.
    `noise`: for the recorded form."""
    noise = noise or NoiseLines({}, {})
    writer = Writer(circuit, end, deferred, noise.flips)
    known = None if noise.after else writer.known_gates
    writer.take_all(operations(circuit, params, known), noise)
    return writer.done()


class Writer:
    """Lines of a circuit in stim's format. A subclass writes what stim has no gate for."""

    engine = "stabilizer"
    clifford_alone = "it runs Clifford circuits"

    def __init__(
        self, circuit: Circuit, end: MeasurementLayout, deferred: bool, flips: dict[int, float]
    ) -> None:
        self._flips = flips
        self.circuit = circuit
        self.roles = end.roles.tolist()
        self.final = end.source
        self._deferred = deferred
        self.lines: list[str] = []
        self._qubits = circuit.num_qubits  # qubits so far, with those that hold outcomes
        self._records = 0
        self._value: dict[int, int] = {}  # by clbit: its record, or the qubit that holds it
        self._conditions = iter(expressions_of(circuit))
        self._block: Condition | None = None
        self._conditions_of: dict[int, Condition] = {}
        # Functions that write a gate without angles, by its row of the table; none if there are
        # blocks.
        self.known_gates: dict[int, Callable[[list[int]], None]] = {}
        self._has_blocks = bool(np.any(circuit.table.rows[:, 0] == gates.IF))
        self._known: dict[tuple[int, tuple[int, ...]], tuple[Instruction, ...]] = {}

    def take_all(self, given: Iterable[Operation], noise: NoiseLines) -> None:
        """Write operations, and the noise after them."""
        self.append(noise.after.get(-1, ()))
        for operation in given:
            self.take(operation)
            self.note(operation)
            self.append(noise.after.get(operation.place, ()))

    def append(self, lines: Iterable[str]) -> None:
        self.lines += lines

    def note(self, operation: Operation) -> None:
        """Keep the condition of an operation in a block."""
        if self._block is not None:
            self._conditions_of[operation.place] = self._block

    def take(self, operation: Operation) -> None:
        code = operation.code
        if operation.is_gate:
            result = self._instructions(operation)
            if self._block is not None:
                self.under_condition(operation, result)
                return
            qubits = operation.qubits
            for name, targets in result:
                self.lines.append(f"{name} {' '.join([str(qubits[k]) for k in targets])}")
            if not operation.params and not self._has_blocks:
                self.known_gates[operation.row] = self._writing(result)
        elif code in (gates.BARRIER, gates.DELAY, gates.DELAY_DT):
            return
        elif code == gates.IF:
            self._open(operation)
        elif code in (gates.ELSE, gates.END_BLOCK) and self._block is not None:
            self._block = Condition(self._block.controls, not self._block.inverted)
            if code == gates.END_BLOCK:
                self._block = None
        elif code in (gates.MEASURE, gates.RESET) and self._block is None:
            if self.roles[operation.place] not in (TERMINAL, NO_OP_RESET):
                self._collapse(operation)
        else:
            what = "under a condition" if code in (gates.MEASURE, gates.RESET) else "in the circuit"
            raise self.refusal(operation, f"stim has no {operation.name!r} {what}")

    def _writing(self, gate: tuple[Instruction, ...]) -> Callable[[list[int]], None]:
        """Function that writes these instructions for other qubits, as for most operations of a
        long circuit."""
        form = "\n".join(f"{name} {' '.join(f'{{{k}}}' for k in each)}" for name, each in gate)
        if not form:
            return lambda _qubits: None
        append, write = self.lines.append, form.format
        return lambda qubits: append(write(*qubits))

    def done(self) -> StimCircuit:
        """Finish the circuit with its terminal measurements."""
        source, identical = self.finish()
        circuit = stim.Circuit("\n".join(self.lines))
        return StimCircuit(circuit, source, identical, self._conditions_of)

    def finish(self) -> tuple[NDArray[np.int64], bool]:
        """Write the terminal measurements; return `source` and `identical` of `StimCircuit`."""
        source = np.full(self.circuit.num_clbits, -1, np.int64)
        for clbit, at in self._value.items():
            source[clbit] = at
        last = np.flatnonzero(self.final >= 0)
        if self._deferred:
            source[last] = self.final[last]
            self.lines.append(f"I {self._qubits - 1}" if self._qubits else "")
            return source, False
        if last.size:
            self.lines.append(f"M {' '.join(map(str, self.final[last].tolist()))}")
        source[last] = self._records + np.arange(last.size)
        identical = not self._records and last.size == source.size
        return source, identical

    def _instructions(self, operation: Operation) -> tuple[Instruction, ...]:
        turns: tuple[int, ...] = ()
        if operation.params and operation.name != "global_phase":
            counts = [quarters(angle) for angle in operation.params]
            turns = tuple(count for count in counts if count is not None)
            if len(turns) < len(counts):
                built = self._between(operation)
                if built is not None:
                    return built
                angle = operation.params[counts.index(None)]
                return self.other_gate(operation, f"its angle {angle:.6g} is no multiple of pi/2")
        key = operation.row, turns
        result = self._known.get(key)
        if result is None:
            if operation.code == gates.UNITARY:
                built = of_matrix(matrix(self.circuit, operation))
            else:
                built = instructions(operation.name, len(operation.qubits), turns)
            if built is None:
                built = self.other_gate(operation, "it is no Clifford gate")
            result = self._known[key] = built
        return result

    def other_gate(self, operation: Operation, why: str) -> tuple[Instruction, ...]:
        """Instructions of a gate that is no Clifford gate. Raises Unsupported."""
        raise self.refusal(operation, why)

    def refusal(self, operation: Operation, why: str) -> Unsupported:
        text = f"engine {self.engine!r} cannot run operation {operation.place} ({operation.name})"
        return Unsupported(f"{text}: {why}", hint=f"{self.clifford_alone}; {OTHER_ENGINE}")

    def _between(self, operation: Operation) -> tuple[Instruction, ...] | None:
        """Gate with an angle that is no multiple of pi/2, such as r(pi, pi/4), in stim's
        instructions; None if it is no Clifford gate."""
        if len(operation.params) < 2 or len(operation.qubits) > _WIDEST:
            return None
        return of_matrix(unitary(operation.name, operation.params, len(operation.qubits)))

    def _open(self, operation: Operation) -> None:
        if self._block is not None:
            raise self.refusal(operation, "one condition stands inside another")
        parity = _parity(next(self._conditions), self._value)
        if parity is None:
            raise self.refusal(operation, "its condition is no parity of clbits")
        self._block = Condition(*parity)

    def under_condition(self, operation: Operation, instructions: tuple[Instruction, ...]) -> None:
        """Write Paulis controlled by the parity of measured bits."""
        for name, (qubit, *_) in instructions:
            if name not in _PAULIS:
                raise self.refusal(operation, "only Pauli gates can stand under a condition")
            self.controlled(name, operation.qubits[qubit])

    def controlled(self, name: str, target: int, *, negated: bool = False) -> None:
        """Write a Pauli where the condition of the block holds; `negated`: where it does not."""
        assert self._block is not None
        if self._block.inverted != negated:
            self.lines.append(f"{name} {target}")
        for control in self._block.controls:
            where = control if self._deferred else f"rec[{control - self._records}]"
            self.lines.append(f"C{name} {where} {target}")

    def _collapse(self, operation: Operation) -> None:
        """Write a measurement or a reset that is not deferred to the end."""
        (qubit,) = operation.qubits
        if not self._deferred:
            flip = self._flips.get(operation.place, 0.0)
            measure = f"M({flip!r})" if flip else "M"
            self.lines.append(f"{measure if operation.clbits else 'R'} {qubit}")
            if operation.clbits:
                self._value[operation.clbits[0]] = self._records
                self._records += 1
            return
        self.lines.append(f"{'CX' if operation.clbits else 'SWAP'} {qubit} {self._qubits}")
        if operation.clbits:
            self._value[operation.clbits[0]] = self._qubits
        self._qubits += 1


def _parity(condition: Expression, value: dict[int, int]) -> tuple[tuple[int, ...], bool] | None:
    """Return (sources of the clbits of the parity, inverted); None if the condition is no parity.
    Clbits that no operation has written are 0."""
    reads = [clbit for clbit in range(condition.reads.bit_length()) if condition.reads >> clbit & 1]
    written = [clbit for clbit in reads if clbit in value]
    if len(written) > _MOST_READ:
        return None
    base = condition.evaluate(0)
    matter = [clbit for clbit in written if condition.evaluate(1 << clbit) != base]
    mask = sum(1 << clbit for clbit in matter)
    for setting in range(1 << len(written)):
        bits = sum(1 << clbit for k, clbit in enumerate(written) if setting >> k & 1)
        if condition.evaluate(bits) != base ^ ((bits & mask).bit_count() & 1):
            return None
    return tuple(value[clbit] for clbit in matter), bool(base)
