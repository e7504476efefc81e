// refused at 4:1: a variable of type 'float'
OPENQASM 3.0;
include "stdgates.inc";
float[64] f = 1.5;
