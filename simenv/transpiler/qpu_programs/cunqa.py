"""Circuits of CUNQA as programs of QPUs.

The format is `CunqaCircuit.info` of CUNQA 2.4, a dict that is its circuits' JSON
(https://github.com/CESGA-Quantum-Spain/cunqa, cunqa/circuit/core.py; Vazquez-Perez et al., arXiv
2511.05209). Gates that Qiskit does not have are refused by name, and so are free parameters.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import cache, reduce
from typing import Annotated, Any

import msgspec
import numpy as np
from qiskit import ClassicalRegister
from qiskit.circuit import library
from qiskit.circuit.classical import expr
from qiskit.circuit.library import get_standard_gate_name_mapping

from simenv.errors import DECODE_ERRORS, LimitExceededError, ProgramError
from simenv.model import MAX_CLBITS, MAX_QUBITS, MAX_UNITARY_QUBITS
from simenv.transpiler.qiskit_runtime import MAX_OPERATIONS
from simenv.transpiler.qpu_programs.bounds import MAX_NAME, MAX_PROGRAMS

MAX_BYTES = 16 * 2**20  # of one circuit
_MANY_CONTROLS = {"mcx": library.MCXGate, "mcp": library.MCPhaseGate}
_CONDITIONS = {"and": expr.logic_and, "or": expr.logic_or, "xor": expr.bit_xor}
_Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_QUBITS)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
_Complex = tuple[float, float]


class _Instruction(msgspec.Struct, frozen=True):
    """One entry of `instructions`; which fields it has depends on `name`."""

    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    qubits: tuple[Annotated[int, msgspec.Meta(ge=-MAX_QUBITS, lt=MAX_QUBITS)], ...] = ()
    clbits: tuple[_Index, ...] = ()
    params: tuple[Any, ...] = ()
    circuits: tuple[_Name, ...] = ()
    instructions: tuple[_Instruction, ...] = ()
    condition: int = 1
    operation: str = "and"
    matrix: tuple[tuple[tuple[_Complex, ...], ...], ...] = ()
    states: tuple[int, ...] = ()

    @property
    def peer(self) -> str:
        """Id of the other circuit of a message. Raises ProgramError."""
        if len(self.circuits) != 1:
            hint = '"circuits": ["ID"]'
            raise ProgramError(f"{self.name} to {len(self.circuits)} circuits", hint=hint)
        return self.circuits[0]


class _Circuit(msgspec.Struct, frozen=True):
    """Members of `CunqaCircuit.info` that say what the circuit does."""

    id: _Name
    instructions: tuple[_Instruction, ...]
    num_qubits: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUBITS)]
    num_clbits: Annotated[int, msgspec.Meta(ge=0, le=MAX_CLBITS)] = 0
    classical_registers: dict[_Name, tuple[_Index, ...]] = {}


def programs(kind: Callable[[str, int], Any], circuits: Sequence[Any]) -> list[Any]:
    """Return the programs of circuits of CUNQA, in the same order, for `Client.join`.

    `kind`: QPUProgram, of which they are; `circuits`: objects of CunqaCircuit, their `info`, or
    JSON of it, all that exchange messages in
    one call. Raises ProgramError, LimitExceededError.
    """
    if len(circuits) > MAX_PROGRAMS:
        raise LimitExceededError(f"{len(circuits)} circuits; the limit is {MAX_PROGRAMS}")
    read = [_read(circuit) for circuit in circuits]
    # Numbers of qubits that one circuit exposes to another one at once, in order.
    exposed: dict[tuple[str, str], deque[int]] = defaultdict(deque)
    for circuit in read:
        for each in circuit.instructions:
            if each.name == "expose":
                exposed[circuit.id, each.peer].append(len(each.qubits))
    return [_program(kind, circuit, exposed) for circuit in read]


def _read(circuit: Any) -> _Circuit:
    """Check the types, names and sizes of one circuit. Raises ProgramError, LimitExceededError."""
    try:
        if isinstance(circuit, str | bytes):
            if len(circuit) > MAX_BYTES:
                message = f"a circuit of {len(circuit)} bytes; the limit is {MAX_BYTES}"
                raise LimitExceededError(message, hint="split it")
            result = msgspec.json.decode(circuit, type=_Circuit)
        else:
            info = getattr(circuit, "info", circuit)
            result = msgspec.convert(info, _Circuit, from_attributes=False)
    except DECODE_ERRORS as error:
        hint = "CunqaCircuit.info, a dict with id, instructions, num_qubits and num_clbits"
        raise ProgramError(f"no circuit of CUNQA: {str(error)[:200]}", hint=hint) from error
    if len(result.instructions) > MAX_OPERATIONS:
        raise LimitExceededError(f"{result.id}: more than {MAX_OPERATIONS} instructions")
    return result


def _program(
    kind: Callable[[str, int], Any], circuit: _Circuit, exposed: dict[tuple[str, str], deque[int]]
) -> Any:
    registers = circuit.classical_registers or {"c0": tuple(range(circuit.num_clbits))}
    program = kind(circuit.id, circuit.num_qubits)
    bits = [bit for register in registers.values() for bit in register]
    if bits != list(range(circuit.num_clbits)):
        hint = "each bit in one register, in ascending order"
        raise ProgramError(f"{circuit.id}: classical_registers of other bits", hint=hint)
    for name, register in registers.items():
        if register:
            program.add_register(ClassicalRegister(len(register), name))
    for number, each in enumerate(circuit.instructions):
        try:
            _append(program, each, exposed, ())
        except ProgramError as error:
            error.message = f"{circuit.id}, instruction {number}: {error.message}"
            raise
        except Exception as error:  # Qiskit raises several classes for wrong numbers of operands
            text = f"{circuit.id}, instruction {number}: {each.name}: {str(error)[:200]}"
            raise ProgramError(text) from error
    return program


def _append(
    program: Any,
    each: _Instruction,
    exposed: dict[tuple[str, str], deque[int]],
    copies: tuple[Any, ...],
) -> None:
    """Append one instruction. `copies`: of exposed qubits, which it names by -1, -2..."""
    qubits = [copies[-1 - qubit] if qubit < 0 else program.qubits[qubit] for qubit in each.qubits]
    match each.name:
        case "send":
            program.send(each.clbits, each.peer)
        case "recv":
            program.recv(each.clbits, each.peer)
        case "qsend":
            (qubit,) = qubits
            program.qsend(qubit, each.peer)
        case "qrecv":
            (qubit,) = qubits
            program.qrecv(qubit, each.peer)
        case "expose":
            for qubit in qubits:
                program.expose(qubit, each.peer)
            for qubit in qubits:
                program.unexpose(qubit, each.peer)
        case "rcontrol":
            waiting = exposed[each.peer, program.name]
            if not waiting:
                raise ProgramError(f"rcontrol by {each.peer}, which exposes nothing here")
            attached = tuple(program.attach(each.peer) for _ in range(waiting.popleft()))
            for inner in each.instructions:
                _append(program, inner, exposed, attached)
            for copy in attached:
                program.detach(copy, each.peer)
        case "cif":
            with program.if_test(_condition(program, each)):
                for inner in each.instructions:
                    _append(program, inner, exposed, copies)
        case "measure":
            program.measure(qubits, list(each.clbits))
        case "reset":
            program.reset(qubits)
        case _:
            program.append(_gate(each), qubits)


def _condition(program: Any, each: _Instruction) -> Any:
    """Return the condition of a block: all bits (`and`), one (`or`) or an odd number of them
    (`xor`) have the value `condition`; names end in n where that is 0."""
    combine = _CONDITIONS.get(each.operation.removesuffix("n"))
    if combine is None or not each.clbits or each.condition not in (0, 1):
        hint = "and, or, xor of one bit or more, with condition 0 or 1"
        raise ProgramError(f"cif by {each.operation!r:.80}", hint=hint)
    bits = [program.clbits[bit] for bit in each.clbits]
    if len(bits) == 1:
        return bits[0], each.condition
    return reduce(
        combine, (expr.lift(bit) if each.condition else expr.logic_not(bit) for bit in bits)
    )


def _gate(each: _Instruction) -> Any:
    """Return the gate of an instruction. Raises ProgramError for one that Qiskit does not have."""
    if each.states:
        hint = "write x gates before and after"
        raise ProgramError(f"{each.name} with states of its controls", hint=hint)
    if not all(isinstance(value, int | float) for value in each.params) and each.name != "unitary":
        hint = "assign its parameters before"
        raise ProgramError(f"{each.name} has the parameter {each.params[0]!r:.80}", hint=hint)
    if each.name == "unitary":
        if len(each.qubits) > MAX_UNITARY_QUBITS:
            raise ProgramError(f"a unitary on {len(each.qubits)} qubits")
        given = each.matrix[0] if each.matrix else each.params[0]
        pairs = np.array(given, np.float64)
        return library.UnitaryGate(pairs[..., 0] + 1j * pairs[..., 1])
    if each.name in _MANY_CONTROLS:
        return _MANY_CONTROLS[each.name](*each.params, len(each.qubits) - 1)
    gate = _gates().get(each.name)
    if gate is None:
        hint = "a gate of Qiskit's standard library, mcx, mcp or unitary"
        raise ProgramError(f"the gate {each.name!r:.80} is not supported", hint=hint)
    return gate(*each.params)


@cache
def _gates() -> dict[str, Any]:
    """Classes of Qiskit's standard gates by name."""
    return {name: gate.base_class for name, gate in get_standard_gate_name_mapping().items()}
