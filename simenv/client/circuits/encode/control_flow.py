"""Encoding of Qiskit's control flow as markers of a Program: blocks, loops, break and continue.

Invariant: a loop is unrolled if its body depends on the index in a way that no expression can have
(an angle, a list of numbers); every other loop is encoded as a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from simenv.client.circuits.common.text_checks import (
    MAX_BLOCKS,
    MAX_OPERATIONS,
    too_many_operations,
)
from simenv.client.circuits.encode.expressions import ExpressionWriter
from simenv.client.circuits.encode.program_builder import BitNumber, ProgramBuilder
from simenv.errors import LimitExceededError, ProgramError
from simenv.transpiler.qiskit_runtime import names

MAX_WRITTEN_OUT = 65_536  # passes of one unrolled loop

Bits = tuple[list[int], list[int]]  # numbers of the qubits and clbits of a block
# Encodes a block's circuit, on these bits, at this depth.
Inside = Callable[[Any, Sequence[int], Sequence[int], int], None]


class BlockWriter:
    """Writer of the blocks of one circuit; `inside` encodes their content."""

    __slots__ = ("_expressions", "_inside", "_tape")

    def __init__(self, tape: ProgramBuilder, expressions: ExpressionWriter, inside: Inside) -> None:
        self._tape = tape
        self._expressions = expressions
        self._inside = inside

    def write(
        self, operation: Any, item: Any, qubit_of: BitNumber, clbit_of: BitNumber, depth: int
    ) -> None:
        """Encode one control-flow operation. Raises ProgramError for other kinds of blocks."""
        classes = names()
        if isinstance(operation, classes.BreakLoopOp):
            self._tape.marker("break")
            return
        if isinstance(operation, classes.ContinueLoopOp):
            self._tape.marker("continue")
            return
        if depth >= MAX_BLOCKS:
            raise ProgramError(f"blocks are nested more than {MAX_BLOCKS} deep")
        bits = list(map(qubit_of, item.qubits)), list(map(clbit_of, item.clbits))
        if isinstance(operation, classes.IfElseOp):
            self._if(operation, bits, clbit_of, depth)
        elif isinstance(operation, classes.WhileLoopOp):
            self._expressions.condition(operation.condition, clbit_of)
            self._tape.marker("while")
            self._inside(operation.blocks[0], *bits, depth + 1)
            self._tape.marker("end")
        elif isinstance(operation, classes.SwitchCaseOp):
            self._switch(operation, bits, clbit_of, depth)
        elif isinstance(operation, classes.ForLoopOp):
            indices, index, body = operation.params
            self._for(indices, index, body, bits, depth)
        else:
            raise ProgramError(
                f"control flow {operation.name!r} is not carried",
                hint="take the operations out of the box, or use if, switch and loops",
            )
        self._tape.check()

    def store(self, operation: Any, clbit_of: BitNumber) -> None:
        """Encode a `store` of Qiskit."""
        self._expressions.store(operation.lvalue, operation.rvalue, clbit_of)
        self._tape.marker("store")

    def _if(self, operation: Any, bits: Bits, clbit_of: BitNumber, depth: int) -> None:
        tape = self._tape
        self._expressions.condition(operation.condition, clbit_of)
        tape.marker("if")
        for number, block in enumerate(operation.blocks):
            rows = tape.marker("else") if number else 0
            before = len(tape.ops)
            self._inside(block, *bits, depth + 1)
            if number and len(tape.ops) == before:  # an empty else
                tape.unmark(rows)
        tape.marker("end")

    def _switch(self, operation: Any, bits: Bits, clbit_of: BitNumber, depth: int) -> None:
        tape = self._tape
        width = self._expressions.target(operation.target, clbit_of)
        tape.marker("switch")
        for labels, block in operation.cases_specifier():
            if any(label is names().CASE_DEFAULT for label in labels):
                tape.marker("default")
            else:
                self._expressions.constants(map(int, labels), width)
                tape.marker("case")
            self._inside(block, *bits, depth + 1)
        tape.marker("end")

    def _for(self, indices: Any, index: Any, body: Any, bits: Bits, depth: int) -> None:
        """Encode a for loop. `index`: None, a parameter, or a variable."""
        if not _length(indices):
            return
        is_parameter = isinstance(index, names().Parameter)
        if index is None or (is_parameter and index not in body.parameters):
            self._repeat(_length(indices))
            self._inside(body, *bits, depth + 1)
            self._tape.marker("end")
        elif not is_parameter and isinstance(indices, range):
            self._count(indices, index, body, bits, depth)
        else:
            self._write_out(indices, index, body, bits, depth)

    def _repeat(self, count: int) -> None:
        self._expressions.constants((count,), max(1, count.bit_length()))
        self._tape.marker("for")

    def _assign(self, variable: int, width: int, value: int) -> None:
        self._expressions.assign(variable, width, value)
        self._tape.marker("store")

    def _count(self, indices: range, index: Any, body: Any, bits: Bits, depth: int) -> None:
        """Encode a loop over a range with a variable, which is advanced at the begin of a pass."""
        count = _length(indices)
        variable, width = self._expressions.variable(index)
        last = indices.start + (count - 1) * indices.step
        _check_fits((indices.start, last), index, width)
        self._assign(variable, width, (indices.start - indices.step) % (1 << width))
        self._repeat(count)
        self._expressions.advance(variable, width, indices.step)
        self._tape.marker("store")
        self._inside(body, *bits, depth + 1)
        self._tape.marker("end")

    def _write_out(
        self, indices: Sequence[int], index: Any, body: Any, bits: Bits, depth: int
    ) -> None:
        count = _length(indices)
        if count * max(1, len(body._data)) > MAX_OPERATIONS:
            raise too_many_operations()
        if count > MAX_WRITTEN_OUT:
            raise LimitExceededError(
                f"a loop of {count} passes that must be written out; at most {MAX_WRITTEN_OUT} are",
                hint="its index is an angle or comes from a list; split the loop",
            )
        begin = self._begin_pass(indices, index, body)
        if not _jumps(body):
            for value in indices:
                self._inside(begin(value), *bits, depth + 1)
            return
        # A loop over numbered passes, which break and continue can leave.
        width = max(1, count.bit_length())
        number = self._expressions.new(width)
        self._assign(number, width, 0)
        self._repeat(count)
        self._expressions.read_target(number, width)
        self._tape.marker("switch")
        for k, value in enumerate(indices):
            self._expressions.constants((k,), width)
            self._tape.marker("case")
            self._assign(number, width, k + 1)
            self._inside(begin(value), *bits, depth + 1)
        self._tape.marker("end")
        self._tape.marker("end")

    def _begin_pass(self, indices: Iterable[int], index: Any, body: Any) -> Callable[[int], Any]:
        """Return a function from an index to the body of its pass. For a loop variable it also
        writes the assignment of the index."""
        if isinstance(index, names().Parameter):
            return lambda value: body.assign_parameters({index: value})
        variable, width = self._expressions.variable(index)
        _check_fits(indices, index, width)

        def begin(value: int) -> Any:
            self._assign(variable, width, value)
            return body

        return begin


def _length(indices: Any) -> int:
    """Return `len(indices)`, also for ranges that are longer than `len` permits."""
    if not isinstance(indices, range):
        return len(indices)
    step = indices.step
    return max(0, (indices.stop - indices.start + step - (1 if step > 0 else -1)) // step)


def _check_fits(values: Iterable[int], index: Any, width: int) -> None:
    for value in values:
        if not 0 <= value < 1 << width:
            raise ProgramError(
                f"the loop variable {index.name!r} has {width} bits, which do not hold {value}",
                hint="give it more bits, and numbers from 0 on",
            )


def is_jump(operation: Any) -> bool:
    """Return whether an operation is a break or a continue."""
    return isinstance(operation, names().BreakLoopOp | names().ContinueLoopOp)


def _jumps(body: Any) -> bool:
    """Return whether a loop's body has a break or a continue of this loop."""
    loops = names().ForLoopOp | names().WhileLoopOp
    for item in body._data:
        if item.is_standard_gate():
            continue
        operation = item.operation
        if is_jump(operation):
            return True
        inner = item.is_control_flow() and not isinstance(operation, loops)
        if inner and any(map(_jumps, operation.blocks)):
            return True
    return False
