"""OpenQASM 2, by the reader in C and by Qiskit's."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import engine_judge
import numpy as np
import pytest
from failing import fails
from hypothesis import given, settings, strategies as st
from interpreter import python

from simenv.client.circuits import load, qasm2
from simenv.client.circuits.encoder import pack
from simenv.client.circuits.text_checks import inspect
from simenv.errors import ProgramError, SimenvError
from simenv.model import Program

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\ncreg c[2];\ncreg d[1];\n'


def fault(text: str) -> ProgramError:
    return fails(ProgramError, "", load, text)


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("x q[0]\ny q[0];", (7, 1), "needed ';'"),
        ("x q[0]; foo q[0];", (6, 9), "'foo' is not defined"),
        ("x r[0];", (6, 3), "'r' is not defined"),
        ("x q[7];", (6, 5), "index 7 is out-of-range"),
        ("cx q[0],q[0];", (6, 1), "duplicate qubits"),
        ("h(1) q[0];", (6, 1), "takes 0 parameters"),
        ("x q[1]; rz q[0]; x q[2];", (6, 9), "wrong number of parameters"),
        ("rz(1/0) q[0];", (6, 5), "divide by zero"),
        ("rz(sqrt(-1)) q[0];", (6, 4), "sqrt of negative"),
        ("x q;\nrz(1e400) q[0];", (7, 1), "the angle is inf"),
        ("barrier q; measure q[0]->c[0];\n  if(c==1) rz(0^(-1)) q[0];", (7, 3), "the angle is inf"),
        ("rz(1e200*1e200-1e200*1e200) q[0];", (6, 1), "the angle is nan"),
        ("gate g(a) r { rz(1/a) r; }\nx q;\nreset q; g(0) q[0];", (8, 10), "divide by zero"),
        ("gate g(a) r { rz(1e308*a) r; }\nx q;\ng(1e10) q[0];", (8, 1), "the angle is inf"),
        ("opaque magic(a) r;\nx q[0];\nmagic(1) q[0];", (8, 1), "'magic' is opaque"),
        ("if(", (6, 1), "unexpected end-of-file"),
    ],
)
def test_error_has_line_and_column(text: str, place: tuple[int, int], told: str) -> None:
    error = fault(HEAD + text)
    assert told in error.message
    assert (error.line, error.column) == place


def test_error_in_file_names_file(tmp_path: Path) -> None:
    path = tmp_path / "bell.qasm"
    path.write_bytes((HEAD + "x q[0];\r\nfoo q[0];").encode())
    assert fault(str(path)).message == f"{path}:7:1: 'foo' is not defined in this scope"
    assert "No such file" in fault(str(tmp_path / "none.qasm")).message
    assert "directory" in fault(str(tmp_path)).message
    assert "null byte" in fault("a\0b").message


def test_comments_do_not_shift_lines_and_columns() -> None:
    text = "// one\n\n/* two\nthree */ foo q[0]; // four\n"
    assert (fault(HEAD + text).line, fault(HEAD + text).column) == (9, 10)
    assert fault(HEAD + "x q[0]; /* never").message.endswith("this comment never ends")


@pytest.mark.parametrize("top", ["qreg q[2];\n", "OPENQASM 4.0;", "\n\n  h q;", "OPENQASM;", "\n"])
def test_text_without_known_version_is_refused(top: str) -> None:
    assert "'OPENQASM 2.0;' or 'OPENQASM 3.0;'" in fault(top).message


def test_old_files_and_conditions_are_read() -> None:
    text = "u(1,2,3) q[0];p(1) q[0];sx q[0];swap q[0],q[1];cswap q[0],q[1],q[2];rzz(1) q[0],q[1];"
    assert load(HEAD + text).program.names == ("u", "p", "sx", "swap", "cswap", "rzz")
    text = "x q[0]; measure q[0]->d[0]; if(d==1) x q[1]; if(c==1) x q[2]; measure q[1]->c[1];"
    assert engine_judge.exact(HEAD + text) == {0b110: 1.0}
    assert load(HEAD + text).program.registers == (("c", 2), ("d", 1))


def test_custom_gates_have_parameters_and_qubits_of_their_own() -> None:
    text = "gate g(b,a) x,y { rz(a) x; cx x,y; rx(b/2) y; }\nh q[1]; g(0.25,0.75) q[1],q[0];"
    by_hand = "h q[1]; rz(0.75) q[1]; cx q[1],q[0]; rx(0.125) q[0];"
    assert load(HEAD + text).packed == load(HEAD + by_hand).packed
    text = "gate g(a) x { rz(a) x; }\n" + "".join(f"g({k}) q[{k % 3}];" for k in range(1, 9))
    program = load(HEAD + text).program
    assert np.frombuffer(program.params).tolist() == list(range(1, 9))
    assert np.frombuffer(program.qubits, np.uint16).tolist() == [k % 3 for k in range(1, 9)]


QELIB = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
REGISTERS = QELIB + "qreg q[5];\ncreg c[5];\nqreg second[2];\ncreg other_1[3];\n"
NUMBERS = ("0", "1", "3", "0.25", "5.", "1e3", "2.5e-3", "123456789012345", "pi")

signs = st.sampled_from(["", "-", " - "])
factors = st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4)
signed = st.tuples(signs, factors, st.lists(st.sampled_from(["*", "/", " * "]), min_size=3))


def _expression(drawn: tuple[str, list[str], list[str]]) -> str:
    sign, value, operators = drawn
    entries = [value[0]]
    for operator, number in zip(operators, value[1:], strict=False):
        entries += [operator, "2" if operator == "/" and number == "0" else number]
    return sign + "".join(entries)


@st.composite
def statements(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["gate", "gate", "gate", "wide", "measure", "reset", "barrier"]))
    if kind == "measure":
        return draw(
            st.sampled_from(["measure q[4]->c[0];", "measure q -> c;", "measure q[0]\n->c[ 3 ];"])
        )
    if kind == "reset":
        return draw(st.sampled_from(["reset q[2];", "reset second;"]))
    if kind == "barrier":
        return draw(
            st.sampled_from(["barrier q;", "barrier q[3],q[1] , second;", "barrier second[1];"])
        )
    name, (_, width, params) = draw(st.sampled_from(sorted(qasm2._GATES.items())))
    angles = ",".join(_expression(draw(signed)) for _ in range(params))
    if kind == "wide" and width == 1:
        operands = "second"
    else:
        operands = ", ".join(f"q[{qubit}]" for qubit in draw(st.permutations(range(5)))[:width])
    return f"{name}{f'({angles})' if params else ''} {operands};"


texts = st.lists(statements(), max_size=12).map(lambda drawn: REGISTERS + "\n".join(drawn) + "\n")


def by_qiskit(text: str) -> Program | None:
    """None where it is refused."""
    try:
        return pack(qasm2.parse(inspect(text))).program
    except SimenvError:
        return None


@settings(deadline=None)
@given(texts)
def test_plain_text_is_parsed_to_same_program_as_by_qiskit(text: str) -> None:
    program = qasm2.read(text)
    assert program.packed() == by_qiskit(text).packed()  # type: ignore[union-attr]


@settings(deadline=None)
@given(texts, st.data())
def test_altered_text_is_left_to_qiskit_or_parsed_alike(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(len(QELIB) - 4, len(text)))
        length = data.draw(st.integers(0, 3))
        part = data.draw(st.sampled_from([*"09.-+*/()[],;> \n", "q", "pi", "e", "x ", "c[0]", "2"]))
        text = text[:place] + part + text[place + length :]
    program = qasm2.read(text)
    if program is not None:
        result = by_qiskit(text)
        assert program.packed() == result.packed()


@pytest.mark.parametrize(
    "text",
    [
        "qreg h[2];", "qreg pi[2];", "qreg q[2]; creg q[2];", "qreg q;", "qreg Q[2];",
        "qreg q[2]; xq[0];", "qreg q[2]; x(0) q[0];", "qreg q[2]; rx q[0];",
        "qreg q[2]; rx(01) q[0];", "qreg q[2]; rx(2pi) q[0];", "qreg q[2]; rx(1/0) q[0];",
        "qreg q[2]; rx(1,2) q[0];", "qreg q[2]; cx q[0],q[0];", "qreg q[2]; cx q,q;",
        "qreg q[2]; x q[2];", "qreg q[2]; x q[01];", "qreg q[2]; creg c[1]; measure q->c;",
        "qreg q[2]; creg c[2]; measure q->c[0];", "qreg q[2]; creg c[1]; measure q[0]->c;",
        "qreg q[1]; creg c[2]; measure q->c[0];", "qreg q[2]; x\u00a0q[0];", "qreg q[2]; x q[0]",
        "qreg q[2]; x q[0]; y q[0", "x q[0]; qreg q[1];",
    ],
)  # fmt: skip
def test_invalid_text_is_left_to_qiskit_which_refuses_it(text: str) -> None:
    assert by_qiskit(QELIB + text) is None
    assert qasm2.read(QELIB + text) is None


@pytest.mark.parametrize(
    "name", [*sorted(qasm2._RESERVED), "iswap", "ecr", "dcx", "r", "u4", "mcx", "bit"]
)
def test_register_with_reserved_or_gate_name_is_parsed_as_by_qiskit(name: str) -> None:
    text = f"{QELIB}qreg {name}[2];\nx {name}[1];"
    program, result = qasm2.read(text), by_qiskit(text)
    assert program is None or (result is not None and program.packed() == result.packed())


def test_text_with_too_many_operands_is_left_to_qiskit() -> None:
    assert qasm2.read(f"{QELIB}qreg q[60000];\n{'h q;' * 30_000}") is None


def test_plain_text_is_loaded_without_importing_qiskit_and_numpy() -> None:
    code = f"""
