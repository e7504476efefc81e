"""Expressions, layouts and gates of packed circuits."""

import struct
from types import ModuleType
from typing import Any

import engine_judge
import numpy as np
import pytest
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, qasm2, qasm3
from qiskit.circuit import Clbit, Duration, IfElseOp, Instruction, Qubit
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator
from qiskit_ibm_runtime.circuit import MidCircuitMeasure

from simenv.client.circuits import load, to_qiskit
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import Program, Token
from simenv.model.task_rules import measured_last

WIDE = 2**301


def outcome(circuit: QuantumCircuit) -> int:
    """The classical bits of a circuit without superpositions, judged twice."""
    for each in (circuit, to_qiskit(load(circuit).program)):
        engine_judge.assert_same(each, circuit)
    (bits,) = engine_judge.exact(circuit)
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


def two_of_three() -> tuple[QuantumCircuit, Any]:
    """A circuit whose first register is 3, and that register as a Uint of 8 bits."""
    register = ClassicalRegister(2, "c")
    circuit = QuantumCircuit(QuantumRegister(3), register, ClassicalRegister(1, "d"))
    circuit.x([0, 1])
    circuit.measure([0, 1], [0, 1])
    return circuit, expr.lift(register, types.Uint(8))


@pytest.mark.parametrize("place", ["if", "operand", "not", "shift", "switch", "store", "while"])
def test_register_as_a_wider_uint_has_zeros_above_its_bits(place: str) -> None:
    circuit, wide = two_of_three()
    conditions = {
        "if": expr.equal(wide, 3),
        "operand": expr.equal(expr.bit_xor(wide, 255), 252),
        "not": expr.equal(expr.bit_not(wide), 252),
        "shift": expr.equal(expr.shift_left(wide, 6), 192),
    }
    if place == "switch":
        with circuit.switch(wide) as case, case(3):
            circuit.x(2)
    elif place == "store":
        variable = circuit.add_var("v", expr.lift(0, types.Uint(8)))
        circuit.store(variable, wide)
        with circuit.if_test(expr.equal(variable, 3)):
            circuit.x(2)
    elif place == "while":
        with circuit.while_loop(expr.equal(wide, 3)):
            circuit.x(2)
            circuit.x(0)
            circuit.measure(0, 0)
    else:
        with circuit.if_test(conditions[place]):
            circuit.x(2)
    circuit.measure(2, 2)
    (bits,) = engine_judge.exact(to_qiskit(load(circuit).program))
    assert bits == (0b110 if place == "while" else 0b111)
    assert engine_judge.exact(circuit) == {bits: 1.0}


def test_register_as_another_uint_that_loses_bits_is_refused_by_name() -> None:
    circuit, wide = two_of_three()
    with circuit.if_test(expr.equal(expr.Var(circuit.cregs[0], types.Uint(1)), 1)):
        circuit.x(2)
    fails(ProgramError, r"the register 'c' of 2 bits as Uint\(1\) is not carried", load, circuit)
    circuit, wide = two_of_three()
    circuit.store(wide, expr.lift(5, types.Uint(8)))
    fails(ProgramError, r"a store of Uint\(8\) into 'c' of 2 bits is not carried", load, circuit)


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
    fails(ProgramError, named, load, circuit)


@pytest.mark.parametrize("kind", ["input", "captured"])
def test_input_and_captured_variables_are_refused(kind: str) -> None:
    flag = expr.Var.new("flag", types.Bool())
    circuit = QuantumCircuit(1, **{"inputs" if kind == "input" else "captures": [flag]})
    with circuit.if_test(flag):
        circuit.x(0)
    refused = fails(ProgramError, f"the {kind} variable 'flag' is not carried", load, circuit)
    assert "add_var" in refused.hint


@pytest.mark.parametrize("value", [1.5, Duration.ns(3)])
def test_variable_of_unsupported_type_is_refused(value: Any) -> None:
    circuit = QuantumCircuit(1)
    kind = type(expr.lift(value).type)()
    variable = expr.Var.new("x", kind)
    circuit.add_uninitialized_var(variable)
    circuit.store(variable, value)
    fails(ProgramError, f"of type {kind}.* is not carried", load, circuit)


