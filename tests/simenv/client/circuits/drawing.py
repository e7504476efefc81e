"""Strategies that draw circuits of every kind that is carried."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit, Gate, Parameter, Qubit, library
from qiskit.circuit.classical import expr, types

ANGLES = st.floats(-7, 7, allow_nan=False).map(lambda angle: round(angle, 6))
STANDARD = {
    name: gate
    for name, gate in library.get_standard_gate_name_mapping().items()
    if isinstance(gate, Gate)
}
_COMPARISONS: list[Callable[..., Any]] = [
    expr.equal, expr.not_equal, expr.less, expr.less_equal, expr.greater, expr.greater_equal,
]  # fmt: skip
MAX_SPLITS = 5  # measurements and resets: each doubles the branches


@st.composite
def layouts(draw: st.DrawFn) -> QuantumCircuit:
    """An empty circuit with several registers and loose bits, in any order."""
    circuit = QuantumCircuit()
    pieces: list[Any] = [QuantumRegister(draw(st.integers(1, 2)), "a"), Qubit()]
    pieces += [QuantumRegister(draw(st.integers(1, 2)), "b")]
    for number in range(draw(st.integers(0, 3))):
        pieces.append(ClassicalRegister(draw(st.integers(1, 3)), f"c{number}"))
    pieces += [Clbit() for _ in range(draw(st.integers(0, 2)))]
    for piece in draw(st.permutations(pieces)):
        if isinstance(piece, Qubit | Clbit):
            circuit.add_bits([piece])
        else:
            circuit.add_register(piece)
    return circuit


@st.composite
def gates(draw: st.DrawFn, width: int, angle: st.SearchStrategy[Any]) -> Gate:
    """A gate on at most `width` qubits."""
    kind = draw(st.integers(0, 9))
    if kind < 6:
        names = sorted(name for name, gate in STANDARD.items() if gate.num_qubits <= width)
        name = draw(st.sampled_from(names))
        return type(STANDARD[name])(*(draw(angle) for _ in STANDARD[name].params))
    if kind == 6:
        return draw(customs(min(width, 2), angle))
    if kind == 7:
        return draw(controlled(width))
    if kind == 8:
        return library.PauliGate(
            "".join(draw(st.lists(st.sampled_from("XYZI"), min_size=1, max_size=width)))
        )
    from qiskit.quantum_info import random_unitary

    return library.UnitaryGate(
        random_unitary(2 ** draw(st.integers(1, min(width, 2))), seed=draw(_seeds))
    )


_seeds = st.integers(0, 999)


@st.composite
def customs(draw: st.DrawFn, width: int, angle: st.SearchStrategy[Any]) -> Gate:
    """A gate with a definition of its own, a global phase, and perhaps a standard gate's name."""
    body = QuantumCircuit(width, global_phase=draw(ANGLES))
    for _ in range(draw(st.integers(0, 3))):
        gate = STANDARD[draw(st.sampled_from(["h", "t", "rx", "u", "cx", "rzz"]))]
        if gate.num_qubits <= width:
            on = draw(st.permutations(range(width)))[: gate.num_qubits]
            body.append(type(gate)(*(draw(angle) for _ in gate.params)), on)
    result = body.to_gate(label=draw(st.none() | st.just("shown")))
    result.name = draw(st.sampled_from(["mine", "h", "cx", "measure", "mcx", "global_phase"]))
    return result


@st.composite
def controlled(draw: st.DrawFn, width: int) -> Gate:
    """A gate with controls that wait for 0 or 1."""
    if width < 2:
        return library.XGate()
    controls = draw(st.integers(1, width - 1))
    state = draw(st.integers(0, 2**controls - 1))
    value: Gate
    if width - controls >= 2 and draw(st.booleans()):
        annotated = draw(st.booleans())
        value = library.SwapGate().control(controls, ctrl_state=state, annotated=annotated)
    elif draw(st.booleans()):
        value = library.MCXGate(controls, ctrl_state=state)
    else:
        value = library.MCPhaseGate(draw(ANGLES), controls, ctrl_state=state)
    return value


@st.composite
def uints(draw: st.DrawFn, circuit: QuantumCircuit, depth: int) -> Any:
    """An expression of type Uint."""
    registers = [register for register in circuit.cregs if register.size]
    kind = draw(st.integers(0, 6)) if depth else 0
    if kind == 0 and registers and draw(st.booleans()):
        return expr.lift(draw(st.sampled_from(registers)))
    if kind == 0:
        width = draw(st.sampled_from([1, 2, 3, 8, 301]))
        return expr.Value(draw(st.integers(0, 2**width - 1)), types.Uint(width))
    left = draw(uints(circuit, depth - 1))
    if kind == 1:
        return expr.cast(left, types.Uint(draw(st.integers(1, 9))))
    if kind == 2:
        return expr.bit_not(left)
    if kind == 3:
        shift = draw(st.integers(0, 5))
        return draw(st.sampled_from([expr.shift_left, expr.shift_right]))(left, shift)
    right = expr.cast(draw(uints(circuit, depth - 1)), left.type)
    combine: list[Callable[..., Any]] = [expr.bit_and, expr.bit_or, expr.bit_xor]
    if kind == 4:
        combine = [expr.add, expr.sub, expr.mul]
    return draw(st.sampled_from(combine))(left, right)


