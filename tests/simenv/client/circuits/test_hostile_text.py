"""Text that harms: too large, too deep, reading files, or with more behind it than it shows."""

import random
import re
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from failing import fails
from interpreter import python

from simenv.client.circuits import load
from simenv.client.circuits.text_checks import MAX_TEXT_BYTES
from simenv.errors import LimitExceededError, ProgramError, SimenvError

V2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
V3 = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
Q2 = V2 + "qreg q[2];\n"
Q3 = V3 + "qubit[2] q;\n"
BOTH = pytest.mark.parametrize("head", [Q2, Q3], ids=["2", "3"])


def refusal(text: str | Path) -> SimenvError:
    refused = fails((ProgramError, LimitExceededError), "", load, text)
    assert refused.exit_code in (2, 3)
    return refused


def at(text: str) -> tuple[int, int]:
    """Where the text is refused; the message says the same."""
    error = refusal(text)
    assert isinstance(error, ProgramError)
    assert error.message.startswith(f"line {error.line}, column {error.column}: ")
    return error.line, error.column


def test_text_is_read_up_to_the_size_limit() -> None:
    assert "50000018 bytes" in refusal(V2[:14] + "// " + "a" * 50_000_000 + "\n").message
    filler = "// " + "a" * (MAX_TEXT_BYTES - 100) + "\n"
    assert load(V2[:14] + filler + "qreg q[1];").program.num_qubits == 1


def test_file_over_size_limit_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "large.qasm"
    with path.open("wb") as file:
        file.truncate(10**12)  # sparse
    assert "1000000000000 bytes" in refusal(path).message


@BOTH
@pytest.mark.parametrize("bracket", ["(", "[", "{"])
def test_deeply_nested_brackets_are_refused_with_line_and_column(head: str, bracket: str) -> None:
    assert at(head + "rz(" + bracket * 1_000_000) == (4, 203)


@BOTH
def test_brackets_in_comments_do_not_affect_nesting_depth(head: str) -> None:
    assert at(head + "//" + ")" * 500 + "\nrz(" + "(" * 500) == (5, 203)


def test_deep_or_long_expressions_are_refused() -> None:
    assert "nested too deeply" in refusal(Q3 + "rz(" + "-" * 900 + "1) q;").message
    for text in ("rz(" + "-" * 100_000 + "1) q;", "if (" + "c[0] && " * 1000 + "e) x q;"):
        assert at(Q3 + "\n " + text) == (5, 2)


@BOTH
@pytest.mark.parametrize(
    "include",
    [
        'include "/etc/passwd";', "include '/etc/passwd';", 'include\n  "../qelib1.inc";',
        'include// "qelib1.inc"\n"/etc/passwd";', 'include "qelib1.inc\\0";',
    ],
)  # fmt: skip
def test_include_of_other_files_is_refused(head: str, include: str) -> None:
    error = refusal(head + "  " + include)
    assert "include" in error.message
    assert (error.line, error.column) == (4, 3)


def test_file_name_outside_of_plain_include_is_refused() -> None:
    assert (at(Q2 + '"/etc/passwd";'), at(Q2 + 'include/**/"/etc/passwd";')[0]) == ((4, 1), 4)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("head", ["", Q2, Q3], ids=["bare", "2", "3"])