def test_too_many_bits_and_deep_blocks_are_refused() -> None:
    circuit = QuantumCircuit(1)
    for number in range(2):
        circuit.add_var(f"v{number}", expr.lift(1, types.Uint(40_000)))
    fails(LimitExceededError, "variables, or 65535 bits", load, circuit)
    circuit = QuantumCircuit([Qubit()], [Clbit()])
    circuit.x(0)
    for _ in range(101):
        outer = QuantumCircuit(circuit.qubits, circuit.clbits)
        outer.append(IfElseOp((circuit.clbits[0], True), circuit), [0], [0])
        circuit = outer
    fails(ProgramError, "more than 100 deep", load, circuit)


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
    (key,) = aer.AerSimulator().run(circuit, shots=1).result().get_counts()
    assert outcome(circuit) == int(key.replace(" ", ""), 2)


def clbits(program: Program) -> tuple[int, ...]:
    return struct.unpack(f"<{len(program.clbits) // 2}H", program.clbits)


def qubits(program: Program) -> tuple[int, ...]:
    return struct.unpack(f"<{len(program.qubits) // 2}H", program.qubits)


def test_clbits_are_numbered_in_order_of_their_register() -> None:
    bits = [Clbit(), Clbit()]
    circuit = QuantumCircuit([Qubit()], bits, ClassicalRegister(bits=bits[::-1], name="c"))
    circuit.measure(0, 0)
    assert clbits(load(circuit).program) == (1,)
    own = ClassicalRegister(2, "own")
    circuit = QuantumCircuit(
        [Qubit()], list(own), ClassicalRegister(bits=list(own)[::-1], name="c")
    )
    circuit.measure(0, 0)
    assert clbits(load(circuit).program) == (1,)


def test_bits_are_numbered_once_and_bounded() -> None:
    own = QuantumRegister(3, "own")
    circuit = QuantumCircuit(list(own)[::-1])
    circuit.h(own[2])
    assert qubits(load(circuit).program) == (0,)
    circuit = QuantumCircuit(1)
    first = ClassicalRegister(2, "first")
    circuit.add_register(first, ClassicalRegister(bits=[first[1], Clbit()], name="second"))
    fails(ProgramError, "'first' and 'second' share a bit", load, circuit)
    program = load(QuantumCircuit()).program
    assert (program.num_qubits, program.registers, program.ops) == (0, (), b"")
    fails(LimitExceededError, "70000 qubits", load, QuantumCircuit(70_000))
    fails(LimitExceededError, "70000 clbits", load, QuantumCircuit(1, 70_000))


DEFINED = ("ecr", "iswap", "rzz", "ryy", "rzx", "r", "cs", "xx_plus_yy", "rccx", "ccz")
READERS = {qasm2: QuantumCircuit.from_qasm_str, qasm3: qasm3.loads}
HEADER = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2];\n'


@pytest.mark.parametrize("name", DEFINED)
@pytest.mark.parametrize("module", [qasm2, qasm3])
def test_a_gate_that_an_exporter_defines_keeps_its_name(name: str, module: ModuleType) -> None:
    gate = get_standard_gate_name_mapping()[name]
    size = gate.num_qubits
    circuit = QuantumCircuit(size)
    for angle in (0.3, 0.7):
        values = [angle + 0.1 * k for k in range(len(gate.params))]
        circuit.append(type(gate)(*values), range(size))
    text = module.dumps(circuit)
    loaded = load(text)
    assert set(loaded.program.names) <= {name, "global_phase"}
    np.testing.assert_allclose(
        Operator(to_qiskit(loaded.program)).data, Operator(READERS[module](text)).data, atol=1e-12
    )


@pytest.mark.parametrize(
    "definition",
    [
        "gate ecr a,b { cx a,b; }",  # another matrix
        "gate ecr a { x a; }",  # another number of qubits
        "gate ecr(t) a,b { rz(t) a; s a; sx b; cx a,b; x a; }",  # another number of parameters
        "gate ecr a,b { " + "x a; " * 64 + "s a; sx b; cx a,b; x a; }",  # too long to be compared
    ],
)
def test_another_gate_of_a_standard_name_is_expanded(definition: str) -> None:
    head = definition.partition("{")[0]
    use = "ecr(0.1)" if "(" in head else "ecr"
    operands = "q[0],q[1]" if "," in head.partition(")")[2] or ",b" in head else "q[0]"
    loaded = load(f"{HEADER}{definition}\n{use} {operands};\nmeasure q -> c;")
    assert "ecr" not in loaded.program.names


