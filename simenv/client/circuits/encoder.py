"""Encoding of a QuantumCircuit as a Program, and expansion into definitions.

Operations that a Program has no name for are expanded into their definitions. Invariant: the number
of operations of a gate is known before any of them is written, and is counted once for each kind of
gate, so that definitions which double at every level are refused at once.

The encoding is one walk over the circuit's instructions. Invariant: the program has only names of
Qiskit's standard gates, `mcx` and `mcphase` of any width, `unitary`, `measure`, `reset`, `barrier`,
`delay` (ns), `delay_dt`, `global_phase`, `store` and block markers; every other operation is
expanded, or refused by name. A gate is never taken for a standard gate by its name alone: a defined
gate must have the matrix of that name, too.

Qubits keep the circuit's order. Clbits are renumbered so that registers follow one another in the
circuit's order of registers, and loose clbits come last.

For a noise model of channels, operations keep the names by which Qiskit Aer chooses their channels
(`ChannelNames`): a gate's label replaces its name, and gates that Aer runs as they are, but that a
Program has no name for, keep one name for their whole expansion.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from simenv.client.circuits import foreign_outputs, text_checks
from simenv.client.circuits.control_flow import (
    BitNumber,
    BlockWriter,
    ExpressionWriter,
    is_jump,
)
from simenv.client.circuits.program_builder import ProgramBuilder
from simenv.client.circuits.text_checks import MAX_OPERANDS
from simenv.errors import ProgramError, SimenvError
from simenv.model import MAX_CLBITS, MAX_QUBITS, MAX_UNITARY_QUBITS, Program, is_measurement
from simenv.transpiler.qiskit_runtime import least_operations, names

if TYPE_CHECKING:
    from simenv.client.circuits.standard_gates import StandardGateUse

_MOST_COMPARED = 64  # operations of a definition that is compared with a standard gate
_READERS = ("qiskit.qasm2.", "simenv.client.circuits.")  # modules of gates that come from text


@dataclass(frozen=True, slots=True)
class DefinitionBody:
    """A definition."""

    operation: Any  # referenced, so that its id, which may be the key, is not reused
    items: list[Any]
    qubits: list[Any]
    clbits: list[Any]
    phase: Any


class DefinitionExpander:
    """The definitions of one circuit. `is_plain`: returns whether an operation needs none."""

    __slots__ = ("_bodies", "_is_plain", "_sizes", "_standard")

    def __init__(self, is_plain: Callable[[Any], bool]) -> None:
        self._is_plain = is_plain
        self._bodies: dict[Any, DefinitionBody] = {}
        self._sizes: dict[Any, int] = {}
        self._standard: dict[Any, tuple[Any, StandardGateUse | None]] = {}

    def body(self, operation: Any) -> DefinitionBody:
        """Return the definition of an operation. Raises ProgramError if it is opaque or its
        definition cannot be computed."""
        key = _key(operation)
        body = self._bodies.get(key)
        if body is None:
            circuit = _definition(operation)
            data = circuit._data
            body = DefinitionBody(
                operation, list(data), data.qubits, data.clbits, circuit.global_phase
            )
            self._bodies[key] = body
        return body

    def size(self, operation: Any, depth: int = 0) -> int:
        """Return the number of operations in the full expansion. Raises LimitExceededError."""
        family, _ = _key(operation)
        cached = self._sizes.get(family)
        if cached is not None:
            return cached
        check_depth(depth, operation.name)
        total = least_operations(operation)
        if total > text_checks.MAX_OPERATIONS:  # before its definition is computed
            raise text_checks.too_many_operations()
        total = 1
        for item in self.body(operation).items:
            total += self._item(item, depth)
            if total > text_checks.MAX_OPERATIONS:
                raise text_checks.too_many_operations()
        self._sizes[family] = total
        return total

    def standard(self, operation: Any) -> StandardGateUse | None:
        """Return the standard gate that an operation defines by its name; None: it is another one,
        or its definition is too long for a comparison."""
        from simenv.client.circuits.standard_gates import standard_gate_use

        key = _key(operation)
        if key not in self._standard:
            is_short = self.size(operation) <= _MOST_COMPARED
            result = standard_gate_use(operation) if is_short else None
            self._standard[key] = operation, result  # the operation: see DefinitionBody
        return self._standard[key][1]

    def _item(self, item: Any, depth: int) -> int:
        if self._is_plain(item):
            return 1
        if not item.is_control_flow():
            return self.size(item.operation, depth + 1)
        check_depth(depth, item.name)
        blocks = (inner for block in _blocks(item.operation) for inner in block._data)
        return 3 + sum(self._item(inner, depth + 1) for inner in blocks)


def _blocks(operation: Any) -> Any:
    return getattr(operation, "blocks", ())


def check_depth(depth: int, name: str) -> None:
    """Raise ProgramError if definitions or blocks are nested too deeply."""
    if depth >= text_checks.MAX_NESTING:
        message = f"{name!r} is nested more than {text_checks.MAX_NESTING} definitions deep"
        hint = "define the gate from fewer layers (circuit.decompose() takes one away)"
        raise ProgramError(message, hint=hint)


def _key(operation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the kind of an operation and, if the definition depends on them, its parameters."""
    # Gates read from text are new objects for each use, with a lazy definition; those of one
    # statement share the table of gates they were read against.
    table = getattr(operation, "_gates", None)
    fresh = table and operation._definition is None
    if fresh and type(operation).__module__.startswith(_READERS):
        return (operation.name, id(table)), tuple(operation.params)
    return id(operation), ()


