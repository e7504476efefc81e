"""An independent answer: plain numpy, one state for every history, nothing merged or reordered.

Matrices are Qiskit's. Randomness is numpy's own Philox, as the seed contract says, so counts must
be equal, not merely alike.
"""

import operator
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit.library import C3SXGate, RC3XGate, XGate, ZGate, get_standard_gate_name_mapping
from qiskit.quantum_info import Operator

from simulators.circuit import ir
from simulators.circuit.ir import Circuit

_GATES = get_standard_gate_name_mapping()
_BINARY = {
    ir.BIT_AND: operator.and_, ir.BIT_OR: operator.or_, ir.BIT_XOR: operator.xor,
    ir.LOGIC_AND: operator.and_, ir.LOGIC_OR: operator.or_, ir.EQUAL: operator.eq,
    ir.NOT_EQUAL: operator.ne, ir.LESS: operator.lt, ir.LESS_EQUAL: operator.le,
    ir.GREATER: operator.gt, ir.GREATER_EQUAL: operator.ge, ir.SHIFT_LEFT: operator.lshift,
    ir.SHIFT_RIGHT: operator.rshift, ir.ADD: operator.add, ir.SUB: operator.sub,
    ir.MUL: operator.mul, ir.DIV: lambda a, b: a // b if b else 0,
}  # fmt: skip
_INERT = {"barrier", "delay", "delay_dt", "id"}
_BLOCKS = {"if", "while", "for", "switch"}
OWNERS = _BLOCKS | {"case", "store"}


def matrix(name: str, params: tuple[float, ...], qubits: int) -> NDArray[np.complex128]:
    """Qiskit's matrix of a gate."""
    if name == "mcx":
        gate = XGate() if qubits == 1 else XGate().control(qubits - 1)
    elif name == "mcphase":
        return np.diag([1.0 + 0j] * (2**qubits - 1) + [np.exp(1j * params[0])])
    elif name in ("c3sx", "rcccx", "ccz"):
        gate = {"c3sx": C3SXGate(), "rcccx": RC3XGate(), "ccz": ZGate().control(2)}[name]
    else:
        gate = type(_GATES[name])(*params)
    return Operator(gate).data


def apply(
    state: NDArray[np.complex128], unitary: NDArray[np.complex128], qubits: tuple[int, ...]
) -> NDArray[np.complex128]:
    """The gate's matrix on these qubits of the state."""
    n = state.size.bit_length() - 1
    k = len(qubits)
    axes = [n - 1 - q for q in reversed(qubits)]
    tensor = unitary.reshape((2,) * (2 * k))
    moved = np.tensordot(tensor, state.reshape((2,) * n), (range(k, 2 * k), axes))
    return np.moveaxis(moved, range(k), axes).reshape(-1)


class Operation:
    """One row of a circuit."""

    def __init__(self, name: str, qubits: tuple, clbits: tuple, params: tuple) -> None:
        self.name, self.qubits, self.clbits, self.params = name, qubits, clbits, params


def operations(circuit: Circuit) -> list[Operation]:
    entries = []
    q = c = p = 0
    for op in circuit.ops.tolist():
        _, nq, nc, np_ = circuit.table.rows[op].tolist()
        entries.append(
            Operation(circuit.table.names[op], tuple(circuit.qubits[q : q + nq].tolist()),
                      tuple(circuit.clbits[c : c + nc].tolist()),
                      tuple(circuit.params[p : p + np_].tolist()))
        )  # fmt: skip
        q, c, p = q + nq, c + nc, p + np_
    return entries


def expressions(circuit: Circuit) -> list[list[tuple[int, int, int]]]:
    entries: list[list[tuple[int, int, int]]] = [[]]
    for row in circuit.conditions.reshape(-1, 3).tolist():
        if row[0] == ir.END:
            entries.append([])
        else:
            entries[-1].append(tuple(row))
    return entries[:-1]


