"""Instructions of a dynamic circuit: blocks become jumps.

An engine adds instructions of its own for gates and noise. The instructions of a block follow its
head; a loop ends with `LoopBack` and `LoopExit`, an `if` or a `switch` with `JoinPoint`. All jumps
lead forward, but for `LoopBack`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.analysis import measurements
from simulators.circuit.expressions import Expression, expressions_of
from simulators.circuit.ir import Circuit


class Measure(msgspec.Struct, frozen=True):
    """Measurement that is not deferred to the end."""

    op: int  # number in the circuit: part of the random key
    qubit: int
    clbit: int
    clear: bool  # the qubit is not used again, and may be put back to |0>


class Reset(msgspec.Struct, frozen=True):
    """Reset with an effect."""

    op: int
    qubit: int


class Store(msgspec.Struct, frozen=True, eq=False):
    """Assignment of a value to clbits or a variable."""

    expression: Expression


class ControlFlow(msgspec.Struct, frozen=True):
    """Instruction that the interpreter executes by itself."""


class Branch(ControlFlow, frozen=True):
    """Jump that depends on a value."""

    kind: str  # "if", "switch" or "while"
    expression: Expression
    targets: dict[int, int]  # position by value
    otherwise: int  # position for any other value

    def target(self, value: int) -> int:
        return self.targets.get(value, self.otherwise)


class Jump(ControlFlow, frozen=True):
    """Jump to a position."""

    target: int


class JoinPoint(ControlFlow, frozen=True):
    """End of an `if` or a `switch`, where its branches meet."""


class LoopPass(ControlFlow, frozen=True):
    """Begin of each pass of a loop."""

    count: int  # number of passes; -1: a condition ends the loop
    end: int  # position of its LoopExit


class LoopBack(ControlFlow, frozen=True):
    """End of each pass of a loop."""

    begin: int  # position of its LoopPass


class LoopExit(ControlFlow, frozen=True):
    """End of a loop, where all that leave it meet."""

    begin: int  # position of its LoopPass


_OPEN = Jump(-1)  # a target that is not known yet


class _Block(msgspec.Struct):
    """Open block: `if`, `switch`, `while` or `for`."""

    code: int
    begin: int  # position of its head
    expression: Expression
    targets: dict[int, int] = {}
    otherwise: int = -1
    to_end: list[int] = []  # positions of jumps to its end
    to_next: list[int] = []  # positions of jumps to the next pass


class Assembler:
    """Instructions of an admissible circuit, which reads its operations once. An engine appends its
    own instructions to `items`, and adds measurements, resets, stores and markers of blocks by
    `add`, all in the order of the circuit."""

    def __init__(
        self,
        circuit: Circuit,
        roles: NDArray[np.int64],
        op_ids: NDArray[np.int64] | None = None,
    ) -> None:
        """Set up. `roles`: see `measurements.classify`; `op_ids`: numbers of the
        operations in the whole circuit, if it is a part."""
        rows = circuit.table.rows[circuit.ops]
        self.items: list[Any] = []
        self.codes = rows[:, 0]
        # First qubit, clbit and parameter of each operation, [operations, 3].
        self.begins: NDArray[np.int64] = np.cumsum(rows[:, 1:], axis=0) - rows[:, 1:]
        self._circuit, self._roles, self._op_ids = circuit, roles, op_ids
        self._expressions = iter(expressions_of(circuit) if circuit.conditions_data else ())
        self._open: list[_Block] = []

    def marks(self) -> NDArray[np.bool_]:
        """Operations that `add` takes: [operations]. Measurements at the end, and resets without an
        effect, are none."""
        codes, roles = self.codes, self._roles
        deferred = (roles == measurements.TERMINAL) | (roles == measurements.NO_OP_RESET)
        result: NDArray[np.bool_] = (codes >= gates.MEASURE) & (codes <= gates.STORE) & ~deferred
        return result

    def add(self, k: int) -> None:
        """Add operation k."""
        code = int(self.codes[k])
        if code in (gates.MEASURE, gates.RESET):
            at_qubit, at_clbit, _ = self.begins[k].tolist()
            op = k if self._op_ids is None else int(self._op_ids[k])
            qubit = int(self._circuit.qubits[at_qubit])
            if code == gates.RESET:
                self.items.append(Reset(op, qubit))
                return
            last = bool(self._roles[k] == measurements.LAST_USE)
            self.items.append(Measure(op, qubit, int(self._circuit.clbits[at_clbit]), last))
        elif code == gates.STORE:
            self.items.append(Store(next(self._expressions)))
        elif code in (gates.BREAK, gates.CONTINUE):
            loop = next(b for b in reversed(self._open) if b.code in (gates.WHILE, gates.FOR))
            self._jump(loop.to_end if code == gates.BREAK else loop.to_next)
        elif code == gates.END_BLOCK:
            self._close(self._open.pop())
        elif code in (gates.ELSE, gates.CASE, gates.DEFAULT):
            self._next(code, self._open[-1])
        else:
            self._open.append(_Block(code, len(self.items), next(self._expressions)))
            self.items += [_OPEN, _OPEN] if code == gates.WHILE else [_OPEN]

    def _jump(self, jumps: list[int]) -> None:
        jumps.append(len(self.items))
        self.items.append(_OPEN)

    def _next(self, code: int, block: _Block) -> None:
        """Begin the next branch of an `if` or a `switch`."""
        if code == gates.ELSE or block.targets or block.otherwise >= 0:
            self._jump(block.to_end)
        if code == gates.ELSE:
            block.targets[0] = len(self.items)
        elif code == gates.DEFAULT:
            block.otherwise = len(self.items)
        else:
            for label in next(self._expressions).labels:
                block.targets.setdefault(label, len(self.items))

    def _close(self, block: _Block) -> None:
        """End a block. One without instructions vanishes, but a `while`."""
        begin, end = block.begin, len(self.items)
        if block.code in (gates.IF, gates.SWITCH):
            if end == begin + 1 + len(block.to_end):
                del self.items[begin:]
                return
            if block.code == gates.IF:
                block.otherwise = begin + 1
                block.targets.setdefault(0, end)
            elif block.otherwise < 0:
                block.otherwise = end
            kind = "if" if block.code == gates.IF else "switch"
            self.items[begin] = Branch(kind, block.expression, block.targets, block.otherwise)
            self.items.append(JoinPoint())
        elif block.code == gates.FOR and end == begin + 1:
            self.items.pop()
        else:
            count = block.expression.labels[0] if block.code == gates.FOR else -1
            self.items += [LoopBack(begin), LoopExit(begin)]
            self.items[begin] = LoopPass(count, end + 1)
            if block.code == gates.WHILE:
                targets = {0: end + 1}
                self.items[begin + 1] = Branch("while", block.expression, targets, begin + 2)
            for at in block.to_next:
                self.items[at] = Jump(end)
            end += 1
        for at in block.to_end:
            self.items[at] = Jump(end)
