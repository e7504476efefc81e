// refused at 5:1: 'end'
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
end;
x q;
