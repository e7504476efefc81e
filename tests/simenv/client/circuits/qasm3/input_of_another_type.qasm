// refused at 4:1: only 'float' and 'angle' inputs
OPENQASM 3.0;
include "stdgates.inc";
input uint[4] n;
