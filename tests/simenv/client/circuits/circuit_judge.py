"""Runs a QuantumCircuit by Qiskit's meaning of it: instructions, blocks, expression trees."""

import operator
from collections.abc import Callable
from typing import Any

import branches as br
import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    CASE_DEFAULT,
    AnnotatedOperation,
    Barrier,
    BreakLoopOp,
    Clbit,
    ContinueLoopOp,
    Delay,
    ForLoopOp,
    Gate,
    IfElseOp,
    Measure,
    Parameter,
    Reset,
    Store,
    SwitchCaseOp,
    WhileLoopOp,
)
from qiskit.circuit.classical import expr, types
from qiskit.quantum_info import Operator

_BINARY: dict[str, Callable[[int, int], int]] = {
    "BIT_AND": operator.and_,
    "BIT_OR": operator.or_,
    "BIT_XOR": operator.xor,
    "LOGIC_AND": operator.and_,
    "LOGIC_OR": operator.or_,
    "EQUAL": operator.eq,
    "NOT_EQUAL": operator.ne,
    "LESS": operator.lt,
    "LESS_EQUAL": operator.le,
    "GREATER": operator.gt,
    "GREATER_EQUAL": operator.ge,
    "SHIFT_LEFT": operator.lshift,
    "SHIFT_RIGHT": operator.rshift,
    "ADD": operator.add,
    "SUB": operator.sub,
    "MUL": operator.mul,
    "DIV": lambda left, right: left // right if right else 0,
}
MAX_PASSES = 40

Numbers = dict[Any, int]


class Endless(Exception):
    """A loop was done too often to follow every branch."""


def run(circuit: QuantumCircuit) -> list[br.Branch]:
    """All branches at the end; bits numbered register by register, loose ones last."""
    ordered = [bit for register in circuit.cregs for bit in register]
    ordered += [bit for bit in circuit.clbits if bit not in ordered]
    clbits = {bit: number for number, bit in enumerate(ordered)}
    qubits = {bit: number for number, bit in enumerate(circuit.qubits)}
    result = _Judge(circuit.num_clbits).block(circuit, br.start(circuit.num_qubits), qubits, clbits)
    mask = (1 << circuit.num_clbits) - 1
    return [(state, bits & mask) for state, bits in result]


