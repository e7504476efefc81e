"""Programs with random damage: each is read or refused, with its place, by no other error."""

import random
import re

import pytest

from simenv.client.circuits import load
from simenv.errors import ProgramError, SimenvError

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


def judge(kind: str, count: int) -> None:
    draw = random.Random(kind)
    for _ in range(count):
        text = damaged(SEEDS[kind], draw)
        assert placed(text), text


def placed(text: str) -> bool:
    """Is the text read, or refused with a place? Any other error is the test's."""
    try:
        load(text)
    except ProgramError as error:
        return error.line > 0 or "nested too deeply" in error.message
    except SimenvError as error:
        return "line" in error.message or "statements" in error.message
    return True


@pytest.mark.parametrize(("kind", "count"), [("2", 1000), ("3", 120), ("3 other", 120)])
def test_damaged_text_is_read_or_refused_with_line(kind: str, count: int) -> None:
    judge(kind, count)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("2", 20_000), ("3", 5_000), ("3 other", 5_000)])
def test_many_damaged_texts_are_read_or_refused_with_line(kind: str, count: int) -> None:
    judge(kind, count)
