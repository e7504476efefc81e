// runs: {"11 11": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[2] a;
qubit[2] b;
bit[2] c;
bit[2] d;
x a;
cx a, b;
barrier a, b;
c = measure a;
d = measure b;
