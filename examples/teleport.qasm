// A state crosses by two classical bits; undone on arrival, it must read 0.
OPENQASM 3.0;
include "stdgates.inc";
qubit[3] q;
bit flip;
bit turn;
bit arrived;
ry(1.1) q[0];
h q[1];
cx q[1], q[2];
cx q[0], q[1];
h q[0];
turn = measure q[0];
flip = measure q[1];
if (flip) { x q[2]; }
if (turn) { z q[2]; }
ry(-1.1) q[2];
arrived = measure q[2];
