"""Conversion of QPY files of other users to programs, in a process with bounds of memory and time.

Invariant: this process sees the header of a file and its program, but never its circuit: the
definition of a gate may take a thousand times the memory and time of the gate.
"""

from __future__ import annotations

import msgspec

from simenv.client.circuits.load import load
from simenv.client.circuits.parameters import PackedCircuit, ParameterSlots
from simenv.model import decode_program
from simenv.transpiler import qpy
from simenv.transpiler.qpy import SandboxProcess


class _Converted(msgspec.Struct, frozen=True, array_like=True):
    packed: bytes
    parameters: tuple[str, ...]


PROGRAMS = SandboxProcess(__name__, "packed")


def load_untrusted(data: bytes, name: str) -> PackedCircuit:
    """Convert a QPY file. Angles of its parameters cannot be set. Raises ProgramError,
    LimitExceededError, ConfigError."""
    qpy.check_header(data, name)
    result = msgspec.msgpack.decode(PROGRAMS.convert(data, name), type=_Converted)
    program = decode_program(result.packed)
    measures, slots = "measure" in program.names, ParameterSlots(result.parameters, None)
    return PackedCircuit(result.packed, program.num_qubits, measures, result.parameters, slots)


def packed(data: bytes) -> bytes:
    """Convert a QPY file; called in the sandbox process."""
    loaded = load(qpy.parse(data))
    return msgspec.msgpack.encode(_Converted(loaded.packed, loaded.parameters))
