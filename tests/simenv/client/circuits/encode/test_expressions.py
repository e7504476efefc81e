"""A condition that holds at other times than Qiskit's."""

from __future__ import annotations

from typing import Any

import branches as br
import circuit_judge
import program_judge
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit, Duration, IfElseOp, Instruction, Qubit
from qiskit.circuit.classical import expr, types

from simenv.client.circuits import load, to_qiskit
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import Token

WIDE = 2**301


def outcome(circuit: QuantumCircuit) -> int:
    """The classical bits of a circuit without superpositions, judged twice."""
    program = load(circuit).program
    for each in (program_judge.run(program), program_judge.run(load(to_qiskit(program)).program)):
        br.assert_same(each, circuit_judge.run(circuit))
    ((_, bits),) = program_judge.run(program)
    return bits


def made_of(body: QuantumCircuit) -> Instruction:
    """An instruction with control flow inside."""
    instruction = Instruction("made", body.num_qubits, body.num_clbits, [])
    instruction.definition = body
    return instruction


def test_register_of_302_bits_is_compared_completely() -> None:
    circuit = QuantumCircuit(QuantumRegister(2, "q"), ClassicalRegister(302, "c"))
    circuit.x(0)
    circuit.measure(0, 301)
    for value, bit in ((WIDE, 0), (WIDE + 1, 1), (1, 2)):
        with circuit.if_test((circuit.cregs[0], value)):
            circuit.measure(0, bit)
            circuit.measure(1, bit)
            circuit.measure(0, bit + 5)
    assert outcome(circuit) == WIDE | 1 << 5
    assert any(len(constant) == 38 for constant in load(circuit).program.constants)


def test_register_never_equals_value_wider_than_itself() -> None:
    circuit = QuantumCircuit(1, 2)
    circuit.x(0)
    with circuit.if_test((circuit.cregs[0], 4)):
        circuit.measure(0, 0)
    with circuit.if_test((circuit.cregs[0], 0)):
        circuit.measure(0, 1)
    assert outcome(circuit) == 0b10


def test_register_condition_in_definition_is_mapped_to_outer_bits() -> None:
    body = QuantumCircuit([Qubit(), Qubit()], ClassicalRegister(2, "inner"))
    body.append(IfElseOp((body.cregs[0], 0b01), QuantumCircuit(1, 1)), [0], [0])
    then = QuantumCircuit(1)
    then.x(0)
    body.append(IfElseOp((body.cregs[0], 0b10), then), [1], [])
    circuit = QuantumCircuit(2, 3)
    circuit.x(0)
    circuit.measure(0, 0)
    circuit.append(made_of(body), [1, 0], [2, 0])
    circuit.measure(0, 1)
    assert outcome(circuit) == 0b001  # inner == 0b10: qubit 0 is flipped back


def test_condition_on_register_with_permuted_bits_is_packed_bit_by_bit() -> None:
    circuit = QuantumCircuit(1, 3)
    circuit.x(0)
    circuit.measure(0, 2)
    body = QuantumCircuit([Qubit()], ClassicalRegister(3, "turned"))
    then = QuantumCircuit(1, 1)
    then.measure(0, 0)
    body.append(IfElseOp(expr.equal(body.cregs[0], 0b001), then), [0], [1])
    circuit.append(made_of(body), [0], [2, 1, 0])
    assert outcome(circuit) == 0b110
    assert Token.REGISTER not in tokens(circuit)


def test_condition_on_whole_register_uses_one_register_token() -> None:
    circuit = QuantumCircuit(1, 3)
    with circuit.if_test(expr.less(circuit.cregs[0], 3)):
        circuit.x(0)
    assert tokens(circuit) == [Token.REGISTER, Token.VALUE, Token.LESS, Token.END]


def tokens(circuit: QuantumCircuit) -> list[int]:
    conditions = load(circuit).program.conditions
    return [int.from_bytes(conditions[k : k + 4], "little") for k in range(0, len(conditions), 12)]


