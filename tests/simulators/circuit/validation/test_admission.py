"""Every way an arriving circuit can be wrong is answered by a message."""

import numpy as np
import pytest
from arrays import Arrays, from_qiskit
from qiskit import QuantumCircuit
from qiskit.quantum_info import random_unitary

from simulators.circuit import ir
from simulators.circuit.ir import Circuit, CircuitData, bell, feed_forward
from simulators.circuit.validation import admission
from simulators.circuit.validation.admission import validation_error

FIELDS = (
    "num_qubits", "num_clbits", "registers", "names", "arities", "ops", "qubits", "clbits",
    "params", "num_slots", "slots", "conditions", "constants", "variables", "matrices",
)  # fmt: skip


def sample() -> Arrays:
    arrays = Arrays(12, 70, [("a", 3), ("b", 66), ("", 1)])
    arrays.add("h", [0]).add("cx", [0, 1]).add("rx", [2], (), [0.5])
    arrays.free(0)
    arrays.add("u", [1], (), [0.1, 0.2, 0.3])
    arrays.free(1)
    arrays.add("barrier", range(12)).add("mcx", range(10)).add("delay", [3], (), [100.0])
    arrays.add("measure", [0], [0]).add("reset", [0])
    arrays.begin(*arrays.equals(1, 2**65), (ir.CLBIT, 0, 0), (ir.LOGIC_OR, 0, 0))
    arrays.add("x", [3]).add("else").begin((ir.CLBIT, 2, 0)).add("z", [4]).add("end").add("end")
    arrays.begin((ir.REGISTER, 0, 3), (ir.BIT_NOT, 0, 3), (ir.CAST, 0, 0)).add("end")
    return arrays.add("measure", [3], [69])


def changed(**fields: object) -> Circuit:
    values = dict(zip(FIELDS, sample().fields(), strict=True)) | fields
    return CircuitData(*values.values()).circuit()


def u16(*values: int) -> bytes:
    return np.array(values, np.uint16).tobytes()


def condition(*tokens: tuple[int, int, int]) -> Circuit:
    """A circuit with one `if` on these raw tokens."""
    arrays = Arrays(1, 70, [("a", 3), ("b", 67)])
    arrays.value(5)
    arrays.variables = [0, 5]
    arrays.conditions = list(tokens)
    return arrays.add("if").add("end").circuit()


CLBIT, WIDE = (ir.CLBIT, 0, 0), (ir.REGISTER, 1, 67)
FIVE = (ir.VALUE, 0, 3)
END = (ir.END, 0, 0)