def test_definitions_of_gates_are_compared_with_those_of_their_name() -> None:
    # This definition is `rzz` at 0 alone.
    text = "gate rzz(t) a,b { cx a,b; rz(2*t) b; cx a,b; }"
    loaded = load(f"{HEADER}{text}\nrzz(0) q[0],q[1]; rzz(0.5) q[0],q[1];")
    assert loaded.program.names == ("rzz", "cx", "rz")
    # Qiskit's parser takes the names of its legacy gates for them, whatever their definitions.
    texts = {"gate h a { U(pi,0,pi) a; }": "h", "gate sxdg a { U(pi,0,pi) a; }": "sxdg"}
    for definition, name in texts.items():
        loaded = load(f"OPENQASM 2.0; // gate sx\nqreg q[1]; {definition}\n{name} q[0]; sx q[0];")
        assert loaded.program.names == ("u", "sx")
    text = "gate ecr a,b { s a; sx b; cx a,b; x a; }\ngate twice a,b { ecr a,b; ecr b,a; }"
    assert set(load(f"{HEADER}{text}\ntwice q[0],q[1];").program.names) == {"ecr", "global_phase"}


@pytest.mark.parametrize("modifiers", ["", "inv @ ", "pow(3) @ "])
def test_identity_of_openqasm_3_is_the_gate_of_that_name(modifiers: str) -> None:
    text = f'OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; {modifiers}id q[1]; sx q[0];'
    assert load(text).program.names == ("id", "sx")


HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q; bit[2] c;\n'


def circuit() -> QuantumCircuit:
    result = QuantumCircuit(2, 2)
    result.x(0)
    result.append(MidCircuitMeasure(), [0], [0])
    with result.if_test((result.clbits[0], 1)):
        result.append(MidCircuitMeasure("measure_fast"), [1], [1])
    result.measure(0, 0)
    return result


def test_program_keeps_the_names_and_gives_the_circuit_back() -> None:
    loaded = load(circuit())
    assert loaded.program.names == ("x", "measure_2", "if", "measure_fast", "end", "measure")
    assert loaded.measures
    assert load(to_qiskit(loaded.program)).program == loaded.program


def test_circuit_of_its_own_that_is_named_so_is_expanded() -> None:
    body = QuantumCircuit(1, 1, name="measure_x")
    body.h(0)
    body.measure(0, 0)
    result = QuantumCircuit(1, 1)
    result.append(body.to_instruction(), [0], [0])
    assert load(result).program.names == ("h", "measure")


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("c[1] = measure_2(q[0]);", 1),
        ("c = measure_2(q);", 2),
        ("bit d = measure_2(q[1]);", 1),
        ("if (c[0]) { c[1] = measure_2(q[0]); }", 1),
        ("for int k in [0:1] { c[k] = measure_2(q[k]); }", 2),
    ],
)
def test_openqasm_3_calls_it_as_a_function_of_its_qubit(statement: str, count: int) -> None:
    program = load(HEAD + statement).program
    names = [program.names[row] for row in memoryview(program.ops).cast("H")]
    assert names.count("measure_2") == count


@pytest.mark.parametrize("statement", ["c = measure_2(q[0]);", "c[0] = measure_2(q);"])
def test_call_with_another_number_of_bits_is_refused(statement: str) -> None:
    assert fails(ProgramError, "measure_2 of", load, HEAD + statement).line == 4


def test_observable_is_refused_on_a_qubit_that_is_measured_last_by_another_name() -> None:
    assert measured_last(("x", "measure_2"), (1, 1), (0, 1), (0, 0)) == {0}


def test_text_of_openqasm_2_has_no_such_measurement() -> None:
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; measure_2 q[0] -> c[0];'
    fails(ProgramError, "measure_2", load, text)


def test_instruction_without_a_name_of_a_measurement_stays_opaque() -> None:
    result = QuantumCircuit(1, 1)
    result.append(Instruction("read", 1, 1, []), [0], [0])
    fails(ProgramError, "opaque", load, result)
