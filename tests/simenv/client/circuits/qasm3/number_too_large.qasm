// refused at 4:1: 300 does not fit into 8 bits
OPENQASM 3.0;
include "stdgates.inc";
uint[8] a = 300;
