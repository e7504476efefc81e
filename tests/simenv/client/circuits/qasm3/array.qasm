// refused at 4:1: a variable of type 'array'
OPENQASM 3.0;
include "stdgates.inc";
array[uint[8], 3] a;
