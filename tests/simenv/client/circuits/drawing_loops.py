"""Strategies that draw circuits with loops, switches, variables and stores."""

from typing import Any

import drawing
from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit.classical import expr, types

BYTE = types.Uint(4)


class LoopDraft(drawing.Draft):
    """Adds blocks of every kind; in a loop, jumps too. `simple`: what qiskit-aer can run."""

    def __init__(self, draw: st.DrawFn, circuit: QuantumCircuit, *, simple: bool = False) -> None:
        super().__init__(draw, circuit, dynamic=True)
        self.simple = simple
        self.loops = 0
        self.variables: list[expr.Var] = []
        if not simple:
            for number in range(draw(st.integers(1, 2))):
                first = expr.lift(draw(st.integers(0, 3)), BYTE)
                self.variables.append(circuit.add_var(f"u{number}", first))
            self.flag = circuit.add_var("flag", expr.lift(draw(st.booleans())))

    def uint(self) -> Any:
        draw = self.draw
        kind = draw(st.integers(0, 3))
        if kind == 0:
            return expr.lift(draw(st.integers(0, 15)), BYTE)
        if kind == 1:
            return expr.cast(draw(st.sampled_from(self.circuit.cregs)), BYTE)
        if kind == 2:
            return draw(st.sampled_from(self.variables))
        join = draw(st.sampled_from([expr.add, expr.sub, expr.mul, expr.div, expr.bit_xor]))
        return join(draw(st.sampled_from(self.variables)), self.uint())

    def bool(self) -> Any:
        draw = self.draw
        if self.simple:
            if draw(st.booleans()):
                return draw(st.sampled_from(self.circuit.clbits)), draw(st.booleans())
            return self.circuit.cregs[0], draw(st.integers(0, 3))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            return expr.lift(self.flag)
        if kind == 1:
            return expr.lift(draw(st.sampled_from(self.circuit.clbits)))
        compare = draw(st.sampled_from([expr.less, expr.equal, expr.greater_equal]))
        return compare(self.uint(), self.uint())

    def add(self, depth: int) -> None:
        kind = self.draw(st.integers(0, 12))
        if self.simple and (kind < 6 or depth >= 3):
            self.plain(kind)
        elif kind < 6 or depth >= 3:
            super().add(depth)
        elif kind == 6 and not (self.simple and depth):  # Aer stores in a case that is not taken
            self.store()
        elif kind == 7 and self.loops:
            with self.circuit.if_test(self.bool()):
                leave = self.draw(st.booleans())
                self.circuit.break_loop() if leave else self.circuit.continue_loop()
        elif kind in (8, 9):
            self.for_loop(depth)
        elif kind == 10 and not self.simple:
            self.while_loop(depth)
        else:
            self.switch(depth)

    def plain(self, kind: int) -> None:
        circuit, wires = self.circuit, self.draw(st.permutations(range(3)))
        if kind == 0:
            circuit.measure(wires[0], self.draw(st.sampled_from(circuit.clbits)))
        elif kind == 1:
            circuit.cx(*wires[:2])
        elif kind == 2:
            circuit.reset(wires[0])
        else:
            circuit.ry(self.draw(drawing.ANGLES), wires[0])

    def store(self) -> None:
        draw, circuit = self.draw, self.circuit
        kind = draw(st.integers(0, 1 if self.simple else 5))
        if kind == 0:
            circuit.store(draw(st.sampled_from(circuit.clbits)), draw(st.booleans()))
        elif kind == 1:
            register = draw(st.sampled_from(circuit.cregs))
            number = draw(st.integers(0, 2**register.size - 1))
            circuit.store(register, expr.lift(number, types.Uint(register.size)))
        elif kind == 2:
            circuit.store(self.flag, self.bool())
        elif kind == 3:
            index = draw(st.integers(0, 3)) if draw(st.booleans()) else self.uint()
            circuit.store(expr.index(draw(st.sampled_from(self.variables)), index), self.bool())
        elif kind == 4:
            register = draw(st.sampled_from(circuit.cregs))
            circuit.store(register, expr.cast(self.uint(), types.Uint(register.size)))
        else:
            circuit.store(draw(st.sampled_from(self.variables)), self.uint())

    def looped(self, depth: int) -> None:
        self.loops += 1
        self.fill(2, depth + 1)
        self.loops -= 1

    def for_loop(self, depth: int) -> None:
        draw, circuit = self.draw, self.circuit
        indices: Any = range(draw(st.integers(0, 3)), draw(st.integers(0, 6)), 2)
        if draw(st.booleans()):
            indices = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
        if draw(st.booleans()) and not self.simple:
            index = expr.Var.new(f"i{depth}{draw(st.integers(0, 10**9))}", BYTE)
            with circuit.for_loop(indices, index):  # Qiskit lets no other variable in here
                circuit.store(circuit.clbits[0], expr.equal(index, draw(st.integers(0, 9))))
                with circuit.if_test(expr.less(index, draw(st.integers(0, 9)))):
                    gate = draw(drawing.gates(circuit.num_qubits, drawing.ANGLES))
                    circuit.append(gate, circuit.qubits[: gate.num_qubits])
            return
        with circuit.for_loop(indices) as index:
            if draw(st.booleans()):
                circuit.rx(index * 0.7, draw(st.sampled_from(circuit.qubits)))
            self.looped(depth)

    def while_loop(self, depth: int) -> None:
        draw, circuit = self.draw, self.circuit
        variable = draw(st.sampled_from(self.variables))
        with circuit.while_loop(expr.less(variable, draw(st.integers(0, 5)))):
            circuit.store(variable, expr.add(variable, expr.lift(1, BYTE)))
            self.looped(depth)

    def switch(self, depth: int) -> None:
        draw, circuit = self.draw, self.circuit
        target: Any = draw(st.sampled_from(circuit.cregs))
        value = 2**target.size
        if not self.simple and draw(st.booleans()):
            target, value = self.uint(), 16
        labels = draw(st.lists(st.integers(0, value - 1), unique=True, min_size=1, max_size=3))
        with circuit.switch(target) as case:
            with case(*labels[:2]):
                self.fill(2, depth + 1)
            for label in labels[2:]:
                with case(label):
                    self.fill(2, depth + 1)
            if draw(st.booleans()):
                with case(case.DEFAULT):
                    self.fill(2, depth + 1)


@st.composite
def looped(draw: st.DrawFn, *, simple: bool = False) -> QuantumCircuit:
    """A circuit with two registers, every clbit of which is read."""
    circuit = QuantumCircuit(3)
    circuit.add_register(ClassicalRegister(2, "c"), ClassicalRegister(1, "d"))
    LoopDraft(draw, circuit, simple=simple).fill(6)
    circuit.measure(0, draw(st.sampled_from(circuit.clbits)))
    return circuit