def _definition(operation: Any) -> Any:
    """Return the definition as a circuit, made by Qiskit. Raises ProgramError."""
    name = operation.name
    try:
        circuit = getattr(operation, "definition", None)
        if circuit is None:
            circuit = _synthesized(operation)
    except (SimenvError, RecursionError, MemoryError):
        raise
    except Exception as error:
        text = getattr(error, "message", "") or str(error) or type(error).__name__
        message = f"the definition of {name!r} cannot be made: {text}"
        hint = "check its parameters, or give it a definition of standard gates"
        raise ProgramError(message, hint=hint) from error
    if circuit is None:
        hint = foreign_outputs.hint_of(name)
        hint = hint or "give it a definition of standard gates, or remove it"
        raise ProgramError(f"{name!r} is opaque: it has no definition to expand", hint=hint)
    return circuit


def _synthesized(operation: Any) -> Any:
    """Synthesize an abstract operation, such as a Clifford, with Qiskit; None if Qiskit cannot."""
    if type(operation) in (names().Instruction, names().Gate):
        return None
    from qiskit.transpiler.passes import HighLevelSynthesis

    circuit = names().QuantumCircuit(operation.num_qubits, operation.num_clbits)
    circuit.append(operation, circuit.qubits, circuit.clbits)
    result = HighLevelSynthesis()(circuit)
    return None if any(item.name == operation.name for item in result._data) else result


# Gates that Aer runs as they are (`BASIS_GATES` of qiskit-aer 0.17), and that are expanded here.
_WHOLE = frozenset(
    {
        *("cu2", "diagonal", "initialize", "mcp", "mcr", "mcrx", "mcry", "mcrz", "mcswap", "mcsx"),
        *("mcu", "mcu1", "mcu2", "mcu3", "mcx_gray", "mcy", "mcz", "multiplexer", "pauli"),
    }
)
_UNLABELLED = frozenset({"delay", "diagonal", "initialize", "measure", "multiplexer", "reset"})
_OWN_NAMES = frozenset({"barrier", "delay_dt"})  # which no label replaces
_SILENT = ""  # label of an operation that no channel follows


class ChannelNames(msgspec.Struct, frozen=True):
    """Names of operations that a noise model has channels of. `whole`: gates that Aer runs as they
    are have one name, and no channel acts inside their expansion; False for a circuit that a
    compiler expands, as it does for Aer."""

    names: frozenset[str] = frozenset()
    whole: bool = True


def noise_name(item: Any) -> str:
    """Return the name by which Aer chooses the channels of an instruction: its label, if it is a
    gate or a matrix and has one; the string of a Pauli gate."""
    name: str = item.name
    if name == "pauli":
        return str(item.params[0])
    return name if name in _UNLABELLED else item.label or name


