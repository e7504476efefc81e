// refused at 6:1: required a bit
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
bool b;
b = measure q;
