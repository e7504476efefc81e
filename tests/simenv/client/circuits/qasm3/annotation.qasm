// runs: {"1": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
bit c;
@note of nothing
x q;
c = measure q;
