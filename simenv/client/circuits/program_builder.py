"""Builder of the flat arrays of one Program.

Invariant: rows of the operation table, constants and slots are numbered in the order of first use,
so that equal circuits give equal bytes.
"""

from __future__ import annotations

import struct
from typing import Any

from simenv.client.circuits import text_checks
from simenv.errors import LimitExceededError
from simenv.model import MAX_MATRIX_BYTES, PROGRAM_FORMAT, Program, Token

_MAX_ROWS = 65_535


class ProgramBuilder:
    """Append-only arrays; the encoder writes to `ops`, `qubits`, `clbits`, `params` directly."""

    __slots__ = (
        *("_constants", "_expressions", "_has_labels", "_matrices", "_matrix_bytes", "_rows"),
        *("clbits", "conditions", "ops", "params", "qubits", "slots", "variables"),
    )

    def __init__(self) -> None:
        self.ops: list[int] = []
        self.qubits: list[int] = []
        self.clbits: list[int] = []
        self.params: list[float] = []
        self.slots: list[int] = []
        self.conditions: list[int] = []
        self.variables: list[int] = []  # width of each
        self._rows: dict[tuple[str, int, int, int, int, str], int] = {}
        self._has_labels = False
        self._matrices: dict[bytes, int] = {}
        self._matrix_bytes = 0
        self._constants: dict[bytes, int] = {}
        self._expressions: dict[Any, int] = {}

    @property
    def expressions(self) -> tuple[Any, ...]:
        """The distinct parameter expressions; slot k is the k-th."""
        return tuple(self._expressions)

    def row(
        self,
        name: str,
        qubits: int,
        clbits: int,
        params: int,
        matrix: int = 0,
        label: str | None = None,
    ) -> int:
        """Return the table's row of an operation with this name and these arities. `label`: its
        name in noise models; None: the same."""
        if label is None:
            label = name
        elif label != name:
            self._has_labels = True
        signature = (name, qubits, clbits, params, matrix, label)
        row = self._rows.get(signature)
        if row is None:
            row = len(self._rows)
            if row == _MAX_ROWS:
                hint = "split it"
                raise LimitExceededError(f"more than {_MAX_ROWS} kinds of operations", hint=hint)
            self._rows[signature] = row
        return row

    def unitary(self, matrix: bytes, qubits: int, label: str | None = None) -> int:
        """Return the table's row for a matrix, complex128 [2**qubits, 2**qubits]. `label`: see
        `row`."""
        number = self._matrices.get(matrix)
        if number is None:
            self._matrix_bytes += len(matrix)
            if self._matrix_bytes > MAX_MATRIX_BYTES:
                message = f"the unitary matrices have more than {MAX_MATRIX_BYTES} bytes in all"
                raise LimitExceededError(message, hint="split the circuit, or decompose the gates")
            number = self._matrices[matrix] = len(self._matrices)
        return self.row("unitary", qubits, 0, 0, number, label)

    def marker(self, name: str) -> int:
        """Append a marker of control flow. Return the argument for `unmark`."""
        rows = len(self._rows)
        self.ops.append(self.row(name, 0, 0, 0))
        return rows

    def unmark(self, rows: int) -> None:
        """Remove the marker that was appended last."""
        self.ops.pop()
        if len(self._rows) > rows:
            self._rows.popitem()

    def slot(self, expression: Any) -> None:
        """Record that the value of this expression becomes the next parameter at run time."""
        number = self._expressions.setdefault(expression, len(self._expressions))
        self.slots += (len(self.params), number)

    def token(self, token: Token, operand: int = 0, width: int = 0) -> None:
        """Append a token of an expression."""
        self.conditions += (token, operand, width)

    def value(self, value: int, width: int) -> None:
        """Append a constant of an expression; width 0: a Bool."""
        size = max(1, (value.bit_length() + 7) // 8)
        constant = value.to_bytes(size, "little")
        number = self._constants.setdefault(constant, len(self._constants))
        self.token(Token.VALUE, number, width)

    def check(self) -> None:
        """Raise LimitExceededError if the arrays have become too long."""
        if len(self.ops) > text_checks.MAX_OPERATIONS:
            raise text_checks.too_many_operations()
        if len(self.qubits) > text_checks.MAX_OPERANDS:
            raise text_checks.too_many_operands()
        if len(self.conditions) > 3 * text_checks.MAX_TOKENS:
            message = f"the expressions have more than {text_checks.MAX_TOKENS} terms in all"
            raise LimitExceededError(message, hint="split the circuit")

    def program(
        self, num_qubits: int, num_clbits: int, registers: tuple[tuple[str, int], ...]
    ) -> Program:
        """Return the Program of the arrays."""
        rows = self._rows
        arities = [number for signature in rows for number in signature[1:4]]
        return Program(
            PROGRAM_FORMAT,
            num_qubits,
            num_clbits,
            registers,
            tuple([signature[0] for signature in rows]),
            struct.pack(f"<{len(arities)}H", *arities),
            struct.pack(f"<{len(self.ops)}H", *self.ops),
            struct.pack(f"<{len(self.qubits)}H", *self.qubits),
            struct.pack(f"<{len(self.clbits)}H", *self.clbits),
            struct.pack(f"<{len(self.params)}d", *self.params),
            len(self._expressions),
            struct.pack(f"<{len(self.slots)}i", *self.slots),
            struct.pack(f"<{len(self.conditions)}i", *self.conditions),
            tuple(self._constants),
            tuple(self.variables),
            self._row_matrices(),
            tuple([signature[5] for signature in rows]) if self._has_labels else (),
        )

    def _row_matrices(self) -> tuple[bytes, ...]:
        """Return the matrix of each row `unitary`: rows with different labels may share one."""
        matrices = tuple(self._matrices)
        if not self._has_labels:
            return matrices
        return tuple([matrices[each[4]] for each in self._rows if each[0] == "unitary"])
