"""Circuit representation: arrays, tokens of expressions, operations, and example circuits."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import is_named_measurement
from simulators.circuit import gates

# Circuit representation: views on flat arrays, without copies of the received bytes.
#
# The arrays have the layout of the wire format: operation k is row `ops[k]` of the table; its
# qubits, clbits and parameters are the next ones of the flat arrays, in the numbers of that row. A
# Circuit may hold any received bytes; only one that `admission.validation_error` admits may go to
# an engine. Tables of operation names are resolved once and cached, since most circuits share a few
# of them.

MAX_NESTING = 100  # levels of blocks
FINDINGS = 21  # numbers that `validation.operations` reports
FOUND = FINDINGS + MAX_NESTING  # size of its findings and scratch
FOUND_WIDE = FOUND + 65_536  # the same for a table with operations on more than 8 qubits

_KEPT = 1024  # tables kept; the cache is emptied when full, so a hostile client cannot grow it
_KEPT_ROWS = 64  # a larger table is not kept

_cache: dict[tuple[tuple[str, ...], bytes], Table] = {}


class Table(msgspec.Struct, frozen=True, eq=False):
    """Names with their codes and arities; `problem`: the fault of the table, or ""."""

    names: tuple[str, ...]
    rows: NDArray[np.int64]  # [names, 4]: code (UNKNOWN: no such), qubits, clbits, parameters
    matrix: NDArray[np.int64]  # [names]: matrix of the circuit for each row, or -1
    problem: str
    found_size: int  # size of the array for findings


def table_of(names: tuple[str, ...], arities: bytes) -> Table:
    """Table of `names` and their `arities` (uint16 [names, 3]); never raises."""
    key = (names, arities)
    result = _cache.get(key)
    if result is None:
        result = _build(names, arities)
        if len(names) <= _KEPT_ROWS:
            if len(_cache) >= _KEPT:
                _cache.clear()
            _cache[key] = result
    return result


def _build(names: tuple[str, ...], arities: bytes) -> Table:
    if len(arities) != 6 * len(names):
        text = f"{len(names)} operation names with {len(arities)} bytes of arities, not 6 each"
        return Table(names, np.zeros((0, 4), np.int64), np.zeros(0, np.int64), text, FOUND)
    # Lists first: of a few rows, calls of numpy take longer than all else. Many rows are matrices.
    rows: list[tuple[int, ...]] = []
    matrix: list[int] = []
    resolved: dict[tuple[str, tuple[int, ...]], tuple[tuple[int, ...], int]] = {}
    problem, matrices, widest = "", 0, 0
    for shape in zip(names, struct.iter_unpack("<3H", arities), strict=True):
        entry = resolved.get(shape)
        if entry is None:
            name, counts = shape
            code, fault = _resolve(name, *counts)
            entry = resolved[shape] = (code, *counts), int(code == gates.UNITARY)
            problem, widest = problem or fault, max(widest, counts[0])
        row, is_matrix = entry
        rows.append(row)
        matrix.append(matrices if is_matrix else -1)
        matrices += is_matrix
    found_size = FOUND_WIDE if widest > 8 else FOUND
    table = np.array(rows, np.int64).reshape(-1, 4)
    return Table(names, table, np.array(matrix, np.int64), problem, found_size)


def _resolve(name: str, qubits: int, clbits: int, params: int) -> tuple[int, str]:
    gate = gates.GATES.get(name)
    if gate is not None:
        code, wanted = gate.code, (gate.qubits, 0, gate.params)
    elif name in gates.OTHERS or is_named_measurement(name):
        entry = gates.OTHERS[name if name in gates.OTHERS else "measure"]
        code, wanted = entry[0], entry[1:]
    else:
        return gates.UNKNOWN, f"unknown gate {name[:64]!r}"
    least = 1 if code == gates.UNITARY or (gate is not None and gate.qubits == gates.ANY) else 0
    if code == gates.UNITARY and qubits > gates.MAX_UNITARY_QUBITS:
        return code, f"a matrix on {qubits} qubits; the limit is {gates.MAX_UNITARY_QUBITS}"
    fits = qubits == wanted[0] or (wanted[0] == gates.ANY and qubits >= least)
    if fits and (clbits, params) == wanted[1:]:
        return code, ""
    count = "any number of" if wanted[0] == gates.ANY else str(wanted[0])
    return code, (
        f"{name!r} takes {count} qubits, {wanted[1]} clbits and {wanted[2]} parameters,"
        f" not {qubits}, {clbits} and {params}"
    )


MAX_QUBITS = 65_535
MAX_CLBITS = 65_535

_NO_STARTS: NDArray[np.int64] = np.zeros(0, np.int64)


class _ArrayField:
    """Descriptor: a field of bytes as an array, made at the first access and kept in the circuit. A
    process that handles thousands of circuits a second and reads only bytes makes no arrays."""

    __slots__ = ("_data", "_dtype", "_name")

    def __init__(self, data: str, dtype: type[np.generic]) -> None:
        self._data = data
        self._dtype = np.dtype(dtype)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, circuit: Any, owner: type | None = None) -> Any:
        if circuit is None:
            return self
        built = circuit.__dict__[self._name] = np.frombuffer(
            getattr(circuit, self._data), self._dtype
        )
        return built


class Circuit(msgspec.Struct, frozen=True, eq=False, dict=True):
    """One circuit: the received bytes, and arrays that are read-only views of them, C-contiguous
    and aligned."""

    num_qubits: int
    num_clbits: int
    registers: tuple[tuple[str, int], ...]  # (name, size), laid out from clbit 0
    table: Table
    ops_data: bytes  # bytes of the arrays below
    qubits_data: bytes
    clbits_data: bytes
    params_data: bytes
    num_slots: int = 0
    slots_data: bytes = b""
    conditions_data: bytes = b""
    constants: tuple[bytes, ...] = ()  # unsigned, little-endian, any width
    variables: tuple[int, ...] = ()  # width in bits of each; 0: a Bool
    matrices: tuple[bytes, ...] = ()  # complex128 [2**q, 2**q] of each row `unitary` of the table
    labels: tuple[str, ...] = ()  # name of each row of the table in a noise model; (): its own
    fault: str = ""  # fault of a buffer; `admission.validation_error` reports it

    if TYPE_CHECKING:

        @property
        def ops(self) -> NDArray[np.uint16]:
            """[operations]"""

        @property
        def qubits(self) -> NDArray[np.uint16]: ...

        @property
        def clbits(self) -> NDArray[np.uint16]: ...

        @property
        def params(self) -> NDArray[np.float64]:
            """Radians; 0.0 where a slot fills it."""

        @property
        def slots(self) -> NDArray[np.int32]:
            """Flat pairs: position in `params`, slot number."""

        @property
        def conditions(self) -> NDArray[np.int32]:
            """Flat triples: token, operand, width."""

    else:
        ops = _ArrayField("ops_data", np.uint16)
        qubits = _ArrayField("qubits_data", np.uint16)
        clbits = _ArrayField("clbits_data", np.uint16)
        params = _ArrayField("params_data", np.float64)
        slots = _ArrayField("slots_data", np.int32)
        conditions = _ArrayField("conditions_data", np.int32)

    @property
    def noise_names(self) -> tuple[str, ...]:
        """Name of each row of the table in a noise model."""
        return self.labels or self.table.names

    @classmethod
    def from_program(cls, program: msgspec.Struct) -> Circuit:
        """Make a circuit from a packed program: a Struct with a format number and then the fields
        of `CircuitData`. Never raises on any bytes."""
        return CircuitData(*msgspec.structs.astuple(program)[1:]).circuit()


class CircuitData(msgspec.Struct, frozen=True, gc=False):
    """Fields of a program; the bytes are those of the arrays of `Circuit`."""

    num_qubits: int
    num_clbits: int
    registers: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    arities: bytes
    ops: bytes
    qubits: bytes
    clbits: bytes
    params: bytes
    num_slots: int = 0
    slots: bytes = b""
    conditions: bytes = b""
    constants: tuple[bytes, ...] = ()
    variables: tuple[int, ...] = ()
    matrices: tuple[bytes, ...] = ()
    labels: tuple[str, ...] = ()

    def circuit(self) -> Circuit:
        """Make a circuit without copies. Never raises on any bytes."""
        ops, qubits, clbits, params = self.ops, self.qubits, self.clbits, self.params
        slots, conditions, fault = self.slots, self.conditions, ""
        if (len(ops) | len(qubits) | len(clbits)) & 1 or len(params) & 7:
            fault = "ops, qubits or clbits is not a multiple of 2 bytes, or params not of 8"
        elif len(slots) & 7 or len(conditions) % 12:
            fault = "slots is not a multiple of 8 bytes, or conditions not of 12"
        elif len(self.labels) not in (0, len(self.names)):
            fault = f"{len(self.labels)} labels for {len(self.names)} names of operations"
        if fault:
            ops = qubits = clbits = params = slots = conditions = b""
        return Circuit(
            self.num_qubits, self.num_clbits, self.registers, table_of(self.names, self.arities),
            ops, qubits, clbits, params, self.num_slots, slots, conditions, self.constants,
            self.variables, self.matrices, self.labels, fault,
        )  # fmt: skip


# Name of a classical register that outputs leave out; see `execution.hidden_bits`.
HIDDEN_REGISTER = "simenv_hidden"


def shown_clbits(circuit: Circuit) -> NDArray[np.int64] | None:
    """Clbits of outputs, int64, ascending; None: all are."""
    if not any(name == HIDDEN_REGISTER for name, _ in circuit.registers):
        return None
    sizes = [size for _, size in circuit.registers]
    shown = np.repeat([name != HIDDEN_REGISTER for name, _ in circuit.registers], sizes)
    return np.flatnonzero(shown[: circuit.num_clbits])


def register_starts(circuit: Circuit) -> NDArray[np.int64]:
    """First clbit of each register, and the end of the last: int64 [registers + 1]. Empty for a
    circuit without expressions, which does not need it."""
    if not circuit.conditions_data:
        return _NO_STARTS
    sizes = (size for _, size in circuit.registers)
    return np.fromiter(itertools.accumulate(sizes, initial=0), np.int64)


def variable_starts(circuit: Circuit) -> tuple[int, ...]:
    """First bit of each variable in a record, and the end of the last. A record that holds
    variables has them after the words of the clbits; a Bool takes one bit."""
    first = 64 * num_words(circuit.num_clbits)
    return tuple(itertools.accumulate((max(1, w) for w in circuit.variables), initial=first))


def record_words(circuit: Circuit) -> int:
    """uint64 words of a record that holds the clbits and the variables."""
    return (variable_starts(circuit)[-1] + 63) // 64


def num_words(num_bits: int) -> int:
    """Number of uint64 words for this number of bits; at least one."""
    return max(1, (num_bits + 63) // 64)


def outcome_width(num_bits: int) -> int:
    """Bytes of one packed outcome: 1, 2, 4, 8, or as many as needed beyond 64 bits."""
    for width in (1, 2, 4, 8):
        if num_bits <= 8 * width:
            return width
    return (num_bits + 7) // 8


# Tokens of an expression: postfix, over clbits, registers, variables and constants.
#
# Rows are (token, operand, width); widths are bits, a Bool has width 0. The numbers are those of
# the wire form; a test compares the two. END closes an expression. CLBIT, REGISTER and VARIABLE
# push the one with the operand's number, VALUE the constant with this index; CAST is to the width;
# INDEX takes a value and an index, and pushes a Bool. SET_CLBIT, SET_REGISTER and SET_VARIABLE end
# a `store`: they take a value of the target's width, and leave nothing.

(
    END, CLBIT, REGISTER, VALUE, CAST, BIT_NOT, LOGIC_NOT, BIT_AND, BIT_OR, BIT_XOR, LOGIC_AND,
    LOGIC_OR, EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, SHIFT_LEFT, SHIFT_RIGHT,
    ADD, SUB, MUL, DIV, INDEX, VARIABLE, SET_CLBIT, SET_REGISTER, SET_VARIABLE,
) = range(29)  # fmt: skip


def used_qubits(circuit: Circuit) -> NDArray[np.intp]:
    """Qubits that operations other than barriers act on, ascending."""
    rows, qubits = circuit.table.rows, circuit.qubits
    if (rows[:, 0] == gates.BARRIER).any():
        used = rows[circuit.ops]
        qubits = qubits[np.repeat(used[:, 0] != gates.BARRIER, used[:, 1])]
    result = np.zeros(circuit.num_qubits, np.bool_)
    result[qubits] = True
    return np.flatnonzero(result)


# Iteration over a circuit's operations, for engines that pass them to a library.
#
# Only for circuits that `admission.validation_error` admitted.

_OPERATIONS_KEPT = 4_096  # shared matrices of one circuit


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One operation: its place in `Circuit.ops`, its kind, its operands."""

    place: int
    row: int  # of the table
    code: int
    name: str
    qubits: tuple[int, ...]
    clbits: tuple[int, ...]
    params: tuple[float, ...]  # radians

    @property
    def is_gate(self) -> bool:
        """True for an operation with a matrix."""
        return self.code >= gates.FIRST_GATE or self.code == gates.UNITARY


