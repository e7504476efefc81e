"""Circuits with loops, switches, variables, stores and matrices, made by hypothesis."""

import numpy as np
from arrays import Arrays, Token
from hypothesis import strategies as st
from qiskit.quantum_info import random_unitary

from simulators.circuit import ir
from simulators.circuit.ir import Circuit

_GATES = [("h", 1, 0), ("x", 1, 0), ("sx", 1, 0), ("ry", 1, 1), ("cx", 2, 0), ("crz", 2, 1)]
_ARITHMETIC = st.sampled_from([ir.BIT_AND, ir.BIT_OR, ir.BIT_XOR, ir.ADD, ir.SUB, ir.MUL, ir.DIV])
_COMPARE = st.sampled_from([ir.EQUAL, ir.NOT_EQUAL, ir.LESS, ir.GREATER_EQUAL])
_WIDTH = 5


class _Maker:
    """Draws the operations of one circuit."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        sizes = draw(st.lists(st.sampled_from([1, 2, _WIDTH, 64]), min_size=1, max_size=3))
        registers = [(f"r{k}", size) for k, size in enumerate(sizes)]
        self.arrays = Arrays(draw(st.integers(1, 3)), sum(sizes), registers)
        widths = draw(st.lists(st.sampled_from([0, _WIDTH, _WIDTH, 70]), max_size=4))
        for width in [_WIDTH, *widths]:
            self.arrays.variable(width)
        self.room = 30  # operations that may still come

    def circuit(self) -> Circuit:
        self.block(0, loops=0)
        for qubit in range(self.arrays.num_qubits):
            self.arrays.add("measure", [qubit], [self.clbit()])
        return self.arrays.circuit()

    def clbit(self) -> int:
        return self.draw(st.integers(0, self.arrays.num_clbits - 1))

    def block(self, depth: int, loops: int) -> None:
        for _ in range(self.draw(st.integers(1, 8 if depth == 0 else 4))):
            if self.room <= 0:
                return
            self.room -= 1
            kinds = "gggmmrsu" + ("iwfc" if depth < 3 else "") + ("bk" if loops else "")
            self.one(self.draw(st.sampled_from(kinds)), depth, loops)

    def one(self, kind: str, depth: int, loops: int) -> None:
        arrays, draw = self.arrays, self.draw
        wires = draw(st.permutations(range(arrays.num_qubits)))
        if kind == "g":
            name, count, params = draw(st.sampled_from(_GATES))
            if count <= len(wires):
                arrays.add(name, wires[:count], (), [0.7] * params)
        elif kind == "u":
            count = draw(st.integers(1, len(wires)))
            matrix = random_unitary(2**count, seed=draw(st.integers(0, 3))).data
            arrays.unitary(matrix, wires[:count])
        elif kind == "m":
            arrays.add("measure", wires[:1], [self.clbit()])
        elif kind == "r":
            arrays.add("reset", wires[:1])
        elif kind == "s":
            self.store()
        elif kind in "bk":  # seldom of use without a condition
            arrays.begin(*self.boolean()).add("break" if kind == "b" else "continue").add("end")
        else:
            self.compound(kind, depth, loops)

    def compound(self, kind: str, depth: int, loops: int) -> None:
        arrays, draw = self.arrays, self.draw
        if kind == "i":
            arrays.begin(*self.boolean())
            self.block(depth + 1, loops)
            if draw(st.booleans()):
                arrays.add("else")
                self.block(depth + 1, loops)
        elif kind == "f":
            arrays.repeat(draw(st.integers(0, 3)))
            self.block(depth + 1, loops + 1)
        elif kind == "w":
            self.counted() if draw(st.booleans()) else arrays.begin(*self.boolean(), name="while")
            self.block(depth + 1, loops + 1)
        else:
            arrays.begin(*self.uint(), name="switch")
            for _ in range(draw(st.integers(1, 3))):
                labels = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
                arrays.begin(*[self.number(label) for label in labels], name="case")
                self.block(depth + 1, loops)
            if draw(st.booleans()):
                arrays.add("default")
                self.block(depth + 1, loops)
        arrays.add("end")

    def counted(self) -> None:
        """The head of a loop that ends, if nobody else writes its variable."""
        arrays = self.arrays
        variable = arrays.variable(_WIDTH)
        more = (ir.VARIABLE, variable, _WIDTH)
        arrays.begin(more, self.number(self.draw(st.integers(0, 3))), (ir.LESS, 0, 0), name="while")
        tokens = more, self.number(1), (ir.ADD, 0, _WIDTH), (ir.SET_VARIABLE, variable, _WIDTH)
        arrays.begin(*tokens, name="store")

    def number(self, value: int, width: int = _WIDTH) -> Token:
        return (ir.VALUE, self.arrays.value(value), width)

    def uint(self) -> tuple[Token, ...]:
        """A Uint of _WIDTH bits."""
        arrays, draw = self.arrays, self.draw
        entries: list[tuple[Token, ...]] = [(self.number(draw(st.integers(0, 9))),)]
        for number, width in enumerate(arrays.variables):
            cast = () if width == _WIDTH else ((ir.CAST, 0, _WIDTH),)
            entries.append(((ir.VARIABLE, number, width), *cast))
        for number, (_, width) in enumerate(arrays.registers):
            cast = () if width == _WIDTH else ((ir.CAST, 0, _WIDTH),)
            entries.append(((ir.REGISTER, number, width), *cast))
        result = draw(st.sampled_from(entries))
        if draw(st.booleans()):
            return result
        return (*result, *draw(st.sampled_from(entries)), (draw(_ARITHMETIC), 0, _WIDTH))

    def boolean(self) -> tuple[Token, ...]:
        arrays, draw = self.arrays, self.draw
        kind = draw(st.sampled_from("cbv"))
        booleans = [number for number, width in enumerate(arrays.variables) if not width]
        if kind == "c":
            return (*self.uint(), *self.uint(), (draw(_COMPARE), 0, 0))
        if kind == "v" and booleans:
            return ((ir.VARIABLE, draw(st.sampled_from(booleans)), 0),)
        flip: tuple[Token, ...] = ((ir.LOGIC_NOT, 0, 0),) if draw(st.booleans()) else ()
        return ((ir.CLBIT, self.clbit(), 0), *flip)

    def store(self) -> None:
        arrays, draw = self.arrays, self.draw
        kind = draw(st.sampled_from("vvrc"))
        if kind == "c":
            arrays.begin(*self.boolean(), (ir.SET_CLBIT, self.clbit(), 0), name="store")
            return
        table = arrays.variables if kind == "v" else [size for _, size in arrays.registers]
        number = draw(st.integers(0, len(table) - 1))
        width = table[number]
        token = ir.SET_VARIABLE if kind == "v" else ir.SET_REGISTER
        if width == 0:
            value = self.boolean()
        else:
            value = (*self.uint(), (ir.CAST, 0, width)) if width != _WIDTH else self.uint()
        arrays.begin(*value, (token, number, width), name="store")


@st.composite
def looped_circuits(draw: st.DrawFn) -> Circuit:
    """On up to 3 qubits; some loops never end."""
    return _Maker(draw).circuit()


def permutation(order: list[int]) -> np.ndarray:
    """The matrix that moves basis state order[k] to k."""
    return np.eye(len(order))[order]
