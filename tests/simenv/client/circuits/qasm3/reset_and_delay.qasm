// runs: {"00": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[2] q;
bit[2] c;
h q;
delay[100ns] q;
reset q;
c = measure q;
