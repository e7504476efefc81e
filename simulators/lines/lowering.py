"""Circuit as lines of one-qubit unitaries and diagonal gates on pairs, and its noise there.

A line is what a qubit's value runs along. Its unitaries that are no permutations (up to phases)
divide it into segments; segment 0 has the value 0. On a segment nothing moves amplitude: gates on
pairs are diagonal there, and flips are known. A gate on two qubits that is not diagonal becomes
diagonal ones between unitaries: controlled gates, also with a flip, by one, others by the canonical
decomposition (Zhang, Vala, Sastry, Whaley, Phys. Rev. A 67, 042313, 2003), and a gate that moves
states as a swap does exchanges its lines. Gates on more qubits become gates on two first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.analysis.measurements import NO_OP_RESET, TERMINAL
from simulators.circuit.ir import Circuit, with_matrices
from simulators.errors import OTHER_ENGINE, Unsupported
from simulators.lines.control import Event, Flow, RecordColumns
from simulators.lines.rewriting import Letters, Merged, letters_of, merged_gates
from simulators.lines.wide_gates import MOST_QUBITS, parts_of
from simulators.trajectories.mid_circuit import MidCircuit
from simulators.trajectories.noise_table import COUNT, FIRST, PAULI, NoiseTable

Matrix = NDArray[np.complex128]

_ZERO = 1e-13  # magnitude of a matrix element that counts as zero
_SMALL = 1e-7  # the same of a Kraus operator: rounding that a small rest of a channel magnifies
_MOST_CHOICES = 2**12  # combinations of operators that are drawn together with a value
_ONE = np.eye(2, dtype=np.complex128)
_FLIP = np.array([[0, 1], [1, 0]], np.complex128)
_Z = np.diag([1.0 + 0j, -1.0])
_PAULIS = {  # one operator each, by x and z
    (1, 0): _FLIP[None], (1, 1): np.array([[[0, -1j], [1j, 0]]]), (0, 1): _Z[None],
}  # fmt: skip
_HADAMARD = np.array([[1, 1], [1, -1]], np.complex128) / np.sqrt(2.0)
_TO_Y = np.diag([1.0, 1j]) @ _HADAMARD  # Y = _TO_Y Z _TO_Y^+
_QUARTER = np.pi / 4.0

# Kinds of errors: a matrix within a unitary, or operators of which one is drawn there; a matrix on
# a segment, which permutes its values up to factors, or operators of which one is drawn there, on
# one segment or on two. A measurement of a segment, and an event on the classical record alone.
WITHIN, DRAWN_WITHIN, ON_SEGMENT, DRAWN_ON_SEGMENT, DRAWN_ON_PAIR, MEASURED, RECORDED = range(7)


class Error(msgspec.Struct, gc=False):
    """Error on a line, or on two. Within a unitary, the segment is the one that begins with it, and
    the matrices act after it; on a segment, they act on its value, after the first `pairs` of its
    diagonal gates. Gates under a condition, measurements and events on the record are of the same
    form, and act in every shot (`Lines.certain`) whose flag is 1."""

    kind: int
    segments: tuple[int, ...]
    pairs: tuple[int, ...]
    operators: NDArray[np.complex128]  # [operators, n, n]
    layer: int  # of the unitary; on a segment: after whose draws it acts
    draw: int  # number of its location
    gate: int = 0  # of two segments: 2 * the diagonal gate between them, + 1 if it has them swapped
    flag: int = -1  # column of the record that must be 1; -1: none
    # Of a measurement: its column, and 1 if the bit is the opposite of the value. Its second
    # segment, if there is one, begins with the bit; else the first one goes on. Its operators are
    # the probabilities that 0 is read as 1, and 1 as 0. Of an event: its integers.
    record: tuple[int, ...] = ()


class Pair(msgspec.Struct, frozen=True, gc=False):
    """Diagonal gate: factor [value of the first segment, value of the second]."""

    segments: tuple[int, int]
    factor: Matrix


class Structure(msgspec.Struct, frozen=True):
    """What the order and the program of lines depend on; the fields are those of `Lines`."""

    first: tuple[int, ...]
    layers: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]  # segments of each diagonal gate

    @property
    def parts(self) -> int:
        """Values that are drawn, times layers, with which the length of a program grows."""
        return self.first[-1] * self.num_layers

    @property
    def num_layers(self) -> int:
        return max(self.layers, default=0)


class Lines(msgspec.Struct, frozen=True):
    """Segments are numbered line by line: those of line n are first[n] .. first[n + 1] - 1."""

    first: tuple[int, ...]
    unitaries: tuple[Matrix, ...]  # of each segment: the unitary that begins it
    draws: tuple[int, ...]  # of each segment: number of its random draw
    layers: tuple[int, ...]  # of each segment: 0 for the first ones, which are not drawn
    pairs: tuple[Pair, ...]  # in order of action
    errors: tuple[Error, ...]
    inserts: tuple[tuple[int, ...], ...]  # of each row of the noise table: its errors
    line_of: tuple[int, ...]  # of each qubit, at the end
    flips: tuple[bool, ...]  # of each line, at the end: the bit is the opposite of the value
    certain: tuple[int, ...] = ()  # numbers of the errors of every shot
    columns: int = 0  # of the record of a shot
    column_of: tuple[int, ...] = ()  # of each clbit; -1: no measurement before the end writes it

    @property
    def structure(self) -> Structure:
        return Structure(self.first, self.layers, tuple(pair.segments for pair in self.pairs))


def lines_of(
    circuit: Circuit,
    params: NDArray[np.float64],
    table: NoiseTable | None = None,
    amid: MidCircuit | None = None,
) -> Lines:
    """Lines of an admissible circuit. `amid`: None if no measurement, reset or condition precedes
    the end. Raises Unsupported for loops, gates on more than MOST_QUBITS qubits, and channels on
    two that move amplitude."""
    operations = list(with_matrices(circuit, params))
    rows = [] if table is None else table.table.tolist()
    merged: dict[int, Merged | None] = {}  # by place; None: a gate that is part of one
    for each in merged_gates(operations, circuit.num_qubits, rows):
        merged |= dict.fromkeys((at for at, _ in each.singles), None)
        merged |= {each.first: each, each.last: each}
    builder = _Builder(circuit, table, rows)
    builder.errors_after(-1)
    for operation, matrix in operations:
        place, qubits, code = operation.place, operation.qubits, operation.code
        if place in merged:
            builder.merge(place, merged[place])
        elif matrix is not None:
            builder.gate(place, qubits, matrix, operation.name)
        elif amid is None:
            pass
        elif code == gates.MEASURE:
            if amid.roles[place] != TERMINAL:
                error = amid.readout_error(place, qubits[0])
                builder.measure(qubits[0], operation.clbits[0], *error)
        elif code == gates.RESET:
            if amid.roles[place] != NO_OP_RESET:
                builder.reset(qubits[0], 1 + place)
        else:
            builder.control(place, code)
        builder.errors_after(place)
    return builder.finished()


Place = tuple[int, int]  # line, and segment there


class _Line:
    """A line while it is built."""

    __slots__ = ("begun", "draws", "layer", "layers", "number", "pending", "place", "unitaries")

    def __init__(self) -> None:
        self.unitaries: list[Matrix] = [_ONE]  # of each segment
        self.draws, self.layers = [0], [0]
        self.pending: Matrix = _ONE  # since the last segment began
        self.place = 0  # draw number of the pending unitary
        self.layer = 0  # least layer of what was drawn so far
        self.number = 0  # diagonal gates on the segment
        self.begun = -1  # number of the measurement with whose bit it begins, if nothing acted yet


class _Errors:
    """Errors of a program so far."""

    def __init__(self) -> None:
        self.errors: list[Error] = []
        self.ends: list[list[tuple[int, int]]] = []  # of each error: line, and segment there
        self.inserts: list[list[int]] = []  # of each insert of the noise table: its errors
        # Pauli errors of a location by line and letter, and whether they act behind a merged gate.
        self.paulis: dict[tuple[int, int, Letters, bool], int] = {}


class _Builder:
    def __init__(self, circuit: Circuit, table: NoiseTable | None, rows: list[list[int]]) -> None:
        num_qubits = circuit.num_qubits
        self._num_clbits = circuit.num_clbits
        self._columns = RecordColumns()
        self._flow = Flow(circuit, self._columns)
        self._certain: list[int] = []
        self._lines = [_Line() for _ in range(num_qubits)]
        self._line_of = list(range(num_qubits))
        self._pairs: list[tuple[Place, Place, Matrix]] = []
        self._gates: dict[tuple[Place, Place], int] = {}  # the first one between two segments
        self._table = table
        self._rows = rows
        self._locations = [] if table is None else table.draw_locations.tolist()
        self._next = 0
        self._noise = _Errors()
        self._sets: dict[int, Matrix] = {}  # of the noise table
        # Results of `_turned`, with the operators, so that these keep their ids.
        self._forms: dict[tuple[int | bytes, ...], tuple[Matrix, Matrix | None]] = {}
        self._merging: dict[int, Merged] = {}  # by qubit, while its gates are read
        # Errors to add behind a merged gate, by its last place: of insert, location, qubit.
        self._behind: dict[int, list[tuple[int, int, int, Letters]]] = {}
        # Errors within the pending unitaries, with what of these acts before them.
        self._within: list[list[tuple[int, Matrix]]] = [[] for _ in range(num_qubits)]
        self._known: dict[tuple[bytes, bool], list[Step]] = {}

    def gate(self, place: int, qubits: tuple[int, ...], matrix: Matrix, name: str) -> None:
        matrix = np.asarray(matrix, np.complex128)
        if len(qubits) == 1:
            self._single(self._line_of[qubits[0]], matrix, 1 + place)
        elif len(qubits) == 2:
            self._double(place, qubits, matrix)
        elif len(qubits) > MOST_QUBITS:
            raise Unsupported(
                f"{name} on {len(qubits)} qubits; engine 'sweep' takes gates on {MOST_QUBITS}",
                hint="decompose it: qiskit.transpile with basis_gates=['u', 'cz', 'rzz']",
            )
        elif qubits:
            first = 0
            for own, part in parts_of(name, matrix.tobytes()):
                where = tuple(qubits[q] for q in own)
                if len(own) == 1:
                    self._single(self._line_of[where[0]], part, _draw_of_part(place, first, 0))
                    first += 1
                else:
                    first += self._double(place, where, part, first)

    def merge(self, place: int, merged: Merged | None) -> None:
        """Read the first or the last of two gates that become one, or (None) a gate between."""
        if merged is None:
            return
        is_last = place == merged.last
        if is_last:
            del self._merging[merged.control], self._merging[merged.target]
            self._double(place, (merged.target, merged.control), merged.matrix)
            for insert, location, qubit, letters in self._behind.pop(place, ()):
                error = self._pauli(location, self._line_of[qubit], letters, behind=True)
                self._noise.inserts[insert].append(error)
        else:
            self._merging |= {merged.control: merged, merged.target: merged}
        if merged.flipped[is_last]:
            draw = _draw_of_part(place, -1, 0)
            self._single(self._line_of[merged.target], _HADAMARD, draw)

    def _single(self, number: int, matrix: Matrix, draw: int) -> None:
        line = self._lines[number]
        line.begun = -1
        if self._flow.flag >= 0:
            self._certain.append(self._add(draw, number, matrix[None]))
            line.place = draw
            return
        line.pending = _rounded(matrix @ line.pending)
        line.place = draw

    def _double(self, place: int, qubits: tuple[int, ...], matrix: Matrix, before: int = 0) -> int:
        """Add a gate on two qubits, after `before` steps of the same operation; returns the number
        of its own."""
        first, second = (self._line_of[q] for q in qubits)
        is_bound = self._flow.flag >= 0  # by a condition
        key = matrix.tobytes(), is_bound
        steps = self._known.get(key)
        if steps is None:
            steps = self._known[key] = list(_diagonal_steps(matrix, swaps=not is_bound))
        for part, (kind, one, two) in enumerate(steps):
            if kind == "swap":
                a, b = qubits
                self._line_of[a], self._line_of[b] = self._line_of[b], self._line_of[a]
                first, second = second, first
            elif kind == "pair":
                if is_bound:
                    diagonal = np.diag(one.T.ravel())[None]
                    self._certain.append(self._add_pair(1 + place, [first, second], diagonal))
                else:
                    self._pair(first, second, one)
            else:
                for side, (number, own) in enumerate(((first, one), (second, two))):
                    if own is not _ONE:
                        self._single(number, own, _draw_of_part(place, before + part, side))
        return len(steps)

    def _pair(self, first: int, second: int, factor: Matrix) -> None:
        flips = []
        for number in (first, second):
            if not self._keeps_values(number):
                self._close(number)
            flips.append(_flips(self._lines[number].pending))
        factor = factor[::-1] if flips[0] else factor
        factor = factor[:, ::-1] if flips[1] else factor
        one, two = self._lines[first], self._lines[second]
        segments = (first, len(one.unitaries) - 1), (second, len(two.unitaries) - 1)
        self._append_pair(*segments, np.ascontiguousarray(factor))
        one.begun = two.begun = -1
        one.layer = two.layer = max(one.layer, two.layer)

    def measure(self, qubit: int, clbit: int, draw: int, p01: float, p10: float) -> None:
        """Measure a qubit into the record. Its line ends with the known value, and another one
        begins with it; under a condition the line goes on."""
        number = self._line_of[qubit]
        if not self._keeps_values(number):
            self._close(number)
        line, flag = self._lines[number], self._flow.flag
        column = self._columns.of(clbit)
        layer = self._columns.use((column, flag), line.layer)
        flipped, ends = int(_flips(line.pending)), [(number, len(line.unitaries) - 1)]
        line.begun = -1
        if flag < 0:
            line = self._begin(qubit, layer)
            line.begun = len(self._noise.errors)
            ends.append((self._line_of[qubit], 0))
        line.layer = layer
        rates = np.array([p01, p10], np.complex128)
        error = Error(MEASURED, (), (), rates, layer, draw, flag=flag, record=(column, flipped))
        self._certain.append(self._append(error, ends))

    def _begin(self, qubit: int, layer: int) -> _Line:
        """Begin a new line of a qubit."""
        line = _Line()
        line.layer = layer
        self._line_of[qubit] = len(self._lines)
        self._lines.append(line)
        self._within.append([])
        return line

    def reset(self, qubit: int, draw: int) -> None:
        """Begin a new line at 0; under a condition the line goes on."""
        number, flag = self._line_of[qubit], self._flow.flag
        if flag >= 0:
            lower = np.zeros((2, 2, 2), np.complex128)
            lower[0, 0, 0] = lower[1, 0, 1] = 1.0
            self._certain.append(self._add(draw, number, lower))
            return
        begun = self._lines[number].begun
        if begun >= 0:  # nothing acts between the measurement and the reset
            self._noise.ends[begun] = self._noise.ends[begun][:1]
            self._lines[number].begun = -1
            self._lines[number].layer = 0
        else:
            self._begin(qubit, 0)

    def control(self, place: int, code: int) -> None:
        """Read the begin or end of a block, or a store."""
        event = self._flow.operation(place, code)
        if event is not None:
            self._record(event)

    def _record(self, event: Event) -> None:
        layer = self._columns.use((*event.reads, *event.writes, event.flag))
        error = Error(
            RECORDED, (), (), np.zeros((0, 2, 2), np.complex128), layer, 0, flag=event.flag,
            record=event.integers,
        )  # fmt: skip
        self._certain.append(self._append(error, []))

    def _keeps_values(self, number: int) -> bool:
        """Return whether what acts on a line since its last segment began permutes values."""
        return not self._within[number] and _moves(self._lines[number].pending) is not None

    def _close(self, number: int) -> None:
        """Begin a segment with the pending unitary."""
        line = self._lines[number]
        line.layer += 1
        line.unitaries.append(line.pending)
        line.draws.append(line.place)
        line.layers.append(line.layer)
        at = len(line.unitaries) - 1
        for k, before in self._within[number]:
            error, after = self._noise.errors[k], line.pending @ before.conj().T
            error.operators = after @ error.operators @ after.conj().T
            error.layer = line.layer
            self._noise.ends[k] = [(number, at)]
        self._within[number] = []
        line.pending, line.number = _ONE, 0

    def errors_after(self, place: int) -> None:
        """Add the errors after an operation."""
        while self._next < len(self._rows) and self._rows[self._next][0] == place:
            insert, row = self._next, self._rows[self._next]
            self._next += 1
            _, which, _, _, *qubits = row
            numbers = [self._line_of[q] for q in qubits if q >= 0]
            location = self._locations[insert]
            own: list[int] = []
            self._noise.inserts.append(own)
            if which == PAULI:
                for qubit, letters in self._placed(insert, row).items():
                    if letters != (0, 0):
                        own.append(self._pauli(location, self._line_of[qubit], letters))
            else:
                operators = self._operators(which, len(numbers))
                if len(numbers) == 1:
                    own.append(self._add(location, numbers[0], operators))
                else:
                    own.append(self._add_pair(location, numbers, operators))

    def _operators(self, which: int, num_qubits: int) -> Matrix:
        """Operators of a set of the noise table."""
        if which not in self._sets:
            assert self._table is not None  # it has the insert
            self._sets[which] = _operators(self._table, which, num_qubits)
        return self._sets[which]

    def _placed(self, insert: int, row: list[int]) -> dict[int, Letters]:
        """Letters of a Pauli error on each qubit, without those that act behind a merged gate."""
        place, _, x, z, *qubits = row
        letters = {q: (x >> j & 1, z >> j & 1) for j, q in enumerate(qubits) if q >= 0}
        if not self._merging:
            return letters
        for merged in {id(m): m for q in qubits if (m := self._merging.get(q))}.values():
            carried = merged.carried(place, *letters_of(merged, row))
            assert carried is not None  # see `merged_gates`
            both = merged.control, merged.target
            for qubit, before, behind in zip(both, *carried, strict=True):
                letters[qubit] = before
                if behind != (0, 0):
                    entry = insert, self._locations[insert], qubit, behind
                    self._behind.setdefault(merged.last, []).append(entry)
        return letters

    def _pauli(self, location: int, number: int, letters: Letters, *, behind: bool = False) -> int:
        """Number of a Pauli error, which errors on pairs share."""
        key = location, number, letters, behind
        if key not in self._noise.paulis:
            self._noise.paulis[key] = self._add(location, number, _PAULIS[letters])
        return self._noise.paulis[key]

    def _turned(self, operators: Matrix, *pending: Matrix) -> Matrix | None:
        """Operators as they act before pending unitaries; None if any does not permute values
        there, up to factors."""
        key: tuple[int | bytes, ...] = (id(operators), *(each.tobytes() for each in pending))
        if key not in self._forms:
            turn = pending[0] if len(pending) == 1 else np.kron(pending[1], pending[0])
            own = _rounded(turn.conj().T @ operators @ turn)
            self._forms[key] = (
                operators,
                own if _all_move(own) else None,
            )  # `operators` keeps its id
        return self._forms[key][1]

    def _append(self, error: Error, ends: list[tuple[int, int]]) -> int:
        self._noise.errors.append(error)
        self._noise.ends.append(ends)
        return len(self._noise.errors) - 1

    def _add(self, location: int, number: int, operators: Matrix) -> int:
        line, flag = self._lines[number], self._flow.flag
        line.begun = -1
        line.layer = max(line.layer, self._columns.layer(flag))
        drawn = len(operators) > 1
        if drawn and self._choices(number) * len(operators) > _MOST_CHOICES:
            self._close(number)
            line.place += 1 << 52  # no other unitary may follow before the next draw
        # Before the pending unitary, if nothing is drawn within it: Paulis stay Paulis there.
        own = None if self._within[number] else self._turned(operators, line.pending)
        if own is None:
            kind = DRAWN_WITHIN if drawn else WITHIN
            added = self._append(Error(kind, (), (), operators, 0, location, flag=flag), [])
            self._within[number].append((added, line.pending))
            return added
        kind = DRAWN_ON_SEGMENT if drawn else ON_SEGMENT
        error = Error(kind, (), (line.number,), own, line.layer, location, flag=flag)
        return self._append(error, [(number, len(line.unitaries) - 1)])

    def _choices(self, number: int) -> int:
        """Number of combinations of the operators that are drawn within a pending unitary."""
        return math.prod(len(self._noise.errors[k].operators) for k, _ in self._within[number])

    def _add_pair(self, location: int, numbers: list[int], operators: Matrix) -> int:
        """Add a channel on two qubits, each of whose operators permutes values up to factors."""
        for number in numbers:
            if not self._keeps_values(number):
                self._close(number)
        one, two = (self._lines[number] for number in numbers)
        own = self._turned(operators, one.pending, two.pending)
        if own is None:
            raise Unsupported(
                "engine 'sweep' takes channels on two qubits only if each of their operators"
                " permutes the states 0 and 1 up to factors, as relaxation and Pauli errors do",
                hint=OTHER_ENGINE,
            )
        gate, flag = self._gate_of(*numbers), self._flow.flag
        one.begun = two.begun = -1
        one.layer = two.layer = max(one.layer, two.layer, self._columns.layer(flag))
        at = [(number, len(self._lines[number].unitaries) - 1) for number in numbers]
        before = one.number, two.number
        error = Error(DRAWN_ON_PAIR, (), before, own, one.layer, location, gate, flag)
        return self._append(error, at)

    def _gate_of(self, first: int, second: int) -> int:
        """Diagonal gate between the present segments of two lines, a new one if there is none."""
        one, two = ((n, len(self._lines[n].unitaries) - 1) for n in (first, second))
        if (two, one) in self._gates:
            return 2 * self._gates[two, one] + 1
        if (one, two) not in self._gates:
            self._append_pair(one, two, np.ones((2, 2), np.complex128))
        return 2 * self._gates[one, two]

    def _append_pair(self, one: Place, two: Place, factor: Matrix) -> None:
        self._gates.setdefault((one, two), len(self._pairs))
        self._pairs.append((one, two, factor))
        self._lines[one[0]].number += 1
        self._lines[two[0]].number += 1

    def finished(self) -> Lines:
        for number in range(len(self._lines)):
            if not self._keeps_values(number):
                self._close(number)
        sizes = [len(line.unitaries) for line in self._lines]
        first = [0, *np.cumsum(sizes).tolist()]
        for error, ends in zip(self._noise.errors, self._noise.ends, strict=True):
            error.segments = tuple(first[number] + segment for number, segment in ends)
        pairs = tuple(
            Pair((first[a] + s, first[b] + t), factor) for (a, s), (b, t), factor in self._pairs
        )
        return Lines(
            tuple(first),
            tuple(each for line in self._lines for each in line.unitaries),
            tuple(each for line in self._lines for each in line.draws),
            tuple(each for line in self._lines for each in line.layers),
            pairs, tuple(self._noise.errors), tuple(map(tuple, self._noise.inserts)),
            tuple(self._line_of),
            tuple(_flips(line.pending) for line in self._lines), tuple(self._certain),
            self._columns.count,
            tuple(self._columns.of_bit.get(clbit, -1) for clbit in range(self._num_clbits)),
        )  # fmt: skip


def _draw_of_part(place: int, part: int, side: int) -> int:
    """Number of a draw that no operation has: of a part of one, on one of two lines."""
    return 1 + place + (2 * part + side + 1 << 40)


def _operators(table: NoiseTable, which: int, num_qubits: int) -> Matrix:
    """Operators of a set with sum K^+ K = 1: those of the table are divided by their norms."""
    sets = table.operators.sets[which]
    count, size = int(sets[COUNT]), 1 << num_qubits
    at = int(sets[FIRST])
    values = table.operators.matrices[at : at + 2 * count * size * size].view(np.complex128)
    scaled = values.reshape(count, size, size)
    effects = table.operators.effects[at : at + 2 * count * size * size].view(np.complex128)
    wanted = np.trace(effects.reshape(count, size, size), axis1=1, axis2=2).real
    has = np.square(np.abs(scaled)).sum(axis=(1, 2))
    return _rounded(scaled * np.sqrt(wanted / has)[:, None, None], _SMALL)


def _all_move(operators: Matrix) -> bool:
    """Return whether each operator permutes values, up to factors."""
    index = np.arange(operators.shape[1])
    masks = index[:, None] ^ index
    here = np.abs(operators) >= _ZERO
    least = np.where(here, masks, index.size).min(axis=(1, 2))
    return bool((least == np.where(here, masks, -1).max(axis=(1, 2))).all())


def _rounded(matrix: Matrix, least: float = _ZERO) -> Matrix:
    """Matrix without elements that are rounding errors of zero."""
    return np.where(np.abs(matrix) < least, 0.0, matrix)


def _moves(matrix: Matrix) -> int | None:
    """Mask m with which a matrix maps each value v to v ^ m, up to factors, 0 included; None if it
    has no such form."""
    rows, columns = np.nonzero(np.abs(matrix) >= _ZERO)
    masks = rows ^ columns
    return int(masks[0]) if masks.size and (masks == masks[0]).all() else None


def _flips(matrix: Matrix) -> bool:
    return _moves(matrix) == 1


Step = tuple[str, Matrix, Matrix]  # "pair": a factor; "single": a unitary on each; "swap"


def _diagonal_steps(matrix: Matrix, *, swaps: bool = True) -> Iterator[Step]:
    """Steps of a gate on two qubits; its first qubit is the lowest bit of an index. `swaps`: some
    may be swaps."""
    gate = matrix.reshape(2, 2, 2, 2)  # [second', first', second, first]
    for control in (0, 1):
        for flip in (False, True):
            blocks = _blocks(gate, control, flip)
            if blocks is not None:
                yield from _controlled(*blocks, control, flip=flip)
                return
    yield from _canonical(matrix, swaps=swaps)


def _blocks(gate: Matrix, control: int, flip: bool) -> tuple[Matrix, Matrix] | None:
    """Unitaries on the other qubit for each value of a control, which keeps it, or flips it."""
    blocks = []
    for value in (0, 1):
        where = value ^ flip
        keeps, others = (
            (gate[:, out, :, value] if control == 0 else gate[out, :, value, :])
            for out in (where, 1 - where)
        )
        if np.abs(others).max() > _ZERO:
            return None
        blocks.append(keeps)
    return blocks[0], blocks[1]


def _controlled(zero: Matrix, one: Matrix, control: int, *, flip: bool) -> Iterator[Step]:
    def placed(target: Matrix, own: Matrix = _ONE) -> Step:
        return ("single", own, target) if control == 0 else ("single", target, own)

    both = zero.conj().T @ one
    off = np.abs(both - np.diag(both.diagonal())).max()
    if off < _ZERO:
        values, kets = both.diagonal(), _ONE
    else:
        values, kets = _eigen(both)
        yield placed(kets.conj().T)
    factor = np.array([[1.0, 1.0], values], np.complex128)
    yield "pair", factor if control == 0 else factor.T.copy(), _ONE
    yield placed(zero @ kets, _FLIP if flip else _ONE)


def _eigen(unitary: Matrix) -> tuple[NDArray[np.complex128], Matrix]:
    """Eigenvalues and orthonormal eigenvectors of a unitary [2, 2] that is not diagonal."""
    phase = np.sqrt(np.linalg.det(unitary) + 0j)
    special = unitary / phase  # cos t - i sin t (n . sigma)
    axis = (1j * (special - special.conj().T)) / 2.0
    _, kets = np.linalg.eigh(axis)
    values = np.einsum("ik,ij,jk->k", kets.conj(), unitary, kets)
    return values / np.abs(values), kets


def _canonical(matrix: Matrix, *, swaps: bool) -> Iterator[Step]:
    """Steps by K1 exp(i (a XX + b YY + c ZZ)) K2."""
    from qiskit.synthesis import TwoQubitWeylDecomposition  # here: importing it takes 0.3 s

    parts = TwoQubitWeylDecomposition(matrix, fidelity=None)
    angles = [parts.a, parts.b, parts.c]
    yield "single", np.asarray(parts.K2r), np.asarray(parts.K2l)
    swaps = swaps and all(abs(abs(angle) - _QUARTER) < 1e-12 for angle in angles[:2])
    if swaps:  # exp(i pi/4 (XX + YY + ZZ)) is a swap, up to a phase
        angles = [angles[0] - _QUARTER, angles[1] - _QUARTER, angles[2] - _QUARTER]
    for angle, basis in zip(angles, (_HADAMARD, _TO_Y, _ONE), strict=True):
        angle = (angle + np.pi / 2.0) % np.pi - np.pi / 2.0
        if abs(angle) < _ZERO:
            continue
        yield "single", basis.conj().T, basis.conj().T
        if abs(abs(angle) - np.pi / 2.0) < 1e-12:  # a Pauli on each
            yield "single", _Z, _Z
        else:
            same, other = np.exp(1j * angle), np.exp(-1j * angle)
            yield "pair", np.array([[same, other], [other, same]]), _ONE
        yield "single", basis, basis
    if swaps:
        yield "swap", _ONE, _ONE
    yield "single", np.asarray(parts.K1r), np.asarray(parts.K1l)
