// refused at 4:1: a variable of type 'int'
OPENQASM 3.0;
include "stdgates.inc";
int[8] n = 3;