def test_random_text_is_refused(head: str, seed: int) -> None:
    draw = random.Random(seed)
    refusal(head + "".join(chr(draw.randrange(1, 127)) for _ in range(3000)) + "\n")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused_with_file_name(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "noise.qasm"
    path.write_bytes(Q2.encode() + random.Random(seed).randbytes(3000))
    assert "noise.qasm" in refusal(path).message


def test_invalid_utf8_is_refused_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "bad.qasm"
    path.write_bytes(Q2.encode() + b"x q[0];\n  \xff")
    assert refusal(path).message.startswith(f"{path}:5:3: ")


@BOTH
def test_nul_and_lone_surrogate_are_refused_with_line_and_column(head: str) -> None:
    assert (at(head + "x q[0];\0"), at(head + "x q[0]; \udc80")) == ((4, 8), (4, 9))


def test_register_with_too_many_qubits_is_refused() -> None:
    for text in (
        V2 + "qreg q[1000000];",
        V3 + "qubit[1000000] q;",
        V3 + "qubit[1_000_000] q;",
        V3 + "qubit[1000*1000] q;",
    ):
        error = refusal(text)
        assert isinstance(error, LimitExceededError)
        assert "line 3, column" in error.message
        assert "1000000 qubits" in error.message


def test_registers_too_wide_in_total_or_too_many_are_refused() -> None:
    assert "130000 clbits" in refusal(V2 + "creg c[65000];\ncreg d[65000];").message
    assert "130000 qubits" in refusal(V3 + "qubit[65000] q;\nqubit[65000] r;").message
    assert "16777215 qubits" in refusal(V3 + "qubit[0xFFFFFF] q;").message
    assert "1000001 qubits" in refusal(V3 + "x $1000000;").message
    assert "more than 65535 registers" in refusal(V2 + "creg c[0];\n" * 70_000).message


def doubling(head: str, parameter: str) -> str:
    """Gates that call the one before twice, forty times over."""
    text = f"gate g0{parameter} a {{ U(0,0,0) a; }}\n"
    for k in range(40):
        half, third = (parameter.replace("t", f"t/{n}") for n in (2, 3))
        text += f"gate g{k + 1}{parameter} a {{ g{k}{half} a; g{k}{third} a; }}\n"
    return head + text + f"g40{parameter.replace('t', '1')} q[0];"


@BOTH
@pytest.mark.parametrize("parameter", ["", "(t)"])
def test_exponentially_growing_gate_definitions_are_refused(head: str, parameter: str) -> None:
    error = refusal(doubling(head, parameter))
    assert isinstance(error, LimitExceededError)
    assert "more than 1000000 operations" in error.message


def test_gate_modifiers_count_toward_operation_limits() -> None:
    text = doubling(Q3, "").replace("{ g", "{ inv @ g").replace("; g", "; ctrl @ g")
    assert isinstance(refusal(text), LimitExceededError)
    wide = ", ".join(f"q[{k}]" for k in range(20))
    assert isinstance(
        refusal(V3 + f"qubit[20] q; pow(2) @ ctrl(19) @ x {wide};"), LimitExceededError
    )
    assert (
        "'pow' of a gate on 7 qubits"
        in refusal(
            V3 + "qubit[7] q; pow(2) @ ctrl(6) @ x q[0],q[1],q[2],q[3],q[4],q[5],q[6];"
        ).message
    )
    assert "100000000 controls" in refusal(Q3 + "ctrl(100000000) @ x q[0], q[1];").message


@pytest.mark.parametrize("head", [V2 + "qreg q[65535];\n", V3 + "qubit[65535] q;\nbit c;\n"])
def test_operations_on_whole_registers_count_toward_limits(head: str) -> None:
    assert "more than 1000000 operations" in refusal(head + "x q;\n" * 1000).message
    assert "name more than 8388608 qubits" in refusal(head + "barrier q;\n" * 1000).message


def test_operations_in_blocks_and_definitions_are_limited() -> None:
    text = V3 + "qubit[65535] q; bit c; if (c) {" + "x q;" * 100 + "}"
    assert isinstance(refusal(text), LimitExceededError)
    text = V2 + "".join(f"gate g{k} a {{}}\n" for k in range(10_000))
    assert "more than 4096 gate definitions" in refusal(text).message


def test_overlong_numbers_are_refused_with_line_and_column() -> None:
    for text in ("x q[99999999999999999999999];", f"rz({'9' * 10_000}) q[0];"):
        for head in (Q2, Q3):
            assert at(head + text)[0] == 4
    assert at("OPENQASM 99999999999999999999999;") == (1, 1)
    assert at("OPENQASM 2.99999999999999999999999;") == (1, 1)


def test_u0_of_any_duration_is_packed_as_identity() -> None:
    assert load(V2 + "qreg q[1]; u0(1e300) q[0]; u0(0.5) q[0];").program.names == ("id",)


SLOW: dict[str, Callable[[], str]] = {
    "one word": lambda: "a" * 10_000_000,
    "words": lambda: "a " * 5_000_000,
    "brackets": lambda: "()" * 4_000_000,
    "ends": lambda: "};" * 5_000_000,
    "statements": lambda: "a;" * 5_000_000,
    "open comments": lambda: "/* " * 4_000_000,
    "quotes": lambda: '"' * 10_000_000,
    "gates": lambda: "gate{" * 2_000_000,
    "open gate": lambda: "gate a{" + "gate ;" * 1_000_000,
    "registers": lambda: "qreg a[0];" * 1_000_000,
    "digits": lambda: ("1" * 3999 + " ") * 2_000,
    "includes": lambda: "include " * 1_000_000,
    "indices": lambda: "[ " * 4_000_000,
}


@pytest.mark.parametrize("kind", SLOW)
def test_large_repetitive_text_is_refused_in_linear_time(kind: str) -> None:
    """A quadratic check of ten megabytes would run into the session's time limit."""
    refusal(V2 + "qreg q[9];\n" + SLOW[kind]())


MEMORY = """
import resource, sys
from simenv.client.circuits import load
from simenv.errors import SimenvError
for text in ('OPENQASM 2.0; qreg q[1]; U(0,0,0) q[0];', 'OPENQASM 3.0; qubit q; U(0,0,0) q;'):
    load(text)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.path[:0] = sys.argv[1:]
import test_hostile_text as hostile
texts = [hostile.doubling(head, '(t)') for head in (hostile.Q2, hostile.Q3)]
texts += [hostile.V2 + 'qreg q[65535];' + 'x q;' * 10**6, hostile.V2 + 'creg c[0];' * 10**6]
texts += [hostile.V3 + 'qubit[65535] q;' + 'barrier q;' * 5000, hostile.Q2 + '(' * 10**7]
texts += ['OPENQASM 2.0; //' + 'a' * 16000000 + '\\nx q;']
texts += [hostile.V2 + ''.join(f'gate g{k} a {{}}' for k in range(10**5))]
for text in texts:
    try:
        load(text)
    except SimenvError:
        continue
    raise SystemExit('loaded: ' + text[:80])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_refusal_takes_less_than_200_megabytes() -> None:
    folders = [str(Path(__file__).parent), *sys.path]
    bounded = partial(resource.setrlimit, resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    run = python("-c", MEMORY, *folders, check=False, timeout=120, preexec_fn=bounded)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 200_000  # kilobytes


SEEDS = {
    "2": """OPENQASM 2.0;
include "qelib1.inc";
gate maj(a,b) x,y,z { cx z,y; rz(a/2+sin(b)^2) x; barrier x,y; ccx x,y,z; u3(a,-b,pi*3) z; }
opaque magic(a) q;
qreg q[4]; creg c[3]; creg d[301]; // registers
maj(1.5e-3,ln(2)) q[0],q[1],q[2];
measure q[0]->c[0]; if(c==3) x q; reset q; if(d==20370359763344860862684456884093781) x q[1];
barrier q; U(0,pi/2,1) q[1]; CX q[0],q[1]; u0(1) q; cswap q[0],q[1],q[2];
""",
    "3": """OPENQASM 3.0;
include "stdgates.inc";
input float a; input angle[32] b;
gate maj(t, s) x,y,z { cx z,y; rz(t/2+s) x; ccx x,y,z; U(t,-s,pi*3) z; }
qubit[4] q; qubit w; bit[3] c; bit[7] d; bit e;
let al = q[0:2] ++ q[3:3];
maj(a, 2*b) q[0],q[1],q[2]; inv @ maj(1,2) al[0], al[1], q[3]; ctrl(2) @ rx(0.25) q[0],q[1],w;
c = measure q[1:3]; e = measure w; measure q[0] -> d[6]; pow(0.5) @ x w;
if (c == 3) { x q[0]; if (e) { y q; } else { z w; } } else { h q[{0,2}]; }
if (c[0] && !e || (d & 5) < uint[7](c)) { reset q; } else if (d[0:2] == "101") { x w; }
gphase(pi/4); negctrl @ x w, q[0]; barrier q; delay[100ns] q[0]; delay[3dt] w; /* end */
rz(sqrt(2)/pi) q; cu(1,2,3,4) q[0],q[1];
""",
    "3 other": """OPENQASM 3;
qubit[2] q; bit[2] c; U(0,0,0) $3;
for int i in {1,5,10} { U(i,0,0) q[0]; }
while (c[0] == false) { c[0] = measure q[0]; }
switch (c) { case 1 { reset q[0]; } default { reset q[1]; } }
box { U(0,0,0) q[0]; }
def f(qubit a, float b) -> bit { bit x = measure a; return x; }
const int n = 4; int[32] k = 3; k += 2; duration dd = 10ns; stretch s; extern g(int) -> int;
array[int[8], 3] arr; cal { x } defcal y $0 { z }
@note foo
let z = q; break; continue; end; c = "01"; durationof({U(0,0,0) q[0];}); uint[8] u;
""",
}
TOKENS = re.findall(
    r"\S+",
    """( ) [ ] { } ; , -> == " 0 1 -1 99999 1e999 pi q c if gate measure ctrl inv @ pow let bit
    include else a $1 ns + * / - ^ && ~ ! // /* */ barrier reset delay 0x 0b1 1_0 nan true input
    qubit for in : = ++ x \\ \x7f é π . .. 1. .5 const int[8] U CX gphase OPENQASM opaque creg
    qreg sin ln""",
)


def damaged(text: str, draw: random.Random) -> str:
    if draw.random() < 0.2:  # characters
        characters = list(text)
        for _ in range(draw.randrange(1, 6)):
            characters[draw.randrange(len(characters))] = chr(draw.randrange(1, 255))
        return "".join(characters)
    pieces = re.findall(r"\w+|\s+|[^\w\s]", text)
    for _ in range(draw.randrange(1, 5)):
        result, outcome = draw.randrange(len(pieces)), draw.randrange(len(pieces))
        kind = draw.random()
        if kind < 0.25:
            pieces[result] = draw.choice(TOKENS)
        elif kind < 0.5:
            pieces.insert(result, f" {draw.choice(TOKENS)} ")
        elif kind < 0.65:
            del pieces[result]
        elif kind < 0.8:
            pieces[result], pieces[outcome] = pieces[outcome], pieces[result]
        else:
            pieces[result:result] = pieces[result : result + 30] * draw.randrange(1, 8)
    return "".join(pieces)


def placed(text: str) -> bool:
    """Is the text read, or refused with a place? Any other error is the test's."""
    try:
        load(text)
    except ProgramError as error:
        return error.line > 0 or "nested too deeply" in error.message
    except SimenvError as error:
        return "line" in error.message or "statements" in error.message
    return True


COUNTS = {"2": (1000, 20_000), "3": (120, 5_000), "3 other": (120, 5_000)}


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("size", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_damaged_text_is_read_or_refused_with_line(kind: str, size: int) -> None:
    draw = random.Random(kind)
    for _ in range(COUNTS[kind][size]):
        text = damaged(SEEDS[kind], draw)
        assert placed(text), text
