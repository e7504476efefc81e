// refused at 6:5: an int in an expression
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
int[8] n = 3;
if (n == 3) x q;
