// refused at 5:16: 'sizeof'
OPENQASM 3.0;
include "stdgates.inc";
qubit[2] q;
const uint n = sizeof(q);