def operations(
    circuit: Circuit,
    params: NDArray[np.float64],
    handlers: Mapping[int, Callable[[list[int]], object]] | None = None,
) -> Iterator[Operation]:
    """Operations in order; `params`: the circuit's own, with all slots filled. Operations whose row
    of the table is in `handlers` are omitted: the handler is called with their qubits."""
    handlers = {} if handlers is None else handlers  # the caller may add handlers meanwhile
    rows, names = circuit.table.rows.tolist(), circuit.table.names
    qubits, clbits = circuit.qubits.tolist(), circuit.clbits.tolist()
    values = params.tolist()
    q = c = p = 0
    for place, row in enumerate(circuit.ops.tolist()):
        code, num_qubits, num_clbits, num_params = rows[row]
        taken = handlers.get(row)
        if taken is not None:
            taken(qubits[q : q + num_qubits])
            q, c, p = q + num_qubits, c + num_clbits, p + num_params
            continue
        yield Operation(
            place, row, code, names[row], tuple(qubits[q : q + num_qubits]),
            tuple(clbits[c : c + num_clbits]), tuple(values[p : p + num_params]),
        )  # fmt: skip
        q, c, p = q + num_qubits, c + num_clbits, p + num_params


def matrix(circuit: Circuit, operation: Operation) -> NDArray[np.complex128]:
    """Matrix [2**k, 2**k] of a gate; its first qubit is the lowest bit of an index."""
    count = len(operation.qubits)
    if operation.code == gates.UNITARY:
        result = circuit.matrices[circuit.table.matrix[operation.row]]
        return np.frombuffer(result, np.complex128).reshape(1 << count, 1 << count)
    return gates.unitary(operation.name, operation.params, count)


