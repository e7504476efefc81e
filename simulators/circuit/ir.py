"""A circuit as views on flat arrays: what engines read, without copying what was received.

The arrays have the layout of the wire form: operation k is row `ops[k]` of the table; its qubits,
clbits and parameters are the next ones of the flat arrays, as many as that row says. A Circuit may
hold anything that was received; only one that passes `check.problem` may go to an engine.
"""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.table import Table, table_of
from simulators.sampling import words

MAX_QUBITS = 65_535
MAX_CLBITS = 65_535

# Instances: they cost less than the classes where thousands of circuits a second are made.
_UINT16: np.dtype[np.uint16] = np.dtype(np.uint16)
_FLOAT64: np.dtype[np.float64] = np.dtype(np.float64)
_NO_STARTS: NDArray[np.int64] = np.zeros(0, np.int64)
_NO_INT32: NDArray[np.int32] = np.frombuffer(b"", np.int32)


class Circuit(msgspec.Struct, frozen=True, eq=False):
    """One circuit. Arrays are read-only views, C-contiguous and aligned."""

    num_qubits: int
    num_clbits: int
    registers: tuple[tuple[str, int], ...]  # (name, size), laid out from clbit 0
    table: Table
    ops: NDArray[np.uint16]  # [operations]
    qubits: NDArray[np.uint16]
    clbits: NDArray[np.uint16]
    params: NDArray[np.float64]  # radians; 0.0 where a slot fills it
    num_slots: int = 0
    slots: NDArray[np.int32] = _NO_INT32  # flat pairs: position in `params`, slot number
    conditions: NDArray[np.int32] = _NO_INT32  # flat triples: token, operand, width
    constants: tuple[bytes, ...] = ()  # unsigned, little-endian, any width
    variables: tuple[int, ...] = ()  # width in bits of each; 0: a Bool
    matrices: tuple[bytes, ...] = ()  # complex128 [2**q, 2**q] of each row `unitary` of the table
    fault: str = ""  # a buffer that is no array; `check.problem` reports it

    @classmethod
    def from_buffers(
        cls,
        num_qubits: int,
        num_clbits: int,
        registers: tuple[tuple[str, int], ...],
        names: tuple[str, ...],
        arities: bytes,
        ops: bytes,
        qubits: bytes,
        clbits: bytes,
        params: bytes,
        num_slots: int = 0,
        slots: bytes = b"",
        conditions: bytes = b"",
        constants: tuple[bytes, ...] = (),
        variables: tuple[int, ...] = (),
        matrices: tuple[bytes, ...] = (),
    ) -> Circuit:
        """A circuit over the fields of a program, not copied. Never raises on any bytes."""
        fault = ""
        if (len(ops) | len(qubits) | len(clbits)) & 1 or len(params) & 7:
            fault = "ops, qubits or clbits is not a multiple of 2 bytes, or params not of 8"
        elif len(slots) & 7 or len(conditions) % 12:
            fault = "slots is not a multiple of 8 bytes, or conditions not of 12"
        if fault:
            ops = qubits = clbits = params = slots = conditions = b""
        return cls(
            num_qubits,
            num_clbits,
            registers,
            table_of(names, arities),
            np.frombuffer(ops, _UINT16),
            np.frombuffer(qubits, _UINT16),
            np.frombuffer(clbits, _UINT16),
            np.frombuffer(params, _FLOAT64),
            num_slots,
            np.frombuffer(slots, np.int32) if slots else _NO_INT32,
            np.frombuffer(conditions, np.int32) if conditions else _NO_INT32,
            constants,
            variables,
            matrices,
            fault,
        )


def register_starts(circuit: Circuit) -> NDArray[np.int64]:
    """First clbit of each register, and the end of the last: int64 [registers + 1].

    Empty for a circuit without expressions, where nobody asks.
    """
    if not circuit.conditions.size:
        return _NO_STARTS
    sizes = (size for _, size in circuit.registers)
    return np.fromiter(itertools.accumulate(sizes, initial=0), np.int64)


def variable_starts(circuit: Circuit) -> tuple[int, ...]:
    """First bit of each variable in a record, and the end of the last.

    A record that holds variables has them behind the words of the clbits; a Bool takes one bit.
    """
    first = 64 * words(circuit.num_clbits)
    return tuple(itertools.accumulate((max(1, w) for w in circuit.variables), initial=first))


def record_words(circuit: Circuit) -> int:
    """uint64 words of a record that holds the clbits and the variables."""
    return (variable_starts(circuit)[-1] + 63) // 64
