"""Text read without Qiskit as something else than its parser reads, or that it would refuse."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simenv.client.circuits.common.text_checks import inspect
from simenv.client.circuits.encode.encoder import pack
from simenv.client.circuits.formats import qasm2, qasm2_fast
from simenv.errors import SimenvError
from simenv.model import Program

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
REGISTERS = HEAD + "qreg q[5];\ncreg c[5];\nqreg second[2];\ncreg other_1[3];\n"
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
    name, (_, width, params) = draw(st.sampled_from(sorted(qasm2_fast._GATES.items())))
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
    program = qasm2_fast.read(text)
    assert program is not None
    assert program.packed() == by_qiskit(text).packed()  # type: ignore[union-attr]


@settings(deadline=None)
@given(texts, st.data())
def test_altered_text_is_left_to_qiskit_or_parsed_to_same_program(
    text: str, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(len(HEAD) - 4, len(text)))
        length = data.draw(st.integers(0, 3))
        piece = data.draw(
            st.sampled_from([*"09.-+*/()[],;> \n", "q", "pi", "e", "x ", "c[0]", "2"])
        )
        text = text[:place] + piece + text[place + length :]
    program = qasm2_fast.read(text)
    if program is not None:
        result = by_qiskit(text)
        assert result is not None
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
    assert by_qiskit(HEAD + text) is None
    assert qasm2_fast.read(HEAD + text) is None


@pytest.mark.parametrize(
    "name", [*sorted(qasm2_fast._RESERVED), "iswap", "ecr", "dcx", "r", "u4", "mcx", "bit"]
)
def test_register_with_reserved_or_gate_name_is_parsed_as_by_qiskit(name: str) -> None:
    text = f"{HEAD}qreg {name}[2];\nx {name}[1];"
    program, result = qasm2_fast.read(text), by_qiskit(text)
    assert program is None or (result is not None and program.packed() == result.packed())


def test_text_with_too_many_operands_is_left_to_qiskit() -> None:
    assert qasm2_fast.read(f"{HEAD}qreg q[60000];\n{'h q;' * 30_000}") is None


def test_plain_text_is_loaded_without_importing_qiskit_and_numpy() -> None:
    command = f"""
import sys
from simenv.client.circuits import load
load({REGISTERS + "h q[0];cx q[0],q[1];measure q->c;"!r})
print("qiskit" in sys.modules, "numpy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
