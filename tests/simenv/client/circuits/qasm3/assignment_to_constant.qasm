// refused at 5:1: 'n' is no variable
OPENQASM 3.0;
include "stdgates.inc";
const uint n = 3;
n = 4;
