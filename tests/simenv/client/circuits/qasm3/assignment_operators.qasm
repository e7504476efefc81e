// runs: {"0 01110": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[1] q;
bit[5] c;
bit[1] d;
uint[5] a = 3;
a += 8;
a -= 1;
a *= 3;
a ^= 8;
a <<= 1;
a |= 2;
c = a;
c[0] = false;
d = measure q;
