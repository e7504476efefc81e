// runs: {"1101": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[4] q;
bit[4] c;
x q[0];
ctrl @ x q[0], q[2];
negctrl @ x q[1], q[3];
inv @ s q[0];
pow(2) @ s q[0];
ctrl(2) @ x q[0], q[1], q[3];
c = measure q;
