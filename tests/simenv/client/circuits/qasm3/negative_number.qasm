// refused at 4:1: -1 does not fit
OPENQASM 3.0;
include "stdgates.inc";
uint[8] a = -1;
