// refused at 5:1: a constant integer is wanted
OPENQASM 3.0;
include "stdgates.inc";
bit[2] c;
for uint i in [0:c] { }