class _Judge:
    """Variables lie behind the clbits; a loop that is open has lists of who left it, and this
    pass of it."""

    def __init__(self, num_clbits: int) -> None:
        self.places: dict[Any, int] = {}
        self.free = num_clbits
        self.loops: list[tuple[list[br.Branch], list[br.Branch]]] = []

    def place(self, variable: Any) -> tuple[int, int]:
        width = variable.type.width if isinstance(variable.type, types.Uint) else 1
        if variable.var not in self.places:
            self.places[variable.var] = self.free
            self.free += width
        return self.places[variable.var], width

    def block(
        self, circuit: QuantumCircuit, branches: list[br.Branch], qubits: Numbers, clbits: Numbers
    ) -> list[br.Branch]:
        phase = np.exp(1j * float(circuit.global_phase))
        branches = [(state * phase, bits) for state, bits in branches]
        for item in circuit.data:
            if branches:
                branches = self.step(item, branches, qubits, clbits)
        return branches

    def step(
        self, item: Any, branches: list[br.Branch], qubits: Numbers, clbits: Numbers
    ) -> list[br.Branch]:
        operation = item.operation
        on = [qubits[bit] for bit in item.qubits]
        if isinstance(operation, Measure):
            return br.measure(branches, on[0], clbits[item.clbits[0]])
        if isinstance(operation, Reset):
            return br.reset(branches, on[0])
        if isinstance(operation, Barrier | Delay):
            return branches
        if isinstance(operation, Gate | AnnotatedOperation):
            return br.evolve(branches, Operator(operation).data, on)
        if isinstance(operation, Store):
            return [
                (state, self.stored(operation.lvalue, operation.rvalue, bits, clbits))
                for state, bits in branches
            ]
        if isinstance(operation, BreakLoopOp | ContinueLoopOp):
            self.loops[-1][isinstance(operation, ContinueLoopOp)].extend(branches)
            return []

        def inside(body: QuantumCircuit, part: list[br.Branch]) -> list[br.Branch]:
            return self.inner(body, item, part, qubits, clbits)

        if isinstance(operation, IfElseOp):
            test = operation.condition
            yes, no = br.split(branches, lambda bits: self.holds(test, bits, clbits))
            blocks = operation.blocks
            return inside(blocks[0], yes) + (inside(blocks[1], no) if len(blocks) > 1 else no)
        if isinstance(operation, WhileLoopOp):
            return self.repeat(operation, branches, inside, clbits)
        if isinstance(operation, ForLoopOp):
            return self.count(operation, branches, inside)
        if isinstance(operation, SwitchCaseOp):
            return self.switch(operation, branches, inside, clbits)
        return inside(operation.definition, branches)

    def repeat(
        self, operation: Any, branches: list[br.Branch], inside: Any, clbits: Numbers
    ) -> list[br.Branch]:
        done: list[br.Branch] = []
        for _ in range(MAX_PASSES):
            branches, over = br.split(
                branches, lambda bits: self.holds(operation.condition, bits, clbits)
            )
            done += over
            if not branches:
                return done
            self.loops.append(([], []))
            branches = inside(operation.blocks[0], branches)
            broken, continued = self.loops.pop()
            done += broken
            branches += continued
        raise Endless

    def count(self, operation: Any, branches: list[br.Branch], inside: Any) -> list[br.Branch]:
        indices, index, body = operation.params
        done: list[br.Branch] = []
        for value in indices:
            self.loops.append(([], []))
            result = body
            if isinstance(index, Parameter):
                result = body.assign_parameters({index: value}) if body.parameters else body
            elif index is not None:
                first, width = self.place(index)
                clear = ~(((1 << width) - 1) << first)
                branches = [(state, bits & clear | value << first) for state, bits in branches]
            branches = inside(result, branches)
            broken, continued = self.loops.pop()
            done += broken
            branches += continued
        return done + branches

    def switch(
        self, operation: Any, branches: list[br.Branch], inside: Any, clbits: Numbers
    ) -> list[br.Branch]:
        done: list[br.Branch] = []
        for labels, body in operation.cases_specifier():
            value, branches = br.split(
                branches,
                lambda bits, labels=labels: (
                    CASE_DEFAULT in labels or self.target(operation.target, bits, clbits) in labels
                ),
            )
            done += inside(body, value)
        return done + branches

    def inner(
        self,
        circuit: QuantumCircuit,
        item: Any,
        branches: list[br.Branch],
        qubits: Numbers,
        clbits: Numbers,
    ) -> list[br.Branch]:
        inner_qubits = dict(zip(circuit.qubits, (qubits[bit] for bit in item.qubits), strict=True))
        inner_clbits = dict(zip(circuit.clbits, (clbits[bit] for bit in item.clbits), strict=True))
        return self.block(circuit, branches, inner_qubits, inner_clbits)

    def stored(self, place: Any, value: Any, bits: int, clbits: Numbers) -> int:
        number = self.value(value, bits, clbits)
        if isinstance(place, expr.Index):
            index = self.value(place.index, bits, clbits)
            old = self.value(place.target, bits, clbits)
            number = (old & ~(1 << index) | number << index) & ((1 << place.target.type.width) - 1)
            place = place.target
        if place.standalone:
            first, width = self.place(place)
            spots = range(first, first + width)
        elif isinstance(place.var, Clbit):
            spots = range(clbits[place.var], clbits[place.var] + 1)
        else:
            spots = [clbits[bit] for bit in place.var]  # type: ignore[assignment]
        for k, spot in enumerate(spots):
            bits = bits & ~(1 << spot) | (number >> k & 1) << spot
        return bits

    def target(self, target: Any, bits: int, clbits: Numbers) -> int:
        if isinstance(target, expr.Expr):
            return self.value(target, bits, clbits)
        if isinstance(target, Clbit):
            return bits >> clbits[target] & 1
        return _register(target, bits, clbits)

    def holds(self, test: Any, bits: int, clbits: Numbers) -> bool:
        if isinstance(test, tuple):
            target, value = test
            if isinstance(target, Clbit):
                return bool(bits >> clbits[target] & 1) == bool(value)
            return _register(target, bits, clbits) == value
        return bool(self.value(test, bits, clbits))

    def value(self, node: Any, bits: int, clbits: Numbers) -> int:
        wrap = (1 << node.type.width) - 1 if isinstance(node.type, types.Uint) else 1
        if isinstance(node, expr.Var):
            if node.standalone:
                return bits >> self.place(node)[0] & wrap
            if isinstance(node.var, Clbit):
                return bits >> clbits[node.var] & 1
            return _register(node.var, bits, clbits)
        if isinstance(node, expr.Value):
            return int(node.value)
        if isinstance(node, expr.Cast):
            value = self.value(node.operand, bits, clbits)
            return value & wrap if isinstance(node.type, types.Uint) else int(value != 0)
        if isinstance(node, expr.Unary):
            return ~self.value(node.operand, bits, clbits) & wrap
        if isinstance(node, expr.Index):
            index = self.value(node.index, bits, clbits)
            return self.value(node.target, bits, clbits) >> index & 1
        left, right = self.value(node.left, bits, clbits), self.value(node.right, bits, clbits)
        return int(_BINARY[node.op.name](left, right)) & wrap


def _register(register: Any, bits: int, clbits: Numbers) -> int:
    return sum((bits >> clbits[bit] & 1) << place for place, bit in enumerate(register))
