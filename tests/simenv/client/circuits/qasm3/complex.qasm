// refused at 4:1: a variable of type 'complex'
OPENQASM 3.0;
include "stdgates.inc";
complex[float[64]] z;
