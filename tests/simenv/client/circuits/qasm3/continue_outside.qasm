// refused at 4:1: 
OPENQASM 3.0;
include "stdgates.inc";
continue;