def test_valid_circuits_pass_validation() -> None:
    assert validation_error(changed()) == ""
    assert validation_error(bell()) == validation_error(feed_forward()) == ""
    assert validation_error(Arrays(0, 0).circuit()) == ""
    assert validation_error(from_qiskit(QuantumCircuit(3, 3))) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_qubits": -1}, "-1 qubits"),
        ({"num_qubits": 10**6}, "1000000 qubits; the limit is 65535"),
        ({"num_qubits": 2**80}, "qubits"),
        ({"num_qubits": 11}, "qubit 11 does not exist"),
        ({"num_clbits": -5}, "-5 clbits"),
        ({"num_clbits": 2**70}, "clbits"),
        ({"num_clbits": 69}, "registers hold 70 bits"),
        ({"registers": (("a", -1), ("b", 71))}, "register 'a' has -1 bits"),
        ({"registers": ()}, "registers hold 0 bits"),
        ({"num_slots": 1}, "slot 1 does not exist"),
        ({"num_slots": -1}, "parameter slots"),
        ({"num_slots": 2**66}, "parameter slots"),
        ({"ops": b"\0"}, "not a multiple of 2 bytes"),
        ({"params": b"\0" * 9}, "params not of 8"),
        ({"slots": b"\0" * 7}, "slots is not a multiple"),
        ({"conditions": b"\0" * 13}, "conditions not of 12"),
        ({"arities": b""}, "bytes of arities"),
        ({"arities": b"\0"}, "bytes of arities"),
        ({"names": ()}, "0 operation names"),
        ({"names": ("foo",), "arities": u16(1, 0, 0)}, "unknown gate 'foo'"),
        ({"names": ("cx",), "arities": u16(1, 0, 0)}, "'cx' takes 2 qubits"),
        ({"names": ("mcx",), "arities": u16(0, 0, 0)}, "'mcx' takes any number of qubits"),
        ({"names": ("measure",), "arities": u16(2, 2, 0)}, "'measure' takes 1 qubits, 1 clbits"),
        ({"ops": u16(999)}, "operation 0 (?): row 999"),
        ({"ops": u16()}, "longer than the operations need"),
        ({"qubits": u16()}, "operation 0 (h): the list of qubits ends"),
        ({"clbits": u16()}, "(measure): the list of clbits ends"),
        ({"params": b""}, "(rx): the list of parameters ends"),
        ({"slots": np.array([9, 0], np.int32).tobytes()}, "parameter 9, which does not exist"),
        ({"slots": np.array([-1, 0], np.int32).tobytes()}, "parameter -1"),
        ({"slots": np.array([0, -1], np.int32).tobytes()}, "slot -1"),
        ({"slots": np.array([1, 0, 1, 0], np.int32).tobytes()}, "ascending"),
        ({"conditions": b""}, "3 expressions are wanted, but there are 0"),
        ({"constants": ()}, "expression 0: operand 0 does not exist"),
        ({"constants": (bytes(8193),)}, "a constant of 8193 bytes; the limit is 8192"),
        ({"variables": (-1,)}, "variable 0 has -1 bits"),
        ({"variables": (0, 65536)}, "variable 1 has 65536 bits"),
        ({"variables": (2**70,)}, "variable 0 has"),
        ({"variables": (40000, 40000)}, "the variables have 80000 bits"),
        ({"variables": (1,) * 4097}, "4097 variables"),
        ({"matrices": (b"",)}, "0 kinds of unitary, but 1 matrices"),
        ({"labels": ("x",)}, "1 labels for"),
        ({"labels": ("",) * 65_536}, "65536 labels for"),
    ],
)  # fmt: skip
def test_invalid_field_is_reported(fields: dict[str, object], words: str) -> None:
    assert words in validation_error(changed(**fields))


@pytest.mark.parametrize("angle", [np.nan, np.inf, -np.inf])
def test_non_finite_angle_is_reported(angle: float) -> None:
    arrays = Arrays(1, 0).add("h", [0]).add("rz", [0], (), [angle])
    assert (
        validation_error(arrays.circuit()) == "operation 1 (rz): a parameter is not a finite number"
    )


@pytest.mark.parametrize("count", [2, 5, 9, 5000])
def test_repeated_qubit_in_operation_is_reported(count: int) -> None:
    wires = [*range(count - 1), 0]
    assert "same qubit twice" in validation_error(Arrays(5000, 0).add("barrier", wires).circuit())
    assert validation_error(Arrays(5000, 0).add("barrier", range(count)).circuit()) == ""


