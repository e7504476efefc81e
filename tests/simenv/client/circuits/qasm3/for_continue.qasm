// runs: {"1 1101": 1}
OPENQASM 3.0;
include "stdgates.inc";
qubit[4] q;
bit[4] c;
bit[1] skip;
for uint i in [0:3] {
  if (skip == 1) {
    skip = "0";
    continue;
  }
  x q[i];
  if (!skip[0] && !c[0]) {
    c[0] = measure q[i];
    skip = "1";
  }
}
c = measure q;
skip = "1";
