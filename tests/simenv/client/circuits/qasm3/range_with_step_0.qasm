// refused at 4:1: a range with step 0
OPENQASM 3.0;
include "stdgates.inc";
for uint i in [0:0:3] { }