_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0, "ps": 1e-3}


class EncodedProgram(msgspec.Struct, frozen=True):
    """A program, and the parameter expressions of its slots, in order."""

    program: Program
    expressions: tuple[Any, ...]


class CircuitEncoder:
    """Encoder of one circuit. After an error `at` is the index of the failing instruction."""

    __slots__ = (
        *("_blocks", "_channels", "_circuit", "_expander", "_expanding", "_layout", "_plain"),
        *("_silent", "_tape", "at"),
    )

    def __init__(self, circuit: Any, channels: ChannelNames | None = None) -> None:
        """`channels`: of the noise model of the circuit's tasks; None: labels are not read."""
        self.at = -1
        self._channels = channels
        self._silent = False  # within a gate that has one name
        self._circuit = circuit
        self._tape = ProgramBuilder()
        self._plain: dict[Any, tuple[int, int]] = {}  # by name, and label if labels are read
        self._expander: DefinitionExpander | None = None
        self._expanding = 0  # nesting of definitions
        self._blocks: BlockWriter | None = None
        self._layout: ProgramLayout | None = None

    def run(self) -> EncodedProgram:
        """Encode the circuit. Raises ProgramError or LimitExceededError."""
        circuit, tape = self._circuit, self._tape
        laid = self._layout = layout(circuit)
        data = circuit._data
        if len(data) > text_checks.MAX_OPERATIONS:
            raise text_checks.too_many_operations()
        self._phase(data.global_phase)
        self._walk(data, laid.qubit_of, laid.clbit_of, 0)
        tape.check()
        program = tape.program(laid.num_qubits, laid.num_clbits, laid.registers)
        return EncodedProgram(program, tape.expressions)

    def _walk(
        self, items: Iterable[Any], qubit_of: BitNumber, clbit_of: BitNumber, depth: int
    ) -> None:
        # A third of a client's time is spent in this loop: it reads as few attributes as possible.
        tape, plain, unlabelled = self._tape, self._plain, self._channels is None
        add_op, add_qubits, add_param = tape.ops.append, tape.qubits.extend, tape.params.append
        measurement = names().Measure
        for at, item in enumerate(items):
            name = key = item.name
            if not unlabelled:
                key = name, self._label(item)
            if not item.is_standard_gate():
                if name == "measure" and isinstance(item.operation, measurement):
                    row = plain.get(key)
                    if row is None:
                        row = plain[key] = tape.row(name, 1, 1, 0, label=self._label(item)), 0
                    add_op(row[0])
                    add_qubits(map(qubit_of, item.qubits))
                    tape.clbits.extend(map(clbit_of, item.clbits))
                    continue
                if not depth:
                    self.at = at
                self._encode_other(item, qubit_of, clbit_of, depth)
                continue
            row = plain.get(key)
            if row is None:
                row = plain[key] = self._standard(item)
            add_op(row[0])
            add_qubits(map(qubit_of, item.qubits))
            if row[1]:
                for value in item.params:
                    if type(value) is not float or value - value:  # inf - inf and nan are no 0
                        if not depth:
                            self.at = at
                        value = self._number(value, "angle")
                    add_param(value)

    def _standard(self, item: Any) -> tuple[int, int]:
        params = len(item.params)
        label = self._label(item)
        return self._tape.row(item.name, len(item.qubits), 0, params, label=label), params

    def _label(self, item: Any) -> str | None:
        """Return the name of an instruction in the noise model; None where labels are not read."""
        if self._channels is None:
            return None
        return _SILENT if self._silent else noise_name(item)

    def _encode_other(
        self, item: Any, qubit_of: BitNumber, clbit_of: BitNumber, depth: int
    ) -> None:
        operation = item.operation
        if type(operation) is names().UnitaryGate:  # often many in one circuit
            self._unitary(operation, item, qubit_of)
            return
        name = _program_name(operation)
        if name:
            self._encode_named(name, operation, item, qubit_of, clbit_of)
        elif isinstance(operation, names().ControlFlowOp) or is_jump(operation):
            self._flow().write(operation, item, qubit_of, clbit_of, depth)
        elif isinstance(operation, names().Store):
            self._flow().store(operation, clbit_of)
        elif isinstance(operation, names().UnitaryGate):
            self._unitary(operation, item, qubit_of)
        else:
            self._expand(operation, item, qubit_of, clbit_of, depth)

    def _flow(self) -> BlockWriter:
        if self._blocks is None:
            assert self._layout is not None  # set by run()
            writer = ExpressionWriter(self._tape, self._layout.by_bits(), self._circuit)
            self._blocks = BlockWriter(self._tape, writer, self._inside)
        return self._blocks

    def _inside(self, block: Any, qubits: Sequence[int], clbits: Sequence[int], depth: int) -> None:
        """Encode a block's circuit on these bits."""
        data = block._data
        self._phase(block.global_phase)
        qubit_of = dict(zip(data.qubits, qubits, strict=True)).__getitem__
        clbit_of = dict(zip(data.clbits, clbits, strict=True)).__getitem__
        self._walk(data, qubit_of, clbit_of, depth)
        self._tape.check()

    def _unitary(self, operation: Any, item: Any, qubit_of: BitNumber) -> None:
        width = operation.num_qubits
        if width > MAX_UNITARY_QUBITS:
            raise ProgramError(
                f"a unitary matrix on {width} qubits; at most {MAX_UNITARY_QUBITS} are carried",
                hint="give the circuit that makes it (circuit.decompose())",
            )
        matrix = operation.params[0]
        if not width:
            self._phase(cmath.phase(matrix[0, 0]))
            return
        data = (matrix if matrix.dtype.str == "<c16" else matrix.astype("<c16")).tobytes()
        self._tape.ops.append(self._tape.unitary(data, width, self._label(item)))
        self._tape.qubits.extend(map(qubit_of, item.qubits))

    def _encode_named(
        self, name: str, operation: Any, item: Any, qubit_of: BitNumber, clbit_of: BitNumber
    ) -> None:
        tape = self._tape
        qubits, clbits = item.qubits, item.clbits
        if len(tape.qubits) + len(qubits) > MAX_OPERANDS:
            raise text_checks.too_many_operands()
        values: Sequence[Any] = ()
        if name == "delay":
            name, duration = _delay(operation)
            values = (duration,)
        elif name == "mcphase":
            values = item.params
        label = None if name in _OWN_NAMES else self._label(item)
        tape.ops.append(tape.row(name, len(qubits), len(clbits), len(values), label=label))
        tape.qubits.extend(map(qubit_of, qubits))
        tape.clbits.extend(map(clbit_of, clbits))
        for value in values:
            number = self._number(value, "angle" if name == "mcphase" else "duration")
            if number < 0 and name != "mcphase":
                raise ProgramError(f"{name!r}: the duration is negative ({number})")
            tape.params.append(number)

    def _expand(
        self, operation: Any, item: Any, qubit_of: BitNumber, clbit_of: BitNumber, depth: int
    ) -> None:
        if self._expander is None:
            self._expander = DefinitionExpander(_is_plain)
        check_depth(depth, operation.name)
        # The operations inside a definition were counted with it.
        size = 0 if self._expanding else self._expander.size(operation)
        if len(self._tape.ops) + size > text_checks.MAX_OPERATIONS:
            raise text_checks.too_many_operations()
        standard = self._expander.standard(operation)
        if standard is not None:
            self._standard_use(operation.name, standard, item, qubit_of)
            return
        body: DefinitionBody = self._expander.body(operation)
        self._phase(body.phase)
        qubits = dict(zip(body.qubits, map(qubit_of, item.qubits), strict=True))
        clbits = dict(zip(body.clbits, map(clbit_of, item.clbits), strict=True))
        self._expanding += 1
        outer, self._silent = self._silent, self._silent or self._is_whole(item)
        self._walk(body.items, qubits.__getitem__, clbits.__getitem__, depth + 1)
        is_marked, self._silent = self._silent and not outer, outer
        self._expanding -= 1
        if is_marked and self._channels is not None and noise_name(item) in self._channels.names:
            self._mark(noise_name(item), list(map(qubit_of, item.qubits)))

    def _is_whole(self, item: Any) -> bool:
        """Return whether no channel follows the operations inside a gate's definition. Aer gives
        the label of a gate with controls on 0 to each operation that it makes of it."""
        if self._channels is None or not self._channels.whole:
            return False
        name: str = item.name
        return name in _WHOLE or bool(item.label and "_o" in name)

    def _mark(self, label: str, qubits: list[int]) -> None:
        """Append an identity on these qubits, which the channels of this name follow."""
        tape, width = self._tape, len(qubits)
        name = {1: "id", 2: "rzz"}.get(width, "mcphase")
        tape.ops.append(tape.row(name, width, 0, int(width > 1), label=label))
        tape.qubits.extend(qubits)
        tape.params.extend([0.0] * int(width > 1))

    def _standard_use(
        self, name: str, gate: StandardGateUse, item: Any, qubit_of: BitNumber
    ) -> None:
        self._phase(gate.phase)
        label, size = self._label(item), len(item.qubits)
        self._tape.ops.append(self._tape.row(name, size, 0, len(gate.values), label=label))
        self._tape.qubits.extend(map(qubit_of, item.qubits))
        self._tape.params.extend(gate.values)

    def _phase(self, phase: Any) -> None:
        if type(phase) is float and phase == 0.0:
            return
        tape = self._tape
        slots = len(tape.slots)
        number = self._number(phase, "global phase")
        if number or len(tape.slots) > slots:
            tape.ops.append(tape.row("global_phase", 0, 0, 1))
            tape.params.append(number)

    def _number(self, value: Any, name: str) -> float:
        """Return a finite float; 0.0 for an expression, which gets a slot."""
        if isinstance(value, names().ParameterExpression):
            if value.parameters:
                self._tape.slot(value)
                return 0.0
            value = value.numeric()
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            message = f"the {name} is {str(value)[:60]}, which is no real number"
            raise ProgramError(message, hint="give a float") from error
        if number - number:
            hint = "angles and durations must be finite numbers"
            raise ProgramError(f"the {name} is {number}", hint=hint)
        return number