import sys
from simenv.client.circuits import load
load({REGISTERS + "h q[0];cx q[0],q[1];measure q->c;"!r})
print("qiskit" in sys.modules, "numpy" in sys.modules)
"""
    assert python("-c", code).stdout.split() == ["False", "False"]


module = import_module("simenv.client.circuits.load")  # the package has a function of that name


@pytest.fixture
def empty() -> Iterator[None]:
    module._LAST_TEXTS.clear()
    yield
    module._LAST_TEXTS.clear()


def text(number: int) -> str:
    return f"{HEAD}rx({number}) q[0];\nmeasure q[0] -> c[0];\n"


@pytest.mark.usefixtures("empty")
def test_texts_are_parsed_once_and_wrong_ones_refused_each_time() -> None:
    first = load(text(1))
    assert load("".join(["", text(1)])) is first
    assert load(text(2)).packed != first.packed
    for _ in range(2):
        fails(ProgramError, "nothing", load, f"{HEAD}nothing;\n")
    assert set(module._LAST_TEXTS) == {text(1), text(2)}


@pytest.mark.usefixtures("empty")
def test_kept_texts_are_bounded_in_number_and_size() -> None:
    for number in range(3 * module.CACHED_TEXTS):
        load(text(number))
        assert len(module._LAST_TEXTS) <= module.CACHED_TEXTS
    long = f"{text(0)}//{'a' * module.CACHED_TEXT_BYTES}\n"
    load(long)
    assert long not in module._LAST_TEXTS
