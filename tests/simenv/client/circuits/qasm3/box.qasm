// refused at 5:1: 'box'
OPENQASM 3.0;
include "stdgates.inc";
qubit q;
box {
  x q;
}