def pack(circuit: Any, channels: ChannelNames | None = None) -> EncodedProgram:
    """Encode a QuantumCircuit as a Program. `channels`: see `CircuitEncoder`. Raises ProgramError
    for an instruction that a Program cannot have, with its number, and LimitExceededError for a
    circuit that is too wide or too long."""
    packer = CircuitEncoder(circuit, channels)
    try:
        return packer.run()
    except SimenvError as error:
        if packer.at >= 0:
            name = circuit._data[packer.at].name
            error.message = f"instruction {packer.at} ({name}): {error.message}"
            error.args = (error.message,)
        raise


def _program_name(operation: Any) -> str:
    """Return the Program's name of an operation that is no standard gate; "" if there is none."""
    classes = names()
    name: str = operation.name
    if name == "measure":
        carried = isinstance(operation, classes.Measure)
    elif name == "reset":
        carried = isinstance(operation, classes.Reset)
    elif name == "barrier":
        carried = isinstance(operation, classes.Barrier)
    elif name == "delay":
        carried = isinstance(operation, classes.Delay)
    elif is_measurement(name):
        # One with a definition is a circuit of its own that has such a name.
        shape = operation.num_qubits, operation.num_clbits, len(operation.params)
        carried = shape == (1, 1, 0) and operation.definition is None
    elif isinstance(operation, (classes.MCXGate, classes.C4XGate)):
        controls = operation.num_ctrl_qubits
        carried = operation.ctrl_state == (1 << controls) - 1 and (
            operation.num_qubits == controls + 1  # some variants have ancillas
        )
        name = "mcx"
    elif isinstance(operation, classes.MCPhaseGate):
        carried = operation.ctrl_state == (1 << operation.num_ctrl_qubits) - 1
        name = "mcphase"
    else:
        return ""
    return name if carried else ""


