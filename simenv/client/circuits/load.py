"""What users have, as a Program: the one door of this room.

Invariant: only SimenvError comes out of `load`, whatever came in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from simenv.client.circuits import native, qasm2, qasm3, qpy
from simenv.client.circuits.bindings import Slots
from simenv.client.circuits.limits import (
    MAX_PACKED_BYTES,
    MAX_TEXT_BYTES,
    Source,
    inspect,
    relocate,
    too_large,
)
from simenv.client.circuits.names import is_circuit
from simenv.client.circuits.pack import Packed, Packer, pack
from simenv.errors import LimitExceeded, ProgramError, SimenvError
from simenv.model import Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NO_SLOTS = Slots((), ())
_WANTED = "a circuit is a QuantumCircuit, OpenQASM text, the path of a file (QPY too), or a Program"


class Loaded(msgspec.Struct, frozen=True):
    """A program in its wire form, and what its free parameters are called."""

    program: Program
    packed: bytes
    parameters: tuple[str, ...]  # in the order of `circuit.parameters`
    slots: Slots

    def bind(self, bindings: Any = None) -> NDArray[np.float64]:
        """The values of all slots: float64 [K, num_slots], row k for the k-th set of values.

        `bindings`: an array (K, P) or (P,), columns in the order of `parameters`; or a mapping from
        parameter (object, name, or a vector with its elements last) to a value or K values; None
        where there are no parameters. OptionError names what is missing, unknown or not finite;
        ProgramError names an expression without a finite value.
        """
        return self.slots.values(bindings)


def load(circuit: Any) -> Loaded:
    """Make a Program of a circuit.

    `circuit`: a qiskit.QuantumCircuit; a str, which is OpenQASM text if it holds a newline or ';'
    and else a path; an os.PathLike; a Program. A file holds OpenQASM or QPY. ProgramError: it
    cannot be read or carried (`line` and `column` where it is text). LimitExceeded: it is too
    large.
    """
    try:
        if is_circuit(circuit):
            return _natively(circuit) or _loaded(pack(circuit), circuit)
        if isinstance(circuit, str):
            if "\n" in circuit or ";" in circuit:
                return _from_source(inspect(circuit))
            return _from_file(circuit)
        if isinstance(circuit, os.PathLike):
            return _from_file(os.fspath(circuit))
        if isinstance(circuit, Program):
            names = tuple(f"p{slot}" for slot in range(circuit.num_slots))
            return Loaded(circuit, _packed(circuit), names, Slots.of_names(names))
    except RecursionError as error:
        raise ProgramError(
            "the circuit is nested too deeply", hint="flatten it: circuit.decompose()"
        ) from error
    except MemoryError as error:
        raise LimitExceeded("no memory left to pack the circuit", hint="split it") from error
    _refuse(circuit)


def _from_file(path: str | bytes) -> Loaded:
    name = os.fsdecode(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
            if len(data) > MAX_TEXT_BYTES:
                raise too_large(max(os.fstat(file.fileno()).st_size, len(data)), name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        shown = name if len(name) <= 100 else name[:100] + "..."
        raise ProgramError(
            f"{shown!r} cannot be read: {reason}",
            hint="text, as opposed to a path, has a newline or ';' in it",
        ) from error
    if data.startswith(qpy.MAGIC):
        circuit = qpy.parse(data, name)
        return _natively(circuit) or _loaded(pack(circuit), circuit)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        refused = ProgramError(
            "not UTF-8 text", hint="a file holds OpenQASM, which is UTF-8 text, or QPY"
        )
        raise relocate(refused, name, line, column) from error
    return _from_source(inspect(text, name))


def _from_source(source: Source) -> Loaded:
    if source.version == 2:
        circuit = qasm2.parse(source)
        read = None
    else:
        read = qasm3.parse(source)
        circuit = read.circuit
    packer = Packer(circuit)
    try:
        return _natively(circuit) or _loaded(packer.run(), circuit)
    except SimenvError as error:
        if packer.at >= 0:
            where = read.position(packer.at) if read else qasm2.position(source, packer.at)
            relocate(error, source.name, *where)
        raise


def _natively(circuit: Any) -> Loaded | None:
    program = native.CHOICE.program(circuit)
    return None if program is None else Loaded(program, _packed(program), (), _NO_SLOTS)


def _loaded(packed: Packed, circuit: Any) -> Loaded:
    program = packed.program
    parameters = tuple(circuit.parameters) if circuit.num_parameters else ()
    slots = Slots(parameters, packed.expressions)
    names = tuple([parameter.name for parameter in parameters])
    return Loaded(program, _packed(program), names, slots)


def _packed(program: Program) -> bytes:
    packed = program.packed()
    if len(packed) > MAX_PACKED_BYTES:
        raise LimitExceeded(
            f"the program is {len(packed)} bytes; the limit is {MAX_PACKED_BYTES}",
            hint="split the circuit",
        )
    return packed


def _refuse(circuit: Any) -> NoReturn:
    kind = type(circuit).__name__
    hint = _WANTED
    if isinstance(circuit, bytes | bytearray | memoryview):
        hint = "decode it first: " + _WANTED
    elif isinstance(circuit, list | tuple | Mapping):
        hint = "several circuits go to submit_many; " + _WANTED
    raise ProgramError(f"a {kind} is no circuit", hint=hint)
