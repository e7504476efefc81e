"""QIR of the base profile, as LLVM assembly or bitcode, through the optional package pyqir.

Source: the base profile of the QIR specification,
https://github.com/qir-alliance/qir-spec/blob/main/specification/under_development/profiles. It has
one entry point, static qubits and results, and no branches on results. Result k is clbit k of a
register `result`; output-recording calls are ignored. Other content is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from simenv.errors import ProgramError

BITCODE = b"BC\xc0\xde"
_MARK = "@__quantum__"
_BEGINNING_CHARS = 2**14  # of a text, by which its format is recognized
_OPENQASM = re.compile(r"^[ \t]*OPENQASM\b", re.MULTILINE)
_ASSEMBLY = re.compile(
    r"^[ \t]*(?:; ModuleID|source_filename[ \t]*=|target[ \t]+(?:datalayout|triple)[ \t]*=|"
    r"(?:define|declare)[ \t][^\n]*@|attributes[ \t]+#[0-9]|%[\w.]+[ \t]*=[ \t]*type\b)",
    re.MULTILINE,
)
_GATES = {  # name between __quantum__qis__ and __body: gate of OpenQASM 2, angles, qubits
    **{name: (name, 0, 1) for name in ("h", "x", "y", "z", "s", "t", "sx")},
    **{name: (name, 1, 1) for name in ("rx", "ry", "rz")},
    **{name: (name, 0, 2) for name in ("cx", "cy", "cz", "swap")},
    **{name: (name, 1, 2) for name in ("rxx", "rzz")},
    "cnot": ("cx", 0, 2),
    "ccx": ("ccx", 0, 3),
    "ccnot": ("ccx", 0, 3),
    "reset": ("reset", 0, 1),
}
_ADJOINTS = {"s": ("sdg", 0, 1), "t": ("tdg", 0, 1)}
_IGNORED = ("initialize", "result_record_output", "array_record_output", "tuple_record_output")
_RESULT_BITS = 65_535


def is_qir(circuit: Any) -> bool:
    """Return whether an object is a pyqir.Module."""
    kind = type(circuit)
    return (
        kind.__name__ == "Module" and hasattr(circuit, "functions") and hasattr(circuit, "bitcode")
    )


def is_assembly(text: str) -> bool:
    """Return whether a text is LLVM assembly, also if it is wrong, and no OpenQASM."""
    beginning = text[:_BEGINNING_CHARS]
    if _OPENQASM.search(beginning) is not None:
        return False
    return (_MARK in text and "define " in text) or _ASSEMBLY.search(beginning) is not None


def to_qasm(module: Any) -> str:
    """Convert a pyqir.Module, LLVM assembly (str) or bitcode (bytes) to OpenQASM 2.

    Raises ProgramError if it cannot be read or is not of the base profile, or without pyqir.
    """
    try:
        import pyqir
    except ImportError as error:
        raise ProgramError(
            f"QIR needs the package pyqir ({error})", hint="pip install 'simenv[qir]'"
        ) from error
    try:
        if isinstance(module, str):
            module = pyqir.Module.from_ir(pyqir.Context(), module)
        elif isinstance(module, bytes):
            module = pyqir.Module.from_bitcode(pyqir.Context(), module)
    except ValueError as error:
        raise ProgramError(f"the QIR cannot be read: {str(error).splitlines()[0]}") from error
    entries = [function for function in module.functions if pyqir.is_entry_point(function)]
    if len(entries) != 1:
        raise ProgramError(
            f"the QIR module has {len(entries)} entry points",
            hint='one function with the attribute "entry_point"',
        )
    qubits = pyqir.required_num_qubits(entries[0]) or 0
    results = pyqir.required_num_results(entries[0]) or 0
    if not 0 < qubits <= _RESULT_BITS or results > _RESULT_BITS:
        raise ProgramError(
            f"the QIR entry point requires {qubits} qubits and {results} results",
            hint="the base profile states them as required_num_qubits, required_num_results",
        )
    head = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{qubits}];"]
    if results:
        head.append(f"creg result[{results}];")
    return "\n".join([*head, *_statements(entries[0], pyqir, qubits, results)])


def _statements(function: Any, pyqir: Any, qubits: int, results: int) -> Iterator[str]:
    blocks = function.basic_blocks
    visited: set[str] = set()
    block = blocks[0] if blocks else None
    while block is not None:
        if block.name in visited:
            raise ProgramError("the QIR has a loop", hint=_UNROLL)
        visited.add(block.name)
        terminator = block.terminator
        for instruction in block.instructions:
            if isinstance(instruction, pyqir.Call):
                yield _statement(instruction, pyqir, qubits, results)
            elif instruction.opcode not in (pyqir.Opcode.BR, pyqir.Opcode.RET):
                opcode = str(instruction.opcode).rpartition(".")[2].lower()
                raise ProgramError(f"the QIR has the instruction {opcode}", hint=_UNROLL)
        successors = terminator.successors if terminator is not None else []
        if len(successors) > 1:
            raise ProgramError("the QIR branches on a value", hint=_UNROLL)
        block = successors[0] if successors else None


_UNROLL = "the base profile has calls only: unroll loops, or write the circuit in OpenQASM 3"


def _statement(call: Any, pyqir: Any, qubits: int, results: int) -> str:
    name = call.callee.name
    short = name.removeprefix("__quantum__qis__").removeprefix("__quantum__rt__")
    if name.startswith("__quantum__rt__") and short in _IGNORED:
        return ""
    if short in ("mz__body", "m__body"):
        qubit, result = (
            _number(call, k, pyqir, bound) for k, bound in enumerate((qubits, results))
        )
        return f"measure q[{qubit}] -> result[{result}];"
    base, _, kind = short.partition("__")
    gate = (_ADJOINTS if kind == "adj" else _GATES if kind == "body" else {}).get(base)
    if gate is None or not name.startswith("__quantum__qis__"):
        raise ProgramError(
            f"the QIR calls {name}", hint=f"gates that are known: {', '.join(sorted(_GATES))}"
        )
    gate_name, angles, width = gate
    if len(call.args) != angles + width:
        raise ProgramError(f"the QIR calls {name} with {len(call.args)} arguments")
    values = [_angle(call, k, pyqir) for k in range(angles)]
    targets = [f"q[{_number(call, angles + k, pyqir, qubits)}]" for k in range(width)]
    return f"{gate_name}{f'({values[0]!r})' if values else ''} {','.join(targets)};"


def _angle(call: Any, index: int, pyqir: Any) -> float:
    value = call.args[index]
    if not isinstance(value, pyqir.FloatConstant):
        raise ProgramError(f"the QIR calls {call.callee.name} with an angle that is computed")
    return float(value.value)


def _number(call: Any, index: int, pyqir: Any, bound: int) -> int:
    """Return the number of a static qubit or result."""
    number = pyqir.ptr_id(call.args[index]) if index < len(call.args) else None
    if number is None:
        raise ProgramError(
            f"the QIR calls {call.callee.name} with a qubit or result that is not static",
            hint="the base profile has numbers of qubits and results only",
        )
    if number >= bound:
        raise ProgramError(f"the QIR uses number {number} of {bound} in {call.callee.name}")
    return int(number)
