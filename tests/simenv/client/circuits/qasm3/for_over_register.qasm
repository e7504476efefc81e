// refused at 5:1: a loop over the elements of a register
OPENQASM 3.0;
include "stdgates.inc";
bit[3] c;
for uint b in c { }