def test_else_block_without_effect_is_dropped() -> None:
    circuit = QuantumCircuit(1, 1)
    with circuit.if_test((0, True)) as otherwise:
        circuit.x(0)
    with otherwise:
        circuit.append(QuantumCircuit(1, name="nothing").to_gate(), [0])
    assert load(circuit).program.names == ("if", "x", "end")


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        (lambda c: expr.less(expr.cast(c, types.Float()), 1.0), "Float"),
        (lambda c: expr.less(expr.lift(1.5), 2.5), "Float"),
    ],
)
def test_expression_of_floats_is_refused(condition: Any, named: str) -> None:
    circuit = QuantumCircuit(1, 2)
    with circuit.if_test(condition(circuit.cregs[0])):
        circuit.x(0)
    with pytest.raises(ProgramError, match=named):
        load(circuit)


@pytest.mark.parametrize("kind", ["input", "captured"])
def test_input_and_captured_variables_are_refused(kind: str) -> None:
    flag = expr.Var.new("flag", types.Bool())
    circuit = QuantumCircuit(1, **{"inputs" if kind == "input" else "captures": [flag]})
    with circuit.if_test(flag):
        circuit.x(0)
    with pytest.raises(ProgramError, match=f"the {kind} variable 'flag' is not carried") as refused:
        load(circuit)
    assert "add_var" in refused.value.hint


@pytest.mark.parametrize("value", [1.5, Duration.ns(3)])
def test_variable_of_unsupported_type_is_refused(value: Any) -> None:
    circuit = QuantumCircuit(1)
    kind = type(expr.lift(value).type)()
    variable = expr.Var.new("x", kind)
    circuit.add_uninitialized_var(variable)
    circuit.store(variable, value)
    with pytest.raises(ProgramError, match=f"of type {kind}.* is not carried"):
        load(circuit)


def test_too_many_variable_bits_are_refused() -> None:
    circuit = QuantumCircuit(1)
    for number in range(2):
        circuit.add_var(f"v{number}", expr.lift(1, types.Uint(40_000)))
    with pytest.raises(LimitExceededError, match="variables, or 65535 bits"):
        load(circuit)


def test_blocks_nested_more_than_100_deep_are_refused() -> None:
    circuit = QuantumCircuit([Qubit()], [Clbit()])
    circuit.x(0)
    for _ in range(101):
        outer = QuantumCircuit(circuit.qubits, circuit.clbits)
        outer.append(IfElseOp((circuit.clbits[0], True), circuit), [0], [0])
        circuit = outer
    with pytest.raises(ProgramError, match="more than 100 deep"):
        load(circuit)


OPERATORS = {
    "less": lambda a, b: expr.less(a, b),
    "less_equal": lambda a, b: expr.less_equal(b, b),
    "greater": lambda a, b: expr.greater(a, b),
    "greater_equal": lambda a, b: expr.greater_equal(a, b),
    "not_equal": lambda a, b: expr.not_equal(a, b),
    "bit_and": lambda a, b: expr.equal(expr.bit_and(a, b), 0b100),
    "bit_or": lambda a, b: expr.equal(expr.bit_or(a, b), 0b111),
    "bit_xor": lambda a, b: expr.equal(expr.bit_xor(a, b), 0b011),
    "bit_not": lambda a, b: expr.equal(expr.bit_not(a), 0b010),
    "cast_down": lambda a, b: expr.equal(expr.cast(a, types.Uint(2)), 0b01),
    "cast_up": lambda a, b: expr.less(expr.cast(b, types.Uint(9)), 256),
    "bool": lambda a, b: expr.logic_and(a[0], expr.logic_not(b[0])),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_condition_operators_agree_with_aer(name: str) -> None:
    """Aer, on bits that are known: a = 0b101, b = 0b110."""
    aer = pytest.importorskip("qiskit_aer")
    a, b, out = ClassicalRegister(3, "a"), ClassicalRegister(3, "b"), ClassicalRegister(1, "out")
    circuit = QuantumCircuit(QuantumRegister(1, "q"), a, b, out)
    circuit.x(0)
    for bit in (a[0], a[2], b[1], b[2]):
        circuit.measure(0, bit)
    with circuit.if_test(OPERATORS[name](a, b)):
        circuit.measure(0, out)
    counts = aer.AerSimulator().run(circuit, shots=1).result().get_counts()
    (key,) = counts
    assert outcome(circuit) == int(key.replace(" ", ""), 2)
