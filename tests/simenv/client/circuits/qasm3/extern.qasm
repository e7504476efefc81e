// refused at 4:1: 'extern'
OPENQASM 3.0;
include "stdgates.inc";
extern f(int[32]) -> int[32];
