// refused at 4:1: a call or expression
OPENQASM 3.0;
include "stdgates.inc";
f(1);
