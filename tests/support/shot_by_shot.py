"""An independent answer for circuits with loops, variables and matrices: one shot at a time.

An interpreter with a place in the program and a state; randomness by the seed contract, so counts
must be equal, not merely alike.
"""

from collections import Counter

import numpy as np
from reference import Reference, apply, evaluate, matrix

from simulators.circuit import ir
from simulators.circuit.ir import Circuit

_SILENT = {"barrier", "delay", "delay_dt", "id"}
_OPENERS = {"if", "while", "for", "switch"}


class EndlessShot(Exception):
    """A shot took more steps than it may."""


def draw_of(operation: int, passes: list[int]) -> int:
    """The number of a draw, as the seed contract has it."""
    if not any(passes):
        return 1 + operation
    number = np.uint64(0)
    with np.errstate(over="ignore"):
        for part in [operation, *passes]:
            number = (number ^ np.uint64(part)) + np.uint64(0x9E3779B97F4A7C15)
            number = (number ^ number >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            number = (number ^ number >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
            number ^= number >> np.uint64(31)
    return int(number) % 2**62 + 2**62


class ShotByShot(Reference):
    """Counts of one circuit."""

    def __init__(
        self, circuit: Circuit, seed: int, binding: int, shots: int, most: int = 2000
    ) -> None:
        super().__init__(circuit, seed, binding, shots)
        self.most = most
        self.openers = {end: k for k, end in self.ends.items()}
        self.parts: dict[int, list[int]] = {k: [] for k in self.ends}  # case, default, else of each
        opened: list[int] = []
        for k, row in enumerate(self.rows):
            if row.name in _OPENERS:
                opened.append(k)
            elif row.name in ("case", "default", "else"):
                self.parts[opened[-1]].append(k)
            elif row.name == "end":
                opened.pop()
        self.matrices = [
            np.frombuffer(data, np.complex128).reshape(2 ** circuit.table.rows[row, 1], -1)
            for row, data in zip(
                np.flatnonzero(circuit.table.matrix >= 0), circuit.matrices, strict=True
            )
        ]

    def counts(self) -> dict[int, int]:
        tally: Counter[int] = Counter()
        for shot in range(self.shots):
            tally[_Shot(self, shot).run()] += 1
        return dict(tally)

    def draw(self, number: int, shot: int) -> float:
        bits = np.random.Philox(key=self.key, counter=[0, number, 0, 0])
        return float(np.random.Generator(bits).random(shot + 1)[shot])


class _Shot:
    def __init__(self, program: ShotByShot, shot: int) -> None:
        self.program = program
        self.shot = shot
        self.bits = 0
        self.variables = [0] * len(program.circuit.variables)
        self.state = np.zeros(2**program.circuit.num_qubits, complex)
        self.state[0] = 1.0
        self.loops: list[list[int]] = []  # place and passes behind it of each that is open

    def run(self) -> int:
        k = steps = 0
        while k < len(self.program.rows):
            steps += 1
            if steps > self.program.most:
                raise EndlessShot
            k = self.step(k)
        return self.finish()

    def step(self, k: int) -> int:
        """Do one operation; where the next is."""
        program, row = self.program, self.program.rows[k]
        name = row.name
        if name == "if":
            if self.value(k):
                return k + 1
            return program.parts[k][0] + 1 if program.parts[k] else program.ends[k] + 1
        if name in ("else", "case", "default"):  # the end of the block before
            return next(end for start, end in program.ends.items() if k in program.parts[start]) + 1
        if name == "switch":
            value = self.value(k)
            for part in program.parts[k]:
                if program.rows[part].name == "default" or value in self.labels(part):
                    return part + 1
            return program.ends[k] + 1
        if name in ("while", "for"):
            self.loops.append([k, 0])
            return self.enter()
        if name == "break":
            return program.ends[self.loops.pop()[0]] + 1
        if name == "continue" or (name == "end" and self.closes_loop(k)):
            self.loops[-1][1] += 1
            return self.enter()
        if name == "store":
            self.store(k)
        elif name in ("measure", "reset"):
            self.collapse(k)
        elif name == "global_phase":
            self.state = self.state * np.exp(1j * row.params[0])
        elif name == "unitary":
            number = int(program.circuit.table.matrix[program.circuit.ops[k]])
            self.state = apply(self.state, program.matrices[number], row.qubits)
        elif name not in _SILENT | {"end"}:
            self.state = apply(self.state, matrix(name, row.params, len(row.qubits)), row.qubits)
        return k + 1

    def closes_loop(self, k: int) -> bool:
        return self.program.rows[self.program.openers[k]].name in ("for", "while")

    def enter(self) -> int:
        k, passes = self.loops[-1]
        if self.program.rows[k].name == "for":
            goes_on = passes < self.labels(k)[0]
        else:
            goes_on = bool(self.value(k))
        if goes_on:
            return k + 1
        self.loops.pop()
        return self.program.ends[k] + 1

    def tokens(self, k: int) -> list[tuple[int, int, int]]:
        return self.program.expressions[self.program.numbers[k]]

    def labels(self, k: int) -> list[int]:
        values = [
            int.from_bytes(self.program.circuit.constants[t[1]], "little") for t in self.tokens(k)
        ]
        return [
            value if t[2] else int(value != 0)
            for value, t in zip(values, self.tokens(k), strict=True)
        ]

    def value(self, k: int, cut: int = 0) -> int:
        tokens = self.tokens(k)
        tokens = tokens[: len(tokens) - cut]
        return evaluate(self.program.circuit, tokens, self.bits, self.variables)

    def store(self, k: int) -> None:
        value = self.value(k, 1)
        token, operand, width = self.tokens(k)[-1]
        if token == ir.SET_VARIABLE:
            self.variables[operand] = value % 2 ** max(1, width)
            return
        sizes = [size for _, size in self.program.circuit.registers]
        first = operand if token == ir.SET_CLBIT else sum(sizes[:operand])
        for place in range(1 if token == ir.SET_CLBIT else width):
            bit = 1 << (first + place)
            self.bits = (self.bits & ~bit) | bit * (value >> place & 1)

    def collapse(self, k: int) -> None:
        program, row = self.program, self.program.rows[k]
        if k in program.roles:
            return
        qubit = row.qubits[0]
        ones = (np.arange(self.state.size) >> qubit & 1).astype(bool)
        probs = np.abs(self.state) ** 2
        draw = program.draw(draw_of(k, [passes for _, passes in self.loops]), self.shot)
        outcome = int(draw * probs.sum() >= probs[~ones].sum())
        self.state = np.where(ones == bool(outcome), self.state, 0)
        self.state /= np.linalg.norm(self.state)
        if row.name == "reset":
            if outcome:
                self.state = apply(self.state, np.array([[0, 1], [1, 0]], complex), (qubit,))
            return
        bit = 1 << row.clbits[0]
        self.bits = (self.bits & ~bit) | bit * outcome

    def finish(self) -> int:
        edges = np.cumsum(np.abs(self.state) ** 2)
        draw = self.program.draw(0, self.shot) * edges[-1]
        index = int(np.searchsorted(edges, draw, side="right"))
        for k, row in enumerate(self.program.rows):
            if self.program.roles.get(k) == "final":
                bit = 1 << row.clbits[0]
                self.bits = (self.bits & ~bit) | bit * (index >> row.qubits[0] & 1)
        return self.bits


def counts(circuit: Circuit, seed: int, shots: int, most: int = 2000) -> dict[int, int]:
    """Counts of a circuit; EndlessShot if a shot takes more than `most` operations."""
    return ShotByShot(circuit, seed, 0, shots, most).counts()