def with_matrices(
    circuit: Circuit, params: NDArray[np.float64]
) -> Iterator[tuple[Operation, NDArray[np.complex128] | None]]:
    """Operations in order with the matrices of gates, None for other operations. Equal gates share
    a matrix."""
    matrices: dict[tuple[int, tuple[float, ...]], NDArray[np.complex128]] = {}
    for operation in operations(circuit, params):
        if not operation.is_gate:
            yield operation, None
            continue
        key = operation.row, operation.params
        result = matrices.get(key)
        if result is None:
            result = matrix(circuit, operation)
            if len(matrices) < _OPERATIONS_KEPT:
                matrices[key] = result
        yield operation, result


# Small circuits that use all kinds of operations, for warm-up, health checks and examples.

_ROWS = {
    "h": (1, 0, 0), "cx": (2, 0, 0), "x": (1, 0, 0), "measure": (1, 1, 0), "reset": (1, 0, 0),
    "if": (0, 0, 0), "end": (0, 0, 0),
}  # fmt: skip


def _circuit(
    text: str, conditions: tuple[tuple[int, int, int], ...] = (), width: int = 2
) -> Circuit:
    """A circuit on `width` qubits and clbits from words such as `cx 0 1` separated by commas."""
    names = tuple(_ROWS)
    ops: list[int] = []
    qubits: list[int] = []
    clbits: list[int] = []
    for part in text.split(","):
        name, *operands = part.split()
        ops.append(names.index(name))
        count = _ROWS[name][0]
        qubits += [int(number) for number in operands[:count]]
        clbits += [int(number) for number in operands[count:]]
    return CircuitData(
        width, width, (("c", width),), names, np.array(list(_ROWS.values()), np.uint16).tobytes(),
        np.array(ops, np.uint16).tobytes(), np.array(qubits, np.uint16).tobytes(),
        np.array(clbits, np.uint16).tobytes(), b"",
        conditions=np.array(conditions, np.int32).tobytes(),
    ).circuit()  # fmt: skip


def bell() -> Circuit:
    """A Bell pair, both qubits measured: outcomes 0 and 3, half each."""
    return _circuit("h 0, cx 0 1, measure 0 0, measure 1 1")


def ghz(num_qubits: int) -> Circuit:
    """A GHZ state, all qubits measured: outcomes 0 and 2**num_qubits - 1, half each."""
    pairs = [f"cx {k} {k + 1}" for k in range(num_qubits - 1)]
    reads = [f"measure {k} {k}" for k in range(num_qubits)]
    return _circuit(", ".join(["h 0", *pairs, *reads]), width=num_qubits)


def feed_forward() -> Circuit:
    """Measure, reset, and flip the other qubit after outcome 1: outcomes 0 and 3, half each."""
    condition = ((CLBIT, 0, 0), (END, 0, 0))
    return _circuit("h 0, measure 0 0, reset 0, if, x 1, end, h 0, measure 1 1", condition)
