// refused at 4:1: 'n' is no variable
OPENQASM 3.0;
include "stdgates.inc";
n = 4;
