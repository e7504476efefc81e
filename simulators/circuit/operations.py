"""Iteration over a circuit's operations, for engines that pass them to a library.

Only for circuits that `admission.validation_error` admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import FIRST_GATE, UNITARY, unitary
from simulators.circuit.ir import Circuit

_KEPT = 4_096  # shared matrices of one circuit


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
        return self.code >= FIRST_GATE or self.code == UNITARY


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
            place,
            row,
            code,
            names[row],
            tuple(qubits[q : q + num_qubits]),
            tuple(clbits[c : c + num_clbits]),
            tuple(values[p : p + num_params]),
        )
        q, c, p = q + num_qubits, c + num_clbits, p + num_params


def matrix(circuit: Circuit, operation: Operation) -> NDArray[np.complex128]:
    """Matrix [2**k, 2**k] of a gate; its first qubit is the lowest bit of an index."""
    count = len(operation.qubits)
    if operation.code == UNITARY:
        result = circuit.matrices[circuit.table.matrix[operation.row]]
        return np.frombuffer(result, np.complex128).reshape(1 << count, 1 << count)
    return unitary(operation.name, operation.params, count)


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
            if len(matrices) < _KEPT:
                matrices[key] = result
        yield operation, result
