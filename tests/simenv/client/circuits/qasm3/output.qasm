// runs: {"1": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
output bit c;
x q;
c = measure q;