def test_negative_delay_is_reported() -> None:
    assert "negative" in validation_error(Arrays(1, 0).add("delay", [0], (), [-1.0]).circuit())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["else"], "operation 0 (else): an else without an if"),
        (["end"], "operation 0 (end): an end without a block"),
        (["if"], "a block without an end"),
        (["if", "else", "else", "end"], "operation 2 (else): an else without"),
        (["if", "end", "end"], "operation 2 (end)"),
        (["if"] * 101 + ["end"] * 101, "nested more than 100"),
        (["while", "else", "end"], "operation 1 (else)"),
        (["break"], "operation 0 (break): outside of a loop"),
        (["if", "continue", "end"], "operation 1 (continue): outside of a loop"),
        (["while", "end", "break"], "operation 2 (break): outside"),
        (["case", "end"], "operation 0 (case): a case outside of a switch"),
        (["if", "case", "end"], "operation 1 (case): a case outside"),
        (["switch", "end"], "operation 1 (end): a switch begins"),
        (["switch", "if", "end", "end"], "operation 1 (if): a switch begins"),
        (["switch", "store", "case", "end"], "operation 1 (store): a switch begins"),
        (["switch", "default", "case", "end"], "operation 2 (case): a case outside"),
        (["switch", "default", "default", "end"], "operation 2 (default)"),
    ],
)
def test_unmatched_blocks_are_reported(names: list[str], words: str) -> None:
    arrays = Arrays(1, 1)
    for name in names:
        arrays.add(name)
    arrays.conditions = [CLBIT, END] * len(names)
    assert words in validation_error(arrays.circuit())


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([], "1 expressions are wanted, but there are 0"),
        ([CLBIT], "does not end"),
        ([END], "does not yield one value"),
        ([CLBIT, CLBIT, END], "does not yield one value"),
        ([WIDE, END], "operation 0 (if): its expression does not yield one Bool"),
        ([CLBIT, END, CLBIT, END], "1 expressions are wanted, but there are 2"),
        ([(29, 0, 0), END], "token 29"),
        ([(ir.VARIABLE, 2, 0), END], "operand 2"),
        ([(ir.VARIABLE, 1, 0), END], "width 0"),
        ([CLBIT, (ir.SET_CLBIT, 0, 0), END], "operation 0 (if): its expression does not yield"),
        ([CLBIT, (ir.SET_CLBIT, 0, 0), CLBIT, END], "token 1 follows a store"),
        ([CLBIT, (ir.SET_CLBIT, 70, 0), END], "operand 70"),
        ([(ir.SET_CLBIT, 0, 0), END], "does not yield one value"),
        ([CLBIT, (ir.SET_REGISTER, 0, 3), END], "widths differ"),
        ([CLBIT, (ir.SET_REGISTER, 0, 2), END], "width 2"),
        ([WIDE, (ir.SET_VARIABLE, 1, 5), END], "widths differ"),
        ([CLBIT, (ir.SET_VARIABLE, 0, 0)], "does not end"),
        ([(-1, 0, 0), END], "token -1"),
        ([(ir.CLBIT, 70, 0), END], "operand 70"),
        ([(ir.CLBIT, -1, 0), END], "operand -1"),
        ([(ir.REGISTER, 2, 67), END], "operand 2"),
        ([(ir.REGISTER, 1, 66), END], "width 66"),
        ([(ir.VALUE, 1, 3), END], "operand 1"),
        ([(ir.VALUE, 0, -1), END], "width -1"),
        ([(ir.VALUE, 0, 70000), END], "width 70000"),
        ([(ir.LOGIC_NOT, 0, 0), END], "lacks an operand"),
        ([CLBIT, (ir.LOGIC_AND, 0, 0), END], "lacks an operand"),
        ([WIDE, (ir.LOGIC_NOT, 0, 0), END], "needs Bools"),
        ([CLBIT, (ir.LOGIC_NOT, 0, 3), END], "width 3"),
        ([CLBIT, WIDE, (ir.BIT_AND, 0, 0), END], "widths differ"),
        ([CLBIT, WIDE, (ir.EQUAL, 0, 0), END], "widths differ"),
        ([CLBIT, CLBIT, (ir.LESS, 0, 0), END], "needs Uints"),
        ([CLBIT, CLBIT, (ir.ADD, 0, 0), END], "needs Uints"),
        ([(ir.REGISTER, 0, 3), WIDE, (ir.ADD, 0, 67), END], "widths differ"),
        ([CLBIT] * 101 + [END], "more than 100 values"),
        ([FIVE] * 101 + [CLBIT, END], "more than 100 values"),
        ([FIVE] * 101 + [(ir.ADD, 0, 3), END], "more than 100 values"),
        ([FIVE] * 101 + [END], "operation 0 (if): its expression does not yield one Bool"),
    ],
)  # fmt: skip
def test_invalid_condition_is_reported(tokens: list[tuple[int, int, int]], words: str) -> None:
    assert words in validation_error(condition(*tokens))


