// runs: {"1011": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[4] q;
bit[4] c;
for uint i in [0:1] {
  x q[i];
}
for int i in [3:-2:3] {
  x q[i];
}
c = measure q;