def _is_plain(item: Any) -> bool:
    if item.is_standard_gate():
        return True
    operation = item.operation
    if isinstance(operation, names().Store | names().UnitaryGate) or is_jump(operation):
        return True
    return bool(_program_name(operation))


def _delay(operation: Any) -> tuple[str, Any]:
    unit, duration = operation.unit, operation.duration
    if unit == "dt":
        return "delay_dt", duration
    factor = _NS.get(unit)
    if factor is None:
        duration_text = "an expression or stretch" if unit == "expr" else f"{unit!r}"
        hint = "give it as a number in s, ms, us, ns, ps or dt"
        raise ProgramError(f"'delay' with a duration in {duration_text} is not carried", hint=hint)
    return "delay", duration if factor == 1.0 else duration * factor


# Index of a bit in its own register. If that is also its number, reading the attribute is three
# times as fast as a lookup.
_OWN_INDEX: BitNumber = attrgetter("_index")


class ProgramLayout(msgspec.Struct, frozen=True):
    """Numbers of qubits and clbits, registers (name, size), and the number of each bit."""

    num_qubits: int
    num_clbits: int
    registers: tuple[tuple[str, int], ...]
    qubit_of: BitNumber
    clbit_of: BitNumber

    def by_bits(self) -> dict[tuple[int, ...], int]:
        """Return the number of each register by its clbits."""
        entries: dict[tuple[int, ...], int] = {}
        start = 0
        for number, (_, size) in enumerate(self.registers):
            entries.setdefault(tuple(range(start, start + size)), number)
            start += size
        return entries


