// refused at 5:1: gates with durations
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
x[100ns] q;