@pytest.mark.parametrize(
    ("name", "tokens", "words"),
    [
        ("while", [WIDE], "operation 0 (while): its expression does not yield one Bool"),
        ("for", [CLBIT], "operation 0 (for): its expression is not one constant Uint"),
        ("for", [(ir.VALUE, 0, 0)], "is not one constant Uint"),
        ("for", [FIVE, FIVE], "is not one constant Uint"),
        ("for", [(ir.REGISTER, 0, 3)], "is not one constant Uint"),
        ("switch", [FIVE, FIVE], "operation 0 (switch): its expression does not yield one value"),
        ("switch", [CLBIT, (ir.SET_CLBIT, 0, 0)], "does not yield one value"),
        ("store", [CLBIT], "operation 0 (store): its expression stores nothing"),
    ],
)
def test_control_flow_with_wrong_kind_of_expression_is_reported(
    name: str, tokens: list[tuple[int, int, int]], words: str
) -> None:
    arrays = Arrays(1, 70, [("a", 3), ("b", 67)])
    arrays.value(5)
    arrays.begin(*tokens, name=name)
    if name == "switch":
        arrays.add("default")
    if name != "store":
        arrays.add("end")
    assert words in validation_error(arrays.circuit())


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([CLBIT], "(case): its expression is not constants of the switch's type"),
        ([(ir.VALUE, 0, 4)], "(case): its expression is not constants of the switch's type"),
        ([FIVE, (ir.VALUE, 0, 0)], "expression 5: it does not yield one value"),
    ],
)
def test_case_labels_that_are_not_constants_of_switch_type_are_reported(
    labels: list[tuple[int, int, int]], words: str
) -> None:
    arrays = Arrays(1, 3, [("a", 3)])
    arrays.value(5)
    arrays.begin((ir.REGISTER, 0, 3), name="switch").begin(FIVE, FIVE, name="case")
    arrays.begin((ir.CLBIT, 0, 0), name="switch").begin((ir.VALUE, 0, 0), name="case").add("end")
    arrays.begin(*[FIVE] * 300, name="case")
    assert validation_error(arrays.add("default").add("end").circuit()) == ""
    arrays.ops[-2:] = []
    arrays.begin(*labels, name="case").add("end")
    assert words in validation_error(arrays.circuit())


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.eye(4), "matrix 0 has 256 bytes, not those of 1 qubits"),
        (np.array([[1, 1], [0, 1]]), "matrix 0 is not unitary"),
        (np.array([[np.nan, 0], [0, 1]]), "matrix 0 is not unitary"),
        (np.array([[1e200, 0], [0, 1]]), "matrix 0 is not unitary"),
        (2 * np.eye(2), "matrix 0 is not unitary"),
        (np.array([[1, 0], [1e-3j, 1]]), "matrix 0 is not unitary"),
        (np.array([[0, np.inf], [1, 0]]), "matrix 0 is not unitary"),
        ((1 + 2e-5) * np.eye(2), ""),
    ],
)
def test_non_unitary_or_misshaped_matrix_is_reported(matrix: np.ndarray, words: str) -> None:
    assert validation_error(Arrays(1, 0).unitary(matrix, [0]).circuit()) == words
    wide = np.eye(64)
    wide[0, 0] = 0
    assert "is not unitary" in validation_error(Arrays(6, 0).unitary(wide, range(6)).circuit())
    assert validation_error(Arrays(6, 0).unitary(np.eye(64)[::-1], range(6)).circuit()) == ""


def test_matrix_on_more_than_10_qubits_is_reported() -> None:
    arrays = Arrays(11, 0).add("unitary", range(11))
    assert validation_error(arrays.circuit()) == "a matrix on 11 qubits; the limit is 10"
    arrays = Arrays(1, 0).add("unitary", [])
    assert "'unitary' takes any number of qubits" in validation_error(arrays.circuit())


def test_matrices_of_one_width_are_checked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = Arrays(5, 0)
    for number in range(60):
        width = 2 + number % 4
        arrays.unitary(random_unitary(1 << width, seed=number).data, range(width))
    calls: list[int] = []
    small, wide = admission._first_not_unitary, admission._unitary
    monkeypatch.setattr(
        admission,
        "_first_not_unitary",
        lambda x, size: calls.append(len(x) // (2 * size**2)) or small(x, size),
    )
    monkeypatch.setattr(admission, "_unitary", lambda x: calls.append(len(x)) or wide(x))
    assert validation_error(arrays.circuit()) == ""
    assert calls == [15] * 4
    arrays.unitary(1.01 * random_unitary(4, seed=1).data, [0, 1]).unitary(np.ones((2, 2)), [0])
    assert validation_error(arrays.circuit()) == "matrix 60 is not unitary"