def layout(circuit: Any) -> ProgramLayout:
    """Number the bits of a circuit. Raises LimitExceededError if there are too many; ProgramError
    if registers share one."""
    data = circuit._data
    num_qubits, num_clbits = data.num_qubits, data.num_clbits
    if num_qubits > MAX_QUBITS:
        raise text_checks.too_many_bits("qubits", num_qubits, MAX_QUBITS)
    if num_clbits > MAX_CLBITS:
        raise text_checks.too_many_bits("clbits", num_clbits, MAX_CLBITS)
    registers = data.cregs
    if num_clbits == 0 and not registers:
        return ProgramLayout(num_qubits, 0, (), _bit_numbers(data.qubits), _OWN_INDEX)
    if len(registers) == 1 and registers[0].size == num_clbits and _in_order(registers[0]):
        register = (registers[0].name, num_clbits)
        return ProgramLayout(
            num_qubits, num_clbits, (register,), _bit_numbers(data.qubits), _OWN_INDEX
        )
    sizes, clbit_of = _joined_registers(registers, data.clbits)
    return ProgramLayout(num_qubits, num_clbits, sizes, _bit_numbers(data.qubits), clbit_of)


def _bit_numbers(bits: Any) -> BitNumber:
    if _in_order(bits):
        return _OWN_INDEX
    return {bit: number for number, bit in enumerate(bits)}.__getitem__


def _in_order(bits: Any) -> bool:
    try:
        return list(map(_OWN_INDEX, bits)) == list(range(len(bits)))
    except AttributeError:  # a version of Qiskit without the attribute
        return False


def _joined_registers(registers: Any, clbits: Any) -> tuple[tuple[tuple[str, int], ...], BitNumber]:
    indices: dict[Any, int] = {}
    for register in registers:
        for bit in register:
            if bit in indices:
                _refuse_shared(registers, register, bit)
            indices[bit] = len(indices)
    sizes = tuple((register.name, register.size) for register in registers)
    unregistered = [bit for bit in clbits if bit not in indices]
    for bit in unregistered:
        indices[bit] = len(indices)
    if unregistered:
        sizes += (("", len(unregistered)),)
    return sizes, indices.__getitem__


def _refuse_shared(registers: Any, second: Any, bit: Any) -> NoReturn:
    first = next(register for register in registers if bit in list(register))
    message = f"the classical registers {first.name!r} and {second.name!r} share a bit"
    hint = "give each register its own bits; an alias of a register can be left out"
    raise ProgramError(message, hint=hint)
