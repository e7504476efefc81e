"""Conversion of any accepted form of a circuit to a Program.

Invariant: `load` raises only SimenvError, whatever its argument is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from simenv.client.circuits import native
from simenv.client.circuits.common.parameters import PackedCircuit, ParameterSlots
from simenv.client.circuits.common.text_checks import (
    MAX_PACKED_BYTES,
    MAX_TEXT_BYTES,
    SourceText,
    inspect,
    relocate,
    too_large,
)
from simenv.client.circuits.encode.encoder import CircuitEncoder, EncodedProgram, pack
from simenv.client.circuits.formats import cirq_circuit, qasm2, qasm2_fast, qasm3, qir
from simenv.client.circuits.formats.stim_circuit import is_stim
from simenv.errors import LimitExceededError, ProgramError, SimenvError
from simenv.model import Program
from simenv.transpiler import qpy
from simenv.transpiler.qiskit_runtime import is_circuit

CACHED_TEXTS = 128
CACHED_TEXT_BYTES = 2**16  # of one text and its program
_LAST_TEXTS: dict[str, PackedCircuit] = {}  # without a lock, which a fork could leave locked
_HINT = (
    "a circuit is a QuantumCircuit, a cirq.Circuit, OpenQASM or QIR text, the path of a file (QPY "
    "too), or a Program"
)


def load(circuit: Any) -> PackedCircuit:
    """Convert a circuit to a packed Program.

    `circuit`: a qiskit.QuantumCircuit; a cirq.Circuit; a str, which is OpenQASM text if it holds a
    newline or ';' and else a path; QIR of the base profile, as text or a pyqir.Module; an
    os.PathLike; a Program; a PackedCircuit. A file holds OpenQASM, QPY or QIR.

    Raises ProgramError if the circuit cannot be read or sent (with `line` and `column` for text),
    and LimitExceededError if it is too large.
    """
    if isinstance(circuit, PackedCircuit):
        return circuit
    try:
        if is_circuit(circuit):
            return _encode_natively(circuit) or _loaded(pack(circuit), circuit)
        if isinstance(circuit, str):
            if qir.is_assembly(circuit):
                return _from_qir(circuit)
            if "\n" in circuit or ";" in circuit:
                return _from_text(circuit)
            return _from_file(circuit, "text, as opposed to a path, has a newline or ';' in it")
        if isinstance(circuit, os.PathLike):
            return _from_file(os.fspath(circuit))
        if isinstance(circuit, Program):
            names = tuple(f"p{slot}" for slot in range(circuit.num_slots))
            return _pack_program(circuit, names, None)
        if cirq_circuit.is_cirq(circuit):
            return _from_source(inspect(cirq_circuit.to_qasm(circuit)))
        if qir.is_qir(circuit):
            return _from_qir(circuit)
    except RecursionError as error:
        raise ProgramError(
            "the circuit is nested too deeply", hint="flatten it: circuit.decompose()"
        ) from error
    except MemoryError as error:
        raise LimitExceededError("no memory left to pack the circuit", hint="split it") from error
    _refuse(circuit)


def _from_file(path: str | bytes, hint: str = "") -> PackedCircuit:
    name = os.fsdecode(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
            if len(data) > MAX_TEXT_BYTES:
                raise too_large(max(os.fstat(file.fileno()).st_size, len(data)), name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        short_name = name if len(name) <= 100 else name[:100] + "..."
        raise ProgramError(
            f"{short_name!r} cannot be read: {reason}",
            hint=hint,
        ) from error
    if data.startswith(qpy.MAGIC):
        circuit = qpy.parse(data, name)
        return _encode_natively(circuit) or _loaded(pack(circuit), circuit)
    if data.startswith(qir.BITCODE):
        return _from_qir(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        refused = ProgramError(
            "not UTF-8 text", hint="a file holds OpenQASM, which is UTF-8 text, or QPY"
        )
        raise relocate(refused, name, line, column) from error
    return _from_qir(text) if qir.is_assembly(text) else _from_source(inspect(text, name))


def _from_qir(module: Any) -> PackedCircuit:
    return _from_source(inspect(qir.to_qasm(module)))


def _from_text(text: str) -> PackedCircuit:
    """Parse a text, unless it is one of the last: many callers send one text again and again."""
    loaded = _LAST_TEXTS.get(text)
    if loaded is None:
        loaded = _from_source(inspect(text))
        if len(text) + len(loaded.packed) <= CACHED_TEXT_BYTES:
            if len(_LAST_TEXTS) >= CACHED_TEXTS:
                _LAST_TEXTS.clear()
            _LAST_TEXTS[text] = loaded
    return loaded


def _from_source(source: SourceText) -> PackedCircuit:
    if source.version == 2:
        program = qasm2_fast.program(source)
        if program is not None:
            return _pack_program(program, (), None)
        circuit = qasm2.parse(source)
        read = None
    else:
        read = qasm3.parse(source)
        circuit = read.circuit
    packer = CircuitEncoder(circuit)
    try:
        return _encode_natively(circuit) or _loaded(packer.run(), circuit)
    except SimenvError as error:
        if packer.at >= 0:
            line_and_column = (
                read.position(packer.at) if read else qasm2.position(source, packer.at)
            )
            relocate(error, source.name, *line_and_column)
        raise


def _encode_natively(circuit: Any) -> PackedCircuit | None:
    loaded = native.CHOICE.loaded(circuit)
    if loaded is not None and len(loaded.packed) > MAX_PACKED_BYTES:
        _refuse_size(loaded.packed)
    return loaded


def _loaded(packed: EncodedProgram, circuit: Any) -> PackedCircuit:
    parameters = tuple(circuit.parameters) if circuit.num_parameters else ()
    return _pack_program(packed.program, parameters, packed.expressions)


def _pack_program(
    program: Program, parameters: tuple[Any, ...], expressions: tuple[Any, ...] | None
) -> PackedCircuit:
    packed = program.packed()
    if len(packed) > MAX_PACKED_BYTES:
        _refuse_size(packed)
    names = tuple([getattr(parameter, "name", parameter) for parameter in parameters])
    return PackedCircuit(
        packed,
        program.num_qubits,
        "measure" in program.names,
        names,
        ParameterSlots(parameters, expressions),
    )


def _refuse_size(packed: bytes) -> NoReturn:
    raise LimitExceededError(
        f"the program is {len(packed)} bytes; the limit is {MAX_PACKED_BYTES}",
        hint="split the circuit",
    )


def _refuse(circuit: Any) -> NoReturn:
    kind = type(circuit).__name__
    hint = _HINT
    if isinstance(circuit, bytes | bytearray | memoryview):
        hint = "decode it first: " + _HINT
    elif is_stim(circuit):
        hint = "a circuit of stim goes to `submit` or `run`, one by one; " + _HINT
    elif isinstance(circuit, list | tuple | Mapping):
        hint = "several circuits go to submit_many; " + _HINT
    raise ProgramError(f"an object of type {kind} is no circuit", hint=hint)
