"""OpenQASM in C: the programs are those of the Python client, byte for byte."""

from pathlib import Path

import pytest
from qpi_programs import environ, run, sanitized

from simenv.client.circuits import load

HEAD2 = 'OPENQASM 2.0; include "qelib1.inc";'
HEAD3 = 'OPENQASM 3.0; include "stdgates.inc";'
EVERY_GATE2 = """
qreg q[5]; creg c[5];
id q[0]; x q[0]; y q[1]; z q[2]; h q[3]; s q[4]; sdg q[0]; t q[1]; tdg q[2]; sx q[3]; sxdg q[4];
u1(0.1) q[0]; p(pi/3) q[1]; rx(-pi) q[2]; ry(2*pi/7) q[3]; rz(1.5e-3) q[4];
u2(0.1,0.2) q[0]; u3(0.1,0.2,0.3) q[1]; u(0.4,-0.2,3) q[2]; U(1,2,3) q[3]; CX q[0],q[1];
cx q[0],q[1]; cz q[1],q[2]; cy q[2],q[3]; swap q[3],q[4]; ch q[0],q[2]; csx q[1],q[3];
crx(0.1) q[0],q[1]; cry(0.2) q[1],q[2]; crz(0.3) q[2],q[3]; cu1(0.4) q[3],q[4]; cp(0.5) q[4],q[0];
rxx(0.6) q[0],q[1]; rzz(0.7) q[1],q[2]; cu3(0.1,0.2,0.3) q[0],q[1]; cu(0.1,0.2,0.3,0.4) q[1],q[2];
ccx q[0],q[1],q[2]; cswap q[0],q[1],q[2]; rccx q[2],q[3],q[4]; rc3x q[0],q[1],q[2],q[3];
c3x q[0],q[1],q[2],q[3]; c3sqrtx q[0],q[1],q[2],q[3]; c4x q[0],q[1],q[2],q[3],q[4];
barrier q; barrier q[1],q[2]; reset q[0]; measure q -> c;
"""
EVERY_GATE3 = """
qubit[3] q; bit[3] c;
p(0.1) q[0]; x q[0]; y q[1]; z q[2]; h q[0]; s q[0]; sdg q[1]; t q[1]; tdg q[2]; sx q[2];
rx(0.1) q[0]; ry(pi/2) q[1]; rz(-tau/8) q[2]; cx q[0],q[1]; cy q[0],q[1]; cz q[0],q[1];
cp(0.2) q[0],q[1]; crx(0.2) q[0],q[1]; cry(0.2) q[0],q[1]; crz(0.2) q[0],q[1]; ch q[0],q[1];
swap q[0],q[1]; ccx q[0],q[1],q[2]; cswap q[0],q[1],q[2]; cu(0.1,0.2,0.3,0.4) q[0],q[1];
CX q[0],q[1]; phase(0.3) q[0]; cphase(0.4) q[0],q[1]; u1(0.1) q[0]; u2(0.1,0.2) q[0];
u3(0.1,0.2,0.3) q[0]; U(0.1,0.2,0.3) q[1];
barrier q; reset q; c = measure q;
"""
SAME = {
    "every gate 2": HEAD2 + EVERY_GATE2,
    "every gate 3": HEAD3 + EVERY_GATE3,
    "registers": HEAD2 + "qreg a[2]; qreg b[3]; creg m[2]; creg n[3]; h a; cx a[1],b[2];"
    "measure b -> n; measure a[0] -> m[1];",
    "broadcast": HEAD2 + "qreg a[3]; qreg b[3]; creg c[3]; h a; cx a,b; cx a[0],b; rzz(0.5) a,b;"
    "measure a -> c;",
    "comments": "// one\nOPENQASM 2.0;\ninclude \"qelib1.inc\"; // two; three\nqreg q[1];\n\n"
    "creg c[1];\nrx ( - ( pi + 1 ) / 2.5 ) q [ 0 ] ;\nmeasure q[0]->c[0];\n",
    "angles": HEAD2 + "qreg q[1]; rx(sin(0.3)*cos(2)-tan(.5)) q[0]; ry(sqrt(2)^2) q[0];"
    "rz(ln(3)+exp(-1)) q[0]; rx(3-2-1) q[0]; rx(8/4/2) q[0]; rx(-2*-3) q[0]; rx(1e2) q[0];",
    "loose bits": HEAD3 + "qubit[2] q; qubit r; bit m; bit[2] c; bit n; h r; c = measure q;"
    "m = measure r; n = measure q[0];",
    "declared and measured": HEAD3 + "qubit[2] q; h q; bit[2] c = measure q;",
    "no version": 'include "stdgates.inc"; qubit[2] q; bit[2] c; h q; c = measure q;',
    "no version and no include": "// U\ngate g a { U(1,2,3) a; } qubit q; g q;",
    "free parameters": HEAD3 + "input float[64] a; input angle b; qubit[2] q; rx(a) q[0];"
    "ry(b) q[1]; rz(a) q[1]; rx(a) q[1]; crz(b) q[0],q[1];",
    "no include": "OPENQASM 2.0; qreg q[2]; U(0.1,0.2,0.3) q[0]; CX q[0],q[1];",
}  # fmt: skip
MEANT = {
    "definition": HEAD2 + "gate my(a,b) x,y { rx(a/2) x; cx x,y; barrier x,y; rz(-b*2) y; }"
    "gate twice(a) x,y { my(a,a+1) x,y; my(-a,0.5) y,x; }"
    "qreg q[3]; twice(0.7) q[0],q[2]; my(pi,1) q[2],q[1];",
    "definition of OpenQASM 3": HEAD3 + "gate my(a) x, y { rx(a/2) x; cx x, y; }"
    "input float w; qubit[2] q; my(2 * w + 1) q[0], q[1];",
    "expressions": HEAD3 + "input float a; input float b; qubit[2] q; rx(2*a - b/3) q[0];"
    "ry(-a) q[1]; rz(a*b + 1) q[0]; cx q[0], q[1]; rx(2*a - b/3) q[1];",
    "global phase": HEAD3 + "qubit[1] q; gphase(0.3); h q[0]; gphase(0.4);",
}
REFUSED = {
    "": "1 1 line 1, column 1: no version line",
    "qreg q[1]; U(1,2,3) q[0];": "1 1 line 1, column 1: no version line",
    "OPENQASM 4.0;": "1 10",
    HEAD2 + "\nqreg q[2]; if(c==1) x q[0];": "2 12",
    HEAD2 + "\nqreg q[2];\n\tcx q[0],q[0];": "3 10",
    HEAD2 + "\nqreg q[2];\n cx q[0];": "3 9",
    HEAD2 + "\nqreg q[2]; cx q[0],q[2];": "2 22",
    HEAD2 + "\nqreg q[2]; rx q[0];": "2 15",
    HEAD2 + "\nqreg q[2]; rx(1,2) q[0];": "2 12",
    HEAD2 + "\nqreg q[2]; rx(a) q[0];": "2 15",
    HEAD2 + "\nqreg q[2]; qreg q[3];": "2 17",
    HEAD2 + "\nqreg h[2];": "2 6",
    HEAD2 + "\ngate g a { k a; } qreg q[1];": "2 12",
    HEAD2 + "\ngate g a { g a; } qreg q[1];": "2 12",
    HEAD2 + "\ngate g(t) a { rx(u) a; } qreg q[1];": "2 18",
    HEAD2 + "\nqreg q[2]; creg c[1]; measure q -> c;": "2 23",
    HEAD2 + "\ncreg c[1];": "at the end",
    HEAD2 + "\nqreg q[0];": "2 6",
    HEAD2 + "\nqreg q[70000];": "2 8",
    HEAD2 + "\nqreg q[1]; rx(1/0) q[0];": "0 0",
    HEAD2 + "\nqreg q[1]; /* no end": "2 12",
    HEAD2 + '\ninclude "other.inc";': "2 9",
    HEAD3 + "\nqubit q; ctrl @ x q;": "2 10",
    HEAD3 + "\ninput int n;": "2 7",
    HEAD3 + "\nqubit[2] q; for int i in [0:1] { x q[i]; }": "2 13",
    HEAD3 + "\nqubit q; bit c; c = 1;": "2 21",
    HEAD3 + "\nx $0;": "2 3",
    HEAD2 + "qreg q[1]; rx(" + "(" * 100 + "1" + ")" * 100 + ") q[0];": "nested too deeply",
    HEAD2 + "qreg q[1]; rx(" + "1^" * 200_000 + "1) q[0];": "nested too deeply",
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sanitized("pack", tmp_path_factory.mktemp("pack"))


def packed(pack: Path, *texts: str) -> list[str]:
    content = b"".join(text.encode() + b"\0" for text in texts)
    return run([str(pack)], input=content, env=environ()).splitlines()


def test_programs_equal_those_of_the_python_client(pack: Path) -> None:
    table = dict(zip(SAME, packed(pack, *SAME.values()), strict=True))
    for name, text in SAME.items():
        loaded = load(text)
        program, *parameters = table[name].split(" ")
        assert (program, tuple(parameters)) == (loaded.packed.hex(), loaded.parameters), name


def test_programs_with_definitions_and_expressions_have_the_same_states(pack: Path) -> None:
    """What Python writes in other operations, or other slots, acts alike."""
    import numpy as np
    from qiskit.quantum_info import Operator

    from simenv.client.circuits.decoder import to_qiskit
    from simenv.model import decode_program

    table = dict(zip(MEANT, packed(pack, *MEANT.values()), strict=True))
    for name, text in MEANT.items():
        program, *parameters = table[name].split(" ")
        assert not program.startswith(("program", "limit")), table[name]
        result = to_qiskit(decode_program(bytes.fromhex(program)))
        outcome = to_qiskit(load(text).program)
        if parameters:
            assert tuple(parameters) == load(text).parameters
            continue
        assert np.allclose(Operator(result).data, Operator(outcome).data), name


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_text_that_is_not_read_is_refused_with_its_place(pack: Path, text: str) -> None:
    (value,) = packed(pack, text)
    assert value.startswith(("program ", "limit "))
    assert REFUSED[text] in value


def test_large_definitions_are_refused_in_bounded_time(pack: Path) -> None:
    doubling = "".join(f"gate g{k + 1} a {{ g{k} a; g{k} a; }}" for k in range(40))
    text = HEAD2 + "gate g0 a { }" + doubling + "qreg q[1]; g40 q[0];"
    terms = "".join(f"gate f{k + 1}(t) a {{ f{k}(t+t) a; }}" for k in range(40))
    grown = HEAD3 + "gate f0(t) a { rx(t) a; }" + terms + "input float x; qubit q; f40(x) q;"
    wide = HEAD2 + "qreg q[60000];" + "h q;" * 20
    for each in packed(pack, text, grown, wide):
        assert each.split(" ")[0] in ("limit", "program")


def test_mutated_text_ends_in_a_circuit_or_an_error(pack: Path) -> None:
    texts = [*SAME.values(), *MEANT.values()]
    content = b"".join(text.encode() + b"\0" for text in texts)
    run([str(pack), "1500"], input=content, env=environ())
