"""Mistakes of beginners in OpenQASM and in names of files: each error says the way out."""

from pathlib import Path

import pytest
from failing import fails

from simenv.client.circuits import load, parser_hints
from simenv.client.circuits.text_checks import SourceText
from simenv.errors import ProgramError

HEAD_2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg cs[2];\n'
HEAD_3 = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nbit[2] cs;\n'
BARE_2, BARE_3 = "OPENQASM 2.0;\nqreg q[2];\n", "OPENQASM 3.0;\nqubit[2] q;\n"


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        (HEAD_2 + "cnot q[0], q[1];", "did you mean 'cx'?"),
        (HEAD_2 + "swpa q[0], q[1];", "did you mean 'swap'?"),
        (HEAD_2 + "gate mine a { x a; }\nmien q[0];", "did you mean 'mine'?"),
        (HEAD_2 + "foo q[0];", "no gate of qelib1.inc: define it"),
        (HEAD_2 + "H q[0];", "lower case"),
        (HEAD_2 + "rx(theta) q[0];", "input float theta;"),
        (HEAD_2 + "x d[0];", "qreg d[1];"),
        (HEAD_2 + "measure q -> c;", "did you mean 'cs'?"),
        (HEAD_2 + "h q[0]\nx q[1];", "ends with ';'"),
        (BARE_2 + "h q[0];", 'write include "qelib1.inc";'),
        (HEAD_3 + "CNOT q[0], q[1];", "did you mean 'cx'?"),
        (HEAD_3 + "sxdg q[0];", "did you mean 'inv @ sx'?"),
        (HEAD_3 + "rzz(1) q[0], q[1];", "no gate of stdgates.inc: define it"),
        (HEAD_3 + "rx(theta) q[0];", "input float theta;"),
        (HEAD_3 + "measure q -> c;", "did you mean 'cs'?"),
        (HEAD_3 + "h q[0]\nx q[1];", "ends with ';'"),
        (BARE_3 + "h q[0];", 'write include "stdgates.inc";'),
    ],
)
def test_a_refused_text_has_a_way_out(text: str, way_out: str) -> None:
    assert way_out in fails(ProgramError, "", load, text).hint


@pytest.mark.parametrize(
    "text", [BARE_2 + "// gate mine a\nmien q[0];", BARE_3 + "// mien q\nx mien;"]
)
def test_comments_are_no_code(text: str) -> None:
    assert "did you mean" not in fails(ProgramError, "", load, text).hint


def test_strings_are_no_code() -> None:
    text = 'include "gate mine";\nmien q[0];'
    hint = parser_hints.hint(SourceText("", text, 2), "'mien' is not defined", ())
    assert hint.startswith("no gate of qelib1.inc")


def test_long_and_many_names_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_hints, "MAX_NAMES", 3)
    text = "".join(f"gate g{k} a {{}}\n" for k in range(3)) + "gate mine a {}\nmien q[0];"
    message = "'mien' is not defined"
    assert "did you mean" not in parser_hints.hint(SourceText("", text, 2), message, ())
    long = "n" * 5_000
    for statement in (f"{long} q[0];", f"x {long}[0];"):
        text = f"gate {long}m a {{}}\nqreg {long}m[1];\n{statement}"
        found = parser_hints.hint(SourceText("", text, 2), f"'{long}' is not defined", ())
        assert "before its use" in found
        assert len(found) < 200


def test_a_file_that_is_not_there_has_the_one_of_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "bell.qasm").write_text(HEAD_2)
    for name in ("Bell.qasm", "bel.qasm", "bell.qsm"):
        error = fails(ProgramError, "No such file", load, str(tmp_path / name))
        assert error.hint == f"did you mean {str(tmp_path / 'bell.qasm')!r}?"
    other = fails(ProgramError, "No such file", load, str(tmp_path / "grover.qasm"))
    assert "did you mean" not in other.hint


def test_what_is_said_already_has_no_hint() -> None:
    assert not fails(ProgramError, "out-of-range", load, HEAD_2 + "x q[7];").hint
