"""Runs a QuantumCircuit by Qiskit's meaning of it: instructions, blocks, expression trees."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import branches as br
import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, Barrier, Clbit, Delay, Gate, IfElseOp, Measure, Reset
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
}
Numbers = dict[Any, int]


def run(circuit: QuantumCircuit) -> list[br.Branch]:
    """All branches at the end; bits numbered register by register, loose ones last."""
    ordered = [bit for register in circuit.cregs for bit in register]
    ordered += [bit for bit in circuit.clbits if bit not in ordered]
    clbits = {bit: number for number, bit in enumerate(ordered)}
    qubits = {bit: number for number, bit in enumerate(circuit.qubits)}
    return _block(circuit, br.start(circuit.num_qubits), qubits, clbits)


def _block(
    circuit: QuantumCircuit, branches: list[br.Branch], qubits: Numbers, clbits: Numbers
) -> list[br.Branch]:
    phase = np.exp(1j * float(circuit.global_phase))
    branches = [(state * phase, bits) for state, bits in branches]
    for item in circuit.data:
        branches = _step(item, branches, qubits, clbits)
    return branches


def _step(
    item: Any, branches: list[br.Branch], qubits: Numbers, clbits: Numbers
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
    if isinstance(operation, IfElseOp):
        test = operation.condition
        yes, no = br.split(branches, lambda bits: bool(_holds(test, bits, clbits)))
        sides = [yes, no]
        for number, block in enumerate(operation.blocks):
            sides[number] = _inner(block, item, sides[number], qubits, clbits)
        return sides[0] + sides[1]
    return _inner(operation.definition, item, branches, qubits, clbits)


def _inner(
    circuit: QuantumCircuit, item: Any, branches: list[br.Branch], qubits: Numbers, clbits: Numbers
) -> list[br.Branch]:
    inner_qubits = dict(zip(circuit.qubits, (qubits[bit] for bit in item.qubits), strict=True))
    inner_clbits = dict(zip(circuit.clbits, (clbits[bit] for bit in item.clbits), strict=True))
    return _block(circuit, branches, inner_qubits, inner_clbits)


def _holds(test: Any, bits: int, clbits: Numbers) -> bool:
    if isinstance(test, tuple):
        target, value = test
        if isinstance(target, Clbit):
            return bool(bits >> clbits[target] & 1) == bool(value)
        return _register(target, bits, clbits) == value
    return bool(_value(test, bits, clbits))


def _register(register: Any, bits: int, clbits: Numbers) -> int:
    return sum((bits >> clbits[bit] & 1) << place for place, bit in enumerate(register))


def _value(node: Any, bits: int, clbits: Numbers) -> int:
    wrap = (1 << node.type.width) - 1 if isinstance(node.type, types.Uint) else 1
    if isinstance(node, expr.Var):
        if isinstance(node.var, Clbit):
            return bits >> clbits[node.var] & 1
        return _register(node.var, bits, clbits)
    if isinstance(node, expr.Value):
        return int(node.value)
    if isinstance(node, expr.Cast):
        value = _value(node.operand, bits, clbits)
        return value & wrap if isinstance(node.type, types.Uint) else int(value != 0)
    if isinstance(node, expr.Unary):
        value = _value(node.operand, bits, clbits)
        return ~value & wrap
    if isinstance(node, expr.Index):
        return _value(node.target, bits, clbits) >> _value(node.index, bits, clbits) & 1
    left, right = _value(node.left, bits, clbits), _value(node.right, bits, clbits)
    return int(_BINARY[node.op.name](left, right)) & wrap
