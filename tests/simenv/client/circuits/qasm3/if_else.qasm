// runs: {"01 1": 0.5, "10 0": 0.5}
OPENQASM 3.0;
include "stdgates.inc";
qubit[2] q;
bit[1] c;
bit[2] d;
h q[0];
c[0] = measure q[0];
reset q[0];
if (c == 1) {
  x q[0];
} else {
  x q[1];
}
d = measure q;