def evaluate(
    circuit: Circuit, tokens: list[tuple[int, int, int]], bits: int, variables: Sequence[int] = ()
) -> int:
    """An expression's value, by a table of Python's own operators."""
    starts = np.cumsum([0] + [size for _, size in circuit.registers]).tolist()
    stack: list[int] = []
    for token, operand, width in tokens:
        limit = 1 << max(1, width)
        if token == ir.CLBIT:
            stack.append(bits >> operand & 1)
        elif token == ir.REGISTER:
            stack.append((bits >> starts[operand]) % (1 << width))
        elif token == ir.VARIABLE:
            stack.append(variables[operand])
        elif token == ir.VALUE:
            value = int.from_bytes(circuit.constants[operand], "little")
            stack.append(value if width else int(value != 0))
        elif token == ir.CAST:
            stack.append(stack.pop() % limit if width else int(stack.pop() != 0))
        elif token in (ir.BIT_NOT, ir.LOGIC_NOT):
            stack.append(limit - 1 - stack.pop())
        else:
            right, left = stack.pop(), stack.pop()
            if token == ir.INDEX:
                stack.append(left >> right & 1)
            else:
                result = int(_BINARY[token](left, right))
                stack.append(result % (1 << width) if width else result)
    return stack[0]


class Reference:
    """Counts of one circuit, history by history."""

    def __init__(self, circuit: Circuit, seed: int, binding: int, shots: int) -> None:
        self.circuit = circuit
        self.key = np.array([seed, binding], np.uint64)
        self.shots = shots
        self.rows = operations(circuit)
        self.expressions = expressions(circuit)
        self.ends, self.elses, self.numbers = self._blocks()
        self.roles = self._roles()

    def draws(self, draw: int) -> NDArray[np.float64]:
        bits = np.random.Philox(key=self.key, counter=[0, draw, 0, 0])
        return np.random.Generator(bits).random(self.shots)

    def _blocks(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        ends, elses, table, opened = {}, {}, {}, []
        for k, row in enumerate(self.rows):
            if row.name in OWNERS:
                table[k] = len(table)
            if row.name in _BLOCKS:
                opened.append(k)
            elif row.name == "else":
                elses[opened[-1]] = k
            elif row.name == "end":
                ends[opened.pop()] = k
        return ends, elses, table

    def _reads(self, k: int) -> set[int]:
        starts = np.cumsum([0] + [size for _, size in self.circuit.registers]).tolist()
        names: set[int] = set()
        for token, operand, width in self.expressions[self.numbers[k]]:
            if token in (ir.CLBIT, ir.SET_CLBIT):
                names.add(operand)
            elif token in (ir.REGISTER, ir.SET_REGISTER):
                names |= set(range(starts[operand], starts[operand] + width))
        return names

    def _roles(self) -> dict[int, str]:
        """Which measurements are final, which resets nobody sees, by what follows each."""
        inside = {j for k, end in self.ends.items() for j in range(k, end)}
        loops = [(k, end) for k, end in self.ends.items() if self.rows[k].name in ("for", "while")]
        looped = {j for k, end in loops for j in range(k, end)}
        roles: dict[int, str] = {}
        for k in reversed(range(len(self.rows))):
            row = self.rows[k]
            after = range(k + 1, len(self.rows))
            if row.name in ("measure", "reset"):
                uses = [
                    j
                    for j in after
                    if row.qubits[0] in self.rows[j].qubits
                    and self.rows[j].name not in _INERT
                    and roles.get(j) != "unseen"
                ]
                acted = [j for j in uses if roles.get(j) != "final"]
                passive = _INERT | {"measure", "reset"}
                touched = any(
                    row.qubits[0] in self.rows[j].qubits and self.rows[j].name not in passive
                    for j in range(k)
                )
            if row.name == "reset" and k not in looped and not (uses and touched):
                roles[k] = "unseen"
            if row.name == "measure":
                bit = row.clbits[0]
                read = any(bit in self._reads(j) for j in after if j in self.numbers)
                written = any(
                    self.rows[j].name == "measure"
                    and self.rows[j].clbits[0] == bit
                    and roles.get(j) != "final"
                    for j in after
                )
                if k not in inside and not acted and not read and not written:
                    roles[k] = "final"
        return roles

    def counts(self) -> dict[int, int]:
        return dict(Counter(self.memory()))

    def memory(self) -> list[int]:
        """The record of each shot, in order."""
        state = np.zeros(2**self.circuit.num_qubits, complex)
        state[0] = 1.0
        self._found = [0] * self.shots
        self._walk(0, state, np.arange(self.shots), np.zeros(self.shots, object))
        return self._found

    def _walk(
        self, k: int, state: NDArray[np.complex128], shots: NDArray[np.int64],
        bits: NDArray[np.object_],
    ) -> None:  # fmt: skip
        while k < len(self.rows) and shots.size:
            row = self.rows[k]
            if row.name == "if":
                tokens = self.expressions[self.numbers[k]]
                array = np.array([evaluate(self.circuit, tokens, int(b)) for b in bits], bool)
                self._walk(k + 1, state.copy(), shots[array], bits[array])
                shots, bits = shots[~array], bits[~array]
                k = self.elses.get(k, self.ends[k])
            elif row.name == "else":
                k = next(end for start, end in self.ends.items() if self.elses.get(start) == k)
            elif row.name in ("measure", "reset") and k not in self.roles:
                for outcome, left, value in self._collapse(k, state, shots):
                    after = bits[value]
                    if row.name == "measure":
                        bit = 1 << row.clbits[0]
                        after = np.array([(b & ~bit) | bit * outcome for b in after], object)
                    self._walk(k + 1, left, shots[value], after)
                return
            elif row.name not in _INERT | {"measure", "reset", "end"}:
                if row.name == "global_phase":
                    state = state * np.exp(1j * row.params[0])
                else:
                    state = apply(state, matrix(row.name, row.params, len(row.qubits)), row.qubits)
            k += 1
        if shots.size:
            self._finish(state, shots, bits)

    def _collapse(self, k: int, state: NDArray[np.complex128], shots: NDArray[np.int64]) -> list:
        qubit = self.rows[k].qubits[0]
        ones = (np.arange(state.size) >> qubit & 1).astype(bool)
        probs = np.abs(state) ** 2
        zero = self.draws(1 + k)[shots] * probs.sum() < probs[~ones].sum()
        entries = []
        for outcome, value in ((0, zero), (1, ~zero)):
            if value.any():
                left = np.where(ones == bool(outcome), state, 0)
                left = left / np.linalg.norm(left)
                if self.rows[k].name == "reset" and outcome:
                    left = apply(left, np.array([[0, 1], [1, 0]], complex), (qubit,))
                entries.append((outcome, left, value))
        return entries

    def _finish(
        self, state: NDArray[np.complex128], shots: NDArray[np.int64], bits: NDArray[np.object_]
    ) -> None:
        edges = np.cumsum(np.abs(state) ** 2)
        indices = np.searchsorted(edges, self.draws(0)[shots] * edges[-1], side="right")
        final = [row for k, row in enumerate(self.rows) if self.roles.get(k) == "final"]
        each = zip(shots.tolist(), indices.tolist(), bits.tolist(), strict=True)
        for shot, index, record in each:
            for row in final:
                bit = 1 << row.clbits[0]
                record = (record & ~bit) | bit * (index >> row.qubits[0] & 1)
            self._found[shot] = int(record)


def final_state(circuit: Circuit) -> NDArray[np.complex128]:
    """The state after all gates of a circuit that measures and resets nothing."""
    state = np.zeros(2**circuit.num_qubits, complex)
    state[0] = 1.0
    for row in operations(circuit):
        if row.name == "global_phase":
            state = state * np.exp(1j * row.params[0])
        elif row.name not in _INERT:
            state = apply(state, matrix(row.name, row.params, len(row.qubits)), row.qubits)
    return state
