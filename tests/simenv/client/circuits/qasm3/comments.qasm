// runs: {"1": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit q; /* a
comment */ bit c;
x q; // the rest
c = measure q;