@st.composite
def bools(draw: st.DrawFn, circuit: QuantumCircuit, depth: int = 2) -> Any:
    """An expression of type Bool."""
    kind = draw(st.integers(0, 6)) if depth else 0
    if kind == 0 and circuit.clbits:
        return expr.lift(draw(st.sampled_from(circuit.clbits)))
    if kind == 0:
        return expr.lift(draw(st.booleans()))
    if kind == 1:
        return expr.logic_not(draw(bools(circuit, depth - 1)))
    if kind == 2:
        join = draw(st.sampled_from([expr.logic_and, expr.logic_or, expr.bit_xor, expr.equal]))
        return join(draw(bools(circuit, depth - 1)), draw(bools(circuit, depth - 1)))
    left = draw(uints(circuit, depth - 1))
    if kind == 3:
        return expr.cast(left, types.Bool())
    if kind == 4:
        return expr.index(left, draw(st.integers(0, left.type.width - 1)))
    return draw(st.sampled_from(_COMPARISONS))(left, draw(uints(circuit, depth - 1)))


@st.composite
def conditions(draw: st.DrawFn, circuit: QuantumCircuit) -> Any:
    """A condition in one of the forms that Qiskit takes."""
    kind = draw(st.integers(0, 3))
    if kind == 0 and circuit.clbits:
        return draw(st.sampled_from(circuit.clbits)), draw(st.booleans())
    if kind == 1 and circuit.cregs:
        register = draw(st.sampled_from(circuit.cregs))
        return register, draw(st.integers(0, 2**register.size))  # the last one never holds
    return draw(bools(circuit))


class Draft:
    """Adds random instructions to a circuit."""

    def __init__(self, draw: st.DrawFn, circuit: QuantumCircuit, dynamic: bool) -> None:
        self.draw = draw
        self.circuit = circuit
        self.dynamic = dynamic
        self.splits = 0
        self.angle: st.SearchStrategy[Any] = ANGLES

    def fill(self, count: int, depth: int = 0) -> None:
        for _ in range(self.draw(st.integers(0, count))):
            self.add(depth)

    def add(self, depth: int) -> None:
        draw, circuit = self.draw, self.circuit
        kind = draw(st.integers(0, 9))
        if self.dynamic and kind in (6, 7) and self.splits < MAX_SPLITS:
            self.splits += 1
            qubit = draw(st.sampled_from(circuit.qubits))
            if kind == 6 and circuit.clbits:
                circuit.measure(qubit, draw(st.sampled_from(circuit.clbits)))
            else:
                circuit.reset(qubit)
        elif self.dynamic and kind == 8 and depth < 3:
            with circuit.if_test(draw(conditions(circuit))) as otherwise:
                self.fill(3, depth + 1)
            if draw(st.booleans()):
                with otherwise:
                    self.fill(2, depth + 1)
        elif kind == 9:
            unit = draw(st.sampled_from(["s", "ms", "us", "ns", "ps", "dt"]))
            circuit.delay(draw(st.integers(0, 50)), draw(st.sampled_from(circuit.qubits)), unit)
            circuit.barrier(draw(st.lists(st.sampled_from(circuit.qubits), unique=True)))
        else:
            gate = draw(gates(circuit.num_qubits, self.angle))
            circuit.append(gate, draw(st.permutations(circuit.qubits))[: gate.num_qubits])


@st.composite
def circuits(draw: st.DrawFn, *, dynamic: bool = True, plain: bool = False) -> QuantumCircuit:
    """A circuit without free parameters; a plain one has no loose bits."""
    circuit = QuantumCircuit(3, 2) if plain else draw(layouts())
    circuit.global_phase = draw(ANGLES)
    Draft(draw, circuit, dynamic).fill(8)
    return circuit


@st.composite
def expressions(draw: st.DrawFn, parameters: list[Parameter]) -> Any:
    """A parameter, or an expression that is finite everywhere."""
    got = draw(st.sampled_from(parameters))
    other = draw(st.sampled_from(parameters))
    factor = draw(st.integers(-3, 3).filter(bool))
    finite = [got, factor * got, got + other, got * other, got / factor - 1]
    finite += [(got * other).sin(), (got - other).abs(), 1 / (2 + got.cos()), (got + 1) ** 2]
    return draw(st.sampled_from(finite))


@st.composite
def parametric(draw: st.DrawFn) -> QuantumCircuit:
    """A circuit with the free parameters x, y and v[...]."""
    circuit = draw(layouts())
    parameters = [Parameter("x"), Parameter("y")]
    draft = Draft(draw, circuit, dynamic=False)
    draft.angle = ANGLES | expressions(parameters)
    draft.fill(8)
    if draw(st.booleans()):
        circuit.global_phase = draw(expressions(parameters))
    return circuit
