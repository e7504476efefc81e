"""Circuits made by hypothesis: every gate, measurements, resets, blocks and conditions."""

import numpy as np
from arrays import Arrays, Token
from hypothesis import HealthCheck, settings, strategies as st

from simulators.circuit import ir
from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit

_ANGLES = st.sampled_from([0.0, 0.3, -1.1, 2.5, 3.141592653589793, 1.5707963267948966, -7.9])
_COMPARE = st.sampled_from(
    [ir.EQUAL, ir.NOT_EQUAL, ir.LESS, ir.LESS_EQUAL, ir.GREATER, ir.GREATER_EQUAL]
)
_ARITHMETIC = st.sampled_from([ir.BIT_AND, ir.BIT_OR, ir.BIT_XOR, ir.ADD, ir.SUB, ir.MUL])


@st.composite
def _gate(draw: st.DrawFn, arrays: Arrays) -> None:
    gate = draw(st.sampled_from(list(GATES.values())))
    count = gate.qubits if gate.qubits != ANY else draw(st.integers(1, arrays.num_qubits))
    if count > arrays.num_qubits:
        return
    wires = draw(st.permutations(range(arrays.num_qubits)))[:count]
    arrays.add(gate.name, wires, (), [draw(_ANGLES) for _ in range(gate.params)])


@st.composite
def _condition(draw: st.DrawFn, arrays: Arrays) -> tuple[Token, ...]:
    if draw(st.booleans()):
        tokens: tuple[Token, ...] = ((ir.CLBIT, draw(st.integers(0, arrays.num_clbits - 1)), 0),)
        if draw(st.booleans()):
            tokens += ((ir.LOGIC_NOT, 0, 0),)
        return tokens
    number = draw(st.integers(0, len(arrays.registers) - 1))
    width = arrays.registers[number][1]
    left: Token = (ir.REGISTER, number, width)
    value = draw(st.integers(0, 2 ** min(width, 3) - 1))
    right: Token = (ir.VALUE, arrays.value(value), width)
    if draw(st.booleans()):
        third: Token = (ir.VALUE, arrays.value(draw(st.integers(0, 2**width - 1))), width)
        return left, third, (draw(_ARITHMETIC), 0, width), right, (draw(_COMPARE), 0, 0)
    return left, right, (draw(_COMPARE), 0, 0)


@st.composite
def unitary_circuits(draw: st.DrawFn, least: int = 1, most: int = 5) -> Circuit:
    """Gates alone."""
    arrays = Arrays(draw(st.integers(least, most)), 0)
    for _ in range(draw(st.integers(0, 25))):
        draw(_gate(arrays))
    return arrays.circuit()


@st.composite
def dynamic_circuits(draw: st.DrawFn) -> Circuit:
    """Gates, measurements, resets and nested blocks, on up to 4 qubits and 3 registers."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 70]), min_size=1, max_size=3))
    arrays = Arrays(
        draw(st.integers(1, 4)), sum(sizes), [(f"r{k}", s) for k, s in enumerate(sizes)]
    )
    open_blocks: list[bool] = []  # whether an `else` came
    for _ in range(draw(st.integers(1, 30))):
        kind = draw(st.sampled_from("gggggmmrbeci"))
        qubit = draw(st.integers(0, arrays.num_qubits - 1))
        if kind == "g":
            draw(_gate(arrays))
        elif kind == "m":
            arrays.add("measure", [qubit], [draw(st.integers(0, arrays.num_clbits - 1))])
        elif kind == "r":
            arrays.add("reset", [qubit])
        elif kind == "b":
            arrays.add("barrier", range(arrays.num_qubits))
        elif kind == "i" and len(open_blocks) < 3:
            arrays.begin(*draw(_condition(arrays)))
            open_blocks.append(False)
        elif kind == "c" and open_blocks and not open_blocks[-1]:
            arrays.add("else")
            open_blocks[-1] = True
        elif kind == "e" and open_blocks:
            arrays.add("end")
            open_blocks.pop()
    for _ in open_blocks:
        arrays.add("end")
    for qubit in range(draw(st.integers(1, arrays.num_qubits))):
        arrays.add("measure", [qubit], [draw(st.integers(0, arrays.num_clbits - 1))])
    return arrays.circuit()


QUIET = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def random_static(n: int, gates: int, seed: int, clbits: int) -> Circuit:
    """Gates at random, then measurements of qubits in random order into random clbits."""
    rng = np.random.default_rng(seed)
    arrays = Arrays(n, clbits)
    for _ in range(gates):
        gate = GATES[str(rng.choice(["h", "cx", "rx", "rz", "ry", "cp", "swap", "rzz", "t"]))]
        wires = rng.permutation(n)[: gate.qubits].tolist()
        if len(wires) == gate.qubits:
            arrays.add(gate.name, wires, (), rng.uniform(0, 6, gate.params).tolist())
    for qubit, clbit in zip(
        rng.permutation(n).tolist(), rng.permutation(clbits).tolist(), strict=False
    ):
        arrays.add("measure", [qubit], [clbit])
    return arrays.circuit()
