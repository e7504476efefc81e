// runs: {"1001": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[2] a;
qubit[2] b;
bit[4] c;
let ends = a[{0}] ++ b[{1}];
x ends;
c[0:1] = measure a;
c[2:3] = measure b;
