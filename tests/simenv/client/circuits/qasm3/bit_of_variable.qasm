// runs: {"0 1010": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[1] q;
bit[4] c;
bit[1] d;
uint[4] a = 2;
uint[2] k = 3;
a[k] = true;
c = a;
d = measure q;
