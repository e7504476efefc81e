"""Runs a Program by its documented meaning: postfix conditions, block markers, flat arrays."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import branches as br
import numpy as np
from numpy.typing import NDArray
from qiskit.circuit.library import get_standard_gate_name_mapping

from simenv.model import Program, Token

_STANDARD = {name: type(gate) for name, gate in get_standard_gate_name_mapping().items()}
_BINARY: dict[int, Callable[[int, int], int]] = {
    Token.BIT_AND: lambda a, b: a & b,
    Token.BIT_OR: lambda a, b: a | b,
    Token.BIT_XOR: lambda a, b: a ^ b,
    Token.LOGIC_AND: lambda a, b: int(bool(a) and bool(b)),
    Token.LOGIC_OR: lambda a, b: int(bool(a) or bool(b)),
    Token.EQUAL: lambda a, b: int(a == b),
    Token.NOT_EQUAL: lambda a, b: int(a != b),
    Token.LESS: lambda a, b: int(a < b),
    Token.LESS_EQUAL: lambda a, b: int(a <= b),
    Token.GREATER: lambda a, b: int(a > b),
    Token.GREATER_EQUAL: lambda a, b: int(a >= b),
    Token.SHIFT_LEFT: lambda a, b: a << b,
    Token.SHIFT_RIGHT: lambda a, b: a >> b,
    Token.ADD: lambda a, b: a + b,
    Token.SUB: lambda a, b: a - b,
    Token.MUL: lambda a, b: a * b,
    Token.INDEX: lambda a, b: a >> b & 1,
}


def run(program: Program, values: Sequence[float] = ()) -> list[br.Branch]:
    """All branches at the end; `values` fill the slots."""
    return _Run(program, values).block(br.start(program.num_qubits))


def _many(name: str, width: int, params: list[float]) -> NDArray[np.complex128]:
    """All qubits but the last are controls."""
    matrix = np.eye(2**width, dtype=np.complex128)
    last, other = 2**width - 1, 2 ** (width - 1) - 1
    if name == "mcphase":
        matrix[last, last] = np.exp(1j * params[0])
    else:
        matrix[[last, other]] = matrix[[other, last]]
    return matrix


class _Run:
    def __init__(self, program: Program, values: Sequence[float]) -> None:
        self.program = program
        self.rows = struct.iter_unpack("<3H", program.arities)
        self.rows = list(zip(program.names, self.rows, strict=True))  # type: ignore[assignment]
        self.ops = struct.unpack(f"<{len(program.ops) // 2}H", program.ops)
        self.qubits = iter(struct.unpack(f"<{len(program.qubits) // 2}H", program.qubits))
        self.clbits = iter(struct.unpack(f"<{len(program.clbits) // 2}H", program.clbits))
        params = list(struct.unpack(f"<{len(program.params) // 8}d", program.params))
        for position, slot in struct.iter_unpack("<2i", program.slots):
            assert params[position] == 0.0
            params[position] = values[slot]
        self.params = iter(params)
        self.tokens = list(struct.iter_unpack("<3i", program.conditions))
        self.at = 0
        rows = [row for row, name in enumerate(program.names) if name == "unitary"]
        matrices = [np.frombuffer(data, np.complex128) for data in program.matrices]
        self.matrices = dict(zip(rows, matrices, strict=True))

    def block(self, branches: list[br.Branch]) -> list[br.Branch]:
        """Run up to the marker that closes this block, or to the end."""
        while self.at < len(self.ops):
            name, (num_qubits, num_clbits, num_params) = self.rows[self.ops[self.at]]
            if name in ("else", "end"):
                return branches
            self.at += 1
            qubits = [next(self.qubits) for _ in range(num_qubits)]
            clbits = [next(self.clbits) for _ in range(num_clbits)]
            params = [next(self.params) for _ in range(num_params)]
            if name == "unitary":
                matrix = self.matrices[self.ops[self.at - 1]].reshape(2**num_qubits, -1)
                branches = br.evolve(branches, matrix, qubits)
            elif name == "if":
                branches = self.branch(branches)
            else:
                branches = self.step(branches, name, qubits, clbits, params)
        return branches

    def branch(self, branches: list[br.Branch]) -> list[br.Branch]:
        end = next(k for k, token in enumerate(self.tokens) if token[0] == Token.END)
        tokens, self.tokens = self.tokens[:end], self.tokens[end + 1 :]
        yes, no = br.split(branches, lambda bits: bool(self.value(tokens, bits)))
        yes = self.block(yes)
        if self.closing() == "else":
            no = self.block(no)
            assert self.closing() == "end"
        return yes + no

    def closing(self) -> str:
        name: str = self.rows[self.ops[self.at]][0]
        self.at += 1
        return name

    def step(
        self,
        branches: list[br.Branch],
        name: str,
        qubits: list[int],
        clbits: list[int],
        params: list[float],
    ) -> list[br.Branch]:
        if name == "measure":
            return br.measure(branches, qubits[0], clbits[0])
        if name == "reset":
            return br.reset(branches, qubits[0])
        if name in ("barrier", "delay", "delay_dt"):
            return branches
        if name == "global_phase":
            return [(state * np.exp(1j * params[0]), bits) for state, bits in branches]
        if name in ("mcx", "mcphase"):
            return br.evolve(branches, _many(name, len(qubits), params), qubits)
        gate = _STANDARD[name](*params)
        assert gate.num_qubits == len(qubits)
        return br.evolve(branches, gate.to_matrix(), qubits)

    def value(self, tokens: list[Any], bits: int) -> int:
        stack: list[int] = []
        starts = [0]
        for _, size in self.program.registers:
            starts.append(starts[-1] + size)
        for token, operand, width in tokens:
            limit = (1 << width) - 1 if width else 1
            if token == Token.CLBIT:
                stack.append(bits >> operand & 1)
            elif token == Token.REGISTER:
                assert self.program.registers[operand][1] == width
                stack.append(bits >> starts[operand] & limit)
            elif token == Token.VALUE:
                stack.append(int.from_bytes(self.program.constants[operand], "little"))
            elif token == Token.CAST:
                stack.append(stack.pop() & limit if width else int(stack.pop() != 0))
            elif token == Token.BIT_NOT:
                stack.append(~stack.pop() & limit)
            elif token == Token.LOGIC_NOT:
                stack.append(int(not stack.pop()))
            else:
                right, left = stack.pop(), stack.pop()
                stack.append(_BINARY[token](left, right) & limit)
        assert len(stack) == 1
        return stack[0]
