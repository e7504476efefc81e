// runs: {"101": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[3] q;
bit[3] c;
for int[8] k in {0, 2} x q[k];
c = measure q;
