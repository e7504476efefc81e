// refused at 4:1: an output of type 'uint'
OPENQASM 3.0;
include "stdgates.inc";
output uint[4] n;
