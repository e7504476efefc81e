// refused at 4:1: a variable of type 'angle'
OPENQASM 3.0;
include "stdgates.inc";
angle[8] a = pi;
